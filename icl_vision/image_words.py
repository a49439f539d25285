"""A picture in words with named parts: what is seen, what people would say of it, its colours, the text in it.

``ImageWords`` is a pyramid of one flat layer, so whatever takes a picture's words takes these: all its words in a row,
the first part's first. Beyond that it knows which words belong to which part, how probable each is, and which strings
were read in the picture, which are words of no vocabulary.

Knows: parts, probabilities, how they read as one line of text. Refuses to know: which parts there are, and how a word
comes into one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from icl_vision import checks
from icl_vision.errors import PyramidError
from icl_vision.pyramid import PyramidLayout, TokenPyramid

if TYPE_CHECKING:
    from icl_vision.vocabulary import Vocabulary

TEXT: Final = "text"
"""How the strings read in a picture are called among its parts."""

_MOST_PARTS = 64
_MOST_STRINGS = 256
_LONGEST_STRING = 1000


@dataclass(frozen=True, eq=False, repr=False)
class ImageWords(TokenPyramid):
    """The words of one picture by named parts; made by ``ImageWords.of``.

    Args:
        ids, layout, vocabulary: as of a ``TokenPyramid`` of one flat layer, the parts' words one after another.
        parts: (name, how many of the words), in their order; a part may have none.
        probabilities: one a word, from 0 to 1: how probable it is that the word is right of this picture; None where
            nothing is known of that.
        text: strings that were read in the picture, as they stand there.

    Two are equal that have the same words in the same parts and the same text, whatever the probabilities.

    Raises:
        PyramidError: parts that do not add up to the words, a name that is none or there twice, a probability outside
            of 0 to 1, text that is no string of 1 to 1,000 characters in one line.
    """

    parts: tuple[tuple[str, int], ...] = ()
    probabilities: tuple[float, ...] | None = None
    text: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Sequence[str]],
        vocabulary: Vocabulary,
        *,
        probabilities: Mapping[str, Sequence[float]] | None = None,
        text: Iterable[str] = (),
    ) -> ImageWords:
        """The words of these parts, in this order.

        Args:
            parts: words by part; a part may be empty, not all of them.
            vocabulary: has all of the words.
            probabilities: by part, one a word.
            text: see the class.

        Raises:
            UnknownWordError: a word outside the vocabulary. PyramidError: no word at all, or see the class.
        """
        words = [word for row in parts.values() for word in row]
        if not words:
            raise PyramidError(f"a picture needs at least one word; the parts {', '.join(parts) or '(none)'} are empty")
        chances: tuple[float, ...] | None = None
        if probabilities is not None:
            for name, row in parts.items():
                if len(probabilities.get(name, ())) != len(row):
                    raise PyramidError(
                        f"the part {name!r} has {len(row)} words and {len(probabilities.get(name, ()))} probabilities"
                    )
            chances = tuple(float(chance) for name in parts for chance in probabilities.get(name, ()))
        ids = np.asarray([vocabulary.ids(words)], dtype=np.int32)
        counts = tuple((name, len(row)) for name, row in parts.items())
        return cls((ids,), PyramidLayout.flat(len(words)), vocabulary, counts, chances, tuple(text))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary is None or self.layout != PyramidLayout.flat(self.layout.cumulative[-1]):
            raise PyramidError(f"a picture's words by part are one flat layer of a vocabulary; got {self.layout}")
        parts = tuple((name, checks.count(f"the number of words of {name!r}", count, least=0, error=PyramidError))
                      for name, count in self.parts)  # fmt: skip
        names = [name for name, _ in parts]
        if any(not isinstance(name, str) or not name.isidentifier() or name == TEXT for name in names):
            raise PyramidError(f"parts are named by one plain word each, {TEXT!r} apart; got {names}")
        if len(set(names)) != len(names) or len(names) > _MOST_PARTS:
            raise PyramidError(f"up to {_MOST_PARTS} parts, each named once; got {names[:_MOST_PARTS]}")
        if sum(count for _, count in parts) != self.k:
            raise PyramidError(f"the parts {dict(parts)} do not add up to the {self.k} words there are")
        if self.probabilities is not None:
            chances = tuple(float(chance) for chance in self.probabilities)
            if len(chances) != self.k:
                raise PyramidError(f"{len(chances)} probabilities for {self.k} words")
            bad = next((chance for chance in chances if not 0.0 <= chance <= 1.0 or math.isnan(chance)), None)
            if bad is not None:
                raise PyramidError(f"a probability must be from 0 to 1; got {bad!r}")
            object.__setattr__(self, "probabilities", chances)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "text", tuple(self.text))
        if len(self.text) > _MOST_STRINGS:
            raise PyramidError(f"up to {_MOST_STRINGS} strings are kept of a picture; got {len(self.text)}")
        for string in self.text:
            if not isinstance(string, str) or not 0 < len(string) <= _LONGEST_STRING or not string.isprintable():
                raise PyramidError(
                    f"text read in a picture must be printable strings of 1 to {_LONGEST_STRING:,} characters, each in "
                    f"one line; got {checks.shown(string)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The parts' names, in order; ``text`` is none of them."""
        return tuple(name for name, _ in self.parts)

    def words(self, layer: int | str | None = None) -> list[str]:
        """All words, in order (None or layer 1), or those of the part of that name.

        Raises:
            PyramidError: no such part or layer.
        """
        if not isinstance(layer, str):
            return super().words(layer)
        start, end = self._bounds(layer)
        return super().words()[start:end]

    def chances(self, part: str) -> tuple[float, ...]:
        """The probabilities of a part's words; empty where nothing is known of them. Raises as ``words``."""
        start, end = self._bounds(part)
        return () if self.probabilities is None else self.probabilities[start:end]

    def weights(self) -> dict[str, float]:
        """The highest probability of each word, in order of appearance; empty where there are no probabilities."""
        best: dict[str, float] = {}
        for word, chance in zip(self.words(), self.probabilities or (), strict=False):
            best[word] = max(chance, best.get(word, 0.0))
        return best

    def at_most(self, k: int) -> ImageWords:
        """The first ``k`` words of each part.

        Raises:
            PyramidError: ``k`` below 1.
        """
        k = checks.count("k", k, error=PyramidError)
        return self.only({name: range(min(k, count)) for name, count in self.parts})

    def only(self, places: Mapping[str, Iterable[int]], *, text: Iterable[str] | None = None) -> ImageWords:
        """Some of the words, in a new order.

        Args:
            places: by part, which of its words (from 0), in the order wanted; parts in the order wanted. A part that
                is not named is left out.
            text: the strings to keep; None for all.

        Raises:
            PyramidError: no such part or word, or no word at all.
        """
        chosen: list[int] = []
        counts = []
        for name, wanted in places.items():
            start, end = self._bounds(name)
            rows = [start + place for place in wanted]
            if any(not start <= row < end for row in rows):
                raise PyramidError(f"the part {name!r} has {end - start} words; asked for {list(wanted)}")
            chosen += rows
            counts.append((name, len(rows)))
        if not chosen:
            raise PyramidError("at least one word of a picture must be kept; none was chosen")
        return replace(
            self,
            ids=(self.ids[0][:, chosen],),
            layout=PyramidLayout.flat(len(chosen)),
            parts=tuple(counts),
            probabilities=None if self.probabilities is None else tuple(self.probabilities[row] for row in chosen),
            text=self.text if text is None else tuple(text),
        )

    def truncate(self, layers: int) -> ImageWords:
        """The first layer, which is all there is. Raises PyramidError for any other number."""
        self.layout.truncate(layers)
        return self

    def to_text(self) -> str:
        """One line: ``what: dog puppy; said: man ball; text: "STOP"``; parts without words are left out."""
        pieces = [f"{name}: {' '.join(self.words(name))}" for name, count in self.parts if count]
        if self.text:
            pieces.append(f"{TEXT}: " + " ".join(quoted(string) for string in self.text))
        return "; ".join(pieces)

    @classmethod
    def from_text(cls, text: str, vocabulary: Vocabulary, names: Sequence[str] = ()) -> ImageWords:
        """The words whose ``to_text`` is ``text``, without probabilities; surrounding white space is ignored.

        Args:
            names: the parts there are, in order: those the text leaves out become empty ones. Empty: those it names.

        Raises:
            UnknownWordError: a word outside the vocabulary.
            PyramidError: a part that is not among ``names`` or stands out of order, or text in another form.
        """
        parts: dict[str, list[str]] = {}
        strings: list[str] = []
        rest = text.strip()
        while rest:
            name, colon, rest = rest.partition(": ")
            if not colon or name in parts or strings:
                raise PyramidError(f"words by part read 'what: dog puppy; said: man'; got {checks.shown(text)}")
            if name == TEXT:
                strings, rest = _unquoted(rest, text)
            else:
                row, _, rest = rest.partition("; ")
                parts[name] = row.split()
        unknown = [name for name in parts if names and name not in names]
        if unknown or (names and [name for name in names if name in parts] != [*parts]):
            raise PyramidError(f"the parts are {', '.join(names)}, in this order; got {', '.join(parts)}")
        return cls.of({name: parts.get(name, []) for name in names or parts}, vocabulary, text=strings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: that of a ``TokenPyramid``, and parts, probabilities and text."""
        return {
            **super().to_dict(),
            "parts": [list(part) for part in self.parts],
            "probabilities": None if self.probabilities is None else list(self.probabilities),
            "text": list(self.text),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> ImageWords:
        """What ``to_dict`` wrote.

        Raises:
            VocabularyError: ``vocabulary`` is not the one named in the document (by hash).
            PyramidError: missing keys, another format, or values that do not fit.
        """
        flat = cls._flat(document, vocabulary)
        try:
            parts = tuple((name, count) for name, count in document["parts"])
            chances, text = document["probabilities"], tuple(document["text"])
            return cls(flat.ids, flat.layout, vocabulary, parts, None if chances is None else tuple(chances), text)
        except (KeyError, TypeError, ValueError) as error:
            raise PyramidError(
                f"words by part must be a dict as to_dict() gives it: parts, probabilities and text ({error})"
            ) from None

    @staticmethod
    def _flat(document: Mapping[str, Any], vocabulary: Vocabulary | None) -> TokenPyramid:
        plain = (
            {key: value for key, value in document.items() if key != "parts"} if isinstance(document, Mapping) else {}
        )
        return TokenPyramid.from_dict(plain, vocabulary)

    def _bounds(self, part: str) -> tuple[int, int]:
        start = 0
        for name, count in self.parts:
            if name == part:
                return start, start + count
            start += count
        raise PyramidError(f"there is no part {part!r}; the parts are {', '.join(self.names)}")

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        if same is NotImplemented or not same:
            return same
        return isinstance(other, ImageWords) and self.parts == other.parts and self.text == other.text

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.parts, self.text))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.ids, self.layout, self.vocabulary, self.parts, self.probabilities, self.text)
        return (type(self), fields)

    def __repr__(self) -> str:
        line = self.to_text()
        return f"ImageWords({line if len(line) <= 200 else line[:197] + '...'})"


def quoted(string: str) -> str:
    """A string that was read in a picture, in double quotes that it cannot close."""
    escaped = string.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquoted(rest: str, whole: str) -> tuple[list[str], str]:
    """The quoted strings at the beginning of ``rest``, and what follows them (nothing may)."""
    strings: list[str] = []
    at = 0
    while at < len(rest):
        if rest[at] == " ":
            at += 1
            continue
        if rest[at] != '"':
            break
        letters: list[str] = []
        at += 1
        while at < len(rest) and rest[at] != '"':
            at += rest[at] == "\\"
            letters += rest[at : at + 1]
            at += 1
        if at >= len(rest):
            break
        strings.append("".join(letters))
        at += 1
    if at < len(rest) or not strings:
        raise PyramidError(f"text read in a picture stands last, in double quotes; got {checks.shown(whole)}")
    return strings, ""
