"""The learning rate over a run: linear warm-up, a decay, linear cool-down.

Knows: factors of the peak rate as a function of the step. Refuses to know: optimisers. A schedule has no state, so
there is nothing to restore on resume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves. Spans are fractions of the run, so a run of other length keeps its shape.

    kind: "root" divides by the square root of the step once the warm-up is over, as SPAE does (its "root-square
    decay"); "cosine" goes down to ``floor`` along half a cosine; "constant" stays.
    warmup: fraction of the steps over which the rate rises linearly from near zero.
    cooldown: fraction of the steps, at the end, over which it falls linearly to ``floor``.
    timescale: fraction of the steps after which "root" begins to decay; null takes ``warmup``.
    floor: lowest factor of the peak rate, 0 to 1.
    """

    kind: Literal["root", "cosine", "constant"] = "root"
    warmup: float = 0.02
    cooldown: float = 0.1
    timescale: float | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("warmup", "cooldown", "floor"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"schedule.{name} is a fraction, 0 to 1; got {value}")
        if self.timescale is not None and not 0 < self.timescale <= 1:
            raise UsageError(f"schedule.timescale is a fraction above 0, at most 1; got {self.timescale}")
        if self.warmup + self.cooldown > 1:
            raise UsageError(
                f"schedule.warmup {self.warmup} and schedule.cooldown {self.cooldown} are together longer than the run"
            )
        if self.kind == "root" and not (self.timescale or self.warmup):
            raise UsageError("schedule.kind 'root' decays from the end of the warm-up: give a warmup or a timescale")


def rate_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """The factor of the peak learning rate at ``step`` (from 0) of ``steps``."""
    warmup = schedule.warmup * steps
    cooldown = schedule.cooldown * steps
    rise = min(1.0, (step + 1) / warmup) if warmup > 1 else 1.0
    fall = min(1.0, (steps - step) / cooldown) if cooldown > 1 else 1.0
    return max(schedule.floor, rise * fall * _decay(schedule, step, steps, warmup))


def _decay(schedule: ScheduleConfig, step: int, steps: int, warmup: float) -> float:
    if schedule.kind == "root":
        scale = max(1.0, warmup if schedule.timescale is None else schedule.timescale * steps)
        return math.sqrt(scale / max(step + 1.0, scale))
    if schedule.kind == "cosine":
        done = max(0.0, step + 1 - warmup) / max(1.0, steps - warmup)
        return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
