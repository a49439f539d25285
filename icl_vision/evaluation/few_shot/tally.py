"""A benchmark's journal summed up: accuracies by row and setting, means over the papers' columns, what it cost.

Knows: counting, one item at a time (of an answer with probabilities three numbers stay). Refuses to know: how an answer
came to be.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Usage
from icl_vision.evaluation.few_shot.config import COLUMNS, Setting, settings_of
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.llms.cost import Cost, PriceTable
from icl_vision.probabilities import brier_score, reliability
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.evaluation.few_shot.baselines import Row


@dataclass(frozen=True, slots=True)
class RowInfo:
    """What a table says about a row beside its numbers.

    name: as in the journal. kind: "llm", "baseline", "control" or "quoted". meaning: one line for people. scorer: how
    answers are judged. constrained: its answers can only be labels. transductive: it looks at other queries.
    source: where a quoted row's numbers come from.
    """

    name: str
    kind: str
    meaning: str
    scorer: str
    constrained: bool = False
    transductive: bool = False
    source: str = ""

    @classmethod
    def of(cls, row: Row, kind: str) -> RowInfo:
        """A row that is measured."""
        return cls(row.name, kind, row.meaning, row.scorer, row.constrained, row.transductive)


@dataclass(slots=True)
class _Cell:
    """Counts of one row and setting; of each answer with probabilities, 17 bytes: its share, Brier score and whether it
    was right, which the calibration error's interval is drawn from."""

    right: int = 0
    answered: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    shares: array[float] = field(default_factory=lambda: array("d"))
    briers: array[float] = field(default_factory=lambda: array("d"))
    hits: array[int] = field(default_factory=lambda: array("b"))
    calibrated: int = 0

    def add(self, answer: Mapping[str, Any], truth: str) -> None:
        self.answered += 1
        self.right += bool(answer["right"])
        probabilities = answer.get("probabilities")
        if probabilities and answer["label"] in probabilities and truth in probabilities:
            labels = list(probabilities)
            self.shares.append(probabilities[answer["label"]])
            self.briers.append(brier_score([*probabilities.values()], labels.index(truth)))
            self.hits.append(bool(answer["right"]))
            self.calibrated += bool(answer.get("calibrated", False))

    def reliability(self) -> dict[str, Any] | None:
        """How well the probabilities fit, and which they are; None where the row gives none."""
        if not self.shares:
            return None
        n = len(self.shares)
        which = "calibrated" if self.calibrated == n else "mixed" if self.calibrated else "raw"
        # Sorted: the order in which answers came in is chance, and sums and drawn samples must not depend on it.
        order = sorted(zip(self.shares, self.hits, self.briers, strict=True))
        shares, hits, briers = zip(*order, strict=True)
        return {"probabilities": which, **reliability(shares, [bool(hit) for hit in hits], briers=briers).to_dict()}


@dataclass(slots=True)
class Tally:
    """Counts of the items added so far.

    usage, asked, seconds: summed over them; items: how many. others: the part of ``usage`` that is of other LLMs than
    the one under test, by their names.
    """

    usage: Usage = field(default_factory=Usage)
    others: dict[str, Usage] = field(default_factory=dict)
    asked: int = 0
    seconds: float = 0.0
    items: int = 0
    _cells: dict[tuple[str, str], _Cell] = field(default_factory=lambda: defaultdict(_Cell))
    _calls: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, item: Mapping[str, Any]) -> None:
        """Count one item of the journal."""
        setting = item["setting"]
        for row, answer in item["answers"].items():
            self._cells[row, setting].add(answer, item["query"]["label"])
            calls = self._calls[row]
            calls[0] += answer["calls"]
            calls[1] += 1
        for row, note in item["notes"].items():
            self._cells[row, setting].notes[note] += 1
        self.usage += Usage(**item["usage"])
        for name, spent in item.get("other_llms", {}).items():
            self.others[name] = self.others.get(name, Usage()) + Usage(**spent)
        self.asked += item["asked"]
        self.seconds += item["seconds"]
        self.items += 1

    def cost(self, prices: PriceTable, model: str) -> Cost:
        """What the items cost, ``model`` being the LLM under test; unknown where a price is missing."""
        own = self.usage.to_dict()
        for spent in self.others.values():
            own = {name: value - spent.to_dict()[name] for name, value in own.items()}
        known = prices.cost(model, Usage(**own)) if any(own.values()) else Cost(0.0)
        return sum((prices.cost(name, spent) for name, spent in self.others.items()), known)

    def rows(self, infos: Iterable[RowInfo]) -> list[dict[str, Any]]:
        """The "rows" of results.json, with the LLM calls that each row needed for a question by itself."""
        result = []
        for info in infos:
            calls, answers = self._calls.get(info.name, [0, 0])
            result.append(
                {
                    "name": info.name,
                    "kind": info.kind,
                    "meaning": info.meaning,
                    "constrained": info.constrained,
                    "transductive": info.transductive,
                    "llm_calls": round(calls / answers, 2) if answers else None,
                    "source": info.source,
                }
            )
        return result

    def accuracy(self, info: RowInfo, setting: Setting) -> Accuracy | None:
        """Of a row over the items in which it has an answer; None where it has none."""
        cell = self._cells.get((info.name, setting.id), _Cell())
        return Accuracy.count(cell.right, cell.answered, info.scorer) if cell.answered else None

    def cells(self, infos: Iterable[RowInfo], settings: Sequence[Setting]) -> list[dict[str, Any]]:
        """The "cells" of results.json. A row without an answer in some items says in how many, and why."""
        result = []
        for info in infos:
            for setting in settings:
                cell = self._cells.get((info.name, setting.id), _Cell())
                accuracy = self.accuracy(info, setting)
                entry = {
                    "row": info.name,
                    "setting": setting.id,
                    "accuracy": None if accuracy is None else accuracy.to_dict(),
                    "note": _note(cell),
                }
                fit = cell.reliability()
                result.append(entry if fit is None else {**entry, "reliability": fit})
        return result


