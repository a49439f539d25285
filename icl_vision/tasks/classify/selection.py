"""The labelled examples of a classifier, and which of them go into the prompt.

Knows: words of examples, their plain form, how many a class may have, which are near a query.
Refuses to know: prompts and LLMs.

Three ways: "all" (the first ``shots`` of each class, in the order given), "random" (a seeded draw of ``shots`` of each
class, the same for every query) and "nearest" (for each query, the ``shots`` of each class whose words are closest to
the query's). Every class keeps its place in all of them: an LLM cannot answer a label it was not shown.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Tokenizer
from icl_vision.probabilities import ProbabilityMap
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.inputs import Label, as_labels

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


@dataclass(frozen=True, slots=True)
class Support:
    """What a classifier keeps of its fit. classes: the labels, sorted. examples: in the order given. own_map: fitted to
    the user's own images, None without."""

    classes: tuple[Label, ...]
    examples: tuple[SupportExample, ...]
    own_map: ProbabilityMap | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "classes": list(self.classes),
            "examples": [
                {"label": self.classes[example.label], "text": example.text, "words": example.pyramid.to_dict()}
                for example in self.examples
            ],
            # What the examples' pictures show, as hashes: none of them may calibrate probabilities.
            "pictures": [example.digest for example in self.examples],
            **({} if self.own_map is None else {"probabilities": self.own_map.to_dict()}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Support:
        """The way back; files of version 0.1.0 say nothing of pictures and probabilities.

        Raises:
            UsageError, PyramidError, VocabularyError, KeyError, TypeError, ValueError: a damaged document.
        """
        classes = as_labels(document["classes"])
        pictures = document.get("pictures", [])
        if not isinstance(pictures, list) or not all(isinstance(digest, str | None) for digest in pictures):
            raise ValueError(f"'pictures' is {pictures!r:.80}")
        examples = []
        for entry, digest in zip(document["examples"], chain(pictures, repeat(None)), strict=False):
            pyramid = TokenPyramid.from_dict(entry["words"], tokenizer.vocabulary)
            # The text is written for people who read the file; what counts are the ids.
            examples.append(SupportExample(pyramid, tokenizer.to_text(pyramid), classes.index(entry["label"]), digest))
        shown = {example.label for example in examples}
        missing = [label for number, label in enumerate(classes) if number not in shown]
        if len(classes) < 2 or len(set(classes)) < len(classes) or missing:
            raise ValueError(f"classes {classes!r} without examples: {missing!r}")
        own_map = ProbabilityMap.from_dict(document["probabilities"]) if "probabilities" in document else None
        return cls(tuple(classes), tuple(examples), own_map)


def _by_class(examples: Sequence[SupportExample]) -> dict[int, list[int]]:
    """The indices of each class's examples."""
    by_class: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        by_class.setdefault(example.label, []).append(index)
    return by_class


def first_of_each(examples: Sequence[SupportExample], shots: int | None) -> list[SupportExample]:
    """The first ``shots`` examples of every class (None: all), in the order given."""
    chosen = {index for indices in _by_class(examples).values() for index in indices[:shots]}
    return [example for index, example in enumerate(examples) if index in chosen]


def random_of_each(examples: Sequence[SupportExample], shots: int, seed: int | None) -> list[SupportExample]:
    """A draw of ``shots`` examples of every class (all of a smaller one), in the order given; same seed, same draw."""
    chosen: set[int] = set()
    for label, indices in sorted(_by_class(examples).items()):
        # One generator per class: adding examples to one class leaves the draw of the others as it was.
        chosen.update(random.Random(f"{seed}/{label}").sample(indices, min(shots, len(indices))))
    return [example for index, example in enumerate(examples) if index in chosen]


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
            None if codebook is None else np.stack([_mean_vector(example.pyramid, codebook) for example in examples])
        )
        self._words = [set(example.pyramid.words()) for example in examples]

    def of(self, query: TokenPyramid, shots: int) -> list[SupportExample]:
        """The closest ``shots`` of each class, in the order given. Ties go to the example given first."""
        if self._codebook is not None and self._vectors is not None:
            closeness = (self._vectors @ _mean_vector(query, self._codebook)).tolist()
        else:
            words = set(query.words())
            closeness = [_jaccard(words, known) for known in self._words]
        chosen: set[int] = set()
        for indices in self._classes:
            chosen.update(sorted(indices, key=lambda index: (-closeness[index], index))[:shots])
        return [example for index, example in enumerate(self._examples) if index in chosen]


def longest_of_each(examples: Sequence[SupportExample], shots: int) -> list[SupportExample]:
    """The ``shots`` examples of every class with the longest texts: the largest prompt "nearest" could ever build."""
    chosen: set[int] = set()
    for indices in _by_class(examples).values():
        chosen.update(sorted(indices, key=lambda index: (-len(examples[index].text), index))[:shots])
    return [example for index, example in enumerate(examples) if index in chosen]


def _mean_vector(pyramid: TokenPyramid, codebook: Codebook) -> npt.NDArray[np.float32]:
    ids = np.concatenate([layer.ravel() for layer in pyramid.ids])
    mean = codebook[ids].mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: npt.NDArray[np.float32] = mean / length if length > 0 else mean
    return unit


def _jaccard(words: set[str], others: set[str]) -> float:
    return len(words & others) / max(1, len(words | others))
