"""A run of drawings by a diffusion model summed up: shares read right, rows compared in pairs, distance to real digits.

Knows: the journal's form, Wilson's interval, McNemar's test. Refuses to know: how drawings came to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from icl_vision.evaluation.kit.compare import MARGIN, TEST, Paired, holm, mcnemar_exact, paired_interval
from icl_vision.evaluation.kit.metrics import Accuracy, RunningMean
from icl_vision.evaluation.text_to_image.evaluation import BATCH, VALIDATION, Row, pictures_of

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.evaluation.reconstruction import SetDistance
    from icl_vision.files.runs import Run


class CaptionSimilarity(Protocol):
    """How well captions fit pictures. name: what a table calls it."""

    name: str

    def __call__(self, pixels: Any, captions: Sequence[str]) -> Any:
        """A number for each of pictures uint8 [N, S, S, 3] and their captions."""
        ...


Drawings = dict[str, dict[str, list[dict[str, Any]]]]
"""Set -> row -> its drawings, in the order of the captions."""


def drawings_of(run: Run) -> tuple[Drawings, dict[str, list[dict[str, Any]]], dict[str, list[float]]]:
    """The journal: drawings by set and row; those of validation by settings; seconds a drawing of each item, by row."""
    found: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    seconds: dict[str, list[float]] = {}
    for item, result in run.results():
        name, row, number = item.split("/")
        found.setdefault((name, row), {})[int(number)] = result["drawings"]
        if name != VALIDATION:
            seconds.setdefault(row, []).append(result["seconds"] / len(result["drawings"]))
    drawings: Drawings = {}
    tried: dict[str, list[dict[str, Any]]] = {}
    for (name, row), parts in found.items():
        whole = [drawing for _, part in sorted(parts.items()) for drawing in part]
        if name == VALIDATION:
            tried[row] = whole
        else:
            drawings.setdefault(name, {})[row] = whole
    return drawings, tried, seconds


def summarise(
    run: Run,
    rows: Sequence[Row],
    reader: str,
    *,
    compared_with: str,
    distance: SetDistance | None = None,
    real: Sequence[Image.Image] = (),
    others: Sequence[Image.Image] = (),
    similarity: CaptionSimilarity | None = None,
) -> dict[str, Any]:
    """The sets, rows and comparisons of results.json.

    Args:
        run: with everything drawn.
        rows: of the evaluation, in the order of the table.
        reader: the reader's name.
        compared_with: the row that every other one is compared with, in pairs, on every set.
        distance, real: a distance between sets of pictures, and what each row's are set beside; for rows of at least
            two pictures.
        others: further real ones, whose distance to ``real`` is given too.
        similarity: how well captions fit pictures; of what was asked for, also where another caption was shown.
    """
    drawings, tried, seconds = drawings_of(run)
    statistics = None if distance is None else distance.gather(_batches(real))
    sets = []
    for name, by_row in drawings.items():
        table = []
        for row in rows:
            shown = by_row.get(row.name)
            if not shown:
                continue
            entry: dict[str, Any] = {
                "name": row.name,
                "meaning": row.meaning,
                "read_right": Accuracy.of((drawing["right"] for drawing in shown), reader).to_dict(),
                "by_digit": {
                    digit: Accuracy.of(
                        (drawing["right"] for drawing in shown if drawing["digit"] == digit), reader
                    ).to_dict()
                    for digit in sorted({drawing["digit"] for drawing in shown})
                },
                "templates": len({drawing["text"] for drawing in shown}),
            }
            if distance is not None and len(shown) > 1:
                own = distance.gather(_batches(_pictures(run, name, row.name, len(shown))))
                entry["distance"] = {"name": distance.name, "value": distance.distance(statistics, own)}
            if similarity is not None:
                entry["caption_similarity"] = _fit(similarity, _pictures(run, name, row.name, len(shown)), shown)
            table.append(entry)
        sets.append({"name": name, "rows": table, "comparisons": [
            pair.to_dict() for pair in _compared(name, by_row, rows, compared_with, reader)
        ]})  # fmt: skip
    among: dict[str, Any] = {}
    if distance is not None and len(others) > 1:
        value = distance.distance(statistics, distance.gather(_batches(others)))
        among["real"] = {"n": len(others), "of": len(real), "distance": {"name": distance.name, "value": value}}
    return {
        "sets": sets,
        **among,
        "validation": [
            {"settings": name, "read_right": Accuracy.of((one["right"] for one in shown), reader).to_dict()}
            for name, shown in tried.items()
        ],
        "seconds_a_drawing": {row: float(np.mean(values)) for row, values in seconds.items()},
        "test": TEST,
    }


def _fit(
    similarity: CaptionSimilarity, images: Iterator[Image.Image], shown: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean similarity of drawings to the captions that were asked for, with its interval."""
    mean = RunningMean()
    texts = iter(drawing["text"] for drawing in shown)
    for part in _batches(images):
        for value in similarity(part, [next(texts) for _ in part]):
            mean.add(float(value))
    return {"name": similarity.name, **(mean.to_dict() or {})}  # there is a drawing at least


