"""Which words are fit to describe a picture: real English words, nothing offensive, no fragments.

Knows: the shipped word lists (artefacts/screening) and the rules that use them.
Refuses to know: tokenizers and vectors. Runs when a vocabulary is built, not when it is used.

Words that pass consist of the letters a to z only, so no run of them can spell a
delimiter of a prompt ("label:", a newline, "<|im_end|>"): those need other characters.
Lower-case "input" or "label" without a colon is an ordinary word and stays.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.errors import ArtefactDamagedError, MissingExtraError, UsageError

logger = logging.getLogger(__name__)

_LISTS = Path(__file__).parent / "artefacts" / "screening"
_LOWER_CASE = re.compile(r"[a-z]+")
_DIGEST_LENGTH = 16

REASONS = ("not lower-case letters", "refused", "too short", "abbreviation or identifier", "not in the dictionary")
"""Why a word is dropped, in the order of the tests; the first that applies counts."""


@dataclass(frozen=True, slots=True)
class Screening:
    """What :func:`screen` found. kept: in the order given, once each. dropped: words by reason (see ``REASONS``)."""

    kept: tuple[str, ...]
    dropped: dict[str, tuple[str, ...]]

    def counts(self) -> dict[str, int]:
        """Words kept and words dropped by reason, for cards and logs."""
        return {"kept": len(self.kept)} | {reason: len(words) for reason, words in self.dropped.items()}


def screen(words: Iterable[str], *, english: Callable[[str], bool] | None = None, min_length: int = 3) -> Screening:
    """Keep the words that are fit to describe a picture.

    Args:
        words: candidates; repeated ones count once.
        english: says whether a word is English; None takes :func:`english_dictionary`.
        min_length: shorter words are dropped unless they stand in the shipped list of further words ("tv", "ox").

    Raises:
        UsageError: ``min_length`` below 1.
        MissingExtraError: no ``english`` given and the dictionary is not installed.
    """
    if min_length < 1:
        raise UsageError(f"min_length must be 1 or more; got {min_length}")
    is_english = english_dictionary() if english is None else english
    further, no_words = further_words(), not_words()
    kept: list[str] = []
    dropped: dict[str, list[str]] = {reason: [] for reason in REASONS}
    for word in dict.fromkeys(words):
        if not _LOWER_CASE.fullmatch(word):
            dropped[REASONS[0]].append(word)
        elif is_refused(word):
            dropped[REASONS[1]].append(word)
        elif word in further:
            kept.append(word)
        elif len(word) < min_length:
            dropped[REASONS[2]].append(word)
        elif word in no_words:
            dropped[REASONS[3]].append(word)
        elif not is_english(word):
            dropped[REASONS[4]].append(word)
        else:
            kept.append(word)
    result = Screening(tuple(kept), {reason: tuple(words) for reason, words in dropped.items()})
    logger.info("screening: %s", result.counts())
    return result


def english_dictionary() -> Callable[[str], bool]:
    """Says whether a lower-case word is in the Hunspell en_US dictionary (SCOWL), inflections included.

    The dictionary comes with the pure-Python package ``spylls``; nothing is downloaded.

    Raises:
        MissingExtraError: ``spylls`` is not installed.
    """
    try:
        hunspell = importlib.import_module("spylls.hunspell")  # by name: it has no type information
    except ImportError as error:
        raise MissingExtraError("screening words by an English dictionary (spylls)", "train") from error
    return _lookup(hunspell)


@functools.cache
def _lookup(hunspell: Any) -> Callable[[str], bool]:
    """The look-up of the dictionary inside ``spylls``; reading it takes a second, so once a process."""
    files = Path(str(hunspell.__file__)).parent / "data" / "en" / "en_US"
    with warnings.catch_warnings():
        # spylls leaves its two files to the garbage collector, which would complain at some later moment.
        warnings.simplefilter("ignore", ResourceWarning)
        dictionary = hunspell.Dictionary.from_files(str(files))
        gc.collect()

    def known(word: str) -> bool:
        return bool(dictionary.lookup(word))

    return known


def word_digest(word: str) -> str:
    """How a word stands in the list of refused words: the first 16 hex digits of its sha256, lower-cased."""
    return hashlib.sha256(word.lower().encode("utf-8")).hexdigest()[:_DIGEST_LENGTH]


def is_refused(word: str) -> bool:
    """Whether the word is a slur, crude, sexual or insulting, or names a group of people (see the list's header)."""
    return word_digest(word) in _refused()


@functools.cache
def _refused() -> frozenset[str]:
    return frozenset(_read("refused.txt"))


@functools.cache
def not_words() -> frozenset[str]:
    """Abbreviations, clippings and identifiers that a spelling dictionary accepts."""
    return frozenset(_read("not-words.txt"))


@functools.cache
def further_words() -> frozenset[str]:
    """English words that the dictionary lacks or that are shorter than the least length."""
    return frozenset(_read("further-words.txt"))


def may_be_said(word: str) -> bool:
    """Whether a head trained on captions may say the word of a picture, whatever its captions say.

    Refused are words of origin, skin, faith, body, disability, love and worth, colours (those come from measured pixels
    alone, and are never said of a person), and whatever no vocabulary of ours holds. man, woman, boy, girl and child
    stay.
    """
    return not is_refused(word) and word.lower() not in not_said()


@functools.cache
def not_said() -> frozenset[str]:
    """Words that no head trained on captions may say."""
    return frozenset(_read("not-said.txt"))


@functools.cache
def function_words() -> frozenset[str]:
    """Words that captions hold and that say nothing of what is seen."""
    return frozenset(_read("function-words.txt"))


def _read(name: str) -> list[str]:
    try:
        lines = (_LISTS / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ArtefactDamagedError(
            f"the word list {name} is missing from the package ({error.strerror}); install icl-vision again"
        ) from error
    return [word for line in lines for word in line.partition("#")[0].split()]
