"""The mean difference of two methods on the same pictures, with a bootstrap interval.

Knows: pairs of numbers. Refuses to know: what they measure, and shares of right answers (``compare.py`` has those).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.bootstrap import ROUNDS, drawn_means


@dataclass(frozen=True, slots=True)
class PairedMean:
    """First minus second. interval: 95%. wins: pictures where the first is better. better: whether the interval lies
    wholly on the first's good side, None where it holds 0."""

    mean: float
    interval: tuple[float, float]
    n: int
    wins: int
    better: bool | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "difference": self.mean,
            "interval": list(self.interval),
            "n": self.n,
            "wins": self.wins,
            "better": self.better,
        }


def paired_mean(
    first: Sequence[float], second: Sequence[float], *, higher_is_better: bool, seed: int = 0, rounds: int = ROUNDS
) -> PairedMean:
    """Compare two methods picture by picture.

    Args:
        first, second: one finite number for each picture, in the same order.
        higher_is_better: True for PSNR and SSIM, False for LPIPS.
        seed, rounds: of the bootstrap.

    Raises:
        UsageError: unequal lengths, no pictures, numbers that are not finite.
    """
    if len(first) != len(second) or not len(first):
        raise UsageError(f"a paired comparison needs two values a picture; got {len(first)} and {len(second)}")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise UsageError("a paired comparison needs finite values; equal pictures have an infinite PSNR")
    means = drawn_means(difference, seed=seed, rounds=rounds)
    low, high = (float(edge) for edge in np.quantile(means, (0.025, 0.975)))
    sign = 1 if higher_is_better else -1
    better = None if low <= 0 <= high else (sign * low > 0)
    return PairedMean(
        float(difference.mean()), (low, high), difference.size, int((sign * difference > 0).sum()), better
    )
