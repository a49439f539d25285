"""Fits a probability map to answers whose truth is known.

Knows: scores, true labels, log-loss. Refuses to know: images, who asked.

The temperature is the one with the least log-loss (Guo et al. 2017, section 4.2), held by a weak prior: its logarithm
lies around 0 (the scores as they are) with a standard deviation of 2. A hundred answers all but drown it; it matters
where every answer was right, which would otherwise ask for certainty without end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.probabilities.maps import LEAST, MOST, ProbabilityMap, Source, softmax
from icl_vision.probabilities.measuring import brier_score, reliability

PRIOR_DEVIATION = 2.0
IMPOSSIBLE = 100.0
"""So far below its answer's best a score is taken to lie at most, so that one true label that was held impossible does
not decide the fit alone."""

LEAST_SHARE = 1e-12
"""A share that a float holds for 0 or 1 is taken to lie so far from it."""

FOLDS = 5


def fit_map(
    scores: Sequence[Sequence[float]], truths: Sequence[int], *, source: Source = "own", note: str = ""
) -> ProbabilityMap:
    """The map that fits these answers best.

    Args:
        scores: of each answer, a log-probability for every label, up to a constant.
        truths: place of the true label in each.
        source, note: kept in the map.

    The map's ``measured`` says what it does on answers that it was not fitted to (``FOLDS`` folds), beside the scores
    as they are.

    Raises:
        UsageError: no answers, lists of different lengths, fewer than two labels, a truth that is no place among them.
    """
    rows, places = _checked(scores, truths)
    temperature = best_temperature(rows, places)
    return ProbabilityMap(
        round(temperature, 4), source, len(rows), note, _measured(rows, places) if len(rows) >= FOLDS else {}
    )


def fit_outcomes(
    scores: Sequence[Sequence[float]], right: Sequence[bool], *, source: Source = "own", note: str = ""
) -> ProbabilityMap:
    """The map under which the share of the best candidate fits how often it is right.

    For answers whose truth need not be among the candidates: the shares of the others mean nothing by themselves then.

    Args:
        scores: of each answer, a log-probability for every candidate, up to a constant.
        right: whether the best of them was right.
        source, note: kept in the map, whose ``measured`` is as of ``fit_map``.

    Raises:
        UsageError: no answers, lists of different lengths, fewer than two candidates.
    """
    if len(scores) != len(right):
        raise UsageError(f"one outcome is needed for each answer; got {len(scores)} answers and {len(right)} outcomes")
    best = [int(np.argmax(row)) if len(row) else 0 for row in scores]
    rows, _ = _checked(scores, best)
    outcomes = [bool(one) for one in right]
    temperature = _temperature_of_outcomes(rows, outcomes)
    measured: dict[str, Any] = {}
    if len(rows) >= FOLDS:
        after = [0.0] * len(rows)
        for inside, outside in _folds(len(rows)):
            own = _temperature_of_outcomes([rows[place] for place in inside], [outcomes[place] for place in inside])
            for place in outside:
                after[place] = float(softmax(rows[place] / own).max())
        for name, shares in (("raw", [float(softmax(row).max()) for row in rows]), ("calibrated", after)):
            document = reliability(shares, outcomes).to_dict()
            del document["bins"]
            measured[name] = document
    return ProbabilityMap(round(temperature, 4), source, len(rows), note, measured)


def _temperature_of_outcomes(rows: Sequence[npt.NDArray[np.float64]], right: Sequence[bool]) -> float:
    """The temperature with the least log-loss of the best candidate's share; held as in ``best_temperature``."""
    wanted = np.asarray(right, dtype=bool)

    def loss(log_temperature: float) -> float:
        shares = np.asarray([softmax(row / math.exp(log_temperature)).max() for row in rows])
        told = np.where(wanted, shares, 1.0 - shares)
        return float(-np.log(np.maximum(told, LEAST_SHARE)).sum()) + 0.5 * (log_temperature / PRIOR_DEVIATION) ** 2

    return _least(loss)


def _checked(
    scores: Sequence[Sequence[float]], truths: Sequence[int]
) -> tuple[list[npt.NDArray[np.float64]], list[int]]:
    rows = [_bounded(np.asarray(row, dtype=np.float64)) for row in scores]
    places = [int(place) for place in truths]
    if not rows or len(rows) != len(places):
        raise UsageError(
            f"a map is fitted to at least one answer with its true label; got {len(rows)} answers and {len(places)} "
            "labels"
        )
    for row, place in zip(rows, places, strict=True):
        if row.ndim != 1 or len(row) < 2 or not 0 <= place < len(row) or not np.isfinite(row).all():
            raise UsageError(f"an answer needs a score for two labels or more; got {row.tolist()} with truth {place}")
    return rows, places


def _bounded(row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    best = row.max() if row.size else 0.0
    return np.maximum(row, best - IMPOSSIBLE) if np.isfinite(best) else row


def best_temperature(rows: Sequence[npt.NDArray[np.float64]], places: Sequence[int]) -> float:
    """The temperature with the least log-loss: a grid, then golden sections around its best point.

    rows: scores of each answer, finite. places: of its true label.
    """
    most = max(len(row) for row in rows)
    table = np.full((len(rows), most), -np.inf)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row - row.max()
    own = table[np.arange(len(rows)), list(places)]

    def loss(log_temperature: float) -> float:
        t = math.exp(log_temperature)
        losses = np.log(np.exp(table / t).sum(axis=1)) - own / t
        return float(losses.sum()) + 0.5 * (log_temperature / PRIOR_DEVIATION) ** 2

    return _least(loss)


def _least(loss: Callable[[float], float]) -> float:
    """The temperature, of those a map may have, with the least loss of its logarithm."""
    grid = np.linspace(math.log(LEAST), math.log(MOST), 60)
    best = int(np.argmin([loss(point) for point in grid]))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return min(max(math.exp((low + high) / 2), LEAST), MOST)


def _measured(rows: Sequence[npt.NDArray[np.float64]], places: Sequence[int]) -> dict[str, Any]:
    """Reliability as the scores are, and of maps that were fitted without the answers they are measured on."""
    before: list[npt.NDArray[np.float64]] = [softmax(row) for row in rows]
    after: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(rows)
    for inside, outside in _folds(len(rows)):
        temperature = best_temperature([rows[place] for place in inside], [places[place] for place in inside])
        for place in outside:
            after[place] = softmax(rows[place] / temperature)
    return {"raw": _of(before, places), "calibrated": _of(after, places)}


def _folds(number: int) -> Iterator[tuple[list[int], list[int]]]:
    """Of so many answers, those a map is fitted to and those it is then measured on, ``FOLDS`` times."""
    # Dealt at random, always alike: answers may come sorted by class.
    dealt = np.random.default_rng(0).permutation(number)
    for fold in range(FOLDS):
        outside = dealt[fold::FOLDS].tolist()
        yield sorted({*range(number)} - {*outside}), outside


def _of(shares: Sequence[npt.NDArray[np.float64]], places: Sequence[int]) -> dict[str, Any]:
    measured = reliability(
        [float(row.max()) for row in shares],
        [int(np.argmax(row)) == place for row, place in zip(shares, places, strict=True)],
        briers=[brier_score(row, place) for row, place in zip(shares, places, strict=True)],
    )
    document = measured.to_dict()
    del document["bins"]
    return document
