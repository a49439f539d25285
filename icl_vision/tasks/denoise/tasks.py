"""The six image-to-image tasks of SPAE's denoising: what becomes of the picture, and where its words stay known.

Knows: pixels in, pixels out; boxes; which words of a pyramid lie wholly outside a box. Refuses to know: LLMs, prompts,
tokenizers.

Source: SPAE (arXiv 2306.17842, section 4.3) names the tasks; outpainting hides the lower half and inpainting the middle
quarter, as the public code of the V2L Tokenizer (arXiv 2403.07874) does. Blur and shift are sized by the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_vision.drawing.stages import first_place
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

Pixels = npt.NDArray[np.uint8]
"""uint8 [S, S, 3]."""

GREY = 128
"""What is hidden is painted over in this grey, in every channel."""

BLUR = 1 / 32
"""Standard deviation of the blur, as a share of the picture's side: 4 pixels of 128."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a task that leaves nothing intact."""


@dataclass(frozen=True, slots=True)
class DenoisingTask:
    """One task.

    name: as options take it. what: for people. degrade: target -> condition, both [S, S, 3]. box: what is unknown and
    where results are measured, (top, left, bottom, right) as shares of the side. keep_known: whether, by default, words
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

    def pixels(self, size: int) -> tuple[slice, slice]:
        """The unknown region of a picture of ``size`` pixels, as rows and columns."""
        top, left, bottom, right = (round(edge * size) for edge in self.box)
        return slice(top, bottom), slice(left, right)

    def known_places(self, layout: PyramidLayout) -> tuple[int, ...]:
        """Places (from 0, coarse to fine) of words that stand for cells wholly outside the unknown region.

        Raises:
            UsageError: a layout with frames.
        """
        if len(layout.finest) != 2:
            raise UsageError(f"denoising is for pictures; this layout has frames: {layout}")
        top, left, bottom, right = self.box
        known = []
        for number, (rows, columns) in enumerate(layout.grids, start=1):
            start = first_place(layout, number)
            for row in range(rows):
                for column in range(columns):
                    apart = (row + 1) / rows <= top or row / rows >= bottom
                    if apart or (column + 1) / columns <= left or column / columns >= right:
                        known.append(start + row * columns + column)
        return tuple(known)


def _hide(box: tuple[float, float, float, float]) -> Callable[[Pixels], Pixels]:
    def hide(picture: Pixels) -> Pixels:
        size = picture.shape[0]
        top, left, bottom, right = (round(edge * size) for edge in box)
        made = picture.copy()
        made[top:bottom, left:right] = GREY
        return made

    return hide


def _blur(picture: Pixels) -> Pixels:
    from PIL import Image, ImageFilter

    image = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR * picture.shape[0]))
    return np.asarray(image, dtype=np.uint8)


def _shift(picture: Pixels) -> Pixels:
    """Moved a quarter of the side down and to the right; what comes in is grey, what leaves is lost."""
    by = picture.shape[0] // 4
    made = np.full_like(picture, GREY)
    made[by:, by:] = picture[: picture.shape[0] - by, : picture.shape[1] - by]
    return made


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
