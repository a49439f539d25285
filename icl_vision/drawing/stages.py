"""How a picture is decoded, stage by stage: strides, windows, conditions, decoding settings.

Knows: the settings of eq. (11). Refuses to know: the passes that come of them (``passes``), words, LLMs.

    par(stride)                      v_t given u and every v before it
    pnar(stride)                     v_t given u alone
    two_stage(4, stride)             PAR with u for layers 1 to 4, then PNAR for the others given those, without u
    single_pass()                    everything at once: eq. (10), the baseline of infinite stride
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from icl_vision import checks
from icl_vision.drawing.segments import Given, Strides, given_document
from icl_vision.errors import UsageError

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

    layers: the first and the last, from 1; None for all. stride: words of a segment, see ``segments.Strides``.
    given: which earlier words are shown, see ``segments.Given``. condition: what is shown of u: "all" of it; "same",
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
