"""A pyramid's words cut into segments, and the earlier words that each is shown: the t and t' of eq. (11) of SPAE.

Knows: places (a pyramid's words counted from 0, coarse to fine, raster order inside a layer), layers, strides, the
windows between PAR and PNAR, and which coarser words lie over a place. Refuses to know: words, prompts, LLMs.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from icl_vision import checks
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
    segments: list[Segment] = []
    for layer, words in enumerate(strides, start=first):
        begin, end = first_place(layout, layer), first_place(layout, layer + 1)
        if words is not None and (isinstance(words, bool) or not isinstance(words, int) or words < 1):
            raise UsageError(f"a stride must be 1 or more words, or None for no end; got {words!r} for layer {layer}")
        words = words or end - begin
        segments.extend(Segment(place, min(place + words, end), layer) for place in range(begin, end, words))
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
