"""CIDEr-D: how much a caption says what people said of the same picture, rare words counting for more.

Knows: Vedantam, Zitnick and Parikh 2015 (arXiv 1411.5726), the variant "D" (clipped counts, a Gaussian on the length),
n = 1 to 4, sigma = 6, as the reference's Python code computes it (pycocoevalcap, cider_scorer.py).
Refuses to know: tokenizing (``caption_tokens.py``), intervals.

A figure is about a set of references, for these give the document frequencies: the same captions score otherwise
beside other pictures. So the frequencies are taken from all references of the test, once, and stay fixed: while a
bootstrap draws pictures, and for every row that is compared.

Scores are on the code's scale, 0 to 10; papers print a hundred times that ("CIDEr 110.5" is 1.105).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics.caption_tokens import caption_tokens
from icl_vision.evaluation.answering.metrics.ngrams import LONGEST, Ngram, ngrams

SIGMA: Final = 6.0
"""Width of the Gaussian by which another length than the reference's is punished."""
SCALE: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Vector:
    """weights: for each length of runs, run -> tf-idf. norms: their lengths. length: of the text, in pairs of words, as
    the reference's code has it (one less than words, and 0 for one word as for none)."""

    weights: tuple[dict[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


class CiderD:
    """Scores captions of pictures whose references are fixed.

    Args:
        references: for each picture, one or more captions that people wrote. Two pictures or more: with one, every run
            of words is in every picture and all scores are 0.

    Raises:
        UsageError: too few pictures, or one without references.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if len(references) < 2:
            raise UsageError(
                f"CIDEr-D weighs words by how many pictures' captions have them: give 2 or more; got {len(references)}"
            )
        counted = [[ngrams(caption_tokens(caption)) for caption in captions] for captions in references]
        frequency: Counter[Ngram] = Counter()
        for place, captions in enumerate(counted):
            if not captions:
                raise UsageError(f"picture {place + 1} of {len(references)} has no reference caption")
            frequency.update({run for lengths in captions for counts in lengths for run in counts})
        self._pictures = math.log(len(references))
        self._frequency = frequency
        self._references = [[self._vector(lengths) for lengths in captions] for captions in counted]

    def scores(self, captions: Sequence[str]) -> npt.NDArray[np.float64]:
        """float64 [N], each from 0 to 10: one caption for each picture, in the order of the references. An empty
        caption scores 0. Their mean is the figure; bootstrap these.

        Raises:
            UsageError: another number of captions than pictures.
        """
        if isinstance(captions, str) or len(captions) != len(self._references):
            raise UsageError(f"{len(self._references)} pictures need as many captions; got {len(captions)}")
        return np.array([self._score(caption, place) for place, caption in enumerate(captions)], dtype=np.float64)

    def _score(self, caption: str, picture: int) -> float:
        vector = self._vector(ngrams(caption_tokens(caption)))
        references = self._references[picture]
        return SCALE * math.fsum(_alike(vector, reference) for reference in references) / len(references)

    def _vector(self, lengths: Sequence[Counter[Ngram]]) -> _Vector:
        weights = tuple(
            {run: count * (self._pictures - math.log(max(1, self._frequency[run]))) for run, count in counts.items()}
            for counts in lengths
        )
        norms = tuple(math.sqrt(math.fsum(weight * weight for weight in part.values())) for part in weights)
        return _Vector(weights, norms, sum(lengths[1].values()))


def _alike(caption: _Vector, reference: _Vector) -> float:
    """The mean over run lengths of the clipped cosine, times the Gaussian of the difference of lengths."""
    total = 0.0
    for mine, theirs, norm, other in zip(
        caption.weights, reference.weights, caption.norms, reference.norms, strict=True
    ):
        if norm and other:
            shared = math.fsum(min(weight, theirs[run]) * theirs[run] for run, weight in mine.items() if run in theirs)
            total += shared / (norm * other)
    difference = caption.length - reference.length
    return total / LONGEST * math.exp(-(difference**2) / (2 * SIGMA**2))
