"""Which words of captions a head may say, and which captions say them.

Knows: tokens of captions, forms of a verb, the lists of words that are left out. Refuses to know: pictures, vectors.

A word is listed where enough pictures' captions hold it, the vocabulary has it, and no list refuses it
(``screening.may_be_said``). Forms of a verb are one word, its -ing form, where captions say that form at least as
often: "rides" and "ride" count as "riding". Singular and plural stay two words: how many there are can be seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.screening import function_words, may_be_said

LEAST_PICTURES = 3
"""So many pictures' captions must hold a word."""
MOST_WORDS = 900

_TOKEN = re.compile(r"[a-z]+")
_IRREGULAR = {
    "ate": "eating", "caught": "catching", "drank": "drinking", "driven": "driving", "drove": "driving",
    "fallen": "falling", "fell": "falling", "flew": "flying", "flown": "flying", "fought": "fighting",
    "held": "holding", "lie": "lying", "lies": "lying", "ran": "running", "ridden": "riding", "rode": "riding",
    "sang": "singing", "sat": "sitting", "slept": "sleeping", "spoke": "speaking", "stood": "standing",
    "swam": "swimming", "threw": "throwing", "thrown": "throwing", "wore": "wearing", "worn": "wearing",
}  # fmt: skip
_NOUNS = frozenset("cloth clothes faces fish fishes land parked shop slide slides watch work".split())
"""Words that look like a form of a verb that captions say, and mostly are something else."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The words of one picture's captions. each: of every caption, as a set. all: of all of them together."""

    each: tuple[frozenset[str], ...]
    all: frozenset[str]


def tokens(captions: Sequence[str]) -> Tokens:
    """Lower-case words of the letters a to z, each once a caption."""
    each = tuple(frozenset(_TOKEN.findall(caption.lower())) for caption in captions)
    return Tokens(each, frozenset().union(*each))


def said_words(
    pictures: Sequence[Tokens], vocabulary: Collection[str], *, least: int = LEAST_PICTURES, most: int = MOST_WORDS
) -> dict[str, frozenset[str]]:
    """The words a head may learn from these captions, sorted, each with the forms that count as it.

    Args:
        pictures: of whose captions.
        vocabulary: the words that can be said at all.
        least: pictures whose captions hold a word, 1 or more.
        most: words at most, the most frequent ones.

    Raises:
        UsageError: no word is left.
    """
    checks.count("least", least)
    checks.count("most", most)
    seen = Counter(word for picture in pictures for word in picture.all)
    known, empty = frozenset(vocabulary), function_words()
    kept = [word for word in seen if word in known and word not in empty and may_be_said(word)]
    forms: dict[str, set[str]] = {word: set() for word in kept}
    for word in kept:
        forms[_heading(word, seen, forms)].add(word)
    counts = {word: sum(not given.isdisjoint(picture.all) for picture in pictures) for word, given in forms.items()}
    often = sorted((word for word in kept if counts[word] >= least), key=lambda word: (-counts[word], word))[:most]
    if not often:
        raise UsageError(
            f"no word of these {len(pictures)} pictures' captions is left: a word needs {least} pictures, must be one "
            "of the vocabulary and must not be refused"
        )
    return {word: frozenset(forms[word]) for word in sorted(often)}


def targets(pictures: Sequence[Tokens], words: Mapping[str, Collection[str]]) -> npt.NDArray[np.bool_]:
    """Whether a picture's captions hold a word in one of its forms, [N, S]."""
    column = {form: place for place, forms in enumerate(words.values()) for form in forms}
    said = np.zeros((len(pictures), len(words)), dtype=bool)
    for row, picture in enumerate(pictures):
        said[row, [column[token] for token in picture.all if token in column]] = True
    return said


def holds(picture: Tokens, word: str) -> bool:
    """Whether a picture's captions hold a word, or its English singular or plural."""
    return word in picture.all or any(form in picture.all for form in _other_numbers(word))


def _heading(word: str, seen: Mapping[str, int], listed: Collection[str]) -> str:
    """The word that this one counts as: the verb's -ing form or itself."""
    if word in _NOUNS:
        return word
    for form in (_IRREGULAR.get(word, word), *_ing_forms(word)):
        if form in listed and form != word and seen[form] >= seen[word]:
            return form
    return word


def _ing_forms(word: str) -> list[str]:
    found = []
    for ending in ("es", "ed", "s", "d", ""):
        stem = word.removesuffix(ending) if ending and word.endswith(ending) else word if not ending else ""
        if len(stem) >= 2:
            found += [stem + "ing", stem + stem[-1] + "ing"]
            found += [stem[:-1] + "ing"] if stem[-1] in ("e", stem[-2]) else []
            found += [stem[:-1] + "ying"] if ending in ("es", "ed") and stem[-1] == "i" else []
    return [form for form in found if len(form) > 4]


def _other_numbers(word: str) -> tuple[str, ...]:
    forms = [word + "s", word + "es"]
    forms += [word[:-1] + "ies"] if word.endswith("y") else []
    forms += [word[:-1]] if word.endswith("s") and not word.endswith("ss") else []
    forms += [word[:-2]] if word.endswith(("ses", "xes", "ches", "shes")) else []
    forms += [word[:-3] + "y"] if word.endswith("ies") else []
    return tuple(forms)
