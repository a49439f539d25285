"""A pyramid's words cut into segments: the t of eq. (11) of SPAE.

Knows: places (a pyramid's words counted from 0, coarse to fine, raster order inside a layer), layers, strides, and
which coarser words lie over a place. Refuses to know: words, prompts, LLMs.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

Strides = int | Sequence[int | None] | None
"""Words of a segment: one number for all layers, one for each layer (None: the whole layer), or None: no end at all."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The places ``start`` to ``stop - 1``; ``layer`` is that of the first, from 1."""

    start: int
    stop: int
    layer: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def places(self) -> range:
        """The places of its words."""
        return range(self.start, self.stop)


def first_place(layout: PyramidLayout, layer: int) -> int:
    """The place of a layer's first word; for the layer after the last, the number of all words."""
    return (0, *layout.cumulative)[layer - 1]


def layer_of(layout: PyramidLayout, place: int) -> int:
    """The layer, from 1, that a place lies on."""
    if not 0 <= place < layout.cumulative[-1]:
        raise UsageError(f"place {place} lies outside this pyramid, whose places are 0 to {layout.cumulative[-1] - 1}")
    return bisect_right(layout.cumulative, place) + 1


def split(layout: PyramidLayout, stride: Strides, layers: tuple[int, int] | None = None) -> tuple[Segment, ...]:
    """The segments of some layers, in order; together they hold each of their places exactly once.

    A segment never crosses from one layer to the next, so the last of a layer may be shorter; only ``stride=None``,
    the infinite stride, takes all layers in one segment (the single pass of eq. 10).

    Args:
        stride: words of a segment; see ``Strides``.
        layers: the first and the last layer, from 1; None for all.

    Raises:
        UsageError: a stride below 1, as many strides as there are no layers, or layers that there are not.
    """
    first, last = layers or (1, len(layout))
    if not 1 <= first <= last <= len(layout):
        raise UsageError(
            f"layers must be the first and the last, 1 <= first <= last <= {len(layout)}; got {first}, {last}"
        )
    start, stop = first_place(layout, first), first_place(layout, last + 1)
    if stride is None:
        return (Segment(start, stop, first),)
    strides = [stride] * (last - first + 1) if isinstance(stride, int) else list(stride)
    if len(strides) != last - first + 1:
        raise UsageError(f"give one stride for each of the {last - first + 1} layers {first} to {last}; got {strides}")
    found: list[Segment] = []
    for layer, step in enumerate(strides, start=first):
        begin, end = first_place(layout, layer), first_place(layout, layer + 1)
        if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 1):
            raise UsageError(f"a stride must be 1 or more words, or None for no end; got {step!r} for layer {layer}")
        step = step or end - begin
        found.extend(Segment(at, min(at + step, end), layer) for at in range(begin, end, step))
    return tuple(found)


def parents(layout: PyramidLayout, places: Iterable[int]) -> tuple[int, ...]:
    """The places of the next coarser layer whose cells overlap the cells of ``places``, in order; none for layer 1."""
    found: set[int] = set()
    for place in places:
        layer = layer_of(layout, place)
        if layer == 1:
            continue
        grid, above = layout.grids[layer - 1], layout.grids[layer - 2]
        cell = np.unravel_index(place - first_place(layout, layer), grid)
        axes = [
            range(int(at) * coarse // fine, math.ceil((int(at) + 1) * coarse / fine))
            for at, fine, coarse in zip(cell, grid, above, strict=True)
        ]
        begin = first_place(layout, layer - 1)
        found.update(begin + int(np.ravel_multi_index(at, above)) for at in itertools.product(*axes))
    return tuple(sorted(found))
