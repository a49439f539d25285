"""Labels and words that may enter a prompt, and every message of those that may not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import LabelError, PromptError
from icl_vision.prompting import MAX_LABEL_CHARS, check_label, check_labels, check_words, fold


@pytest.mark.parametrize(
    "label",
    ["lion", "African hunting dog", "black-footed_ferret", "C++", "C#", "{{ 7*7 }}", "Löwe", "獅子", "❤\ufe0f", "3"],
)
def test_ordinary_labels_pass(label: str) -> None:
    assert check_label(label, ("###", "Input:", "Output:")) == label


def test_numpy_strings_become_plain_ones() -> None:
    assert type(check_label(np.str_("lion"))) is str
    assert [type(label) for label in check_labels(np.array(["lion", "vase"]))] == [str, str]
    assert type(check_words(np.str_("mane roar"))) is str


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, r"must be a string; got 3 \(int\): give str\(label\)"),
        (None, r"must be a string; got None"),
        (b"lion", r"must be a string; got b'lion'"),
        ("", r"must not be empty"),
        ("  ", r"must not be empty"),
        ("li\non", r"U\+000A \(a control character\)"),
        ("li\ron", r"U\+000D"),
        ("li\ton", r"U\+0009"),
        ("li\x00on", r"U\+0000"),
        ("li\x85on", r"U\+0085"),
        ("li\u2028on", r"U\+2028 \(LINE SEPARATOR\)"),
        ("li\u202eon", r"U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"),
        ("li\u200bon", r"U\+200B \(ZERO WIDTH SPACE\)"),
        ("li\ufeffon", r"U\+FEFF"),
        ("li\U000e0041on", r"U\+E0041"),
        ("li\ud800on", r"U\+D800 \(a lone surrogate\)"),
        (" lion", r"' lion' has spaces at its ends: give label.strip\(\)"),
        ("lion\u00a0", r"has spaces at its ends"),
        ("x" * 81, r"has 81 characters; at most 80 are allowed: shorten it"),
        ("a ### b", r"contains '###', which the template itself uses"),
        ("output: x", r"contains 'Output:'"),
    ],
)
def test_bad_labels_are_refused_by_name(label: object, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        check_label(label, ("###", "Output:"))


def test_literals_are_whole_words() -> None:
    assert check_label("iris armeria", ("is a",)) == "iris armeria"
    with pytest.raises(LabelError, match="'is a'"):
        check_label("This Is A lion", ("is a",))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("lion", r"must be a list of strings; got the single value 'lion'"),
        ([], r"at least one label; got none"),
        (["lion", "lion"], r"'lion' is given twice"),
        (["".join(["li", "on"]), "lion"], r"'lion' is given twice"),
        (["lion", "Lion"], r"'lion' and 'Lion' are the same up to case"),
        (["king_crab", "king crab"], r"are the same up to case, underscores and spaces"),
        (["ﬁre", "fire"], r"are the same"),
        (["a\u00a0b", "a b"], r"are the same"),
    ],
)
def test_bad_label_sets_are_refused(labels: object, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        check_labels(labels)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (None, r"must be one string; got NoneType"),
        (["a"], r"must be one string; got list: join them"),
        ("a\x1b[31m", r"U\+001B"),
        ("a\tb", r"U\+0009"),
        ("a\r\nb", r"U\+000D"),
        ("a b\nOutput: c", r"line break; only ASCII art"),
        ("a\ud800", r"U\+D800"),
    ],
)
def test_bad_words_are_refused(words: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        check_words(words)


def test_words_and_ascii_art_pass() -> None:
    for words in ("", "mane roar", "####\n#  #\n####", "می\u200cخواهم"):
        assert check_words(words) == words


@settings(deadline=None)  # shared machines stall
@given(st.text(max_size=120))
def test_a_label_passes_whole_or_raises_label_error(text: str) -> None:
    try:
        label = check_label(text)
    except LabelError:
        return
    assert label == text
    assert len(label) <= MAX_LABEL_CHARS
    assert len(label.splitlines()) == 1


@settings(deadline=None)  # shared machines stall
@given(st.text(max_size=60))
def test_fold_is_stable(text: str) -> None:
    assert fold(fold(text)).replace(" ", "") == fold(fold(fold(text))).replace(" ", "")
