"""The six image-to-image tasks of SPAE's denoising: what becomes of the picture, where its words stay known, and which
place of the degraded picture belongs to which place of the intact one.

Knows: pixels in, pixels out; boxes; which words of a pyramid lie wholly outside a box. Refuses to know: LLMs, prompts,
tokenizers.

Source: SPAE (arXiv 2306.17842, section 4.3) names the tasks; outpainting hides the lower half and inpainting the middle
quarter, as the public code of the V2L Tokenizer (arXiv 2403.07874) does. Blur and shift are sized by the picture.

A prompt that shows a segment the condition's words "at the same places" is of no use where the degradation moved them.
So where they belong is learned from the examples (never from a query's intact picture): of the eight turns and
mirrorings of the square, each with shifts by eighths of the side, the one is taken under which the degraded examples go
best with the intact ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.checks import as_whole
from icl_vision.drawing.stages import first_place
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid

Pixels = npt.NDArray[np.uint8]
"""uint8 [S, S, 3], of a clip [T, S, S, 3]."""

GREY = 128
"""What is hidden is painted over in this grey, in every channel."""

BLUR = 1 / 32
"""Standard deviation of the blur, as a share of the picture's side: 4 pixels of 128."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a task that leaves nothing intact."""

ALWAYS = (0.0, 1.0)
"""The time of a task that concerns every frame."""


@dataclass(frozen=True, slots=True)
class DenoisingTask:
    """One task.

    name: as options take it. what: for people. degrade: target -> condition, both [S, S, 3] (of clips [T, S, S, 3]).
    box: what is unknown and where results are measured, (top, left, bottom, right) as shares of the side. when: of a
    clip, in which of its frames, as shares of its length. keep_known: whether, by default, words
    wholly outside the box are taken from the condition. in_words: the degradation is noise in word space, and
    ``degrade`` changes nothing. guidance: the default weight of the condition; more than 1 where the condition's word
    at a place says much of the answer there, which a small LLM heeds too little.
    """

    name: str
    what: str
    degrade: Callable[[Pixels], Pixels]
    box: tuple[float, float, float, float] = WHOLE
    keep_known: bool = False
    in_words: bool = False
    guidance: float = 1.0
    when: tuple[float, float] = ALWAYS

    @property
    def partial(self) -> bool:
        """Whether a part is intact."""
        return self.box != WHOLE or self.when != ALWAYS

    @property
    def foresees(self) -> bool:
        """Whether it is the end of a clip that is unknown, and nothing else."""
        return self.box == WHOLE and self.when[0] > 0 and self.when[1] == 1

    def region(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """The unknown region of a picture [S, S, 3], rows and columns, or clip [T, S, S, 3], frames, rows, columns."""
        space = self.pixels(shape[-2])
        if len(shape) == 3:
            return space
        first, last = (round(edge * shape[0]) for edge in self.when)
        return slice(first, last), *space

    def pixels(self, size: int) -> tuple[slice, slice]:
        """The unknown region of a picture of ``size`` pixels, as rows and columns."""
        top, left, bottom, right = (round(edge * size) for edge in self.box)
        return slice(top, bottom), slice(left, right)

    def known_places(self, layout: PyramidLayout) -> tuple[int, ...]:
        """Places (from 0, coarse to fine) of words that stand for cells wholly outside the unknown region."""
        top, left, bottom, right = self.box
        unknown = [(top, bottom), (left, right)]
        if len(layout.finest) == 3:
            unknown = [self.when, *unknown]
        known = []
        for number, grid in enumerate(layout.grids, start=1):
            start = first_place(layout, number)
            for place, cell in enumerate(np.ndindex(*grid), start):
                if any(
                    (at + 1) / cells <= first or at / cells >= last
                    for at, cells, (first, last) in zip(cell, grid, unknown, strict=True)
                ):
                    known.append(place)
        return tuple(known)


def _hide(box: tuple[float, float, float, float]) -> Callable[[Pixels], Pixels]:
    def hide(picture: Pixels) -> Pixels:
        size = picture.shape[0]
        top, left, bottom, right = (round(edge * size) for edge in box)
        hidden = picture.copy()
        hidden[top:bottom, left:right] = GREY
        return hidden

    return hide


def _blur(picture: Pixels) -> Pixels:
    from PIL import Image, ImageFilter

    image = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR * picture.shape[0]))
    return np.asarray(image, dtype=np.uint8)


def _shift(picture: Pixels) -> Pixels:
    """Moved a quarter of the side down and to the right; what comes in is grey, what leaves is lost."""
    by = picture.shape[0] // 4
    moved = np.full_like(picture, GREY)
    moved[by:, by:] = picture[: picture.shape[0] - by, : picture.shape[1] - by]
    return moved


def _turn(picture: Pixels) -> Pixels:
    """A quarter turn clockwise."""
    return np.ascontiguousarray(np.rot90(picture, -1))


