"""How well an LLM restores pictures: PSNR, SSIM and LPIPS on the unknown region, beside what needs no LLM.

Knows: tasks, strides, rows, run folders, means and paired differences. Refuses to know: command lines, pages.

A row is one way to restore. "llm" is asked at every stride; "single pass" and "shuffled words" are its controls. The
others need no LLM (``denoising.baselines``), nor does "ceiling", the intact picture through the tokenizer, nor
"corrupted input", the condition as it is. Every row of a task is measured on the same pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.contracts import Usage
from icl_vision.drawing.stages import Stride
from icl_vision.errors import PromptTooLongError, UsageError
from icl_vision.evaluation.denoising.baselines import BASELINES, Task
from icl_vision.evaluation.kit.bootstrap import METHOD
from icl_vision.evaluation.kit.image_metrics import WINDOW, psnr, ssim
from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.evaluation.reconstruction import Pixels
from icl_vision.files.runs import read_usage
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.denoiser import ImageDenoiser
from icl_vision.tasks.denoise.fitted import LEAK
from icl_vision.tasks.denoise.puzzles import Puzzle, pixels_of_decoded
from icl_vision.tasks.denoise.tasks import Alignment
from icl_vision.tokenizers.taking import takes_clips

if TYPE_CHECKING:
    from icl_vision.evaluation.kit.pictures import Picture
    from icl_vision.files.runs import Run

LLM_ROW, CEILING, INPUT, KNOWN, ALIGNED = "llm", "ceiling", "corrupted input", "nearest known word", "aligned words"
EXTRAPOLATED = "extrapolated words"


class SinglePass(ImageDenoiser):
    """A control: everything of the first stage in one answer."""

    _single_pass = True


class ShuffledWords(ImageDenoiser):
    """A control: the words of each example's target in random order within their layer."""

    _shuffled = True


CONTROLS: dict[str, type[ImageDenoiser]] = {"single pass": SinglePass, "shuffled words": ShuffledWords}
METRICS = {"psnr": True, "ssim": True, "lpips": False}
"""Each metric, and whether higher is better."""
SMALLEST_LPIPS = 31
"""Pixels; see ``models.perceptual``."""
MOST_PSNR = 100.0
"""dB; equal pictures have an infinite PSNR, which has no mean."""

