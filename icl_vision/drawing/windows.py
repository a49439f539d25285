"""Which earlier words a segment is shown: the t' of eq. (11) of SPAE, and windows between its two extremes.

Knows: places. Refuses to know: words, prompts, LLMs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from icl_vision.drawing.segments import Segment, first_place, parents
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout


@dataclass(frozen=True, slots=True)
class Near:
    """A small window: the words of the next coarser layer that lie over the segment, and the ``last`` words before it.

    With ``last=0`` the segments of one layer do not depend on each other and are drawn side by side.
    """

    last: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.last, bool) or not isinstance(self.last, int) or self.last < 0:
            raise UsageError(f"Near(last=) must be 0 or more words; got {self.last!r}")


Given = Literal["all", "none", "layers"] | Near
"""What is shown of the words before a segment.

- "all": t' = t, every word before it (progressive autoregressive, PAR).
- "none": t' = 0, nothing (progressive non-autoregressive, PNAR).
- "layers": the words of the layers before the stage, and t' = 0 within it (the paper's refinement).
- ``Near(last)``: the coarser words over the segment, and the last few before it.
"""


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
