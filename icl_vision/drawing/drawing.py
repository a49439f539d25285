"""What is drawn from and what is drawn: pairs, queries, pictures on their way.

Knows: conditions, words by place, what is still missing. Refuses to know: prompts, LLMs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icl_vision.contracts import Usage
from icl_vision.drawing.repair import Change
from icl_vision.drawing.stages import Segment, first_place, layer_of, parents
from icl_vision.errors import PyramidError, UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.vocabulary import Vocabulary

Condition = str | TokenPyramid
"""u of eq. (10): a text such as "an image of 3", or another picture's words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One example of eq. (10): a condition u and the picture v that belongs to it."""

    condition: Condition
    target: TokenPyramid


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be drawn.

    condition: u, as in the pairs. known: words that are given already, by place (from 0, coarse to fine, raster order);
    they are shown where earlier words are, and never changed. name: for reports, seeds and run folders; left out, the
    query's number. The same condition under two names is drawn twice, differently where it is sampled. also: words this
    query may have beside those of its stage, by layer from 1, such as those of its own condition.
    """

    condition: Condition = ""
    known: Mapping[int, str] = field(default_factory=dict)
    name: str = ""
    also: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def refining(cls, pyramid: TokenPyramid, layers: int, condition: Condition = "", name: str = "") -> Query:
        """A query whose first ``layers`` layers are those of ``pyramid`` (which may have no others)."""
        words = pyramid.truncate(layers).words()
        return cls(condition, dict(enumerate(words)), name)


@dataclass(frozen=True, slots=True)
class SegmentAnswer:
    """How a segment got its words.

    words: None where it was refused. changes: everything done to the LLM's answers. texts: those answers. constrained:
    whether the LLM could write nothing but allowed words. usage: requests and tokens. problem: why it was refused.
    score: of the best of several candidates. candidates: how many were asked for.
    """

    words: tuple[str, ...] | None
    changes: tuple[Change, ...] = ()
    texts: tuple[str, ...] = ()
    constrained: bool = False
    usage: Usage = field(default_factory=Usage)
    problem: str = ""
    score: float | None = None
    candidates: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "words": None if self.words is None else list(self.words),
            "changes": [change.to_dict() for change in self.changes],
            "texts": list(self.texts),
            "constrained": self.constrained,
            "usage": self.usage.to_dict(),
            "problem": self.problem,
            "score": self.score,
            "candidates": self.candidates,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SegmentAnswer:
        """The answer of ``to_dict``. Raises KeyError, TypeError or ValueError on anything else."""
        words = document["words"]
        return cls(
            None if words is None else tuple(map(str, words)),
            tuple(Change(**change) for change in document["changes"]),
            tuple(document["texts"]),
            bool(document["constrained"]),
            Usage(**document["usage"]),
            str(document["problem"]),
            document["score"],
            int(document["candidates"]),
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture, finished or on its way.

    query: what it is of. words: by place, None where there is none yet. answers: of the segments that were asked for,
    by their number. error: why it cannot be finished.
    """

    query: Query
    layout: PyramidLayout
    vocabulary: Vocabulary
    words: tuple[str | None, ...]
    answers: Mapping[int, SegmentAnswer] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def complete(self) -> bool:
        """Whether every place has its word."""
        return None not in self.words

    @property
    def missing(self) -> int:
        """Places without a word."""
        return sum(word is None for word in self.words)

    @property
    def usage(self) -> Usage:
        """Requests and tokens of all its segments."""
        return sum((answer.usage for answer in self.answers.values()), Usage())

    @property
    def changes(self) -> tuple[Change, ...]:
        """Everything that was done to its answers, segment by segment."""
        return tuple(change for number in sorted(self.answers) for change in self.answers[number].changes)

    @property
    def constrained(self) -> bool:
        """Whether every answer could hold nothing but allowed words."""
        return all(answer.constrained for answer in self.answers.values() if answer.texts)

    @property
    def pyramid(self) -> TokenPyramid:
        """The finished picture's words.

        Raises:
            PyramidError: words are missing.
        """
        if self.error is not None or not self.complete:
            why = f": {self.error}" if self.error is not None else "; preview() fills them"
            raise PyramidError(
                f"the drawing {self.query.name!r} has no word at {self.missing} of {len(self.words)} places{why}"
            )
        return self._pyramid(self.words)

    def layers_done(self) -> int:
        """How many layers, from the coarsest on, have all their words."""
        done = 0
        while done < len(self.layout) and None not in self.words[: first_place(self.layout, done + 2)]:
            done += 1
        return done

    def preview(self, filling: Sequence[str] | None = None) -> TokenPyramid | None:
        """The picture as far as it is, for a decoder to show at any time; None while there is nothing to fill it from.

        A missing word takes that of the coarser word over it. That is for looking at: it is no answer.

        Args:
            filling: a word for each place, for those with nothing over them, such as ``plurality`` gives it.
        """
        words = list(self.words)
        for place, word in enumerate(words):
            if word is None:
                above = parents(self.layout, (place,))
                words[place] = words[above[-1]] if above else (None if filling is None else filling[place])
        return None if None in words else self._pyramid(words)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.query.name,
            "words": list(self.words),
            "complete": self.complete,
            "constrained": self.constrained,
            "usage": self.usage.to_dict(),
            "changes": [change.to_dict() | {"segment": number} for number, answer in sorted(self.answers.items())
                        for change in answer.changes],
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }  # fmt: skip

    def _pyramid(self, words: Sequence[str | None]) -> TokenPyramid:
        ids = self.vocabulary.ids([word for word in words if word is not None])
        cuts = np.split(ids, self.layout.cumulative[:-1])
        layers = tuple(cut.reshape(grid) for cut, grid in zip(cuts, self.layout.grids, strict=True))
        return TokenPyramid(layers, self.layout, self.vocabulary)