Perceptual = Callable[[Pixels, Pixels], Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to be measured: a row of a task, for the LLM's rows at a stride."""

    task: str
    row: str
    stride: Stride = "rows"

    @property
    def item(self) -> str:
        """As the journal names it."""
        return f"{self.task}/{self.row}" + (f"/{self.stride_name}" if self.asks else "")

    @property
    def stride_name(self) -> str:
        return "layer" if self.stride is None else str(self.stride)

    @property
    def asks(self) -> bool:
        """Whether an LLM is asked."""
        return self.row == LLM_ROW or self.row in CONTROLS


@dataclass(slots=True)
class DenoisingEvaluation:
    """Measures denoising.

    Args:
        settings: arguments of ``ImageDenoiser``, all but task, stride and max_tokens.
        tasks, strides: what is measured; a stride as for ``ImageDenoiser``.
        controls: names of ``CONTROLS`` to measure too, at the first stride.
        context, pictures: for the prompts, and to restore; no picture in both.
        perceptual: LPIPS, or None.
        max_tokens: for everything together; None for no limit.

    Raises:
        UsageError: no tasks or strides, or a control that there is not.
    """

    settings: Mapping[str, Any]
    tasks: Sequence[str]
    context: Sequence[Picture]
    pictures: Sequence[Picture]
    strides: Sequence[Stride] = ("rows",)
    controls: Sequence[str] = tuple(CONTROLS)
    perceptual: Perceptual | None = None
    max_tokens: int | None = None
    notes: dict[str, str] = field(default_factory=dict)
    _fitted: dict[str, tuple[ImageDenoiser, list[Puzzle]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks or not self.strides or not self.pictures:
            raise UsageError("measuring needs at least one task, one stride and one picture")
        unknown = sorted(set(self.controls) - set(CONTROLS))
        if unknown:
            raise UsageError(f"controls are {', '.join(CONTROLS)}; got {', '.join(unknown)}")

    def cells(self) -> list[Cell]:
        """Everything to be measured, in order."""
        cells = []
        for task in self.tasks:
            puzzles = self.puzzles(task)
            # Without known words nothing can be copied from one, and what was not moved is in its place.
            without: tuple[str, ...] = () if any(puzzle.query.known for puzzle in puzzles) else (KNOWN,)
            denoiser = self._first(task)[0]
            if denoiser.alignment_ == Alignment():
                without += (ALIGNED,)
            if not denoiser.task_.foresees or not takes_clips(denoiser.tokenizer_):
                without += (EXTRAPOLATED,)
            cells += [Cell(task, row) for row in (CEILING, INPUT, *BASELINES) if row not in without]
            cells += [Cell(task, LLM_ROW, stride) for stride in self.strides]
            cells += [Cell(task, control, self.strides[0]) for control in self.controls]
        return cells

    def plan(self) -> list[tuple[Cell, Any]]:
        """A ``Plan`` for each cell that asks an LLM."""
        plans = []
        for cell in self.cells():
            if cell.asks:
                denoiser, puzzles = self._denoiser(cell)
                plans.append((cell, denoiser.plan_of(puzzles)))
        return plans

    def measure(self, run: Run, *, done: Callable[[Cell], object] | None = None) -> None:
        """Journal every cell that the run does not hold yet. The LLM's words are kept segment by segment below it."""
        for cell in self.cells():
            if cell.item not in run.done:
                started = time.monotonic()
                pyramids, report = self._restore(cell, run)
                row = report | {
                    "pictures": self._measured(cell, pyramids),
                    "seconds": time.monotonic() - started,
                }
                run.record(cell.item, row)
            if done is not None:
                done(cell)

    def puzzles(self, task: str) -> list[Puzzle]:
        """The puzzles of a task, as every row of it sees them."""
        return self._first(task)[1]

    def picture_of(self, cell: Cell, puzzle: Puzzle, words: Sequence[str] | None) -> Pixels | None:
        """What a row made of a picture, from the words in its journal; None where it made nothing."""
        if cell.row == INPUT:
            return puzzle.shown
        if words is None:
            return None
        tokenizer = self._denoiser(cell)[0].tokenizer_
        return pixels_of_decoded(tokenizer.decode([tokenizer.from_text(" ".join(words))])[0])

    def summary(self, run: Run) -> dict[str, Any]:
        """{rows: [...], pairs: [...], usage}: means with 95% intervals, and the LLM against each other row, paired."""
        results = dict(run.results())
        cells = [cell for cell in self.cells() if cell.item in results]
        rows, pairs = [], []
        for cell in cells:
            result = results[cell.item]
            rows.append({
                "task": cell.task,
                "row": cell.row,
                "stride": cell.stride_name if cell.asks else None,
                "what": _what(cell),
                **{name: _mean(_values(result, name)) for name in METRICS},
                "failed": sum("error" in picture for picture in result["pictures"].values()),
                "problem": result.get("problem", ""),
                "repaired": result.get("repaired", 0),
                "constrained": result.get("constrained"),
                "usage": result["usage"],
                "seconds": round(result["seconds"], 2),
            })  # fmt: skip
            if cell.row == LLM_ROW:
                others = [other for other in cells if other.task == cell.task and other.row != LLM_ROW]
                pairs += [pair for other in others for pair in _compared(cell, other, results)]
        usage = sum((Usage(**results[cell.item]["usage"]) for cell in cells), Usage())
        protocol = self.settings.get("protocol", "leak-free")
        return {
            "n": len(self.pictures),
            "protocol": protocol,
            "leaking": LEAK if protocol == "paper" else "",
            "rows": rows,
            "pairs": pairs,
            "methods": {"interval": METHOD},
            "decided": {task: self._decided(task) for task in self.tasks},
            "settings": {task: self._settings(task) for task in self.tasks},
            "usage": usage.to_dict(),
            "notes": dict(self.notes),
        }

    # Steps.

    def _denoiser(self, cell: Cell) -> tuple[ImageDenoiser, list[Puzzle]]:
        """The denoiser of a cell, and its puzzles: degraded and turned into words once a task."""
        kind = CONTROLS.get(cell.row, ImageDenoiser)
        key = f"{cell.task}/{kind.__name__}/{cell.stride}"
        if key not in self._fitted:
            denoiser = kind(task=cell.task, stride=cell.stride, **{**self.settings, "errors": "return"})
            # One tokenizer and one LLM for all.
            first = next(iter(self._fitted.values()), None)
            if first is not None:
                denoiser.set_params(tokenizer=first[0].tokenizer_, llm=first[0].llm_)
            denoiser.fit([picture.image for picture in self.context])
            same = next((fitted[1] for name, fitted in self._fitted.items() if name.split("/")[0] == cell.task), None)
            puzzles = same or denoiser.puzzles(
                [picture.image for picture in self.pictures], [picture.name for picture in self.pictures]
            )
            self._fitted[key] = (denoiser, puzzles)
        return self._fitted[key]

    def _first(self, task: str) -> tuple[ImageDenoiser, list[Puzzle]]:
        """The denoiser of a task's rows without an LLM, and of whatever is the same for all its rows."""
        return self._denoiser(Cell(task, LLM_ROW, self.strides[0]))

    def _restore(self, cell: Cell, run: Run) -> tuple[list[TokenPyramid | None], dict[str, Any]]:
        """The words of a row for each picture, and what is known of how they came to be."""
        if cell.asks:
            return self._ask(cell, run)
        denoiser, puzzles = self._first(cell.task)
        report: dict[str, Any] = {"usage": Usage().to_dict()}
        if cell.row == INPUT:
            return [None] * len(puzzles), report
        if cell.row == CEILING:
            return [puzzle.target_words for puzzle in puzzles], report
        make, _ = BASELINES[cell.row]
        restored = []
        for puzzle in puzzles:
            pairs = denoiser.pairs_for(puzzle)
            vectors, stages = denoiser.tokenizer_.codebook, denoiser.parts_.stages
            restored.append(
                make(Task(pairs, puzzle.condition, puzzle.query, vectors, denoiser.seed, stages, denoiser.alignment_))
            )
        return restored, report

    def _ask(self, cell: Cell, run: Run) -> tuple[list[TokenPyramid | None], dict[str, Any]]:
        denoiser, puzzles = self._denoiser(cell)
        folder = Path(run.folder) / "llm" / cell.item.replace("/", "-").replace(" ", "-")
        if self.max_tokens is not None:
            # Of all other rows, finished or not; this one's own is counted when it is gone on with.
            others = (other for other in folder.parent.glob("*") if other != folder)
            spent = sum((_spent(other) for other in others), Usage())
            denoiser.set_params(max_tokens=max(1, self.max_tokens - spent.prompt_tokens - spent.completion_tokens))
        try:
            # Always with resume: what this run was killed in the middle of is gone on with.
            restored = denoiser.solve(puzzles, out=folder, resume=True)
        except PromptTooLongError as error:
            return [None] * len(puzzles), {"usage": _spent(folder).to_dict(), "problem": f"exceeds window: {error}"}
        usage = sum((image.usage for image in restored), Usage())
        report = {
            "usage": usage.to_dict(),
            "constrained": all(image.drawing.constrained for image in restored),
            "repaired": sum(len(image.drawing.changes) for image in restored),
            "errors": {image.puzzle.name: str(image.error) for image in restored if image.error is not None},
        }
        return [image.pyramid for image in restored], report

    def _measured(self, cell: Cell, pyramids: Sequence[TokenPyramid | None]) -> dict[str, Any]:
        """For each picture its words and measures, or that there is none."""
        denoiser, puzzles = self._denoiser(cell) if cell.asks else self._first(cell.task)
        measured: dict[str, Any] = {}
        for puzzle, pyramid in zip(puzzles, pyramids, strict=True):
            if pyramid is None and cell.row != INPUT:
                measured[puzzle.name] = {"words": None, "error": "nothing was made"}
                continue
            image = puzzle.shown if pyramid is None else pixels_of_decoded(denoiser.tokenizer_.decode([pyramid])[0])
            words = None if pyramid is None else pyramid.words()
            measured[puzzle.name] = {"words": words, **self._metrics(denoiser, puzzle, image)}
        return measured

    def _metrics(self, denoiser: ImageDenoiser, puzzle: Puzzle, image: Pixels) -> dict[str, float]:
        assert puzzle.target is not None  # an evaluation degrades its pictures itself
        region = denoiser.task_.region(image.shape)
        truth, part = puzzle.target[region], image[region]
        if image.ndim == 3:
            truth, part = truth[None], part[None]
        # Of a clip: PSNR of all unknown frames together, SSIM and LPIPS as means over them.
        values = {
            "psnr": min(
                MOST_PSNR, float(psnr(truth.reshape(1, -1, *truth.shape[2:]), part.reshape(1, -1, *part.shape[2:]))[0])
            )
        }
        if min(truth.shape[1:3]) >= WINDOW:
            values["ssim"] = float(ssim(truth, part).mean())
        if self.perceptual is None:
            return values
        if min(truth.shape[1:3]) >= SMALLEST_LPIPS:
            values["lpips"] = float(np.mean(self.perceptual(truth, part)))
        else:
            self.notes["lpips"] = "not where the unknown region has fewer than 31 pixels a side"
        return values

    def _settings(self, task: str) -> dict[str, Any]:
        """What was done, defaults included."""
        denoiser, _ = self._first(task)
        return {
            "stages": [stage.to_dict() for stage in denoiser.parts_.stages],
            "alignment": asdict(denoiser.alignment_),
        }

    def _decided(self, task: str) -> list[str]:
        from icl_vision.tasks.denoise.plan import decided_by

        denoiser, puzzles = self._first(task)
        return list(decided_by(denoiser.parts_, puzzles[0].query, len(denoiser.tokenizer_.layout)))


def _spent(folder: Path) -> Usage:
    """What a row's words took, so far."""
    return sum((read_usage(part) for part in sorted(folder.glob("words*"))), Usage())


def _what(cell: Cell) -> str:
    if cell.row in BASELINES:
        return BASELINES[cell.row][1]
    return {
        LLM_ROW: "the LLM, segment by segment",
        CEILING: "the intact picture through the tokenizer: no row of words can be better",
        INPUT: "the condition's own pixels",  # of a clip of which frames are missing: the nearest known one repeated
        "single pass": "the LLM, all words of the first stage at once",
        "shuffled words": "the LLM, shown targets whose words stand in random order within their layer",
    }[cell.row]


def _values(row: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {name: picture[metric] for name, picture in row["pictures"].items() if metric in picture}


def _mean(values: Mapping[str, float]) -> dict[str, Any] | None:
    mean = RunningMean()
    for value in values.values():
        mean.add(value)
    return mean.to_dict()


def _compared(cell: Cell, other: Cell, results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The LLM's row against another, for each metric that both have."""
    for metric, higher in METRICS.items():
        a, b = _values(results[cell.item], metric), _values(results[other.item], metric)
        both = [name for name in a if name in b]
        if both:
            difference = paired_mean([a[name] for name in both], [b[name] for name in both], higher_is_better=higher)
            yield {
                "task": cell.task,
                "metric": metric,
                "first": LLM_ROW,
                "stride": cell.stride_name,
                "second": other.row,
                **difference.to_dict(),
            }
