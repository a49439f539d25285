"""Batches of images as tensors: three channels, and the resize rules of pretrained networks.

Knows: [B, ch, S, S] in [0, 1]. Refuses to know: files, normalisation, which network comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from icl_vision.errors import UsageError

if TYPE_CHECKING:
    from icl_vision.tokenizers.pixels import Preprocessing


def rgb(images: Tensor) -> Tensor:
    """Square images [B, 1 or 3, S, S] as fp32 with three channels (grey is repeated); UsageError for anything else."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise UsageError(f"images must be square batches [B, 1 or 3, S, S] in [0, 1]; got {list(images.shape)}")
    return images.float().expand(-1, 3, -1, -1)


def scale(images: Tensor, side: int, mode: str = "bilinear") -> Tensor:
    """[B, ch, S, S] -> [B, ch, side, side]; the filter is widened when it shrinks, as Pillow does.

    mode: "nearest", "bilinear" or "bicubic", whose overshoot is cut off at 0 and 1.
    """
    if images.shape[-2:] == (side, side):
        return images
    if mode == "nearest":
        return F.interpolate(images, (side, side), mode=mode)
    scaled = F.interpolate(images, (side, side), mode=mode, antialias=True, align_corners=False)
    return scaled.clamp(0, 1)


def apply_rule(images: Tensor, rule: Preprocessing) -> Tensor:
    """A tokenizer's resize rule: [B, ch, S, S] -> [B, ch, size, size].

    Close to Pillow's ``rule.apply``; Lanczos, which torch has not, is bicubic here.
    """
    mode = rule.filter if rule.filter in ("nearest", "bilinear") else "bicubic"
    if rule.resize == "squash":
        return F.pad(scale(images, rule.size - 2 * rule.margin, mode), [rule.margin] * 4)
    start = (rule.short - rule.size) // 2
    return scale(images, rule.short, mode)[..., start : start + rule.size, start : start + rule.size]
