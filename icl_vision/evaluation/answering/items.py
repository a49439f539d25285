"""What is asked, and which examples are shown before it: the nearest of all other pictures, the same for every row.

A question is never shown an example of its own picture, whatever else is asked about that picture. Examples are chosen
without a look at any row's words, so that rows differ in the words alone: for a question by the questions' words, for a
caption by how near the pictures are (and for whoever must not see the picture, by a draw). A set that brings its own
examples keeps them.

Knows: questions, pools, nearness, which items of a split come first. Refuses to know: words, prompts, LLMs, files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Tokenizer
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers import Question
from icl_vision.tasks.answer.answered import AnsweredExample
from icl_vision.tasks.answer.selection import Closeness
from icl_vision.wording import counted

Vectors = npt.NDArray[np.float32]
Choosing = Literal["nearest", "random"]

SEED_ORDER, SEED_DRAW = 41, 43


def names_of(item: Question) -> frozenset[str]:
    """The names of an item's pictures."""
    return frozenset(picture.name for picture in item.pictures)


@dataclass(slots=True)
class Bench:
    """What is asked and what may be shown before it.

    Args:
        name: of the set, for reports.
        asked: the items that may be asked, in the set's order.
        pool: all that may be shown; those that are asked may be among them.
        shots: examples shown before each.
        seed: of the order in which items are asked, and of draws.
        vectors: of an item's picture, float32 [D], length 1, where pictures choose examples (captions); None where
            questions do.

    Raises:
        UsageError: nothing to ask, an id there twice, or too few other pictures to choose from.
    """

    name: str
    asked: tuple[Question, ...]
    pool: tuple[Question, ...]
    shots: int = 8
    seed: int = 0
    vectors: Callable[[Question], Vectors] | None = None
    _closeness: Closeness | None = field(default=None, repr=False)
    _matrix: Vectors | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.asked:
            raise UsageError(f"{self.name} has nothing to ask; choose another split")
        seen: set[str] = set()
        for item in self.asked:
            if item.id in seen:
                raise UsageError(f"the item {item.id!r} of {self.name} is there twice; each needs an id of its own")
            seen.add(item.id)
        pictures = len({name for item in self.pool for name in names_of(item)})
        if self.shots and pictures < 2 and not all(item.examples for item in self.asked):
            raise UsageError(
                f"examples are shown of other pictures than the one asked about; {self.name} has "
                f"{counted(pictures, 'picture')} to choose from: give more, or use shots=0"
            )

    def first(self, n: int | None) -> list[Question]:
        """So many items, drawn by the seed: a larger ``n`` has those of a smaller one among its own, first.

        n: None for all.
        """
        order = np.random.default_rng([self.seed, SEED_ORDER]).permutation(len(self.asked))
        return [self.asked[index] for index in order[: len(self.asked) if n is None else n]]

    def examples(self, item: Question, how: Choosing = "nearest") -> list[Question]:
        """The examples that are shown before an item, the nearest last, none of them of one of the item's pictures.

        how: "random" for a draw that looks at neither question nor picture, one for each item.
        """
        if not self.shots:
            return []
        if item.examples:
            return list(item.examples[: self.shots])
        allowed = self._allowed(item)
        if how == "random":
            draw = np.random.default_rng([self.seed, SEED_DRAW, *item.id.encode()])
            return [self.pool[allowed[place]] for place in draw.permutation(len(allowed))[: self.shots]]
        return self.ranked(item, self._near(item))

    def ranked(self, item: Question, near: Sequence[float]) -> list[Question]:
        """``examples`` by another nearness.

        near: of each item of the pool.
        """
        if item.examples or not self.shots:
            return self.examples(item)
        ranked = sorted(self._allowed(item), key=lambda index: (-near[index], index))[: self.shots]
        return [self.pool[index] for index in reversed(ranked)]

    def nearest(self, item: Question) -> Question | None:
        """The one example that is nearest; None where there is none to choose from."""
        if item.examples:
            return None
        allowed, near = self._allowed(item), self._near(item)
        return self.pool[max(allowed, key=lambda index: (near[index], -index))] if allowed else None

    def others(self, item: Question) -> list[Question]:
        """Everything in the pool that is about other pictures; of a set that brings its own examples, those."""
        return list(item.examples) or [self.pool[index] for index in self._allowed(item)]

    def _allowed(self, item: Question) -> list[int]:
        own = names_of(item)
        return [
            index for index, other in enumerate(self.pool) if other is not item and not own & names_of(other)
        ]  # fmt: skip

    def _near(self, item: Question) -> Sequence[float]:
        """How near each item of the pool is."""
        if self.vectors is None:
            if self._closeness is None:
                # Without pictures: of the questions' words alone.
                examples = [AnsweredExample((), other.question, "", ("",)) for other in self.pool]
                self._closeness = Closeness(examples, cast(Tokenizer, _NoWords()))
            return self._closeness.of((), item.question)
        if self._matrix is None:
            self._matrix = np.stack([self.vectors(other) for other in self.pool])
        # Rounded: the last bits of a sum depend on the machine.
        return [round(float(value), 6) for value in self._matrix @ self.vectors(item)]


class _NoWords:
    """A tokenizer as far as nearness of questions looks at one: it has no words."""

    vocabulary: Any = None
    codebook: Any = None
