"""Answers judged as the VQA evaluation's own code judges them: golden values made with it, and the traps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics import (
    exact_answer,
    is_empty,
    normalise_answer,
    plain_vqa_accuracy,
    raw_exact_answer,
    read_yes_no,
    vl_icl_right,
    vqa_accuracy,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "normal"), GOLDEN["normalised"])
def test_normalisation_is_the_official_one(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


def test_every_contraction_of_the_official_table_is_restored_as_there() -> None:
    assert [normalise_answer(word) for word in GOLDEN["contractions"]] == GOLDEN["restored"]
    assert len(GOLDEN["contractions"]) == 120


@pytest.mark.parametrize(("answer", "people", "accuracy"), GOLDEN["accuracies"])
def test_accuracy_is_the_official_one(answer: str, people: list[str], accuracy: float) -> None:
    assert vqa_accuracy(answer, people) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize(
    ("agreeing", "official", "plain"), [(0, 0, 0), (1, 0.3, 1 / 3), (2, 0.6, 2 / 3), (3, 0.9, 1), (4, 1, 1)]
)
def test_the_plain_rule_inflates(agreeing: int, official: float, plain: float) -> None:
    people = ["red"] * agreeing + ["blue"] * (10 - agreeing)
    assert vqa_accuracy("red", people) == pytest.approx(official)
    assert plain_vqa_accuracy("red", people) == pytest.approx(plain)


@given(
    st.lists(
        st.sampled_from(["red", "Red", "two", "2", "the cat", "cat", "", "don't", "dont"]), min_size=4, max_size=12
    ),
    st.sampled_from(["red", "Red", "2", "cat", "the", "dont", " "]),
    st.sampled_from(["split", "always"]),
)
def test_the_short_form_is_the_loop_over_people_left_out(people: list[str], answer: str, normalise: str) -> None:
    same = normalise == "split" and len(set(people)) == 1
    form = str.strip if same else normalise_answer
    loop = 0.0
    for left_out in range(len(people)):
        others = people[:left_out] + people[left_out + 1 :]
        agree = sum(form(one) == form(answer) for one in others)
        loop += min(agree / 3, 1) / len(people)
    counts = not is_empty(answer) and form(answer) != ""
    score = vqa_accuracy(answer, people, normalise=normalise)  # type: ignore[arg-type]  # any of the two names
    assert score == pytest.approx(loop if counts else 0.0)
    assert score <= plain_vqa_accuracy(answer, people, normalise=normalise) + 1e-12  # type: ignore[arg-type]  # any of the two names


def test_where_all_people_agree_the_official_code_compares_as_written() -> None:
    assert vqa_accuracy("two", ["2"] * 10) == 0.0
    assert vqa_accuracy("two", ["2"] * 10, normalise="always") == 1.0


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        ("red", ["red"] * 10, 1.0),
        ("Red", ["red"] * 10, 0.0),
        ("red", ["Red"] * 10, 0.0),
        ("Red", ["Red"] * 10, 1.0),
        ("red.", ["red"] * 10, 0.0),
        ("red.", ["red."] * 10, 1.0),
        ("a cat", ["cat"] * 10, 0.0),
        ("a cat", ["a cat"] * 10, 1.0),
        ("dont", ["don't"] * 10, 0.0),
        (" red\n", ["red", "red ", "\tred"] + ["red"] * 7, 1.0),  # before that, spaces around go everywhere
        ("a\tcat", ["a cat", "a\ncat"] * 5, 1.0),
        ("a  cat", ["a cat"] * 10, 0.0),  # two spaces stay two
        ("Red", ["red"] * 9 + ["Red"], 1.0),  # they differ, and all are normalised
        ("Red.", ["red"] * 9 + ["RED"], 1.0),
        ("two", ["2"] * 9 + ["2 "], 0.0),  # these do not
    ],
)
def test_where_all_people_agree_every_letter_counts(answer: str, people: list[str], accuracy: float) -> None:
    assert vqa_accuracy(answer, people) == accuracy
    assert plain_vqa_accuracy(answer, people) == accuracy


@pytest.mark.parametrize("nothing", ["", " ", "\n", ".", "  ?!", '""'])
def test_an_empty_answer_is_never_right(nothing: str) -> None:
    assert is_empty(nothing)
    assert vqa_accuracy(nothing, [""] * 10) == 0.0
    assert plain_vqa_accuracy(nothing, ["", "the"] * 5) == 0.0
    assert not exact_answer(nothing, ["the", "", nothing or "x"])
    assert not raw_exact_answer(nothing, [nothing, "x"])
    assert read_yes_no(nothing) is None


def test_an_article_alone_does_not_meet_another_through_the_normal_form() -> None:
    assert (
        normalise_answer("The") == "" and not exact_answer("the", ["a"]) and vqa_accuracy("the", ["a", "an"] * 5) == 0
    )
    assert exact_answer("a", ["A"])  # a letter read in a picture


def test_exact_match_normalised_and_raw() -> None:
    assert exact_answer("The two dogs.", ["cat", "2 dogs"])
    assert not raw_exact_answer("The two dogs.", ["cat", "2 dogs"])
    assert raw_exact_answer(" dog\n", ["dog"]) and not raw_exact_answer("Dog", ["dog"])
    assert exact_answer("#", ["#"]) and not exact_answer("dogs", ["dog"])


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(UsageError, match=r"needs the answers of 4 people or more.*got 1: use exact_answer"):
        vqa_accuracy("red", ["red"])
    with pytest.raises(UsageError, match="a list of one or more right answers; got 'red'"):
        exact_answer("red", "red")
    with pytest.raises(UsageError, match="normalise must be one of 'split', 'always'; got 'never'"):
        vqa_accuracy("red", ["red"] * 10, normalise="never")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        (" no, it is not", "no"),
        ("yes.", "yes"),
        ("not yes", None),
        ("eyes", None),
        ("maybe", None),
        ("nothing", None),
    ],
)
def test_yes_and_no_are_read_strictly(answer: str, said: str | None) -> None:
    assert read_yes_no(answer) == said


def test_vl_icl_counts_silence_as_no() -> None:
    assert vl_icl_right("", "no", rule="yes/no") and vl_icl_right("I cannot tell", "No", rule="yes/no")
    assert vl_icl_right("eyes", "yes", rule="yes/no") and not vl_icl_right("no", "yes", rule="yes/no")
    assert read_yes_no("") is None


def test_vl_icl_loses_the_sign_and_cuts_at_the_first_full_stop() -> None:
    assert vl_icl_right("The result is 12.", "12", rule="number") and not vl_icl_right("-3", "-3", rule="number")
    assert vl_icl_right("3 or 5", "3", rule="number") and not vl_icl_right("none", "3", rule="number")
    assert vl_icl_right("Dax\nThis is a", "dax") and vl_icl_right("STOP.", "stop") and not vl_icl_right("3.5", "3.5")
    with pytest.raises(UsageError, match="rule must be one of"):
        vl_icl_right("a", "a", rule="none")  # type: ignore[arg-type]  # wrong on purpose
