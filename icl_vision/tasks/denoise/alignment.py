"""Which place of a degraded picture belongs to which place of the intact one, learned from the examples.

A prompt that shows a segment the condition's words "at the same places" is of no use where the degradation moved them.
Of the eight turns and mirrorings of the square, each with shifts by eighths of the side, the one is taken under which
the degraded examples go best with the intact ones.

Knows: pictures of examples, grids of words. Refuses to know: tasks, LLMs. It never sees a query's intact picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.checks import as_whole
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.denoise.tasks import Pixels

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
                        one = cls(mirrored, turns, down, right)
                        rows, columns, inside = one._sources((_SIDE, _SIDE))
                        moved = before[:, rows][:, :, columns] * inside
                        agreement = float((one._unturned(moved) * after).sum())
                        if agreement > highest * (1 + 1e-6):
                            best, highest = one, agreement
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
        np.asarray(Image.fromarray(one).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
        for one in pictures
    ]
    values: npt.NDArray[np.float64] = np.stack(resized)
    values -= values.mean((1, 2), keepdims=True)
    return values
