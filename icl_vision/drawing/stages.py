"""How a picture is cut and decoded, stage by stage: segments, what each is shown, conditions, decoding settings.

Knows: places (a pyramid's words counted from 0, coarse to fine, raster order inside a layer), layers, strides, which
coarser words lie over a place, and the settings of eq. (11) of SPAE: t, a segment, and t', the earlier words it is
shown. Refuses to know: the passes that come of them (``passes``), words, prompts, LLMs.

    par(stride)                      v_t given u and every v before it
    pnar(stride)                     v_t given u alone
    two_stage(4, stride)             PAR with u for layers 1 to 4, then PNAR for the others given those, without u
    single_pass()                    everything at once: eq. (10), the baseline of infinite stride
    stages_of(name, ...)             by name, as tasks are told it: the one place where stages are made
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

# Places and segments --------------------------------------------------------------------------------------------------

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


# Stages ---------------------------------------------------------------------------------------------------------------

Allowed = Literal["shown", "own", "place", "layer", "context", "vocabulary"]
"""Words an answer may hold.

- "shown": the words of the query's condition at the segment's places (with condition "same"; else as "own").
- "own": the query's own on that layer (``Query.also``); where it has none, as "place".
- "place", "layer", "context": those the examples have at that place, on that layer, anywhere; and the query's own.
- "vocabulary": all words.
"""
ALLOWED = ("shown", "own", "place", "layer", "context", "vocabulary")
ConditionShown = Literal["all", "same", "none"]
CONDITIONS = ("all", "same", "none")

Passes = Literal["par", "near", "pnar", "two-stage", "single"]
"""Ways to draw, see ``stages_of``."""
PASSES: tuple[Passes, ...] = get_args(Passes)
_GIVEN: dict[Passes, Given] = {"par": "all", "near": Near(), "pnar": "none", "two-stage": "all", "single": "none"}


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the words of a segment are chosen.

    temperature: 0 takes the likeliest words. seed: for sampling; every segment of every query gets one of its own made
    from it, so that results depend neither on order nor on concurrency. longest_run: repetition control, so many times
    one word may stand in a row; longer runs are asked again. None for any length. most_uses: repetition control over a
    layer: so many times the LLM may write one word there, in this segment and those it is shown; more are asked again.
    Known words do not count. None for any number. best_of: answers sampled of which
    the best is kept, by likelihood or by the decoder's own score. guidance: weight of what the condition changes in the
    LLM's probabilities, see ``drawing.word_by_word``; 1 takes them as they are.
    """

    temperature: float = 0.0
    seed: int = 0
    longest_run: int | None = None
    best_of: int = 1
    guidance: float = 1.0
    most_uses: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance"):
            number = checks.number(name, getattr(self, name), least=0)
            if not isinstance(getattr(self, name), int | float):  # numpy's; 1 stays 1, as older runs' settings hold it
                object.__setattr__(self, name, number)
        for name, count in (
            ("seed", checks.count("seed", self.seed, least=0)),
            ("best_of", checks.count("best_of", self.best_of)),
            ("longest_run", checks.count("longest_run", self.longest_run, none="any length")),
            ("most_uses", checks.count("most_uses", self.most_uses, none="any number")),
        ):
            object.__setattr__(self, name, count)
        if self.best_of > 1 and not self.temperature:
            raise UsageError(
                f"best_of={self.best_of} with temperature=0 gives one answer again and again; set one, like 0.7"
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """Some layers of a picture and how they are decoded.

    layers: the first and the last, from 1; None for all. stride: words of a segment, see ``Strides``.
    given: which earlier words are shown, see ``Given``. condition: what is shown of u: "all" of it; "same",
    its words at the segment's own places, where u is a pyramid; "none" (task-agnostic). allowed: words that may be
    answered, see ``Allowed``. template: name of a segment template. induction: whether its instruction is given.
    """

    layers: tuple[int, int] | None = None
    stride: Strides = 1
    given: Given = "all"
    condition: ConditionShown = "all"
    allowed: Allowed = "context"
    template: str = "progressive"
    induction: bool = True
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        checks.choice("allowed", self.allowed, ALLOWED)
        checks.choice("condition", self.condition, CONDITIONS)
        if isinstance(self.stride, Sequence) and not isinstance(self.stride, str | bytes):
            object.__setattr__(self, "stride", tuple(self.stride))
        elif self.stride not in ("rows", "all", None) and checks.as_whole(self.stride) is None:
            raise UsageError(
                "stride must be a number of words, 'rows', None for the whole layer, one of these for each layer in a "
                f"sequence, or 'all' for everything at once; got {checks.shown(self.stride)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form. Runs are known by that of resolved stages, and as 0.1.0 wrote it: a stride of "all" is null,
        one of None a null for each layer ("layer" where layers are not resolved)."""
        stride: Any = list(self.stride) if isinstance(self.stride, tuple) else self.stride
        return {
            "layers": None if self.layers is None else list(self.layers),
            "stride": {"all": None, None: "layer"}.get(stride, stride) if not isinstance(stride, list) else stride,
            "given": given_document(self.given),
            "condition": self.condition,
            "allowed": self.allowed,
            "template": self.template,
            "induction": self.induction,
            "decoding": asdict(self.decoding),
        }


def stages_of(
    passes: Passes, *, stride: Strides = 1, upper: int = 1, refining: Mapping[str, Any] | None = None, **settings: Any
) -> tuple[Stage, ...]:
    """The stages of a way to draw; eq. (11) of SPAE and, for "single", eq. (10).

    Args:
        passes: "par": given the condition and all words before; "near": given the condition and the coarser words over
            the segment; "pnar": given the condition alone; "two-stage": the first ``upper`` layers as "par", the others
            given those, without the condition; "single": everything at once.
        stride: words of a segment, see ``Strides``: of both stages, in a sequence for all their layers, but of
            the first alone where ``refining`` has another. "single" has none.
        upper: layers of the first stage where there are two; 1 or more and fewer than the picture has.
        refining: fields of the second stage that differ; with these every way but "two-stage" has two stages, too.
        settings: other fields of ``Stage``, for both.

    Raises:
        UsageError: an unknown name, or a field that cannot be.
    """
    checks.choice("passes", passes, PASSES)
    first: dict[str, Any] = {"stride": "all" if passes == "single" else stride, "given": _GIVEN[passes], **settings}
    if passes != "two-stage" and refining is None:
        return (Stage(**first),)
    second = {"template": "refinement", **first, "given": "layers", "condition": "none", **(refining or {})}
    if "stride" not in (refining or {}) and isinstance(stride, Sequence) and not isinstance(stride, str):
        first["stride"], second["stride"] = stride[:upper], stride[upper:]
    return (Stage(layers=(1, upper), **first), Stage(layers=(upper + 1, -1), **second))


def par(stride: Strides = 1, **settings: Any) -> tuple[Stage, ...]:
    """Progressive autoregressive decoding: eq. (11) with t' = t. settings: other fields of ``Stage``."""
    return stages_of("par", stride=stride, **settings)


def pnar(stride: Strides = 1, **settings: Any) -> tuple[Stage, ...]:
    """Progressive non-autoregressive decoding: eq. (11) with t' = 0. settings: other fields of ``Stage``."""
    return stages_of("pnar", stride=stride, **settings)


def single_pass(**settings: Any) -> tuple[Stage, ...]:
    """Everything in one answer: eq. (10), an infinite stride. settings: other fields of ``Stage``."""
    return stages_of("single", **settings)


def two_stage(
    upper: int, stride: Strides = 1, refine_stride: Strides | Literal["same"] = "same", **settings: Any
) -> tuple[Stage, ...]:
    """The paper's practice (SPAE, section 3.2): PAR for the first layers, then task-agnostic PNAR for the others.

    Args:
        upper: layers of the first stage.
        stride, refine_stride: words of a segment in the first and the second stage, see ``Strides``.
        settings: other fields of both stages.
    """
    refining = {"stride": stride if refine_stride == "same" else refine_stride}
    return stages_of("two-stage", stride=stride, upper=upper, refining=refining, **settings)
