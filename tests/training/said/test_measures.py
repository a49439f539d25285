"""Precision of first words and reliability of probabilities, on figures that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.training.said.measures import precision, ranked, reliability
from icl_vision.training.said.words import tokens


def test_precision_is_of_the_picture_and_letter_for_letter() -> None:
    captions = [tokens(["a dog runs", "dogs"]), tokens(["a man"])]
    found = precision([["dog", "cat", "runs", "run"], ["man"]], captions, 2)
    assert found is not None
    assert (found["mean"], found["n"]) == (0.75, 2)
    assert precision([["running"], []], captions, 5)["mean"] == 0.0


def test_ranked_keeps_the_order_of_equal_words() -> None:
    assert ranked(np.array([[0.1, 0.7, 0.7, 0.2]]), ["a", "b", "c", "d"], 3) == [["b", "c", "d"]]


def test_reliability_counts_the_difference() -> None:
    found = reliability([0.25] * 4 + [0.95] * 2, [1, 0, 0, 0, 1, 0])
    assert found["n"] == 6
    assert found["error"] == pytest.approx((4 * 0.0 + 2 * 0.45) / 6)
    assert [(row["n"], row["seen"]) for row in found["rows"]] == [(4, 0.25), (2, 0.5)]
    assert reliability([1.0, 0.0], [1, 0])["error"] == 0.0
