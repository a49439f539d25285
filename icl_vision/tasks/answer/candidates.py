"""What might be answered where nothing was given to choose from, and what the pictures say of each.

Knows: words as evidence, kinds of questions, answers of examples. Refuses to know: prompts, how an LLM scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from icl_vision.tasks.answer.answered import MOST_ANSWER
from icl_vision.tasks.answer.reading import (
    COLOURS,
    NO,
    NUMBERS,
    YES,
    asks_for_all_text,
    distinct,
    is_number,
    kind_of,
    normal_form,
    numbers_like,
)

NO_RATES: Mapping[str, float] = MappingProxyType({})

MOST_WORDS = 60
"""Words of a picture that are candidates, the likeliest first."""

FLOOR = 0.01
"""How probable a word is taken to be that vision says nothing of: less than nearly all that it says something of."""

EMPTY = frozenset(
    "a an the of in on at by to for from with without and or as is are was be been being it its this that these those "
    "there here his her their them they he she who which what where into onto over under near next up down out off "
    "while through around some very".split()
)
"""Words of a text in place of a picture that name nothing, and so answer nothing."""


def candidates(
    question: str | None, chances: Mapping[str, float], answers: Sequence[str], own: str, most: int = MOST_WORDS
) -> list[str]:
    """What might be answered, each once.

    A question that asks whether, how many or what colour is answered by yes or no, a number or a colour; any other by
    a word of the pictures. The answers of the examples and the LLM's own are candidates too, as far as they are of
    that kind.

    Args:
        question: None for none.
        chances: of the pictures' words, see ``pictures.evidence``.
        answers: of the examples.
        own: what the LLM answered by itself; "" for nothing.
        most: words of the pictures at most.
    """
    known = distinct(answers)
    mine = [own] if own else []
    kind = kind_of(question)
    if kind == "whether":
        return distinct([YES, NO, *mine])
    if kind == "number":
        return distinct([*filter(is_number, known), *numbers_like(known), *mine])
    if kind == "colour":
        return distinct([*(answer for answer in known if normal_form(answer) in COLOURS), *COLOURS, *mine])
    # Numbers and colours say nothing of what a thing is, and captions are full of them.
    named = [word for word, chance in chances.items()
             if chance > 0 and word not in EMPTY and word not in NUMBERS and word not in COLOURS]  # fmt: skip
    likeliest = sorted(named, key=lambda word: -chances[word])[:most]
    return distinct([*known, *mine, *likeliest])


def read_as_answers(question: str | None, strings: Sequence[str]) -> list[str]:
    """What of the text that was read in the pictures can be answered.

    All of it, in its order, where the question is about the picture or its sign as such: the lines of a sign are
    strings of their own. Where it names a thing, each string by itself.
    """
    whole = " ".join(strings)
    return [whole] if asks_for_all_text(question) and len(whole) <= MOST_ANSWER else [*strings]


def speaks(question: str | None) -> bool:
    """Whether a picture's words can say anything of the answer: not of how many things there are, since captions say
    "two" of any picture with a pair of anything, nor of yes and no."""
    return kind_of(question) in ("colour", "open")


def log_vision(candidate: str, chances: Mapping[str, float], rates: Mapping[str, float] = NO_RATES) -> float:
    """The logarithm of how much more probable a candidate is of these pictures than of any other: of several words the
    mean, so that long ones lose nothing; a plural counts as its singular and a number in digits as its word.

    rates: how probable each word is of any picture; where there are none, the logarithm of the probability alone.
    """
    words = normal_form(candidate).split() or [candidate]
    return sum(_log_gain(word, chances, rates) for word in words) / len(words)


def _log_gain(word: str, chances: Mapping[str, float], rates: Mapping[str, float]) -> float:
    forms = [word, *_other_number(word)]
    if word.isdecimal() and int(word) < len(NUMBERS):
        forms.append(NUMBERS[int(word)])
    chance = max(FLOOR, *(chances.get(form, 0.0) for form in forms))
    if not rates:
        return math.log(chance)
    return math.log(chance) - math.log(max(FLOOR, *(rates.get(form, 0.0) for form in forms)))


def _other_number(word: str) -> list[str]:
    """English singulars and plurals of a word, by its ending."""
    if word.endswith("ies") and len(word) > 4:
        return [word[:-3] + "y"]
    if word.endswith(("ses", "xes", "ches", "shes")):
        return [word[:-2]]
    if word.endswith("s") and not word.endswith("ss"):
        return [word[:-1]]
    if word.endswith(("s", "x", "ch", "sh")):
        return [word + "es"]
    return [word + "s", *([word[:-1] + "ies"] if word.endswith("y") else [])]