@dataclass(frozen=True, slots=True)
class SegmentDrawn:
    """One segment has got its words, or a drawing has failed.

    query: its number, from 0. segment: of the pass, from 1. drawing: the picture as it now is. restored: the words come
    from the run folder.
    """

    query: int
    segment: int
    drawing: Drawing
    restored: bool = False


@dataclass(slots=True)
class Canvas:
    """One picture while it is drawn: its query and, as in ``Drawing``, what there is of it."""

    query: Query
    layout: PyramidLayout
    vocabulary: Vocabulary
    words: list[str | None]
    answers: dict[int, SegmentAnswer] = field(default_factory=dict)
    error: Exception | None = None

    def put(self, number: int, segment: Segment, answer: SegmentAnswer) -> None:
        """Give a segment, by its number, the words of an answer that has them."""
        assert answer.words is not None
        self.words[segment.start : segment.stop] = answer.words
        self.answers[number] = answer

    def drawing(self) -> Drawing:
        """The picture as it now is."""
        return Drawing(self.query, self.layout, self.vocabulary, tuple(self.words), dict(self.answers), self.error)


def plurality(targets: Sequence[TokenPyramid]) -> tuple[str, ...]:
    """The most frequent word of each place among some pictures; of equally frequent ones that of the first picture."""
    return tuple(
        Counter(words).most_common(1)[0][0] for words in zip(*(target.words() for target in targets), strict=True)
    )


def condition_text(condition: Condition) -> str:
    """A condition as it stands in a prompt: the text itself, or a picture's words."""
    return condition if isinstance(condition, str) else " ".join(condition.words())


def condition_words(condition: Condition, places: Sequence[int]) -> str:
    """A condition's words at some places.

    Raises:
        UsageError: the condition is a text, or a picture with fewer words.
    """
    if isinstance(condition, str):
        raise UsageError(
            f"condition='same' shows a condition's words at the segment's places; {condition[:40]!r} is a text: give a "
            "TokenPyramid, or use condition='all'"
        )
    words = condition.words()
    if places and places[-1] >= len(words):
        raise UsageError(
            f"the condition has {len(words)} words, none at place {places[-1]} that condition='same' shows"
        )
    return " ".join(words[place] for place in places)


def check_pairs(pairs: Sequence[Pair]) -> tuple[PyramidLayout, Vocabulary]:
    """The layout and vocabulary that all targets share.

    Raises:
        UsageError: no pairs, something else than pairs, character art, or targets that differ in layout or vocabulary.
    """
    if not pairs:
        raise UsageError("drawing needs at least one pair of a condition and a picture; got none")
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, Pair) or not isinstance(pair.target, TokenPyramid):
            raise UsageError(f"example {number} must be a Pair(condition, TokenPyramid); got {type(pair).__name__}")
    first = pairs[0].target
    if first.vocabulary is None:
        raise UsageError("pictures of characters have no vocabulary to draw from; use a tokenizer with words")
    for number, pair in enumerate(pairs, start=1):
        if pair.target.layout != first.layout or pair.target.vocabulary != first.vocabulary:
            raise UsageError(
                f"all pictures must share a layout and a vocabulary; example {number} has {pair.target.layout}, "
                f"the first {first.layout}"
            )
    return first.layout, first.vocabulary


def check_query(query: Query, layout: PyramidLayout, vocabulary: Vocabulary) -> None:
    """Raise UsageError or UnknownWordError where a query's known words do not fit."""
    for place, word in query.known.items():
        if isinstance(place, bool) or not isinstance(place, int):
            raise UsageError(f"a known word's place must be a whole number; got {place!r}")
        layer_of(layout, place)
        vocabulary.id(word)
    for layer, words in query.also.items():
        if isinstance(layer, bool) or not isinstance(layer, int) or not 1 <= layer <= len(layout):
            raise UsageError(f"also gives words by layer, 1 to {len(layout)}; got layer {layer!r}")
        vocabulary.ids(words)
