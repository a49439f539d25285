"""The exponential moving average of a net's weights: what is validated, exported and used.

Knows: how averages move. Refuses to know: what the net does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields


@dataclass(frozen=True)
class EmaConfig:
    """Averaging of weights.

    decay: share of the average that a step keeps (MAGVIT: .999); 0 switches averaging off.
    warmup: let the decay rise as (1 + n) / (10 + n), so that the first weights are forgotten soon.
    """

    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.decay < 1:
            raise UsageError(f"ema.decay must be at least 0 and below 1; got {self.decay}")


class Ema:
    """A copy of ``module`` whose weights follow it slowly. ``average`` is that copy, in evaluation mode.

    Buffers (statistics of normalisation) are copied, not averaged; frozen parameters are the same anyway.
    """

    def __init__(self, module: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self.average = copy.deepcopy(module).eval().requires_grad_(False)
        pairs = [
            (slow, fast)
            for slow, fast in zip(self.average.parameters(), module.parameters(), strict=True)
            if fast.requires_grad
        ]
        self._slow: list[Tensor] = [slow for slow, _ in pairs]
        self._fast: list[Tensor] = [fast for _, fast in pairs]
        # What is not saved (a frozen codebook, index tables) never changes.
        saved = module.state_dict().keys()
        self._buffers = [
            (slow, fast)
            for (name, slow), (_, fast) in zip(self.average.named_buffers(), module.named_buffers(), strict=True)
            if name in saved
        ]

    def decay_at(self, updates: int) -> float:
        """The decay of the update that follows ``updates`` earlier ones."""
        rising = (1 + updates) / (10 + updates) if self.config.warmup else 1.0
        return min(self.config.decay, rising)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Move towards the module's weights; ``updates`` counts the earlier moves."""
        torch._foreach_lerp_(self._slow, self._fast, 1 - self.decay_at(updates))
        for slow, fast in self._buffers:
            slow.copy_(fast)
