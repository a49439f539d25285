"""How well probabilities fit what was true: calibration error with its interval, Brier score, reliability bins.

Knows: (probability of the answer given, right or wrong). Refuses to know: where either comes from.

The expected calibration error is that of Guo et al. 2017 (On Calibration of Modern Neural Networks, eq. 3): answers are
sorted by the probability of the label given into ten bins of equal width; in each, mean probability and share right
are compared; the differences are averaged, weighed by how many answers a bin holds. It is never 0 for a finite number
of answers, not even for perfect probabilities, so what those would give at the same n stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

BINS = 10
REPEATS = 1000
"""Resamples of the bootstrap, and simulations of perfect calibration."""

_AT_ONCE = 50  # of them: what memory holds does not grow with their number

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose probability is above ``low`` and up to ``high``. confidence, accuracy: means, None if n is 0."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {low, high, n, confidence, accuracy}."""
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "confidence": self.confidence,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well the probabilities of ``n`` answers fit.

    accuracy: share right. confidence: mean probability of the labels given. ece: expected calibration error.
    interval: its 95% bootstrap interval (percentiles, widened to hold ``ece``; whole groups are drawn where groups are
    known).
    perfect: (mean, 95th percentile) of what perfectly calibrated answers with these probabilities would give at this n.
    brier: mean Brier score over all labels (Brier 1950: 0 to 2, less is better), None where it is not known.
    bins: ten, from 0 to 1.
    """

    n: int
    accuracy: float
    confidence: float
    ece: float
    interval: tuple[float, float]
    perfect: tuple[float, float]
    brier: float | None
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, a key per field."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "confidence": self.confidence,
            "ece": self.ece,
            "interval": list(self.interval),
            "perfect": {"mean": self.perfect[0], "95th_percentile": self.perfect[1]},
            "brier": self.brier,
            "bins": [bin_.to_dict() for bin_ in self.bins],
        }

    def __str__(self) -> str:
        low, high = self.interval
        brier = "" if self.brier is None else f", Brier {self.brier:.3f}"
        return (
            f"calibration error {self.ece:.3f} (95% {low:.3f} to {high:.3f}; perfect: {self.perfect[0]:.3f}), "
            f"confidence {self.confidence:.1%} at accuracy {self.accuracy:.1%}, n = {self.n:,}{brier}"
        )


def reliability(
    confidences: Sequence[float] | Floats,
    right: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    briers: Sequence[float] | Floats | None = None,
    groups: Sequence[int] | npt.NDArray[np.int64] | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
) -> Reliability:
    """Measure answers.

    Args:
        confidences: probability of the label given, 0 to 1, for each answer.
        right: whether that label was the true one.
        briers: the Brier score of each answer (see ``brier_score``); None: not known.
        groups: answers with the same number belong together (the questions of an episode share its examples) and are
            drawn together by the bootstrap; None: each answer stands alone.
        seed: of bootstrap and simulation; the same seed gives the same intervals.
        repeats: of each.

    Raises:
        UsageError: no answers, lists of different lengths, or a probability outside 0 to 1.
    """
    shares, hits = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if shares.ndim != 1 or shares.shape != hits.shape or not len(shares):
        raise UsageError(
            f"reliability needs a probability and an outcome for each answer, and at least one; got {shares.shape} "
            f"probabilities and {hits.shape} outcomes"
        )
    # (rounding may leave a sum of shares a little above 1)
    if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1 + 1e-9):
        raise UsageError(f"a probability must lie between 0 and 1; got {shares[~((shares >= 0) & (shares <= 1))][:1]}")
    place = _bins_of(shares)
    sums = _sums(place, shares, hits)
    random = np.random.default_rng(seed)
    return Reliability(
        n=len(shares),
        accuracy=float(hits.mean()),
        confidence=float(shares.mean()),
        ece=float(_ece(sums)),
        interval=_bootstrap(place, shares, hits, groups, random, repeats),
        perfect=_perfect(place, shares, random, repeats),
        brier=None if briers is None else float(np.mean(briers)),
        bins=tuple(
            Bin(
                number / BINS,
                (number + 1) / BINS,
                int(count),
                float(total / count) if count else None,
                float(good / count) if count else None,
            )
            for number, (count, total, good) in enumerate(sums)
        ),
    )


def brier_score(probabilities: Sequence[float] | Floats, truth: int) -> float:
    """Sum over labels of (probability - 1 for the true label, 0 for others) squared (Brier 1950). truth: its place."""
    shares = np.asarray(probabilities, dtype=np.float64)
    return float(np.square(shares).sum() - 2 * shares[truth] + 1)


def _bins_of(shares: Floats) -> npt.NDArray[np.int64]:
    """The bin of each share; a share on an edge belongs to the lower bin, as in the paper."""
    return np.clip(np.ceil(shares * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _sums(place: npt.NDArray[np.int64], shares: Floats, hits: Floats) -> Floats:
    """[bins, (answers, sum of shares, sum of hits)]"""
    return np.stack([np.bincount(place, weights, BINS) for weights in (np.ones_like(shares), shares, hits)], axis=1)


def _ece(sums: Floats) -> Floats:
    """Calibration error of sums [..., bins, 3]."""
    return np.asarray(np.abs(sums[..., 1] - sums[..., 2]).sum(axis=-1) / sums[..., 0].sum(axis=-1))


def _bootstrap(
    place: npt.NDArray[np.int64],
    shares: Floats,
    hits: Floats,
    groups: Sequence[int] | npt.NDArray[np.int64] | None,
    random: np.random.Generator,
    repeats: int,
) -> tuple[float, float]:
    own = np.arange(len(shares)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(own.max()) + 1
    # Sums of each group's answers by bin, so that drawing a group again only adds its sums again.
    table = np.zeros((count, BINS, 3))
    np.add.at(table, (own, place), np.stack([np.ones_like(shares), shares, hits], axis=1))
    flat = table.reshape(count, -1)
    draws = []
    for _ in range(0, repeats, _AT_ONCE):
        drawn = random.multinomial(count, np.full(count, 1 / count), _AT_ONCE)
        draws.append(_ece((drawn @ flat).reshape(-1, BINS, 3)))
    low, high = np.quantile(np.concatenate(draws)[:repeats], [0.025, 0.975])
    # A drawn set errs more than the whole (chance adds to every bin), so near 0 all of them may lie above it.
    whole = float(_ece(flat.sum(axis=0).reshape(BINS, 3)))
    return min(float(low), whole), max(float(high), whole)


def _perfect(
    place: npt.NDArray[np.int64], shares: Floats, random: np.random.Generator, repeats: int
) -> tuple[float, float]:
    counted = _sums(place, shares, shares)
    inside = np.eye(BINS)[place]
    draws = []
    for _ in range(0, repeats, _AT_ONCE):
        right = (random.random((_AT_ONCE, len(shares))) < shares).astype(np.float64) @ inside
        draws.append(np.abs(counted[:, 1] - right).sum(axis=1) / len(shares))
    every = np.concatenate(draws)[:repeats]
    return float(np.mean(every)), float(np.quantile(every, 0.95))
