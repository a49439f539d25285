"""Which examples a query is shown, in which order, and how they are dealt out to several prompts.

Two ways: "nearest" (to the query's question by its words and to its pictures by the vectors of theirs) and "random" (a
seeded draw, the same for every query). The nearest example stands last, closest to the query.

Knows: examples in words, how near two are, ways and shots. Refuses to know: prompts and LLMs.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Tokenizer
from icl_vision.prompting.labels import fold
from icl_vision.tasks.answer.answered import AnsweredExample
from icl_vision.tasks.answer.pictures import Seen, evidence, vector_of
from icl_vision.vocabulary import Vocabulary

PICTURE_WEIGHT = 0.5
"""How much the nearness of the pictures (-1 to 1) counts beside that of the questions (0 to 1)."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Selection:
    """How examples are chosen. how: "nearest" or "random". shots: examples in all, or of each answer where ``ways`` is
    given; None for all there are. ways: distinct answers; None for any. prompts: how many prompts a query is asked
    with, each with examples, or an order, of its own. seed: of draws and orders; None keeps the order given."""

    how: str
    shots: int | None
    ways: int | None
    prompts: int
    seed: int | None

    @property
    def shared(self) -> bool:
        """Whether all queries are shown the same examples."""
        return self.how == "random"

    def random(self, examples: Sequence[AnsweredExample]) -> list[tuple[int, ...]]:
        """The examples of each prompt, by index, in the order to show; the same for every query."""
        return self._dealt([self._drawn(examples, prompt) for prompt in range(self.prompts)])

    def nearest(self, examples: Sequence[AnsweredExample], closeness: Sequence[float]) -> list[tuple[int, ...]]:
        """The same for one query. closeness: of each example to it; of equals the one given first is the nearer."""
        ranked = sorted(range(len(examples)), key=lambda index: (-closeness[index], index))
        chosen = []
        for prompt in range(self.prompts):
            # Dealt out like cards, so that every prompt gets near ones; who runs out takes the nearest again.
            own = ranked[prompt :: self.prompts]
            row = self._first([*own, *(index for index in ranked if index not in set(own))], examples)
            chosen.append(tuple(sorted(row, key=ranked.index, reverse=True)))
        return self._dealt(chosen)

    def largest(self, examples: Sequence[AnsweredExample], sizes: Sequence[int]) -> tuple[int, ...]:
        """The largest prompt that "nearest" could ever build: the examples with the longest texts."""
        ranked = sorted(range(len(examples)), key=lambda index: (-sizes[index], index))
        return tuple(self._first(ranked, examples))

    def _drawn(self, examples: Sequence[AnsweredExample], prompt: int) -> tuple[int, ...]:
        order = list(range(len(examples)))
        if self.seed is not None:
            random.Random(f"{self.seed}/{prompt}").shuffle(order)
        return tuple(self._first(order, examples))

    def _first(self, order: Sequence[int], examples: Sequence[AnsweredExample]) -> list[int]:
        """The first examples in this order, as many as ways and shots allow."""
        if self.ways is None:
            return list(order[: self.shots])
        taken: dict[str, list[int]] = {}
        for index in order:
            answer = fold(examples[index].answer)
            if answer not in taken and len(taken) == self.ways:
                continue
            row = taken.setdefault(answer, [])
            if self.shots is None or len(row) < self.shots:
                row.append(index)
        chosen = {index for row in taken.values() for index in row}
        return [index for index in order if index in chosen]

    def _dealt(self, rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Prompts that came out alike are told apart by their order, where there is more than one."""
        seen: set[tuple[int, ...]] = set()
        dealt = []
        for number, row in enumerate(rows):
            for again in range(8):
                if row not in seen or len(row) < 2:
                    break
                mixed = list(row)
                random.Random(f"{self.seed}/{number}/{again}").shuffle(mixed)
                row = tuple(mixed)
            seen.add(row)
            dealt.append(row)
        return dealt


class Closeness:
    """How near examples are to a query: by the questions' words, rare ones heavier, and by the pictures' vectors.

    Without a codebook pictures are compared by the share of words in common (Jaccard).
    """

    def __init__(self, examples: Sequence[AnsweredExample], tokenizer: Tokenizer) -> None:
        bags = [_bag(example.question) for example in examples]
        held = Counter(word for bag in bags for word in bag)
        self._rarity = {word: math.log((1 + len(bags)) / (1 + count)) + 1 for word, count in held.items()}
        self._unseen = math.log(1 + len(bags)) + 1
        self._bags = [self._weighed(bag) for bag in bags]
        self._codebook = None if tokenizer.vocabulary is None else tokenizer.codebook
        self._vocabulary: Vocabulary | None = tokenizer.vocabulary
        self._vectors = (
            None
            if self._codebook is None or not examples
            else np.stack([self._vector(example.pictures) for example in examples])
        )
        self._words = [set(evidence(example.pictures)) for example in examples]

    def of(self, pictures: Sequence[Seen], question: str | None) -> list[float]:
        """The closeness of each example to a query."""
        asked = self._weighed(_bag(question))
        by_question = np.asarray([_cosine(asked, bag) for bag in self._bags])
        if self._vectors is not None:
            by_picture = self._vectors @ self._vector(pictures)
        else:
            words = set(evidence(pictures))
            by_picture = np.asarray([len(words & own) / max(1, len(words | own)) for own in self._words])
        # Rounded: the last bits of a sum depend on the machine, and equals are told apart by their place.
        return [round(float(value), 6) for value in by_question + PICTURE_WEIGHT * by_picture]

    def _vector(self, pictures: Sequence[Seen]) -> npt.NDArray[np.float32]:
        assert self._codebook is not None and self._vocabulary is not None  # there are vectors only then
        return vector_of(pictures, self._vocabulary, self._codebook)

    def _weighed(self, bag: Counter[str]) -> dict[str, float]:
        weighed = {word: count * self._rarity.get(word, self._unseen) for word, count in bag.items()}
        length = math.sqrt(sum(value * value for value in weighed.values()))
        return {word: value / length for word, value in weighed.items()} if length else {}


def _bag(question: str | None) -> Counter[str]:
    return Counter(_WORD.findall(fold(question or "")))


def _cosine(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(value * other[word] for word, value in one.items() if word in other)