_LOWER_HALF = (0.5, 0.0, 1.0, 1.0)
_CENTRE = (0.25, 0.25, 0.75, 0.75)

TASKS: dict[str, DenoisingTask] = {
    task.name: task
    for task in (
        DenoisingTask("outpainting", "the lower half is missing", _hide(_LOWER_HALF), box=_LOWER_HALF, keep_known=True),
        DenoisingTask("inpainting", "the middle quarter is missing", _hide(_CENTRE), box=_CENTRE, keep_known=True),
        DenoisingTask("deblurring", "the picture is blurred", _blur, guidance=3.0),
        DenoisingTask("translation", "the picture is moved a quarter of its side down and to the right", _shift),
        DenoisingTask("rotation", "the picture is turned a quarter clockwise", _turn),
        DenoisingTask("reconstruction", "some of the picture's words are random", np.copy, in_words=True, guidance=3.0),
    )
}


def find_task(name: object) -> DenoisingTask:
    """The task of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise UsageError(f"task must be one of {', '.join(TASKS)}; got {name!r}")
    return TASKS[name]


# Where a picture was moved to -----------------------------------------------------------------------------------------

EIGHTHS = range(-4, 5)
"""Shifts tried, down and to the right, in eighths of the side."""

LEAST = 4
"""Examples: in fewer an accident can look like a shift."""

_SIDE = 32
"""Pixels a side at which pictures are compared."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What was done to the pictures: mirrored left to right or not, turned clockwise ``turns`` quarters, then moved
    ``down`` and ``right`` by eighths of the side."""

    mirrored: bool = False
    turns: int = 0
    down: int = 0
    right: int = 0

    @classmethod
    def of(cls, conditions: Sequence[Pixels], targets: Sequence[Pixels]) -> Alignment:
        """The alignment under which the conditions go best with the targets: the largest covariance of their grey
        values, where a place that left the picture counts as none.

        conditions, targets: as many, uint8 [S, S, 3]. From fewer than ``LEAST``, and among equals, nothing was done.
        """
        if len(conditions) < LEAST:
            return cls()
        before, after = _small(conditions), _small(targets)
        best, highest = cls(), float((before * after).sum())
        for mirrored in (False, True):
            for turns in range(4):
                for down in EIGHTHS:
                    for right in EIGHTHS:
                        alignment = cls(mirrored, turns, down, right)
                        rows, columns, inside = alignment._sources((_SIDE, _SIDE))
                        moved = before[:, rows][:, :, columns] * inside
                        agreement = float((alignment._unturned(moved) * after).sum())
                        if agreement > highest * (1 + 1e-6):
                            best, highest = alignment, agreement
        return best

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Alignment:
        """The alignment that ``dataclasses.asdict`` wrote.

        Raises:
            KeyError, TypeError, ValueError: a damaged document.
        """
        alignment = cls(**document)
        whole = all(as_whole(value) is not None for value in (alignment.turns, alignment.down, alignment.right))
        if (
            not isinstance(alignment.mirrored, bool)
            or not whole
            or alignment.turns not in range(4)
            or alignment.down not in EIGHTHS
            or alignment.right not in EIGHTHS
        ):
            raise ValueError(f"no alignment: {document!r:.80}")
        return alignment

    def undo(self, condition: TokenPyramid) -> TokenPyramid:
        """A condition's words at the places of the intact picture; for those that left the picture, the nearest ones.

        condition: with two axes, as many rows as columns.
        """
        layers = []
        for ids in condition.ids:
            rows, columns, _ = self._sources((ids.shape[0], ids.shape[1]))
            layers.append(np.ascontiguousarray(self._unturned(ids[np.ix_(rows, columns)])))
        return TokenPyramid(tuple(layers), condition.layout, condition.vocabulary)

    def _sources(
        self, grid: tuple[int, int]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Rows and columns that the unmoved ones come from, at the edge the nearest; and which places are not such."""
        rows = np.arange(grid[0]) + round(self.down * grid[0] / 8)
        columns = np.arange(grid[1]) + round(self.right * grid[1] / 8)
        inside = ((rows >= 0) & (rows < grid[0]))[:, None] & ((columns >= 0) & (columns < grid[1]))[None, :]
        return rows.clip(0, grid[0] - 1), columns.clip(0, grid[1] - 1), inside

    def _unturned(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turned and mirrored back; values: [..., H, W]."""
        turned = np.rot90(values, self.turns, axes=(-2, -1))
        return turned[..., ::-1] if self.mirrored else turned


def _small(pictures: Sequence[Pixels]) -> npt.NDArray[np.float64]:
    """[B, 32, 32]: grey values around their picture's mean."""
    from PIL import Image

    resized = [
        np.asarray(Image.fromarray(picture).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
        for picture in pictures
    ]
    values: npt.NDArray[np.float64] = np.stack(resized)
    values -= values.mean((1, 2), keepdims=True)
    return values
