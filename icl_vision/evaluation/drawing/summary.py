"""A run of drawings summed up: shares read right, copies, diversity, cost, and rows compared in pairs.

Knows: the journal's form, Wilson's interval, McNemar's test. Refuses to know: how drawings came to be.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.contracts import Usage
from icl_vision.evaluation.drawing.evaluation import CEILING, COPY, LLM, grey, images_of
from icl_vision.evaluation.drawing.rows import MEANINGS
from icl_vision.evaluation.kit.compare import MARGIN, TEST, Paired, holm, mcnemar_exact, paired_interval
from icl_vision.evaluation.kit.metrics import Accuracy

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer
    from icl_vision.files.runs import Run

Drawings = dict[str, dict[int, list[dict[str, Any]]]]
"""Row -> context -> its drawings."""


def drawings_of(run: Run) -> tuple[Drawings, dict[str, list[dict[str, Any]]]]:
    """The journal by row: drawings by context, and usage, seconds and errors of each context."""
    drawings: Drawings = defaultdict(dict)
    spent: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item, result in run.results():
        row, _, number = item.rpartition("/")
        drawings[row][int(number)] = result["drawings"]
        spent[row].append(result)
    return drawings, spent


def summarise(run: Run, tokenizer: Tokenizer, reader: str) -> dict[str, Any]:
    """The rows and comparisons of results.json.

    Args:
        run: with everything drawn.
        tokenizer: to draw again what is compared pixel by pixel.
        reader: the reader's name.
    """
    drawings, spent = drawings_of(run)
    rows = [
        _row(name, by_context, spent[name], tokenizer, reader)
        for name, by_context in sorted(drawings.items(), key=lambda pair: list(MEANINGS).index(pair[0]))
    ]
    return {"rows": rows, "comparisons": [pair.to_dict() for pair in _compared(drawings, reader)], "test": TEST}


def _row(
    name: str,
    by_context: Mapping[int, Sequence[Mapping[str, Any]]],
    spent: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    reader: str,
) -> dict[str, Any]:
    shown = [drawing for _, drawings in sorted(by_context.items()) for drawing in drawings]
    whole = [drawing for drawing in shown if drawing["words"] is not None]
    usage = sum((Usage(**context["usage"]) for context in spent), Usage())
    timed = [(context["seconds"], len(context["drawings"])) for context in spent if context["seconds"] is not None]
    count = max(1, len(shown))
    return {
        "name": name,
        "meaning": MEANINGS[name],
        "read_right": Accuracy.of((drawing["right"] for drawing in shown), reader).to_dict(),
        "by_digit": {
            digit: Accuracy.of((drawing["right"] for drawing in shown if drawing["digit"] == digit), reader).to_dict()
            for digit in sorted({drawing["digit"] for drawing in shown})
        },
        "failed": len(shown) - len(whole),
        "nearest_example": None if not whole else float(np.mean([drawing["nearest"] for drawing in whole])),
        "copies": sum(drawing["nearest"] < COPY for drawing in whole),
        "equal_words": None if not whole else float(np.mean([drawing["same_words"] for drawing in whole])),
        "distinct": len({(drawing["text"], *drawing["words"]) for drawing in whole}),
        "diversity": _diversity(whole, tokenizer),
        "requests": usage.requests / count,
        "prompt_tokens": usage.prompt_tokens / count,
        "cached_share": usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else None,
        "completion_tokens": usage.completion_tokens / count,
        "seconds": sum(s for s, _ in timed) / sum(n for _, n in timed) if usage.requests and timed else None,
    }


def _diversity(drawings: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> float | None:
    """Mean root mean square difference of two drawings of the same text; None where no text was drawn twice."""
    by_text: dict[str, list[Any]] = defaultdict(list)
    for drawing, image in zip(drawings, images_of(tokenizer, drawings), strict=True):
        if image is not None:
            by_text[drawing["text"]].append(grey(image))
    differences = [
        float(np.sqrt(((a - b) ** 2).mean()))
        for images in by_text.values()
        for a, b in itertools.combinations(images, 2)
    ]
    return float(np.mean(differences)) if differences else None


def _compared(drawings: Drawings, reader: str) -> list[Paired]:
    """The LLM against every other row but the ceiling, on the drawings that both have."""
    own = drawings.get(LLM, {})
    tables = []
    for name in MEANINGS:
        if name in (LLM, CEILING) or name not in drawings or not own:
            continue
        pairs = [
            (a["right"], b["right"])
            for number, others in drawings[name].items()
            if number in own
            for a, b in zip(own[number], others, strict=True)
        ]
        tables.append((name, pairs))
    values = [mcnemar_exact(*_discordant(pairs)) for _, pairs in tables]
    compared = []
    for (name, pairs), p, corrected in zip(tables, values, holm(values), strict=True):
        only_a, only_b = _discordant(pairs)
        compared.append(
            Paired(
                "drawings", LLM, name,
                Accuracy.of((a for a, _ in pairs), reader), Accuracy.of((b for _, b in pairs), reader),
                only_a, only_b, p, corrected, paired_interval(only_a, only_b, len(pairs)), MARGIN,
            )
        )  # fmt: skip
    return compared


def _discordant(pairs: Sequence[tuple[bool, bool]]) -> tuple[int, int]:
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def render(results: Mapping[str, Any]) -> str:
    """For people: a line for each row, then the comparisons."""
    lines = [f"{'row':<18} {'n':>4}  {'read right [95%]':<24} {'nearest':>7} {'copies':>6} {'diversity':>9} "
             f"{'requests':>8} {'tokens':>7} {'cached':>6} {'s':>6}"]  # fmt: skip
    for row in results["rows"]:
        accuracy = row["read_right"]
        low, high = accuracy["interval"]
        said = f"{accuracy['accuracy']:.1%} [{low:.1%}, {high:.1%}]"
        asked = f"{row['requests']:8.0f} {row['prompt_tokens']:7.0f}" if row["requests"] else f"{'':8} {'':7}"
        cached = "" if row["cached_share"] is None else f"{row['cached_share']:.0%}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        lines.append(
            f"{row['name']:<18} {accuracy['n']:>4}  {said:<24} {_number(row['nearest_example']):>7} {row['copies']:>6} "
            f"{_number(row['diversity']):>9} {asked} {cached:>6} {seconds:>6}"
        )
    lines.append("")
    lines += [verdict(pair) for pair in results["comparisons"]]
    return "\n".join(lines)


def verdict(pair: Mapping[str, Any]) -> str:
    """One comparison as a sentence."""
    low, high = pair["interval"]
    said = {"better": "beats", "worse": "is worse than"}.get(pair["verdict"], "does not beat")
    return (
        f"the LLM {said} {pair['rows'][1]!r}: {pair['difference']:+.1%} [{low:+.1%}, {high:+.1%}], "
        f"only it {pair['only_a']}, only the other {pair['only_b']}, n = {pair['n']}, p (Holm) {pair['p_holm']:.3g}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
