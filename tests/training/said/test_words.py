"""Words out of captions: forms of verbs, refused and empty words, what counts as said."""

from __future__ import annotations

import pytest

from icl_vision.errors import UsageError
from icl_vision.training.said.words import holds, said_words, targets, tokens

VOCABULARY = (
    "dog dogs riding rides ride park parking fat black woman man the two beautiful church wooden fishing fish".split()
)


def pictures(*captions: str) -> list:
    return [tokens([caption]) for caption in captions]


def test_a_word_needs_enough_pictures_not_enough_captions() -> None:
    often = [tokens(["a dog", "the dog", "one dog"]), tokens(["a man"]), tokens(["a man and a woman"])]
    assert list(said_words(often, VOCABULARY, least=2)) == ["man"]
    assert list(said_words(often, VOCABULARY, least=1)) == ["dog", "man", "woman"]


def test_verbs_are_one_word_and_numbers_are_two() -> None:
    seen = pictures("he rides", "riding", "riding a dog", "a ride", "two dogs", "dogs")
    words = said_words(seen, VOCABULARY, least=1)
    assert list(words) == ["dog", "dogs", "riding", "two"]
    assert words["riding"] == {"ride", "rides", "riding"}
    assert targets(seen, words)[:, list(words).index("riding")].tolist() == [True, True, True, True, False, False]


def test_a_rarer_ing_form_takes_nothing_in() -> None:
    words = said_words(pictures("a park", "the park", "parking"), VOCABULARY, least=1)
    assert words == {"park": {"park"}, "parking": {"parking"}}
    words = said_words(pictures("a fish", "fishing", "fishing"), VOCABULARY, least=1)
    assert words["fish"] == {"fish"}  # the animal is not the sport


def test_refused_empty_and_unknown_words_are_never_said() -> None:
    seen = pictures(*["the beautiful fat black woman of the church, a zebra and a wooden dog"] * 4)
    assert list(said_words(seen, VOCABULARY)) == ["dog", "woman", "wooden"]


def test_the_most_frequent_words_are_kept() -> None:
    seen = pictures("dog man", "dog", "dog woman", "man")
    assert list(said_words(seen, VOCABULARY, least=1, most=2)) == ["dog", "man"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no word of these 1 pictures' captions is left: a word needs 3 pictures"):
        said_words(pictures("a dog"), VOCABULARY)


def test_captions_hold_a_word_in_singular_or_plural() -> None:
    picture = tokens(["Two dogs, some cherries and a BUS."])
    for word in ("dog", "dogs", "cherry", "bus", "buses"):
        assert holds(picture, word), word
    assert not holds(picture, "do")
    assert not holds(picture, "cat")
