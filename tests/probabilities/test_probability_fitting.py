"""Fitting a temperature, and measuring how well probabilities fit outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.probabilities import brier_score, fit_map, fit_outcomes, reliability


def answers(n: int, sharpness: float, *, seed: int = 0, labels: int = 5):
    """Scores whose truth is drawn from softmax(scores / sharpness): so much too sure they are."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2 * sharpness, (n, labels))
    shares = np.exp(scores / sharpness)
    shares /= shares.sum(axis=1, keepdims=True)
    truths = [int(random.choice(labels, p=row)) for row in shares]
    return scores, truths


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0, 12.0])
def test_the_temperature_that_made_the_answers_is_found(sharpness):
    scores, truths = answers(4000, sharpness)
    found = fit_map(scores, truths)
    assert found.temperature == pytest.approx(sharpness, rel=0.06)
    assert found.n == 4000 and found.source == "own"
    measured = found.measured
    assert measured["calibrated"]["ece"] < 0.02
    if sharpness == 4.0:
        assert measured["raw"]["ece"] > 0.15
        assert measured["calibrated"]["brier"] < measured["raw"]["brier"]
        assert measured["calibrated"]["accuracy"] == measured["raw"]["accuracy"]  # labels are the same


def test_answers_that_are_all_right_do_not_ask_for_certainty_without_end():
    scores = np.zeros((60, 3))
    scores[:, 0] = 2.0
    found = fit_map(scores, [0] * 60)
    assert 0.05 < found.temperature < 1.0
    assert found(scores[0]).max() < 1.0


def test_an_impossible_true_label_does_not_decide_alone():
    scores, truths = answers(500, 3.0)
    scores[0, truths[0]] = -math.inf
    assert fit_map(scores, truths).temperature < 30


def test_answers_may_differ_in_their_number_of_labels():
    few, many = answers(800, 3.0, labels=2), answers(800, 3.0, labels=8, seed=1)
    found = fit_map([*few[0].tolist(), *many[0].tolist()], [*few[1], *many[1]])
    assert found.temperature == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("scores", "truths"),
    [([], []), ([[0.0, 1.0]], []), ([[0.0]], [0]), ([[0.0, 1.0]], [2]), ([[0.0, math.nan]], [0])],
)
def test_what_cannot_be_fitted_is_refused(scores, truths):
    with pytest.raises(UsageError, match=r"answer"):
        fit_map(scores, truths)


# Measuring ------------------------------------------------------------------------------------------------------------


def test_the_calibration_error_by_hand():
    found = reliability([0.95, 0.95, 0.95, 0.95, 0.55, 0.55], [True, True, True, False, True, False])
    # bin (0.9, 1]: 4 answers, 0.95 against 0.75; bin (0.5, 0.6]: 2, 0.55 against 0.5
    assert found.ece == pytest.approx((4 * 0.20 + 2 * 0.05) / 6)
    assert found.accuracy == pytest.approx(4 / 6) and found.confidence == pytest.approx(4.9 / 6)
    assert [(one.n, one.accuracy) for one in found.bins if one.n] == [(2, 0.5), (4, 0.75)]
    assert [one.low for one in found.bins] == pytest.approx([place / 10 for place in range(10)])
    assert found.brier is None


def test_edges_belong_to_the_lower_bin():
    found = reliability([0.0, 0.1, 0.1000001, 0.5, 1.0], [False] * 5)
    assert [one.n for one in found.bins] == [2, 1, 0, 0, 1, 0, 0, 0, 0, 1]


def test_perfect_probabilities_are_told_from_too_sure_ones():
    random = np.random.default_rng(1)
    shares = random.uniform(0.2, 1, 3000)
    fair = reliability(shares, random.random(3000) < shares)
    assert fair.ece < fair.perfect[1] * 1.3 and fair.perfect[0] < fair.perfect[1] < 0.04
    assert fair.interval[0] <= fair.ece <= fair.interval[1]
    sure = reliability(np.full(3000, 0.97), random.random(3000) < 0.8)
    assert sure.ece == pytest.approx(0.17, abs=0.03) and sure.interval[0] > sure.perfect[1]


def test_the_same_seed_gives_the_same_intervals_and_groups_make_them_wider():
    random = np.random.default_rng(2)
    shares = np.full(1000, 0.9)
    right = np.repeat(random.random(100) < 0.7, 10)  # ten answers each that are all right or all wrong
    alone = reliability(shares, right, seed=3)
    assert reliability(shares, right, seed=3) == alone
    together = reliability(shares, right, groups=np.repeat(np.arange(100), 10), seed=3)
    assert together.ece == alone.ece
    assert together.interval[1] - together.interval[0] > 2 * (alone.interval[1] - alone.interval[0])


def test_brier_score_is_over_all_labels():
    assert brier_score([1.0, 0.0], 0) == 0.0
    assert brier_score([1.0, 0.0], 1) == 2.0
    assert brier_score([0.6, 0.3, 0.1], 1) == pytest.approx(0.36 + 0.49 + 0.01)
    assert reliability([0.6], [False], briers=[0.86]).brier == pytest.approx(0.86)


@pytest.mark.parametrize("shares", [[], [0.5, 0.5], [1.5], [-0.1], [math.nan]])
def test_numbers_that_are_no_probabilities_are_refused(shares):
    with pytest.raises(UsageError):
        reliability(shares, [True])


# Outcomes: the truth need not be among the candidates -----------------------------------------------------------------


def test_a_map_of_outcomes_makes_the_best_as_sure_as_it_is_right() -> None:
    draws = np.random.default_rng(5)
    rows = [[0.0, -2.0 - extra, -3.0] for extra in draws.random(400)]
    right = [bool(draws.random() < 0.5) for _ in rows]
    fitted = fit_outcomes(rows, right, note="half")
    confidence = float(np.mean([fitted(row).max() for row in rows]))
    assert confidence == pytest.approx(np.mean(right), abs=0.03)
    assert fitted.temperature > 1 and (fitted.source, fitted.n, fitted.note) == ("own", 400, "half")
    assert fitted.measured["calibrated"]["ece"] < fitted.measured["raw"]["ece"]
    assert fit_outcomes(rows, [True] * 400).temperature < 1


def test_outcomes_that_cannot_be_fitted() -> None:
    with pytest.raises(UsageError, match="1 answers and 2 outcomes"):
        fit_outcomes([[0.0, -1.0]], [True, False])
    with pytest.raises(UsageError, match="at least one answer"):
        fit_outcomes([], [])
    with pytest.raises(UsageError, match="two labels or more"):
        fit_outcomes([[0.0]], [True])
