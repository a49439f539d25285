"""The words that places may hold, and from an LLM's text to the words of a segment, every change named.

Knows: spelling, nearness of vectors where there is a codebook, how answers go wrong (echoes, essays, lists, too few,
too many, other words) and what of that can be put right without guessing. Refuses to know: prompts' wording, LLMs. What
it cannot read it leaves empty; it never makes words up.

In order:

- An answer that repeats the query is read after it; one that begins with another part of the prompt is not read.
- The first line counts. Only where it does not hold the words and nothing but the words may another single line do,
  the text after a colon, or all lines together: each must then hold exactly as many words as asked for, all allowed.
- Pieces without a letter or number, and the numbers of a list, are left out.
- Each piece is looked for among the words allowed at its place (``WordSet.find``). The two rungs by nearness count only
  where the rest vouches for it: as many pieces as places, or at least half of them exact or folded. An answer of
  which neither is true is not read at all.
- More pieces than places are cut off.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from icl_vision.asking.answer_forms import NEAREST_MARGIN, NEAREST_RATIO
from icl_vision.errors import UsageError
from icl_vision.prompting.labels import fold
from icl_vision.spelling import composed

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook

ChangeKind = Literal[
    "echo", "lead-in", "other line", "lines joined", "dropped", "folded", "nearest string", "nearest vector", "known",
    "cut", "run", "filled",
]  # fmt: skip
"""What was done to an answer.

echo: the prompt's own text before the words was skipped. lead-in: other text before them was. other line: the words
stood on a later line. lines joined: on several. dropped: a piece without a word. folded, nearest string, nearest
vector: another spelling or word. known: a given word was kept. cut: text after the words was left. run: a word that
stood too often in a row was asked for again, or kept for want of another. filled: no word was answered; the examples'
most frequent at that place stands there.
"""

VOUCH = 0.5
"""Least share of exact or folded words, for an answer that is not whole without nearness."""

NEAREST_COSINE = 0.4
"""Least cosine for the nearest vector; unrelated words of the packaged codebook lie about 0."""

EDGES = " \t\"'`\u00b4\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb.,;:!?*#()[]{}<>|~_-\u2013\u2014\u2026\ufeff\u200b"
"""What may stand around a word without being part of it."""

_LONGEST = 64
"""Characters of a piece that are compared by spelling; similarity takes quadratic time."""

_SHOWN = 80
_ENUMERATOR = re.compile(r"\(?\d{1,3}[.):]")
_SEPARATORS = re.compile(r"[\s,;|/\u3001\uff0c]+")

Rung = Literal["exact", "folded", "nearest string", "nearest vector"]


class Match(NamedTuple):
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
        self._known: dict[str, Match | None] = {}

    def __contains__(self, word: object) -> bool:
        return word in self._members

    def __len__(self) -> int:
        return len(self.words)

    def without(self, *words: str) -> WordSet:
        """The set without some words; the set itself where nothing would change, or nothing be left."""
        rest = [word for word in self.words if word not in words]
        return WordSet(rest, self._codebook) if 0 < len(rest) < len(self.words) else self

    def find(self, piece: str, *, near: bool = True) -> Match | None:
        """The word that a piece of text means, by the strictest rung that finds one; None where none does.

        The rungs: exact; folded (letter case, compatibility characters, marks around it), if that fits one word only;
        the nearest string, if it is close and no other nearly as close; the nearest vector, for words of the codebook
        that are not in this set.

        Args:
            near: whether the last two rungs count.
        """
        if piece in self._members:
            return Match(piece, "exact")
        spelled = self._composed.get(composed(piece))
        if spelled is not None:
            return Match(spelled, "exact")  # the same word in other characters
        bare = fold(piece).strip(EDGES)
        if not bare:
            return None
        spelled = self._folded.get(bare)
        if spelled is not None:
            return Match(spelled, "folded")
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
        words: dict[str, str | None] = {}
        for word in self.words:
            for form in {fold(word), fold(word).strip(EDGES)}:
                words[form] = None if form in words and words[form] != word else word
        return {form: word for form, word in words.items() if form and word is not None}

    def _near(self, bare: str) -> Match | None:
        if len(bare) <= _LONGEST:
            # A second candidate nearly as close makes the first one a guess.
            best = difflib.get_close_matches(bare, self._folded, n=2, cutoff=NEAREST_RATIO)
            ratios = [difflib.SequenceMatcher(None, form, bare, autojunk=False).ratio() for form in best]
            if best and (len(best) == 1 or ratios[0] - ratios[1] >= NEAREST_MARGIN):
                return Match(self._folded[best[0]], "nearest string")
        book = self._codebook
        if book is None or bare not in book.vocabulary:
            return None
        words, vectors = self._vectors
        if not words:
            return None
        similarities = vectors @ book.vectors[book.vocabulary.id(bare)]
        nearest = int(np.argmax(similarities))
        return Match(words[nearest], "nearest vector") if similarities[nearest] >= NEAREST_COSINE else None

    @cached_property
    def _vectors(self) -> tuple[Sequence[str], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        assert self._codebook is not None
        words = [word for word in self.words if word in self._codebook.vocabulary]
        return words, self._codebook.vectors[self._codebook.vocabulary.ids(words)]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing done to an answer. place: of the word in the segment, from 1; 0 for the answer as a whole."""

    kind: ChangeKind
    place: int
    was: str
    now: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    def __str__(self) -> str:
        where = f"word {self.place}: " if self.place else ""
        return f"{where}{self.kind}: {self.was!r} -> {self.now!r}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read. words: one for each place, None where nothing was. problem: why not all, "" where all were."""

    words: tuple[str | None, ...]
    changes: tuple[Change, ...]
    problem: str = ""


