"""The captions that figures are measured on, by the name of what they try.

Knows: which captions make a set, and how fewer of them are drawn evenly. Refuses to know: rows and judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from icl_vision.checks import choice, count
from icl_vision.evaluation.text_to_image.evaluation import Wanted
from icl_vision.text_to_image.captions import (
    COGNATES,
    ENGLISH,
    HELD_OUT,
    VALIDATION,
    Caption,
    bare_captions,
    fact_captions,
    held_out_captions,
    plain_captions,
    sum_captions,
    trained_captions,
)

PLAIN: Final = "plain"
BARE: Final = {"bare": ENGLISH, "bare-id": "id"}
"""Sets of words that stand alone, by the language of the words."""
TRAINED: Final = "trained"
COGNATE: Final = "cognates"
SUMS: Final = "sums"
FACTS: Final = "facts"
LANGUAGES: Final = tuple(language for language in HELD_OUT if language not in COGNATES)
"""Languages that make a set of their own."""
SETS: Final = (PLAIN, *BARE, TRAINED, *LANGUAGES, COGNATE, SUMS, FACTS)
"""English captions in unseen templates; words alone, of English and of Indonesian; number words of the other languages
that training shows, in unseen templates; of languages that it never shows, those of the four languages whose words look
like trained ones together and apart; sums; facts."""


def captions_of(name: str) -> list[Caption]:
    """All captions of a set. Raises UsageError for another name."""
    choice("set", name, SETS)
    if name == PLAIN:
        return plain_captions()
    if name in BARE:
        return bare_captions(BARE[name])
    if name == TRAINED:
        return trained_captions()
    if name == COGNATE:
        return [caption for language in COGNATES for caption in held_out_captions(language)]
    if name == SUMS:
        return sum_captions()
    return fact_captions() if name == FACTS else held_out_captions(name)


def wanted(name: str, most: int, seed: int = 0) -> tuple[Wanted, ...]:
    """So many captions of a set at most, as even over the digits as they go; a larger number has those of a smaller."""
    return _drawn(captions_of(name), most, seed)


def validation(most: int, seed: int = 0) -> tuple[Wanted, ...]:
    """Captions to choose settings with: in English, in templates of their own."""
    return _drawn(plain_captions(VALIDATION), most, seed)


def _drawn(captions: Sequence[Caption], most: int, seed: int) -> tuple[Wanted, ...]:
    count("n", most)
    order = np.random.default_rng([seed, 29]).permutation(len(captions))
    # The first of each digit, then the second of each ...
    met: dict[int, int] = {}
    turns = []
    for place in order:
        digit = captions[place].digit
        turns.append((met.get(digit, 0), digit, int(place)))
        met[digit] = met.get(digit, 0) + 1
    chosen = [captions[place] for _, _, place in sorted(turns)[:most]]
    return tuple(Wanted(caption.text, str(caption.digit)) for caption in chosen)
