"""Reading labels out of free answers: each rung, ambiguity, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import UsageError
from icl_vision.tasks.classify.parsing import parse_label

LABELS = ["lion", "school bus", "golden retriever", "dog", "king_crab", "Yahoo!", "C++", "vase"]


@pytest.mark.parametrize(
    ("answer", "label", "rung"),
    [
        ("lion", "lion", "exact"),
        (" lion\n###\nInput: x", "lion", "exact"),
        ("\n\n  school bus  ", "school bus", "exact"),
        ("lion ### Input", "lion", "exact"),
        ("king_crab", "king_crab", "exact"),
        ("Lion", "lion", "folded"),
        ("King  Crab", "king_crab", "folded"),
        ('"lion"', "lion", "folded"),
        ("**Lion**.", "lion", "folded"),
        ("yahoo!", "Yahoo!", "folded"),
        ("Yahoo.", "Yahoo!", "folded"),
        ("c++", "C++", "folded"),
        ("Output: lion", "lion", "folded"),
        ("Answer:lion", "lion", "folded"),
        ("This is a golden retriever.", "golden retriever", "folded"),
        ("The answer is the school bus", "school bus", "folded"),
        ("a vase", "vase", "folded"),
        ("lion, because of the mane", "lion", "prefix"),
        ("This is a lion with a mane", "lion", "prefix"),
        ("golden retriever puppy", "golden retriever", "prefix"),
        ("golden retr", "golden retriever", "prefix"),
        ("scho", "school bus", "prefix"),
        ("golden retreiver", "golden retriever", "nearest"),
        ("shcool bus", "school bus", "nearest"),
        ("lionel", None, None),
        ("lion or vase", None, None),
        ("not a lion", None, None),
        ("go", None, None),
        ("elephant", None, None),
        ("", None, None),
        ("###", None, None),
        ("...", None, None),
        ("\x00\ud800", None, None),
    ],
)
def test_ladder(answer: str, label: str | None, rung: str | None) -> None:
    assert parse_label(answer, LABELS) == (label, rung)


def test_the_longest_label_wins_unless_the_rest_names_another() -> None:
    labels = ["dog", "dog house", "cat"]
    assert parse_label("dog house, red", labels) == ("dog house", "prefix")
    assert parse_label("dog house or cat", labels) == (None, None)


def test_ambiguity_is_nothing() -> None:
    assert parse_label("golden", ["golden eagle", "golden retriever"]) == (None, None)
    assert parse_label("cas", ["cat", "car"]) == (None, None)
    assert parse_label("yahoo", ["Yahoo!", "Yahoo?"]) == (None, None)
    assert parse_label("Yahoo!", ["Yahoo!", "Yahoo?"]) == ("Yahoo!", "exact")


def test_threshold_moves_the_nearest_rung() -> None:
    assert parse_label("lyon", ["lion", "vase"], threshold=0.7) == ("lion", "nearest")
    assert parse_label("lyon", ["lion", "vase"]) == (None, None)
    assert parse_label("golden retreiver", LABELS, threshold=1) == (None, None)


@pytest.mark.parametrize(
    ("answer", "labels", "threshold", "message"),
    [
        (None, ["a"], 0.8, r"an answer must be a string; got NoneType"),
        ("a", "a", 0.8, r"labels must be a list of at least one string; got 'a'"),
        ("a", [], 0.8, r"labels must be a list of at least one string; got \[\]"),
        ("a", ["a"], 1.5, r"threshold must lie between 0 and 1; got 1.5"),
        ("a", ["a"], float("nan"), r"threshold must lie between 0 and 1; got nan"),
    ],
)
def test_bad_arguments(answer: object, labels: object, threshold: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_label(answer, labels, threshold=threshold)  # type: ignore[arg-type]  # wrong on purpose


@settings(deadline=None)  # shared machines stall
@given(st.text(), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
def test_any_text_gives_a_known_label_or_none(answer: str, labels: list[str]) -> None:
    label, rung = parse_label(answer, labels)
    assert (label is None) == (rung is None)
    assert label is None or label in labels


@settings(deadline=None)  # shared machines stall
@given(st.sampled_from(LABELS), st.text(alphabet=" \n\"'.", max_size=5), st.text(alphabet=" \n\"'.", max_size=5))
def test_a_label_in_quotes_and_space_is_found(label: str, before: str, after: str) -> None:
    if not label.strip(before + after) or ("\n" in before.strip("\n") and before.strip()):
        return
    assert parse_label(before.replace("\n", " ") + label + after, LABELS).label == label


def test_order_of_labels_does_not_matter() -> None:
    for answer in ("golden", "dog house or cat", "lionn", "This is a dog"):
        assert parse_label(answer, LABELS) == parse_label(answer, LABELS[::-1])


def test_a_long_answer_is_read_in_part() -> None:
    assert parse_label("lion " + "x" * 1_000_000, LABELS) == ("lion", "prefix")
