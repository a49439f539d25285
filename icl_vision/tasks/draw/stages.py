"""How an image generator's passes become a decoder's stages.

Knows: the names of the ways to draw. Refuses to know: pictures, LLMs.
"""

from __future__ import annotations

from typing import Literal, get_args

from icl_vision.checks import choice
from icl_vision.drawing.segments import Near, Strides
from icl_vision.drawing.stages import Allowed, Decoding, Stage
from icl_vision.pyramid import PyramidLayout

Passes = Literal["par", "near", "pnar", "two-stage", "single"]
PASSES: tuple[str, ...] = get_args(Passes)
TEMPLATE = "text_to_image"


def drawing_stages(
    layout: PyramidLayout,
    *,
    passes: Passes = "pnar",
    stride: Strides = 1,
    upper: int = 1,
    allowed: Allowed = "place",
    decoding: Decoding | None = None,
    template: str = TEMPLATE,
    induction: bool = False,
) -> tuple[Stage, ...]:
    """The stages of a way to draw; eq. (11) of SPAE and, for "single", eq. (10).

    Args:
        layout: of the pictures.
        passes: "par": given the condition and all words before; "near": given the condition and the coarser words over
            the segment; "pnar": given the condition alone; "two-stage": the first ``upper`` layers as "par", the others
            given those, without the condition; "single": everything at once.
        stride: words of a segment; see ``decoding.segments.Strides``. "single" has none.
        upper: layers of the first stage of "two-stage"; 1 or more and fewer than there are.

    Raises:
        UsageError: an unknown name.
    """
    choice("passes", passes, PASSES)
    common = {
        "allowed": allowed,
        "template": template,
        "induction": induction,
        "decoding": decoding or Decoding(),
    }
    if passes == "single":
        return (Stage(stride=None, given="none", **common),)  # type: ignore[arg-type]
    if passes == "two-stage" and len(layout) > 1:
        first, rest = (
            (stride, stride) if stride is None or isinstance(stride, int) else (stride[:upper], stride[upper:])
        )
        return (
            Stage(layers=(1, upper), stride=_finite(first, upper), given="all", **common),  # type: ignore[arg-type]
            Stage(
                layers=(upper + 1, -1),
                stride=_finite(rest, len(layout) - upper),
                given="layers",
                condition="none",
                **common,  # type: ignore[arg-type]
            ),
        )
    given = {"par": "all", "near": Near(), "pnar": "none", "two-stage": "all"}[passes]
    return (Stage(stride=_finite(stride, len(layout)), given=given, **common),)  # type: ignore[arg-type]


def _finite(stride: Strides, layers: int) -> Strides:
    """None means whole layers here; a single pass over everything has a name of its own."""
    return (None,) * layers if stride is None else stride
