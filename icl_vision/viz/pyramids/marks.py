"""What pages and pictures of pyramids mark words with: shades of similarity, clouds, words cut to fit a cell.

Knows: a colour scale that reads in light and dark and without red and green, counts, widths of letters.
Refuses to know: HTML, Pillow, tokenizers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.viz.pyramids.look import Similarity

SHADES = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32", "#fde725")
"""Least to most similar: nine steps of viridis, even in lightness for every kind of colour vision."""
INKS = ("#ffffff",) * 4 + ("#0b0f14",) * 5
"""Text on each shade; every pair has a contrast of 4.5 to 1 or more."""

READABLE = 64
"""Layers of at most so many cells have their words written in the cells; deeper ones are a cloud and shaded cells."""

_PIECE = 4  # letters of a piece of a word, about, at least


@dataclass(frozen=True, slots=True)
class Cell:
    """One word where it lies. layer, row and column from 1; frame from 1, None for a single image.

    cosine and shade (an index of ``SHADES``): None without similarity.
    """

    word: str
    id: int
    layer: int
    row: int
    column: int
    cosine: float | None
    shade: int | None
    frame: int | None = None

    def describe(self, *, flat: bool = False) -> str:
        """Word, position and similarity as one line of plain text."""
        if flat:
            place = f"rank {self.column}"
        else:
            at = "" if self.frame is None else f"frame {self.frame}, "
            place = f"layer {self.layer}, {at}row {self.row}, column {self.column}"
        return f"{self.word}: {place}" + ("" if self.cosine is None else f", similarity {self.cosine:.3f}")


@dataclass(frozen=True, slots=True)
class CloudWord:
    """A word of one layer with the number of its cells. size: 0 to 1, by count within the layer."""

    word: str
    id: int
    count: int
    size: float
    cosine: float | None
    shade: int | None
    cells: tuple[Cell, ...]

    def describe(self, total: int) -> str:
        """Word, how often, where (the first few places) and similarity as one line of plain text."""
        shown = ", ".join(f"row {cell.row} column {cell.column}" for cell in self.cells[:3])
        more = f" and {self.count - 3} more" if self.count > 3 else ""
        text = f"{self.word}: layer {self.cells[0].layer}, {self.count} of {total} cells ({shown}{more})"
        return text + ("" if self.cosine is None else f", similarity {self.cosine:.3f}")


def cells(pyramid: TokenPyramid, layer: int, similarity: Similarity | None) -> list[Cell]:
    """The words of one layer with their places, in raster order (frame by frame)."""
    ids = pyramid.ids[layer - 1]
    grid = ids.shape
    names = pyramid.words(layer)
    cosines: list[float] | list[None] = [None] * ids.size
    shades: list[int] | list[None] = [None] * ids.size
    if similarity is not None:
        values = similarity.layers[layer - 1]
        cosines = values.ravel().tolist()
        shades = _shades(values, similarity.low, similarity.high).ravel().tolist()
    layer_cells = []
    for place, index in enumerate(np.ndindex(grid)):
        frame = index[0] + 1 if len(grid) > 2 else None
        row, column = index[-2] + 1, index[-1] + 1
        number = int(ids[index])
        layer_cells.append(Cell(names[place], number, layer, row, column, cosines[place], shades[place], frame))
    return layer_cells


def _shades(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.intp]:
    """Cosines as steps of the scale; one scale for a whole pyramid, so that a colour means one similarity in it."""
    if high - low < 1e-6:
        return np.full(values.shape, len(SHADES) - 1, dtype=np.intp)
    steps: npt.NDArray[np.intp] = ((values - low) / (high - low) * len(SHADES)).astype(np.intp)
    return np.clip(steps, 0, len(SHADES) - 1)


def cloud(layer: list[Cell]) -> list[CloudWord]:
    """The distinct words of a layer, most frequent first (then most similar, then by name)."""
    places: dict[int, list[Cell]] = {}
    for cell in layer:
        places.setdefault(cell.id, []).append(cell)
    most = max(map(len, places.values()))
    words = []
    for number, at in places.items():
        size = 0.4 if most == 1 else ((len(at) - 1) / (most - 1)) ** 0.5
        words.append(CloudWord(at[0].word, number, len(at), size, at[0].cosine, at[0].shade, tuple(at)))
    return sorted(words, key=lambda word: (-word.count, -(word.cosine or 0.0), word.word))


def width(text: str) -> float:
    """About how wide a text is in em, bold and in a broad font: rather too much than too little."""
    total = 0.0
    for letter in text:
        if letter in "ijlt.,;:'|!()[]f":
            total += 0.46
        elif letter in "mwMW@%":
            total += 1.05
        elif unicodedata.east_asian_width(letter) in "WF":
            total += 1.1
        else:
            total += 0.82 if letter.isupper() else 0.69
    return total


def cuts(word: str) -> Iterator[list[str]]:
    """A word on one line, then cut into two and three of about equal length, where no piece gets too short to read."""
    for count in (1, 2, 3):
        each = -(-len(word) // count)
        lines = [word[start : start + each] for start in range(0, len(word), max(1, each))]
        if count == 1 or len(lines[-1]) >= _PIECE - 1:
            yield lines or [word]
