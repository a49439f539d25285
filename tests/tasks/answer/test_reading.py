"""What an LLM wrote, read as an answer; kinds of questions; candidates and what vision says of them."""

from __future__ import annotations

import math

import pytest

from icl_vision.tasks.answer.answered import most_central, most_usual
from icl_vision.tasks.answer.candidates import FLOOR, candidates, log_vision, read_as_answers, speaks
from icl_vision.tasks.answer.reading import (
    COLOURS,
    asks_for_all_text,
    asks_for_text,
    distinct,
    first_line,
    in_known_spelling,
    is_number,
    kind_of,
    normal_form,
    numbers_like,
    short_answer,
)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" dog", "dog"),
        (" dog.", "dog"),
        ("\n\n two dogs\nQ: and now?", "two dogs"),
        (' "dog" ', "dog"),
        ("A: dog", "dog"),
        (" dog. It is brown.", "dog"),
        (" 3.5", "3.5"),
        (" St. Bernard", "St"),
        ("```\ndog\n```", "dog"),
        ('{"answer": "dog"}', "dog"),
        ("**dog**", "dog"),
        (" Yes.", "yes"),
        (" NO", "no"),
        (" \u202edog", "dog"),
        ("", ""),
        (" ?! ", ""),
        ("Q: what next?", ""),
    ],
)
def test_short_answers(written: str, answer: str) -> None:
    assert short_answer(written, most=200) == answer


def test_spelling_of_the_known() -> None:
    assert short_answer(" 2", ["two", "dog"], most=200) == "two"
    assert short_answer(" Two", ["2"], most=200) == "2"
    assert short_answer(" DOG", ["dog"], most=200) == "dog"
    assert in_known_spelling("a dog", ["Dog"]) == "Dog"
    assert in_known_spelling("Yeah", []) == "yes" and in_known_spelling("Rex", []) == "Rex"


def test_answers_that_are_the_same() -> None:
    assert normal_form("The Dog.") == normal_form("dog") and normal_form("none") == normal_form("0") == "0"
    assert distinct(["dog", "Dog", "two", "2", "", "cat"]) == ["dog", "two", "cat"]
    assert is_number("seven") and is_number("11") and not is_number("some") and not is_number("")
    assert numbers_like(["two", "dog"])[:2] == ["one", "two"] and numbers_like(["2"])[:2] == ["0", "1"]
    assert numbers_like([]) == numbers_like(["two"]), "as COCO-QA writes them"


def test_first_lines() -> None:
    assert first_line('\n "A dog." \nmore', 99) == "A dog." and first_line("  \n ", 99) == ""
    assert first_line("a\u200bb", 99) == "ab"


def test_what_is_too_long_is_no_answer_and_a_caption_is_cut_after_a_word() -> None:
    assert short_answer("dog", most=3) == "dog" and short_answer("dogs", most=3) == ""
    assert first_line("a dog runs", 10) == "a dog runs" and first_line("a dog runs", 9) == "a dog"
    assert first_line("x" * 100, 9) == "x" * 9


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("how many dogs are there?", "number"),
        ("What is the number of dogs", "number"),
        ("what is the color of the bus", "colour"),
        ("What colour is it?", "colour"),
        ("Is there a dog?", "whether"),
        ("aren't they happy?", "whether"),
        ("is it a dog or a cat?", "open"),
        ("what is on the table?", "open"),
        ("where is it?", "open"),
        ("island life?", "open"),
        (None, "open"),
    ],
)
def test_kinds_of_questions(question: str | None, kind: str) -> None:
    assert kind_of(question) == kind


def test_candidates_by_kind() -> None:
    chances = {"dog": 0.2, "ball": 0.8, "red": 0.5, "two": 0.9, "the": 0.5, "left": 0.0}
    assert candidates("what is it?", chances, ["cat"], "mouse") == ["cat", "mouse", "ball", "dog"]
    assert "two" in candidates("what is it?", chances, ["two"], ""), "but examples may answer so"
    assert candidates("what is it?", chances, [], "", most=1) == ["ball"]
    assert candidates("is it?", chances, ["cat"], "maybe") == ["yes", "no", "maybe"]
    assert candidates("what colour?", chances, ["cat", "grey", "red"], "")[0] == "red"
    assert set(candidates("what colour?", {}, [], "")) == set(COLOURS)
    assert candidates("how many?", {}, ["2", "dog"], "")[0] == "2"


def test_what_vision_says() -> None:
    chances = {"dog": 0.5, "two": 0.25, "bus": 0.1, "story": 0.2}
    assert log_vision("dogs", chances) == log_vision("a dog", chances) == math.log(0.5)
    assert log_vision("2", chances) == math.log(0.25)
    assert log_vision("buses", chances) == math.log(0.1) and log_vision("stories", chances) == math.log(0.2)
    assert log_vision("unheard", chances) == math.log(FLOOR) == log_vision("glass", chances)
    usual = {"dog": 0.25, "cat": 0.2}
    assert log_vision("dog", chances, usual) == pytest.approx(math.log(0.5 / 0.25))
    assert log_vision("cats", chances, usual) == pytest.approx(math.log(FLOOR / 0.2)), "usual, and not here"
    assert log_vision("unheard", chances, usual) == 0.0, "nobody knows"
    assert speaks("what is it?") and speaks("what colour?") and not speaks("how many?") and not speaks("is it?")
    assert log_vision("dog bus", chances) == pytest.approx((math.log(0.5) + math.log(0.1)) / 2)


def test_which_reference_is_shown() -> None:
    assert most_usual(["b", "a", "A"]) == "a" and most_usual(["b", "a"]) == "b"
    assert most_central(["x", "a dog runs", "the dog runs", "a dog runs"]) == "a dog runs"


@pytest.mark.parametrize(
    ("question", "asks", "all_of_it"),
    [
        ("What does it say?", True, True),
        ("what does the sign read", True, True),
        ("What is written in this picture?", True, True),
        ("Read the sign", True, True),
        ("What does the licence plate say?", True, False),
        ("What does the street sign say?", True, False),
        ("Which word is on the bus?", True, False),
        ("What are the letters on the wall?", True, False),
        ("What is the man reading?", False, False),
        ("What brand is the camera?", False, False),
        ("How many words are there?", False, False),
        ("What colour are the letters?", False, False),
        ("Is there any text?", False, False),
        ("What animal is this?", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_questions_that_ask_for_text(question: str | None, asks: bool, all_of_it: bool) -> None:
    assert asks_for_text(question) is asks
    assert not asks or asks_for_all_text(question) is all_of_it


def test_what_was_read_as_answers() -> None:
    assert read_as_answers("what does it say?", ["MIND THE", "STEP"]) == ["MIND THE STEP"]
    assert read_as_answers("what does the bus say?", ["42", "BANK"]) == ["42", "BANK"]
    long = ["x" * 80, "y" * 80, "z" * 80]
    assert read_as_answers("what does it say?", long) == long, "too long for an answer: string by string"
