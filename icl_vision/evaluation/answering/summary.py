"""A run of answers or captions summed up: each row's figure with its interval, by type, and rows compared in pairs.

Knows: the journal's lines, intervals, paired tests, what a share of a gap is. Refuses to know: how an answer came to
be.

Shares of right answers have Wilson's interval and McNemar's test; figures that are means (VQA accuracy, CIDEr-D) a
percentile bootstrap. Questions are drawn, not pictures: with several questions about one picture the intervals are a
little too narrow, which is said with them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision.evaluation.answering import rows as names
from icl_vision.evaluation.answering.config import METRICS, references
from icl_vision.evaluation.answering.metrics import Bleu, rouge_l
from icl_vision.evaluation.answering.readers import Question
from icl_vision.evaluation.answering.rows import METHODS, Row
from icl_vision.evaluation.kit.bootstrap import METHOD, ROUNDS, mean_interval
from icl_vision.evaluation.kit.compare import CORRECTION, INTERVAL, TEST, holm, mcnemar_exact, paired_interval
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.wording import counted

AIMED: Final = (names.DESCRIBE, f"{names.DESCRIBE}:fused", f"{names.DESCRIBE}:greedy")
"""The rows that a table is about, the first of them that is there."""

Scores = dict[str, dict[str, float]]
"""Row -> item -> score."""


def summarise(
    lines: Iterable[Mapping[str, Any]], rows: Sequence[Row], items: Sequence[Question], metric: str, *, seed: int = 0
) -> dict[str, Any]:
    """The rows, comparisons and gap of results.json.

    Args:
        lines: of the journal, of these rows and items.
        rows: in the order of the table.
        items: what was asked.
        metric: a name of ``config.METRICS``.
        seed: of bootstraps.
    """
    by_row: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        by_row[line["row"]].append(line)
    order = {item.id: place for place, item in enumerate(items)}
    of_id = {item.id: item for item in items}
    for found in by_row.values():
        found.sort(key=lambda line: order[line["item"]])  # the order in which answers came in is chance
    scores: Scores = {
        name: {line["item"]: float(line["score"]) for line in found if line["score"] is not None}
        for name, found in by_row.items()
    }
    return {
        "metric": metric,
        "scorer": METRICS[metric],
        "rows": [_row(row, by_row[row.name], metric, of_id, seed) for row in rows],
        "missing": len(rows) * len(items) - sum(map(len, by_row.values())),
        "comparisons": _compared(scores, rows, of_id, metric, seed),
        "gaps": _gaps(scores, seed),
        "methods": {
            "interval": "95%, Wilson" if metric == "exact" else f"95%, {METHOD}",
            "paired": f"{TEST}; {INTERVAL}" if metric == "exact" else METHOD,
            "correction": CORRECTION,
            "drawn": "questions; several of one picture are taken as if they were of different ones",
        },
    }


def _row(
    row: Row, lines: Sequence[Mapping[str, Any]], metric: str, items: Mapping[str, Question], seed: int
) -> dict[str, Any]:
    answered = [line for line in lines if line["score"] is not None]
    notes = Counter(str(line["note"]) for line in lines if line["score"] is None)
    types = sorted({line["type"] for line in answered if line["type"]})
    spent = [line for line in answered if line["usage"]["requests"]]
    document: dict[str, Any] = {
        "name": row.name,
        "meaning": row.meaning,
        "asks": row.method is not None,
        "figure": _figure([line["score"] for line in answered], metric, seed),
        "by_type": {
            kind: _figure([line["score"] for line in answered if line["type"] == kind], metric, seed) for kind in types
        },
        "methods": dict(Counter(line["method"] for line in answered if line.get("method"))),
        "note": notes.most_common(1)[0][0] if notes else ("" if answered else "not asked"),
        "not_asked": sum(notes.values()),
        "empty": sum(not line["answer"] for line in answered),
        "tokens_an_image": _mean(line["tokens"] for line in answered) if row.method else 0.0,
        "words_weighed": _mean(line["weighed"] for line in answered) if row.method == "fused" else None,
        "requests": _mean(line["usage"]["requests"] for line in answered) if row.method else 0.0,
        "prompt_tokens": _mean(line["usage"]["prompt_tokens"] for line in answered) if row.method else 0.0,
        "seconds": _mean(line["seconds"] for line in spent) if spent else None,
    }
    if metric == "cider" and answered:
        texts = [str(line["answer"]) for line in answered]
        others = [references(items[line["item"]]) for line in answered]
        document["bleu_4"] = Bleu(texts, others).bootstrap(seed=seed)
        shared = [rouge_l(text, some) for text, some in zip(texts, others, strict=True)]
        document["rouge_l"] = mean_interval(shared, seed=seed)
    return document


def _figure(scores: Sequence[float], metric: str, seed: int) -> dict[str, Any] | None:
    """{accuracy or mean, n, interval, scorer}; None without answers."""
    if not scores:
        return None
    if metric == "exact":
        return Accuracy.of((score == 1.0 for score in scores), metric).to_dict()
    return mean_interval(scores, seed=seed) | {"scorer": metric}


def _drawn(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Means of drawn sets: float64 [rows, ROUNDS] of [rows, n], the same draws for every row."""
    draw, n = np.random.default_rng(seed), values.shape[1]
    return np.concatenate([values[:, draw.integers(0, n, (500, n))].mean(-1) for _ in range(ROUNDS // 500)], axis=1)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else 0.0


# Rows against each other.


def aimed(scores: Mapping[str, object]) -> str | None:
    """The row that the table is about; None where it has none."""
    return next((name for name in AIMED if name in scores), None)


def _compared(
    scores: Scores, rows: Sequence[Row], items: Mapping[str, Question], metric: str, seed: int
) -> list[dict[str, Any]]:
    """The row the table is about against all others, every other that asks the LLM against the blind one of its method,
    and the first, type by type, against the constant answer, or the prior; corrected for how many they are."""
    pairs: list[tuple[str, str, str]] = []
    main = aimed(scores)
    present = [row for row in rows if scores.get(row.name)]
    if main is not None:
        pairs += [(main, row.name, "") for row in present if row.name != main]
    for row in present:
        blind = f"{names.BLIND}:{row.method}"
        if row.method and row.name not in (main, blind) and scores.get(blind):
            pairs.append((row.name, blind, ""))
    guess = next((name for name in (names.CONSTANT, names.PRIOR) if scores.get(name)), None)
    if main is not None and guess is not None:
        types = sorted({items[item].type for item in scores[main]} - {""})
        pairs += [(main, guess, kind) for kind in types if len(types) > 1]
    found = [_pair(scores, first, second, kind, items, metric, seed) for first, second, kind in pairs]
    known = [pair for pair in found if pair is not None]
    for pair, corrected in zip(known, holm([pair["p"] for pair in known]) if metric == "exact" else [], strict=False):
        pair["p_holm"] = corrected
        pair["verdict"] = "no difference shown"
        if corrected < 0.05:
            pair["verdict"] = "better" if pair["difference"] > 0 else "worse"
    return known


def _pair(
    scores: Scores, first: str, second: str, kind: str, items: Mapping[str, Question], metric: str, seed: int
) -> dict[str, Any] | None:
    both = [
        item for item in scores[first] if item in scores[second] and (not kind or items[item].type == kind)
    ]  # fmt: skip
    if not both:
        return None
    a, b = ([scores[name][item] for item in both] for name in (first, second))
    document: dict[str, Any] = {"rows": [first, second], "type": kind, "n": len(both)}
    if metric != "exact":
        difference = paired_mean(a, b, higher_is_better=True, seed=seed)
        verdict = {True: "better", False: "worse", None: "no difference shown"}[difference.better]
        return document | {**difference.to_dict(), "verdict": verdict}
    only_a = sum(x > y for x, y in zip(a, b, strict=True))
    only_b = sum(x < y for x, y in zip(a, b, strict=True))
    return document | {
        "difference": (only_a - only_b) / len(both),
        "interval": list(paired_interval(only_a, only_b, len(both))),
        "only_a": only_a,
        "only_b": only_b,
        "p": mcnemar_exact(only_a, only_b),
    }


def _gaps(scores: Scores, seed: int) -> list[dict[str, Any]]:
    """How much of the way from a blind row to what a person wrote the row that the table is about goes, with the ends
    asked as it is and as the others are; none without these rows."""
    main = aimed(scores)
    if main is None:
        return []
    ways = dict.fromkeys((main.partition(":")[2], *METHODS))
    near = f"{names.DESCRIBE_NEAR}:{main.partition(':')[2]}"
    found = [
        _gap(scores, name, f"{names.BLIND}:{way}", f"{names.CAPTION}:{way}", seed)
        for name in (main, near)
        if name in scores
        for way in ways
    ]
    return [gap for gap in found if gap is not None]


def _gap(scores: Scores, main: str, low: str, high: str, seed: int) -> dict[str, Any] | None:
    both = [item for item in scores[main] if item in scores.get(low, {}) and item in scores.get(high, {})]
    if not both:
        return None
    values = np.asarray([[scores[name][item] for item in both] for name in (main, low, high)])
    drawn = _drawn(values, seed)
    wide = drawn[2] - drawn[1]
    shares = np.where(wide > 0, (drawn[0] - drawn[1]) / np.where(wide > 0, wide, 1), np.nan)
    mean = values.mean(1)
    document: dict[str, Any] = {"rows": [main, low, high], "n": len(both), "method": METHOD}
    if mean[2] <= mean[1]:
        return document | {"share": None, "interval": None}
    known = shares[np.isfinite(shares)]
    edges = [float(edge) for edge in np.quantile(known, (0.025, 0.975))]
    return document | {"share": float((mean[0] - mean[1]) / (mean[2] - mean[1])), "interval": edges}


# For people.


def render(results: Mapping[str, Any]) -> str:
    """A line for each row, then the comparisons, as text."""
    lines = [["row", "n", f"{results['metric']} [95%]", *_extra_heads(results), "tokens an image", "s", ""]]
    for row in results["rows"]:
        figure = row["figure"]
        lines.append([
            row["name"],
            "" if figure is None else f"{figure['n']:,}",
            "-" if figure is None else figure_text(figure),
            *_extra_cells(row, results),
            f"{row['tokens_an_image']:.0f}" if row["asks"] else "",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            remark(row),
        ])  # fmt: skip
    told = [verdict(pair, results) for pair in results["comparisons"]]
    return "\n".join([_aligned(lines), "", *gap_texts(results), *told])


def figure_text(figure: Mapping[str, Any]) -> str:
    """A figure with its interval: "32.0 [27.3, 37.1]" in per cents, "0.412 [0.380, 0.447]" for CIDEr-D."""
    low, high = figure["interval"]
    if figure["scorer"] == "cider":
        return f"{figure['mean']:.3f} [{low:.3f}, {high:.3f}]"
    share = figure["accuracy"] if "accuracy" in figure else figure["mean"]
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def remark(row: Mapping[str, Any]) -> str:
    """What else is to be known of a row: of how many items it could not be had, and why; how many answers are empty."""
    said = [f"{row['note']} ({row['not_asked']:,})"] if row["not_asked"] else [row["note"]] if row["note"] else []
    if row["empty"]:
        said.append(f"{counted(row['empty'], 'answer')} empty")
    return "; ".join(said)


def verdict(pair: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """One comparison as a sentence."""
    first, second = pair["rows"]
    said = {"better": "is better than", "worse": "is worse than"}.get(pair["verdict"], "shows no difference to")
    low, high = pair["interval"]
    of_type = f" on {pair['type']} questions" if pair["type"] else ""
    if results["metric"] == "cider":
        return f"{first} {said} {second}{of_type}: {pair['difference']:+.3f} [{low:+.3f}, {high:+.3f}], n = {pair['n']}"
    points = f"{100 * pair['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], n = {pair['n']}"
    p = f", p (Holm) {pair['p_holm']:.3g}" if "p_holm" in pair else ""
    return f"{first} {said} {second}{of_type}: {points}{p}"


def gap_texts(results: Mapping[str, Any]) -> list[str]:
    """How much of each gap is closed, as sentences."""
    texts = []
    for gap in results["gaps"]:
        main, low, high = gap["rows"]
        if gap["share"] is None:
            texts.append(f"{high} is not above {low}: there is no gap to close")
            continue
        edges = gap["interval"]
        texts.append(
            f"{main} goes {gap['share']:.0%} of the way from {low} to {high} "
            f"(95% {edges[0]:.0%} to {edges[1]:.0%}, n = {gap['n']})"
        )
    return texts


def _extra_heads(results: Mapping[str, Any]) -> list[str]:
    return ["BLEU-4", "ROUGE-L"] if results["metric"] == "cider" else types_of(results)


def types_of(results: Mapping[str, Any]) -> list[str]:
    """The types of questions that rows have figures of."""
    return sorted({kind for row in results["rows"] for kind in row["by_type"]})


def _extra_cells(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    if results["metric"] == "cider":
        return [f"{row[name]['mean']:.3f}" if name in row else "" for name in ("bleu_4", "rouge_l")]
    found = [row["by_type"].get(kind) for kind in types_of(results)]
    return ["" if figure is None else f"{100 * figure.get('accuracy', figure.get('mean')):.1f}" for figure in found]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