def _note(cell: _Cell) -> str:
    if not cell.notes:
        return "" if cell.answered else "not asked"
    reason, count = cell.notes.most_common(1)[0]
    if not cell.answered:
        return reason
    return f"{reason} in {count} of {counted(cell.answered + sum(cell.notes.values()), 'episode')}"


def means(cells: Sequence[Mapping[str, Any]], settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """The plain mean of the papers' seven columns for each row and number of ways; null unless all seven are there."""
    accuracies = {(cell["row"], cell["setting"]): cell["accuracy"] for cell in cells}
    names = {
        ways: [setting.id for setting in settings_of(ways)]
        for ways in dict.fromkeys(setting.ways for setting in settings)
    }
    result = []
    for row in dict.fromkeys(cell["row"] for cell in cells):
        for ways, columns in names.items():
            accuracy = [accuracies.get((row, column)) for column in columns]
            shares = [share["accuracy"] for share in accuracy if share is not None and share["accuracy"] is not None]
            mean = sum(shares) / len(COLUMNS) if len(shares) == len(COLUMNS) else None
            result.append({"row": row, "ways": ways, "mean": mean})
    return result


def render_table(results: Mapping[str, Any]) -> str:
    """results.json as text: settings as columns, per cents with their 95% interval, a block for each number of ways."""
    cells = {(cell["row"], cell["setting"]): cell for cell in results["cells"]}
    mean_of = {(mean["row"], mean["ways"]): mean["mean"] for mean in results["means"]}
    names = [row["name"] for row in results["rows"]]
    settings = [Setting.from_dict(document) for document in results["settings"]]
    quoted = {row["name"] for row in results["rows"] if row["kind"] == "quoted"}
    blocks = []
    notes: dict[str, str] = {}
    for ways in dict.fromkeys(setting.ways for setting in settings):
        columns = [setting for setting in settings if setting.ways == ways]
        lines = [[f"{ways}-way", *(setting.column for setting in columns), "mean"]]
        for name in names:
            published = (name, ways) in mean_of or any(_has_share(cells, name, setting) for setting in columns)
            if name in quoted and not published:
                continue  # published for other ways only
            texts = [_cell_text(cells.get((name, setting.id)), notes) for setting in columns]
            mean = mean_of.get((name, ways))
            lines.append([name + "*" * (name in quoted), *texts, "" if mean is None else f"{100 * mean:.2f}"])
        blocks.append(_aligned(lines))
    foot = [f"{mark} {note}" for note, mark in notes.items()]
    if quoted:
        foot.append("* quoted from a publication, not measured here; results.json has source and differences")
    foot.append("columns: inner shots, repeats, i = with task induction, n = without; per cent [95% Wilson interval]")
    return "\n\n".join([*blocks, "\n".join(foot)])


def render_rows(results: Mapping[str, Any]) -> str:
    """What each measured row is: constrained or not, transductive or not, LLM calls for a question, its meaning."""
    lines = [["row", "only labels", "transductive", "LLM calls", "meaning"]]
    for row in results["rows"]:
        if row["kind"] == "quoted":
            continue
        calls = "" if row["llm_calls"] is None else f"{row['llm_calls']:g}"
        flags = ["yes" if row[key] else "no" for key in ("constrained", "transductive")]
        lines.append([row["name"], *flags, calls, row["meaning"]])
    return _aligned(lines)


def render_reliability(results: Mapping[str, Any]) -> str:
    """How well each row's probabilities fit what was true, as text; "" where no row gives any."""
    lines = [["row", "setting", "n", "accuracy", "confidence", "calibration error", "if perfect", "Brier", ""]]
    for cell in results["cells"]:
        fit = cell.get("reliability")
        if fit is None:
            continue
        low, high = fit["interval"]
        lines.append(
            [
                cell["row"],
                cell["setting"],
                str(fit["n"]),
                f"{100 * fit['accuracy']:.1f}",
                f"{100 * fit['confidence']:.1f}",
                f"{fit['ece']:.3f} [{low:.3f}-{high:.3f}]",
                f"{fit['perfect']['mean']:.3f}",
                f"{fit['brier']:.3f}",
                fit["probabilities"],
            ]
        )
    if len(lines) == 1:
        return ""
    foot = (
        "calibration error: ten equal bins, 95% bootstrap interval; if perfect: what perfectly calibrated "
        "probabilities would give with so few questions; Brier score: 0 to 2, less is better"
    )
    return _aligned(lines) + "\n" + foot


def _has_share(cells: Mapping[tuple[str, str], Mapping[str, Any]], row: str, setting: Setting) -> bool:
    return cells.get((row, setting.id), {}).get("accuracy") is not None


def _cell_text(cell: Mapping[str, Any] | None, notes: dict[str, str]) -> str:
    if cell is None:
        return ""
    accuracy, note = cell["accuracy"], cell["note"]
    if note in ("quoted", "not published"):
        return "-" if accuracy is None else f"{100 * accuracy['accuracy']:.1f}"
    if accuracy is None:
        if note == "exceeds window" or not note:
            return note or "-"
        return notes.setdefault(note, f"({len(notes) + 1})")
    text = f"{100 * accuracy['accuracy']:.1f}"
    low, high = accuracy["interval"]
    text += f" [{100 * low:.0f}-{100 * high:.0f}]"
    return text + (" " + notes.setdefault(note, f"({len(notes) + 1})") if note else "")


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
