"""Means over pictures drawn again and again from the same pictures: how far a mean could have come out otherwise.

Knows: the percentile bootstrap. Refuses to know: what the numbers measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

METHOD = "percentile bootstrap over pictures (Efron, Annals of Statistics 7, 1979, 1-26), 10,000 draws"
ROUNDS = 10_000


def drawn_means(values: npt.NDArray[np.float64], *, seed: int, rounds: int) -> npt.NDArray[np.float64]:
    """float64 [rounds, rounded up to a thousand]: the mean of as many values as there are, drawn with replacement."""
    draw, n = np.random.default_rng(seed), values.size
    # a thousand at a time: memory stays small however many pictures there are
    return np.concatenate([values[draw.integers(0, n, (1000, n))].mean(1) for _ in range(-(-rounds // 1000))])


def mean_interval(
    values: Sequence[float] | npt.NDArray[np.float64], *, seed: int = 0, rounds: int = ROUNDS
) -> dict[str, Any]:
    """{mean, n, interval: 95%} of a measure that is not a share of right answers: CIDEr-D, ROUGE-L, VQA accuracy.

    Args:
        values: one finite number for each picture or question.
        seed, rounds: of the bootstrap.

    Raises:
        UsageError: no values, or numbers that are not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise UsageError(f"an interval needs one or more finite numbers in a row; got an array of {numbers.shape}")
    low, high = (float(edge) for edge in np.quantile(drawn_means(numbers, seed=seed, rounds=rounds), (0.025, 0.975)))
    return {"mean": float(numbers.mean()), "n": numbers.size, "interval": [low, high]}
