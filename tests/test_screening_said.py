"""Words that no head trained on captions may say, and those that must stay."""

from __future__ import annotations

from pathlib import Path

import pytest

import icl_vision
from icl_vision.screening import function_words, is_refused, may_be_said, not_said

ARTEFACTS = Path(icl_vision.__file__).parent / "artefacts"


@pytest.mark.parametrize(
    "word",
    "asian african indian mexican skin tattoo tan muslim church nun praying fat thin bald tall naked beard "
    "blind wheelchair deaf gay lesbian husband ugly pretty beautiful poor homeless stupid black white dark".split(),
)
def test_refused(word: str) -> None:
    assert not may_be_said(word)
    assert not may_be_said(word.capitalize())


@pytest.mark.parametrize("word", "man woman boy girl child men women boys girls children person people baby".split())
def test_persons_stay(word: str) -> None:
    assert may_be_said(word)
    assert word not in function_words()


def test_what_is_refused_everywhere_is_not_said_either() -> None:
    refused = [word for word in not_said() if is_refused(word)]
    assert refused, "the two lists meet: some names of groups stand in both"
    assert all(not may_be_said(word) for word in refused)


@pytest.mark.parametrize("name", ["not-said.txt", "function-words.txt"])
def test_lists_are_lower_case_words(name: str) -> None:
    lines = (ARTEFACTS / "screening" / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#")
    words = [word for line in lines for word in line.partition("#")[0].split()]
    assert len(words) > 100
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
