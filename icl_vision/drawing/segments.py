"""A pyramid's words cut into segments, and the earlier words that each is shown: the t and t' of eq. (11) of SPAE.

Knows: places (a pyramid's words counted from 0, coarse to fine, raster order inside a layer), layers, strides, the
windows between PAR and PNAR, and which coarser words lie over a place. Refuses to know: words, prompts, LLMs.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

Stride = int | Literal["rows"] | None
"""Words of a segment on one layer: a number, "rows" for a row of the layer's grid, None for the whole layer."""
Strides = Stride | Literal["all"] | Sequence[Stride]
"""Words of a segment: a stride for all layers, one for each in a sequence, or "all": everything in one segment, across
layers (the infinite stride)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The places ``start`` to ``stop - 1``; ``layer`` is that of the first, from 1."""

    start: int
    stop: int
    layer: int
    places: range = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", range(self.start, self.stop))

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Near:
    """A small window: the words of the next coarser layer that lie over the segment, and the ``last`` words before it.

    With ``last=0`` the segments of one layer do not depend on each other and are drawn side by side.
    """

    last: int = 0

    def __post_init__(self) -> None:
        checks.count("Near(last=)", self.last, least=0, of="words")


Given = Literal["all", "none", "layers"] | Near
"""What is shown of the words before a segment.

- "all": t' = t, every word before it (progressive autoregressive, PAR).
- "none": t' = 0, nothing (progressive non-autoregressive, PNAR).
- "layers": the words of the layers before the stage, and t' = 0 within it (the paper's refinement).
- ``Near(last)``: the coarser words over the segment, and the last few before it.
"""


def first_place(layout: PyramidLayout, layer: int) -> int:
    """The place of a layer's first word; for the layer after the last, the number of all words."""
    return (0, *layout.cumulative)[layer - 1]


def layer_of(layout: PyramidLayout, place: int) -> int:
    """The layer, from 1, that a place lies on."""
    if not 0 <= place < layout.cumulative[-1]:
        raise UsageError(f"place {place} lies outside this pyramid, whose places are 0 to {layout.cumulative[-1] - 1}")
    return bisect_right(layout.cumulative, place) + 1


def strides_of(
    layout: PyramidLayout, stride: Strides, layers: tuple[int, int]
) -> tuple[int | None, ...] | Literal["all"]:
    """One stride for each of some layers, rows as their number of words; "all" where nothing ends.

    Args:
        layers: the first and the last, from 1.

    Raises:
        UsageError: a stride below 1, or as many strides as there are no layers.
    """
    if stride == "all":
        return "all"
    first, last = layers
    each = stride if isinstance(stride, Sequence) and not isinstance(stride, str) else [stride] * (last - first + 1)
    if len(each) != last - first + 1:
        raise UsageError(
            f"give one stride for each of the {last - first + 1} layers {first} to {last}; got {list(each)}"
        )
    words = (layout.grids[layer - 1][-1] if of == "rows" else of for layer, of in enumerate(each, start=first))
    return tuple(
        checks.count(f"the stride of layer {layer}", count, of="words, or 'rows'", none="the whole layer")
        for layer, count in enumerate(words, start=first)
    )


def split(layout: PyramidLayout, stride: Strides, layers: tuple[int, int] | None = None) -> tuple[Segment, ...]:
    """The segments of some layers, in order; together they hold each of their places exactly once.

    A segment never crosses from one layer to the next, so the last of a layer may be shorter; only ``stride="all"``
    takes all layers in one segment (the single pass of eq. 10).

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
    strides = strides_of(layout, stride, (first, last))
    if strides == "all":
        return (Segment(first_place(layout, first), first_place(layout, last + 1), first),)
    segments: list[Segment] = []
    for layer, words in enumerate(strides, start=first):
        begin, end = first_place(layout, layer), first_place(layout, layer + 1)
        segments.extend(
            Segment(place, min(place + (words or end), end), layer) for place in range(begin, end, words or end)
        )
    return tuple(segments)


def parents(layout: PyramidLayout, places: Iterable[int]) -> tuple[int, ...]:
    """The places of the next coarser layer whose cells overlap the cells of ``places``, in order; none for layer 1."""
    above: set[int] = set()
    for place in places:
        layer = layer_of(layout, place)
        if layer == 1:
            continue
        grid, coarser = layout.grids[layer - 1], layout.grids[layer - 2]
        cell = np.unravel_index(place - first_place(layout, layer), grid)
        axes = [
            range(int(index) * coarse // fine, math.ceil((int(index) + 1) * coarse / fine))
            for index, fine, coarse in zip(cell, grid, coarser, strict=True)
        ]
        begin = first_place(layout, layer - 1)
        above.update(begin + int(np.ravel_multi_index(over, coarser)) for over in itertools.product(*axes))
    return tuple(sorted(above))


def shown_places(layout: PyramidLayout, segment: Segment, given: Given, first_layer: int) -> tuple[int, ...]:
    """The places shown to a segment, in order, all of them before it.

    Args:
        first_layer: the first layer of the segment's stage.

    Raises:
        UsageError: an unknown ``given``.
    """
    if isinstance(given, Near):
        near = {place for place in parents(layout, segment.places) if place < segment.start}
        near.update(range(max(0, segment.start - given.last), segment.start))
        return tuple(sorted(near))
    if given == "all":
        return tuple(range(segment.start))
    if given == "layers":
        return tuple(range(first_place(layout, first_layer)))
    if given == "none":
        return ()
    raise UsageError(f"given must be 'all', 'none', 'layers' or Near(last=...); got {given!r}")


def given_document(given: Given) -> Any:
    """JSON-ready form of ``given``."""
    return {"near": given.last} if isinstance(given, Near) else given
