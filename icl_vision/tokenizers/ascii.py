"""ASCII art: the simplest way to show a picture to an LLM, and LQAE's baseline (arXiv 2302.00902, section 4).

Knows: brightness, a ramp of characters, rows and columns. Refuses to know: what is in the picture.

There is no vocabulary: ids are code points on a grid, and each row of characters is one word, so ``k`` counts rows.
The ramp holds no space, so no row loses its end on the way through a prompt. LQAE used 64x64 characters, which cost
over 1,100 tokens an image; the default here is 16x16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

from icl_vision import checks
from icl_vision.errors import PyramidError, UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import ImageTokenizer

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.vocabulary import Vocabulary

RAMP = "@%#*+=-:."
"""Dark to light, as ink on paper. Without a space on purpose."""

_LARGEST_SIDE = 512


class AsciiTokenizer(ImageTokenizer):
    """Turns an image into ``rows`` lines of ``columns`` characters.

    Args:
        rows, columns: the size in characters, 1 to 512 each.
        ramp: at least two different printable characters without spaces, darkest first.

    Raises:
        UsageError: a size or ramp that cannot work.

    The whole image is squashed into the grid (nothing is cropped away): each cell's grey is the mean of the pixels it
    covers, and picks one of the ramp's equal steps of brightness.

    The picture is all or nothing: ``k`` is None, ``rows`` (its words are its rows), or ``rows * columns`` (the ids
    that ``layout.cumulative`` counts).
    """

    name = "ascii"

    def __init__(self, rows: int = 16, columns: int = 16, *, ramp: str = RAMP) -> None:
        self.rows = checks.count("rows", rows, most=_LARGEST_SIDE)
        self.columns = checks.count("columns", columns, most=_LARGEST_SIDE)
        if len(ramp) < 2 or len(set(ramp)) != len(ramp) or not ramp.isprintable() or any(map(str.isspace, ramp)):
            raise UsageError(f"ramp must be two or more different printable characters without spaces; got {ramp!r}")
        self.ramp = ramp
        self._codes: npt.NDArray[np.int32] = np.asarray([ord(character) for character in ramp], dtype=np.int32)
        self._layout = PyramidLayout(((self.rows, self.columns),))

    @property
    def layout(self) -> PyramidLayout:
        return self._layout

    @property
    def vocabulary(self) -> Vocabulary | None:
        return None

    @property
    def card(self) -> Mapping[str, Any]:
        return {
            **super().card,
            "ramp": self.ramp,
            "preprocessing": "squash to columns x rows, mean grey of each cell (ITU-R 601 luma)",
            "description": f"Any image as {self.rows} rows of characters, dark to light: ASCII art, a baseline.",
            "source": "LQAE (arXiv 2302.00902), ASCII art baseline",
        }

    def layout_for(self, k: int) -> PyramidLayout:
        if k not in (self.rows, self.rows * self.columns):
            raise PyramidError(f"ASCII art has no shorter form: k must be {self.rows} (its rows) or None; got {k}")
        return self._layout

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        return [TokenPyramid((self._characters(image),), self._layout) for image in images]

    def _characters(self, image: Image.Image) -> npt.NDArray[np.int32]:
        grey = np.asarray(image, dtype=np.int32)
        return self._codes[grey * len(self.ramp) // 256]

    def _shrink(self, image: Image.Image) -> Image.Image:
        """One grey pixel per character; all that is kept of an image in a batch."""
        return image.convert("L").resize((self.columns, self.rows), Resampling.BOX)

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        """The rows, joined by newlines. ``k`` as in ``encode``."""
        self._check_pyramid(pyramid)
        if k is not None:
            self.layout_for(self._checked_k(k))
        return "\n".join(pyramid.words())

    def from_text(self, text: str) -> TokenPyramid:
        """The picture whose ``to_text`` is ``text``; newlines around it are ignored.

        Raises:
            PyramidError: another number of rows or columns, or a character outside the ramp.
        """
        lines = self._text(text).strip("\r\n").splitlines()
        if len(lines) != self.rows:
            raise PyramidError(f"the ASCII art has {len(lines)} rows; the tokenizer has {self.rows}")
        for number, line in enumerate(lines, start=1):
            if len(line) != self.columns:
                raise PyramidError(f"row {number} of the ASCII art has {len(line)} characters, not {self.columns}")
            for character in line:
                if character not in self.ramp:
                    raise PyramidError(f"row {number} of the ASCII art holds {character!r}, not one of {self.ramp!r}")
        ids = np.asarray([[ord(character) for character in line] for line in lines], dtype=np.int32)
        return TokenPyramid((ids,), self._layout)
