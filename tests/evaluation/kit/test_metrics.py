"""Wilson's interval against published values, Accuracy objects, and the open-ended scorers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.metrics import Accuracy, exact_match, prefix_match, substring_match, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score, no continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0
    assert wilson_interval(7, 7)[0] == pytest.approx(1 - wilson_interval(0, 7)[1])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_inside(pair: tuple[int, int]) -> None:
    correct, n = pair
    low, high = wilson_interval(correct, n)
    assert 0.0 <= low <= correct / n <= high <= 1.0
    assert low < high


@pytest.mark.parametrize(("correct", "n"), [(3, 2), (-1, 2), (0, -1)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"correct={correct}, n={n}"):
        wilson_interval(correct, n)


def test_accuracy_object_has_the_four_keys() -> None:
    accuracy = Accuracy.count(30, 40, "likelihood")
    document = json.loads(json.dumps(accuracy.to_dict()))
    assert list(document) == ["accuracy", "n", "interval", "scorer"]
    assert document["accuracy"] == 0.75 and document["n"] == 40 and document["scorer"] == "likelihood"
    assert document["interval"] == pytest.approx([0.5981, 0.8581], abs=1e-4)
    assert accuracy.correct == 30
    assert str(accuracy) == "75.0% (n = 40, 95% 59.8% to 85.8%, likelihood)"


def test_accuracy_of_nothing_is_null_not_zero() -> None:
    accuracy = Accuracy.of([], "exact")
    assert accuracy.to_dict() == {"accuracy": None, "n": 0, "interval": [0.0, 1.0], "scorer": "exact"}
    assert str(accuracy) == "no answers (n = 0, exact)"
    assert accuracy.correct == 0


def test_abstaining_counts_as_wrong() -> None:
    assert Accuracy.compare(["a", None, "b"], ["a", "a", "a"], "exact").accuracy == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="1 predictions cannot be compared with 2"):
        Accuracy.compare(["a"], ["a", "b"], "exact")


@pytest.mark.parametrize(
    ("answer", "exact", "prefix", "substring"),
    [
        (" wild cat", True, True, True),
        (" wild cat.\nInput: more", True, True, True),
        ("Wild Cat", True, True, True),
        (" wild cat and dog", False, True, True),
        (" wild cats", False, False, False),
        (" a wild cat", False, False, True),
        (" bobcat", False, False, False),
        ("dog\nwild cat", False, False, True),
        ("", False, False, False),
        ("  \n ", False, False, False),
    ],
)
def test_scorers_from_strict_to_generous(answer: str, exact: bool, prefix: bool, substring: bool) -> None:
    assert exact_match(answer, "wild cat") is exact
    assert prefix_match(answer, "wild cat") is prefix
    assert substring_match(answer, "wild cat") is substring


def test_scorers_take_labels_literally() -> None:
    assert prefix_match("c++ code", "c++") and not prefix_match("ccc", "c++")
    assert substring_match("is {{ 7*7 }} ok", "{{ 7*7 }}") and not substring_match("49", "{{ 7*7 }}")