def printable(text: str, limit: int = _SHOWN) -> str:
    """Text fit for a report: valid Unicode, at most ``limit`` characters."""
    clean = text[:limit].encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(text) <= limit else clean + "..."


def read_words(
    answer: str,
    places: Sequence[WordSet],
    *,
    known: Mapping[int, str] | None = None,
    query: str = "",
    marks: Sequence[str] = (),
) -> Reading:
    """The words of a segment in an answer.

    Args:
        answer: any text at all.
        places: the words allowed at each place.
        known: words that are given, by place from 0; what the answer has there does not count.
        query: the prompt's query part, to recognise an answer that repeats it.
        marks: beginnings of the prompt's own lines ("C:", "A:"), to recognise one that repeats the examples.
    """
    reader = _Reader(places, known or {})
    text = answer
    changes: list[Change] = []
    asked = query.strip()
    if asked and "\n" in asked and asked in text:
        before, _, text = text.rpartition(asked)
        changes.append(Change("echo", 0, printable(before + asked), ""))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("```")]
    if not lines:
        return reader.nothing("the answer is empty" + (" after the prompt's own text" if changes else ""), changes)
    ending = asked.rpartition("\n")[2]  # what the query ends with, "A:"
    if ending and lines[0].startswith(ending):
        changes.append(Change("echo", 0, ending, ""))
        lines[0] = lines[0].removeprefix(ending).strip()
        lines = [line for line in lines if line]
    if not lines:
        return reader.nothing("the answer is empty after the prompt's own text", changes)
    if any(lines[0].startswith(mark) for mark in marks):
        return reader.nothing(f"the answer repeats the prompt: {printable(lines[0], 40)!r}", changes)
    end = next((number for number, line in enumerate(lines) if any(map(line.startswith, marks))), len(lines))
    rest = lines[end:]
    reading = reader.best(lines[:end], rest)
    return Reading(reading.words, (*changes, *reading.changes), reading.problem)


