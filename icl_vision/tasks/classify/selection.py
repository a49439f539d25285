"""Which labelled examples go into the prompt.

Knows: words of examples, how many a class may have, which are near a query.
Refuses to know: prompts and LLMs.

Three ways: "all" (the first ``shots`` of each class, in the order given), "random" (a seeded draw of ``shots`` of each
class, the same for every query) and "nearest" (for each query, the ``shots`` of each class whose words are closest to
the query's). Every class keeps its place in all of them: an LLM cannot answer a label it was not shown.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid

Codebook = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SupportExample:
    """One labelled example: its words, those words as the LLM reads them, and its label's index in ``classes_``.

    digest: of the picture it was made from (see ``tasks.calibrating``); None where it is not known.
    """

    pyramid: TokenPyramid
    text: str
    label: int
    digest: str | None = None


def _by_class(examples: Sequence[SupportExample]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(example.label, []).append(place)
    return places


def first_of_each(examples: Sequence[SupportExample], shots: int | None) -> list[SupportExample]:
    """The first ``shots`` examples of every class (None: all), in the order given."""
    kept = {place for places in _by_class(examples).values() for place in places[:shots]}
    return [example for place, example in enumerate(examples) if place in kept]


def random_of_each(examples: Sequence[SupportExample], shots: int, seed: int | None) -> list[SupportExample]:
    """A draw of ``shots`` examples of every class (all of a smaller one), in the order given; same seed, same draw."""
    kept: set[int] = set()
    for label, places in sorted(_by_class(examples).items()):
        # One generator per class: adding examples to one class leaves the draw of the others as it was.
        kept.update(random.Random(f"{seed}/{label}").sample(places, min(shots, len(places))))
    return [example for place, example in enumerate(examples) if place in kept]


class Neighbours:
    """The examples of each class whose words are closest to a query's.

    With a codebook (float32 [T, c]): cosine similarity of the mean vectors of the words. Without one: the share of
    words in common (Jaccard).
    """

    def __init__(self, examples: Sequence[SupportExample], codebook: Codebook | None) -> None:
        self._examples = examples
        self._classes = list(_by_class(examples).values())
        self._codebook = codebook
        # Once, not for every query.
        self._vectors = (
            None if codebook is None else np.stack([_mean_vector(one.pyramid, codebook) for one in examples])
        )
        self._words = [set(one.pyramid.words()) for one in examples]

    def of(self, query: TokenPyramid, shots: int) -> list[SupportExample]:
        """The closest ``shots`` of each class, in the order given. Ties go to the example given first."""
        if self._codebook is not None and self._vectors is not None:
            closeness = (self._vectors @ _mean_vector(query, self._codebook)).tolist()
        else:
            words = set(query.words())
            closeness = [_jaccard(words, known) for known in self._words]
        kept: set[int] = set()
        for places in self._classes:
            kept.update(sorted(places, key=lambda place: (-closeness[place], place))[:shots])
        return [example for place, example in enumerate(self._examples) if place in kept]


def longest_of_each(examples: Sequence[SupportExample], shots: int) -> list[SupportExample]:
    """The ``shots`` examples of every class with the longest texts: the largest prompt "nearest" could ever build."""
    kept: set[int] = set()
    for places in _by_class(examples).values():
        kept.update(sorted(places, key=lambda place: (-len(examples[place].text), place))[:shots])
    return [example for place, example in enumerate(examples) if place in kept]


def _mean_vector(pyramid: TokenPyramid, codebook: Codebook) -> npt.NDArray[np.float32]:
    ids = np.concatenate([layer.ravel() for layer in pyramid.ids])
    mean = codebook[ids].mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: npt.NDArray[np.float32] = mean / length if length > 0 else mean
    return unit


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))
