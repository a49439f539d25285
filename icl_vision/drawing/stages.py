"""How a picture is decoded, stage by stage: strides, windows, conditions, decoding settings.

Knows: the settings of eq. (11) and the order in which its passes can run. Refuses to know: words, LLMs.

    par(stride)                      v_t given u and every v before it
    pnar(stride)                     v_t given u alone
    two_stage(4, stride)             PAR with u for layers 1 to 4, then PNAR for the others given those, without u
    single_pass()                    everything at once: eq. (10), the baseline of infinite stride
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from icl_vision.drawing.segments import Segment, Strides, split
from icl_vision.drawing.windows import Given, given_document, shown_places
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout

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


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the words of a segment are chosen.

    temperature: 0 takes the likeliest words. seed: for sampling; every segment of every query gets one of its own made
    from it, so that results depend neither on order nor on concurrency. longest_run: repetition control, so many times
    one word may stand in a row; longer runs are asked again. None for any length. most_uses: repetition control over a
    layer: so many times the LLM may write one word there, in this segment and those it is shown; more are asked again.
    Known words do not count. None for any number. best_of: answers sampled of which
    the best is kept, by likelihood or by the decoder's own score. guidance: weight of what the condition changes in the
    LLM's probabilities, see ``drawing.guided``; 1 takes them as they are.
    """

    temperature: float = 0.0
    seed: int = 0
    longest_run: int | None = None
    best_of: int = 1
    guidance: float = 1.0
    most_uses: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance"):
            if not isinstance(getattr(self, name), int | float):
                raise UsageError(f"{name} must be a number of 0 or more; got {getattr(self, name)!r}")
        if isinstance(self.guidance, bool) or not 0 <= self.guidance < float("inf"):
            raise UsageError(f"guidance must be 0 or more, and 1 for none; got {self.guidance!r}")
        if isinstance(self.temperature, bool) or not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or more; got {self.temperature!r}")
        for name, least in (("seed", 0), ("best_of", 1)):
            _check_count(name, getattr(self, name), least)
        for name in ("longest_run", "most_uses"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)
        if self.best_of > 1 and not self.temperature:
            raise UsageError(
                f"best_of={self.best_of} with temperature=0 gives one answer again and again; set one, like 0.7"
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """Some layers of a picture and how they are decoded.

    layers: the first and the last, from 1; None for all. stride: words of a segment, see ``segments.Strides``.
    given: which earlier words are shown, see ``windows.Given``. condition: what is shown of u: "all" of it; "same", its
    words at the segment's own places, where u is a pyramid; "none" (task-agnostic). allowed: words that may be
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
        if self.allowed not in ALLOWED:
            raise UsageError(f"allowed must be one of {', '.join(ALLOWED)}; got {self.allowed!r}")
        if self.condition not in CONDITIONS:
            raise UsageError(f"condition must be one of {', '.join(CONDITIONS)}; got {self.condition!r}")
        if self.stride is not None and not isinstance(self.stride, int):
            if isinstance(self.stride, str | bytes) or not isinstance(self.stride, Sequence):
                raise UsageError(
                    f"stride must be a number of words, one for each layer in a sequence, or None; got {self.stride!r}"
                )
            object.__setattr__(self, "stride", tuple(self.stride))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "layers": None if self.layers is None else list(self.layers),
            "stride": list(self.stride) if isinstance(self.stride, Sequence) else self.stride,
            "given": given_document(self.given),
            "condition": self.condition,
            "allowed": self.allowed,
            "template": self.template,
            "induction": self.induction,
            "decoding": asdict(self.decoding),
        }


def par(stride: Strides = 1, **settings: Any) -> tuple[Stage, ...]:
    """Progressive autoregressive decoding: eq. (11) with t' = t. settings: other fields of ``Stage``."""
    return (Stage(stride=stride, given="all", **settings),)


def pnar(stride: Strides = 1, **settings: Any) -> tuple[Stage, ...]:
    """Progressive non-autoregressive decoding: eq. (11) with t' = 0. settings: other fields of ``Stage``."""
    return (Stage(stride=stride, given="none", **settings),)


def single_pass(**settings: Any) -> tuple[Stage, ...]:
    """Everything in one answer: eq. (10), an infinite stride. settings: other fields of ``Stage``."""
    return (Stage(stride=None, given="none", **settings),)


def two_stage(upper: int, stride: Strides = 1, refine_stride: Strides = None, **settings: Any) -> tuple[Stage, ...]:
    """The paper's practice (SPAE, section 3.2): PAR for the first layers, then task-agnostic PNAR for the others.

    Args:
        upper: layers of the first stage.
        stride, refine_stride: words of a segment in the first and the second stage; None for the second is the first's.
        settings: other fields of both stages.
    """
    refining = stride if refine_stride is None else refine_stride
    return (
        Stage(layers=(1, upper), stride=stride, given="all", **settings),
        Stage(
            layers=(upper + 1, -1),
            stride=refining,
            given="layers",
            condition="none",
            **{"template": "refinement", **settings},
        ),
    )


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of eq. (11).

    number: t, from 1. segment: what is decoded. stage: its place among the stages, from 0. shown: the places shown.
    wave: passes of one wave do not depend on each other; each wave needs those before it.
    """

    number: int
    segment: Segment
    stage: int
    shown: tuple[int, ...]
    wave: int


def resolve(stages: Sequence[Stage], layout: PyramidLayout) -> tuple[Stage, ...]:
    """The stages with their layers as numbers: None is all layers, a last layer of -1 the pyramid's last.

    Raises:
        UsageError: no stages, layers that there are not, or that two stages decode.
    """
    if isinstance(stages, Stage) or not stages:
        raise UsageError("stages must be a sequence of at least one Stage, as par(), pnar() or two_stage() give it")
    resolved: list[Stage] = []
    end = 0
    for number, stage in enumerate(stages, start=1):
        first, last = stage.layers or (1, -1)
        last = len(layout) if last == -1 else last
        if not end < first <= last <= len(layout):
            raise UsageError(
                f"stage {number} decodes layers {first} to {last}; stages go down the pyramid's {len(layout)} layers "
                f"in order and do not overlap (the one before ends at {end})"
            )
        end = last
        resolved.append(replace(stage, layers=(first, last)))
    return tuple(resolved)


def passes_of(stages: Sequence[Stage], layout: PyramidLayout) -> tuple[Pass, ...]:
    """All passes, in the order of their segments. stages: resolved.

    Raises:
        UsageError: a stride that does not fit.
    """
    found: list[Pass] = []
    waves: dict[int, int] = {}  # of each place that some pass decodes
    for index, stage in enumerate(stages):
        assert stage.layers is not None
        for segment in split(layout, stage.stride, stage.layers):
            shown = shown_places(layout, segment, stage.given, stage.layers[0])
            wave = max((waves[place] + 1 for place in shown if place in waves), default=0)
            waves.update(dict.fromkeys(segment.places, wave))
            found.append(Pass(len(found) + 1, segment, index, shown, wave))
    return tuple(found)


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number, {least} or more; got {value!r}")