class _Reader:
    """Readings of lines as the words of ``places``."""

    def __init__(self, places: Sequence[WordSet], known: Mapping[int, str]) -> None:
        self.places = places
        self.known = known

    def nothing(self, problem: str, changes: Sequence[Change] = ()) -> Reading:
        words = tuple(self.known.get(place) for place in range(len(self.places)))
        return Reading(words, tuple(changes), problem)

    def best(self, lines: Sequence[str], rest: Sequence[str]) -> Reading:
        """The strictest reading of some lines; ``rest`` are lines after them that are not to be read."""
        first = self.strict(lines[0])
        if first is not None:
            left = " ".join([*lines[1:], *rest])
            return _with(first, after=[Change("cut", 0, printable(left), "")] if left else [])
        whole = self.strict(" ".join(lines)) if len(lines) > 1 and not rest else None
        if whole is not None:
            return _with(whole, before=[Change("lines joined", 0, printable(" / ".join(lines)), "")])
        after_colon = self.strict(lines[0].rpartition(":")[2]) if ":" in lines[0] and len(lines) == 1 else None
        if after_colon is not None:
            lead = lines[0].rpartition(":")[0] + ":"
            return _with(after_colon, before=[Change("lead-in", 0, printable(lead), "")])
        others = [reading for line in lines[1:] if (reading := self.strict(line)) is not None]
        if others and len({reading.words for reading in others}) == 1:
            return _with(others[0], before=[Change("other line", 0, printable(" / ".join(lines)), "")])
        if len(lines) > 1 and others:
            return self.nothing(f"{len(others)} lines of the answer could be meant")
        return self.tolerant(lines[0], [*lines[1:], *rest])

    def strict(self, line: str) -> Reading | None:
        """A line of exactly as many pieces as places, each exact or folded; else None."""
        for pieces, changes in (self._pieces(line.split()), self._separated(line)):
            if len(pieces) == len(self.places):
                reading = self._read(pieces, changes, near=False)
                if not reading.problem:
                    return reading
        return None

    def tolerant(self, line: str, rest: Sequence[str]) -> Reading:
        pieces, changes = self._pieces(line.split())
        if len(pieces) < len(self.places):
            split = self._separated(line)
            if len(split[0]) > len(pieces):
                pieces, changes = split
        strict = self._read(pieces, changes, near=False)
        asked = [place for place in range(min(len(pieces), len(self.places))) if place not in self.known]
        given = sum(strict.words[place] is not None for place in asked)
        vouched = given >= VOUCH * len(asked)
        reading = self._read(pieces, changes, near=True)
        if not vouched and (len(pieces) != len(self.places) or reading.problem):
            return self.nothing(f"only {given} of {len(asked)} words are among those allowed: {printable(line, 60)!r}")
        left = " ".join([*pieces[len(self.places) :], *rest])
        return _with(reading, after=[Change("cut", 0, printable(left), "")] if left else [])

    def _separated(self, line: str) -> tuple[list[str], list[Change]]:
        """The pieces between commas and the like, which count as left out."""
        marks = "".join(dict.fromkeys(mark.strip() for mark in _SEPARATORS.findall(line)))
        pieces, changes = self._pieces(_SEPARATORS.split(line))
        return pieces, [*([Change("dropped", 0, marks, "")] if marks else []), *changes]

    def _pieces(self, pieces: Sequence[str]) -> tuple[list[str], list[Change]]:
        """The pieces that can be words, and what was left out."""
        words: list[str] = []
        changes: list[Change] = []
        for piece in pieces:
            place = min(len(words), len(self.places) - 1)
            junk = not any(map(str.isalnum, piece)) or _ENUMERATOR.fullmatch(piece)
            if piece and junk and piece not in self.places[place]:
                changes.append(Change("dropped", 0, printable(piece), ""))
            elif piece:
                words.append(piece)
        return words, changes

    def _read(self, pieces: Sequence[str], changes: Sequence[Change], *, near: bool) -> Reading:
        all_changes = list(changes)
        words: list[str | None] = []
        for place, allowed in enumerate(self.places):
            piece = pieces[place] if place < len(pieces) else None
            given = self.known.get(place)
            if given is not None:
                if piece is not None and piece != given:
                    all_changes.append(Change("known", place + 1, printable(piece), given))
                words.append(given)
                continue
            match = None if piece is None else allowed.find(piece, near=near)
            words.append(None if match is None else match.word)
            if match is not None and piece is not None and match.rung != "exact":
                all_changes.append(Change(match.rung, place + 1, printable(piece), match.word))
        missing = [place for place, word in enumerate(words) if word is None]
        problem = ""
        if missing:
            place = missing[0]
            problem = (
                f"word {place + 1} of {len(self.places)} is missing"
                if place >= len(pieces)
                else f"word {place + 1} of {len(self.places)}, {printable(pieces[place], 40)!r}, "
                "is none of those allowed"
            )
        return Reading(tuple(words), tuple(all_changes), problem)


def _with(reading: Reading, before: Sequence[Change] = (), after: Sequence[Change] = ()) -> Reading:
    return Reading(reading.words, (*before, *reading.changes, *after), reading.problem)
