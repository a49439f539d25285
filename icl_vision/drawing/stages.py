"""How a picture is decoded, stage by stage: strides, windows, conditions, decoding settings.

Knows: the settings of eq. (11). Refuses to know: the passes that come of them (``passes``), words, LLMs.

    par(stride)                      v_t given u and every v before it
    pnar(stride)                     v_t given u alone
    two_stage(4, stride)             PAR with u for layers 1 to 4, then PNAR for the others given those, without u
    single_pass()                    everything at once: eq. (10), the baseline of infinite stride
    stages_of(name, ...)             by name, as tasks are told it: the one place where stages are made
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from icl_vision import checks
from icl_vision.drawing.segments import Given, Near, Strides, given_document
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
        stride: words of a segment, see ``segments.Strides``: of both stages, in a sequence for all their layers, but of
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
        stride, refine_stride: words of a segment in the first and the second stage, see ``segments.Strides``.
        settings: other fields of both stages.
    """
    refining = {"stride": stride if refine_stride == "same" else refine_stride}
    return stages_of("two-stage", stride=stride, upper=upper, refining=refining, **settings)
