"""The words that a place may hold, and the one of them that a piece of text means.

Knows: spelling, and nearness of vectors where there is a codebook. Refuses to know: answers as a whole, prompts, LLMs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from icl_vision.asking.answer_forms import NEAREST_MARGIN, NEAREST_RATIO
from icl_vision.errors import UsageError
from icl_vision.prompting.labels import fold
from icl_vision.spelling import composed

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook

NEAREST_COSINE = 0.4
"""Least cosine for the nearest vector; unrelated words of the packaged codebook lie about 0."""

EDGES = " \t\"'`\u00b4\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb.,;:!?*#()[]{}<>|~_-\u2013\u2014\u2026\ufeff\u200b"
"""What may stand around a word without being part of it."""

_LONGEST = 64
"""Characters of a piece that are compared by spelling; similarity takes quadratic time."""

Rung = Literal["exact", "folded", "nearest string", "nearest vector"]


class Found(NamedTuple):
    """A word and the rung that found it."""

    word: str
    rung: Rung


def unused(words: Sequence[str], uses: Mapping[str, int], most: int) -> tuple[str, ...]:
    """The words that were written fewer than ``most`` times; where none was, those that were written least.

    words: at least one.
    """
    bound = max(most, 1 + min(uses.get(word, 0) for word in words))
    return tuple(word for word in words if uses.get(word, 0) < bound)


class WordSet:
    """Some words, in a fixed order.

    Args:
        words: at least one.
        codebook: vectors of these and other words, for the last rung; None leaves it out.

    Raises:
        UsageError: no words.
    """

    def __init__(self, words: Iterable[str], codebook: Codebook | None = None) -> None:
        self.words: tuple[str, ...] = tuple(dict.fromkeys(words))
        if not self.words:
            raise UsageError("a set of allowed words needs at least one word; got none")
        self._members = frozenset(self.words)
        self._codebook = codebook
        self._known: dict[str, Found | None] = {}

    def __contains__(self, word: object) -> bool:
        return word in self._members

    def __len__(self) -> int:
        return len(self.words)

    def without(self, *words: str) -> WordSet:
        """The set without some words; the set itself where nothing would change, or nothing be left."""
        rest = [one for one in self.words if one not in words]
        return WordSet(rest, self._codebook) if 0 < len(rest) < len(self.words) else self

    def find(self, piece: str, *, near: bool = True) -> Found | None:
        """The word that a piece of text means, by the strictest rung that finds one; None where none does.

        The rungs: exact; folded (letter case, compatibility characters, marks around it), if that fits one word only;
        the nearest string, if it is close and no other nearly as close; the nearest vector, for words of the codebook
        that are not in this set.

        Args:
            near: whether the last two rungs count.
        """
        if piece in self._members:
            return Found(piece, "exact")
        spelled = self._composed.get(composed(piece))
        if spelled is not None:
            return Found(spelled, "exact")  # the same word in other characters
        bare = fold(piece).strip(EDGES)
        if not bare:
            return None
        spelled = self._folded.get(bare)
        if spelled is not None:
            return Found(spelled, "folded")
        if not near:
            return None
        if bare not in self._known:
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[bare] = self._near(bare)
        return self._known[bare]

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {composed(word): word for word in self.words}

    @cached_property
    def _folded(self) -> dict[str, str]:
        """Words by their folded form; forms that several words share are left out."""
        found: dict[str, str | None] = {}
        for word in self.words:
            for form in {fold(word), fold(word).strip(EDGES)}:
                found[form] = None if form in found and found[form] != word else word
        return {form: word for form, word in found.items() if form and word is not None}

    def _near(self, bare: str) -> Found | None:
        if len(bare) <= _LONGEST:
            # A second candidate nearly as close makes the first one a guess.
            best = difflib.get_close_matches(bare, self._folded, n=2, cutoff=NEAREST_RATIO)
            ratios = [difflib.SequenceMatcher(None, one, bare, autojunk=False).ratio() for one in best]
            if best and (len(best) == 1 or ratios[0] - ratios[1] >= NEAREST_MARGIN):
                return Found(self._folded[best[0]], "nearest string")
        book = self._codebook
        if book is None or bare not in book.vocabulary:
            return None
        words, vectors = self._vectors
        if not words:
            return None
        similarities = vectors @ book.vectors[book.vocabulary.id(bare)]
        place = int(np.argmax(similarities))
        return Found(words[place], "nearest vector") if similarities[place] >= NEAREST_COSINE else None

    @cached_property
    def _vectors(self) -> tuple[Sequence[str], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        assert self._codebook is not None
        words = [word for word in self.words if word in self._codebook.vocabulary]
        return words, self._codebook.vectors[self._codebook.vocabulary.ids(words)]
