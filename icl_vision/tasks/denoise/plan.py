"""How a picture is restored segment by segment: the stages of a denoising task, and who decides which words.

Knows: layers, strides, windows, and what a plan says before anything is asked. Refuses to know: pictures, LLM clients.

Stage 1 has the task's condition and decides the upper layers. Stage 2, where there are deeper ones, is a refinement:
task-agnostic as in SPAE (section 3.2), without the condition and with the words around the segment, or with both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from icl_vision import checks
from icl_vision.asking.plan import Plan
from icl_vision.drawing.drawing import Query
from icl_vision.drawing.passes import resolve
from icl_vision.drawing.stages import Allowed, Decoding, Near, Stage, Stride, first_place, stages_of
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout
from icl_vision.wording import counted

Refine = Literal["agnostic", "task", "none"]
REFINE = ("agnostic", "task", "none")
WINDOWS = ("near", "all")

UPPER_WORDS = 85
"""Words that stage 1 decides at most, by default: the first four layers of a photograph, all four of a digit."""


@dataclass(frozen=True, slots=True)
class DenoisingStages:
    """What is decoded how. layers: of stage 1; refine: "none" where it decides all there is. whole: whether prompts of
    stage 1 show everything, else words at the same places and near by. layout: of what is decoded."""

    stages: tuple[Stage, ...]
    layers: int
    refine: Refine
    whole: bool
    layout: PyramidLayout


def denoising_stages(
    layout: PyramidLayout,
    *,
    layers: int | None = None,
    stride: Stride = "rows",
    window: str = "near",
    refine: Refine = "agnostic",
    allowed: Allowed = "place",
    decoding: Decoding | None = None,
    single_pass: bool = False,
) -> DenoisingStages:
    """The stages of a denoising task.

    Args:
        layout: of the tokenizer's whole pyramid.
        layers: that stage 1 decides; None for as many as hold ``UPPER_WORDS`` words or fewer.
        stride: words of a segment of stage 1, "rows" for one row of the layer's grid, None for a whole layer. Stage 2
            always takes rows.
        window: "near" shows stage 1 the condition's words at the segment's own places, the coarser words over it and
            the row before it; "all" the whole condition and every word before. Near is cheaper, and the embedded LLM
            restores better with it.
        refine: the deeper layers: "agnostic" as in the paper, "task" with the condition's words at the same places,
            "none" leaves them out, and the picture is decoded from what there is.
        allowed: words that may be answered, see ``stages.Allowed``; for stage 2 "place" is widened to "layer".
        decoding: settings of both stages; guidance has no effect where the refinement has no condition.
        single_pass: everything of stage 1 in one segment, without words before it: the baseline of infinite stride,
            without ``most_uses``.

    Raises:
        UsageError: a value out of range.
    """
    checks.choice("refine", refine, REFINE)
    checks.choice("window", window, WINDOWS)
    none = "as many as hold 85 words"
    upper = checks.count("layers", layers, most=len(layout), of="layers that the LLM decides first", none=none)
    upper = upper or _upper(layout)
    stride = check_stride(stride)
    refine = "none" if upper == len(layout) else refine
    decoded = layout.truncate(upper) if refine == "none" else layout
    whole = window == "all"
    if whole and refine == "task":
        raise UsageError("window='all' shows the upper layers' condition only; refine='task' needs window='near'")
    decoding = decoding or Decoding()
    # One answer for all layers: a limit to a word's uses on one of them would be a limit on all.
    first_decoding = replace(decoding, most_uses=None) if single_pass else decoding
    rows = [grid[-1] for grid in layout.grids]
    stages = stages_of(
        "single" if single_pass else "par" if whole else "near",
        # One for each layer, as the settings of older runs have it.
        stride=[stride] * upper if isinstance(stride, int) else stride,
        upper=upper,
        refining=None
        if refine == "none"
        else {
            "stride": "rows",
            "given": Near(last=max(rows[upper:])),
            "condition": "none" if refine == "agnostic" else "same",
            "template": "refinement" if refine == "agnostic" else "progressive",
            # One set for a whole row is one request; a set for each of its places would be as many requests as words.
            "allowed": "layer" if allowed == "place" else allowed,
            "decoding": decoding,
        },
        **({} if whole or single_pass else {"given": Near(last=max(rows[:upper]))}),
        condition="all" if whole else "same",
        allowed=allowed,
        decoding=first_decoding,
    )
    return DenoisingStages(resolve(stages, decoded), upper, refine, whole, decoded)


def check_stride(stride: object) -> Stride:
    """The stride, if ``denoising_stages`` takes it; else a UsageError."""
    if isinstance(stride, str) and stride == "rows":
        return "rows"
    return checks.count("stride", stride, of="words, or 'rows'", none="the whole layer")


def decided_by(parts: DenoisingStages, query: Query, layers: int) -> tuple[str, ...]:
    """One line for each layer of the pyramid: how many of its words are kept, and who decides the others."""
    lines = []
    for layer in range(1, layers + 1):
        if layer > len(parts.layout):
            above = counted(len(parts.layout), "layer")
            lines.append(f"layer {layer}: left out; the picture is decoded from the {above} above")
            continue
        start, stop = first_place(parts.layout, layer), first_place(parts.layout, layer + 1)
        kept = sum(start <= place < stop for place in query.known)
        who = "the LLM, shown the condition"
        if layer > parts.layers and parts.refine == "agnostic":
            who = "the LLM, task-agnostic refinement from the words near by"
        rest = stop - start - kept
        if rest == 1 == stop - start and parts.stages[0].allowed == "shown":
            who = "nobody: the condition's is the only one allowed"
        told = [f"{kept} of {counted(stop - start, 'word')} kept from the condition"] if kept else []
        told += [f"{rest} by {who}"] if rest else []
        lines.append(f"layer {layer}: " + ", ".join(told))
    return tuple(lines)


def denoising_plan(
    parts: Sequence[Plan],
    *,
    task: str,
    protocol: str,
    leaking: bool,
    decided: tuple[str, ...],
    max_tokens: int | None,
) -> Plan:
    """What restoring would send.

    Args:
        parts: one for each context (the papers' protocol has one a picture), one at least.
        leaking: whether the context holds the answer.
        decided: by layer, for the first picture, as ``decided_by`` says it.
        max_tokens: the limit that is told with it.
    """
    whole = Plan.together(parts)
    limit = "no limit" if max_tokens is None else f"{max_tokens:,}"
    return replace(
        whole,
        facts={
            "task": task,
            "protocol": protocol,
            "leaking": leaking,
            "seconds_estimate_local": round(whole.seconds(), 1),
            "max_tokens": max_tokens,
            "decided": list(decided),
        },
        lines=(
            ("task", f"{task}, {counted(whole.queries, 'picture')} to restore"),
            ("protocol", f"{protocol} (LEAKING: the context holds the answer)" if leaking else protocol),
            ("tokens", f"{whole.tokens:,} (budget: {limit})"),
            ("time", f"about {whole.seconds():,.0f} s with the embedded LLM on two cores"),
        ),
        notes=decided,
        subject=task,
        advice="use fewer images or context images, a larger stride, fewer layers, or refine='none'",
    )


def _upper(layout: PyramidLayout) -> int:
    fitting: Sequence[int] = [number for number, words in enumerate(layout.cumulative, 1) if words <= UPPER_WORDS]
    return fitting[-1] if fitting else 1
