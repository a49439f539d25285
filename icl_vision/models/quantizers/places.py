"""Where the layers of a pyramid lie on its flattened finest grid, as tensors that move with a module.

Knows: positions, which of them have a word after l layers, whose value a position without a word takes.
Refuses to know: words, codebooks, how words add up.

The positions are ``PyramidLayout.indices`` (eq. 1 of SPAE); P is their number on the finest grid, n_l that of layer l.
Everything is a gather with fixed indices: no writing in place and no shape that depends on data, so it exports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from icl_vision.pyramid import PyramidLayout

Fill = Literal["finest", "zeros"]
"""What a position takes that fewer layers leave without a word: the finest owner there is, or nothing."""


class LayerPlaces(nn.Module):
    """The places of a layout's layers; no parameters and nothing in ``state_dict()``.

    Args:
        layout: the grids.
        fill: "finest": a position without a word takes the value of the owner in the finest layer there is whose cell
            contains it. Grids never shrink and cells tile the finest grid, so that is always the last layer's owner.
            "zeros": it keeps its own, which is zero.
    """

    _held: Tensor
    _source: Tensor

    def __init__(self, layout: PyramidLayout, fill: Fill) -> None:
        super().__init__()
        self.fill = fill
        finest = layout.finest
        count = math.prod(finest)
        order = torch.arange(count).reshape(finest)
        indices = [order[tuple(map(torch.from_numpy, layout.indices(layer)))] for layer in range(1, len(layout) + 1)]
        held = torch.zeros(len(layout) + 1, count, 1, dtype=torch.int64)
        sources = []
        for layer, (index, grid) in enumerate(zip(indices, layout.grids, strict=True), start=1):
            held[layer] = held[layer - 1]
            held[layer, index] += 1
            covered = held[layer, :, 0] > 0
            fill_from = _owner_of_cell(index, grid, finest) if fill == "finest" else order.flatten()
            sources.append(torch.where(covered, order.flatten(), fill_from))
            self._buffer(f"index_{layer}", index)
            self._buffer(f"rows_{layer}", _rows(index, count))
            self._buffer(f"covered_{layer}", covered.nonzero().squeeze(1))
        self._groups = tuple(_disjoint_groups(indices))
        for number, layers in enumerate(self._groups):
            index = torch.cat([indices[layer - 1] for layer in layers])
            self._buffer(f"group_index_{number}", index)
            self._buffer(f"group_rows_{number}", _rows(index, count))
        # Whole numbers, so that a cast of the module to half precision leaves them alone.
        self._buffer("_held", held)
        self._buffer("_source", torch.stack(sources))

    def _buffer(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def index(self, layer: int) -> Tensor:
        """The positions that a layer owns, raster order, int64 [n_l]."""
        return self.get_buffer(f"index_{layer}")

    def rows(self, layer: int) -> Tensor:
        """Which of the layer's words each position takes, int64 [P]; n_l where it takes none."""
        return self.get_buffer(f"rows_{layer}")

    def covered(self, layers: int) -> Tensor:
        """The positions with a word from the first ``layers`` layers, ascending, int64."""
        return self.get_buffer(f"covered_{layers}")

    def groups(self, *, apart: bool = False) -> Iterator[tuple[tuple[int, ...], Tensor, Tensor]]:
        """Runs of consecutive layers (from 1) that share no position, so that none waits for another's words; with the
        ``index`` and ``rows`` of all of them, one layer after the other.

        apart: every layer by itself.
        """
        if apart:
            for layer in range(1, len(self._held)):
                yield (layer,), self.index(layer), self.rows(layer)
            return
        for number, layers in enumerate(self._groups):
            yield layers, self.get_buffer(f"group_index_{number}"), self.get_buffer(f"group_rows_{number}")

    def held(self, layers: int | Tensor) -> Tensor:
        """How many words each position has from the first ``layers`` layers (0 or more), fp32 [P, 1]."""
        return self._held[layers].to(torch.float32)

    def placed(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Vectors [B, n, c] at their positions, [B, P, c], zeros elsewhere."""
        nothing = torch.zeros_like(vectors[:, :1])
        return torch.cat([vectors, nothing], dim=1).index_select(1, rows)

    def filled(self, values: Tensor, layers: int | Tensor) -> Tensor:
        """Values [B, P, c] of the first ``layers`` layers, each hole taking its source's (or kept, with "zeros")."""
        if self.fill == "zeros":
            return values
        return values.index_select(1, self._source[layers - 1])


def _owner_of_cell(index: Tensor, grid: Sequence[int], finest: Sequence[int]) -> Tensor:
    """For each position of the finest grid the one that owns its cell of ``grid``, int64 [P]."""
    owner = index.reshape(tuple(grid))
    for axis, (whole, parts) in enumerate(zip(finest, grid, strict=True)):
        owner = owner.repeat_interleave(whole // parts, dim=axis)
    return owner.flatten()


def _rows(index: Tensor, count: int) -> Tensor:
    """For each of ``count`` positions its place in ``index``; ``len(index)`` where it is not in there."""
    rows = torch.full((count,), len(index), dtype=torch.int64)
    rows[index] = torch.arange(len(index))
    return rows


def _disjoint_groups(indices: Sequence[Tensor]) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    taken: set[int] = set()
    for layer, index in enumerate(indices, start=1):
        own = set(index.tolist())
        if taken & own:
            yield tuple(group)
            group, taken = [], set()
        group.append(layer)
        taken |= own
    yield tuple(group)
