"""Weights rounded to what a file will hold, so that a module computes exactly what its exported graph does.

Knows: fp16, and int8 with a scale for each output channel. Refuses to know: files, graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError

_LEVELS = 127


def round_to_fp16(module: nn.Module) -> nn.Module:
    """Round every floating parameter and buffer to the nearest fp16 value, kept as fp32, in place.

    What is stored as fp16 is then exactly what runs. Raises UsageError where a weight does not fit fp16's range.
    """
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                rounded = value.half().to(value.dtype)
                if not torch.isfinite(rounded).all():
                    raise UsageError(f"the weight {name} exceeds the range of fp16 (largest {value.abs().max():.3g})")
                value.copy_(rounded)
    return module


def round_to_int8(module: nn.Module) -> nn.Module:
    """Round the kernels and matrices of every convolution and linear layer to 255 levels, kept as fp32, in place.

    Each output channel has a scale of its own, an fp16 value, so that ``level * scale`` is exact in fp32. Biases and
    all else are left alone.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Conv3d | nn.Linear):
                part.weight.copy_(_rounded(part.weight))
    return module


def _rounded(weight: Tensor) -> Tensor:
    rows = weight.flatten(1).float()
    scale = (rows.abs().amax(1, keepdim=True) / _LEVELS).half().float()
    # A scale rounded down would need a level of 128; one fp16 step more and it does not.
    scale = torch.where(rows.abs().amax(1, keepdim=True) > _LEVELS * scale, scale * (1 + 2**-10), scale).half().float()
    levels = (rows / scale.clamp(min=1e-12)).round().clamp(-_LEVELS, _LEVELS)
    # The largest of a channel is a whole 127, so that the scale can be told from the weights.
    largest = rows.abs().argmax(1, keepdim=True)
    levels.scatter_(1, largest, torch.sign(rows.gather(1, largest)) * _LEVELS)
    return (levels * scale).reshape(weight.shape).to(weight.dtype)