def _pictures(run: Run, name: str, row: str, number: int) -> Iterator[Image.Image]:
    for start in range(0, number, BATCH):
        yield from pictures_of(run.folder, f"{name}/{row}/{start // BATCH:03d}", min(BATCH, number - start))


def _batches(images: Sequence[Image.Image] | Iterator[Image.Image]) -> Iterator[Any]:
    part = []
    for image in images:
        part.append(np.asarray(image.convert("RGB")))
        if len(part) == BATCH:
            yield np.stack(part)
            part = []
    if part:
        yield np.stack(part)


def _compared(
    name: str, by_row: Mapping[str, Sequence[Mapping[str, Any]]], rows: Sequence[Row], first: str, reader: str
) -> list[Paired]:
    """``first`` against every other row, on the captions of one set."""
    own = by_row.get(first)
    if not own:
        return []
    tables = [
        (row.name, [(a["right"], b["right"]) for a, b in zip(own, by_row[row.name], strict=True)])
        for row in rows
        if row.name != first and row.name in by_row
    ]
    counts = [(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)) for _, pairs in tables]
    values = [mcnemar_exact(*count) for count in counts]
    return [
        Paired(
            name, first, other,
            Accuracy.of((a for a, _ in pairs), reader), Accuracy.of((b for _, b in pairs), reader),
            *count, p, corrected, paired_interval(*count, len(pairs)), MARGIN,
        )
        for (other, pairs), count, p, corrected in zip(tables, counts, values, holm(values), strict=True)
    ]  # fmt: skip


def render(results: Mapping[str, Any]) -> str:
    """For people: the settings chosen, then a table for each set with its comparisons."""
    chosen = results["settings"]
    lines = [f"guidance {chosen['guidance']:g}, {chosen['sampler']}, {chosen['steps']} steps"]
    for trial in results["validation"]:
        lines.append(f"  on validation, {trial['settings']}: {_share(trial['read_right'])}")
    for one in results["sets"]:
        lines += ["", f"{one['name']}"]
        verdicts = {pair["rows"][1]: pair for pair in one["comparisons"]}
        for row in one["rows"]:
            line = f"  {row['name']:<28} {_share(row['read_right']):<34}"
            if "distance" in row:
                line += f" {row['distance']['name']} {row['distance']['value']:.1f}"
            if "caption_similarity" in row:
                line += f" {row['caption_similarity']['name']} {row['caption_similarity']['mean']:.3f}"
            pair = verdicts.get(row["name"])
            if pair is not None:
                low, high = pair["interval"]
                line += (
                    f"  {pair['rows'][0]} {pair['difference']:+.1%} [{low:+.1%}, {high:+.1%}], p {pair['p_holm']:.2g}"
                )
            lines.append(line.rstrip())
    among = results.get("real")
    if among is not None:
        own = among["distance"]
        lines += ["", f"{among['n']} real digits to {among['of']} others: {own['name']} {own['value']:.1f}"]
    return "\n".join(lines)


def _share(accuracy: Mapping[str, Any]) -> str:
    low, high = accuracy["interval"]
    return f"{accuracy['accuracy']:.1%} [{low:.1%}, {high:.1%}], n = {accuracy['n']}"
