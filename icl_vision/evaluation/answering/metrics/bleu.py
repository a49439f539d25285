"""BLEU-4: how many runs of up to four words a caption shares with its references, and whether it is long enough.

Knows: Papineni et al. 2002 (ACL, 311-318), over a whole set as the reference's Python code computes it (pycocoevalcap,
bleu_scorer.py, reference length "closest"); the smoothed form for one sentence of Lin and Och 2004 (COLING, 501-507).
Refuses to know: tokenizing.

BLEU is a figure of a set, not a mean over sentences: counts are summed first. So its interval comes from drawing
pictures and summing their counts anew (``Bleu.bootstrap``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics.caption_tokens import caption_tokens
from icl_vision.evaluation.answering.metrics.ngrams import LONGEST, Ngram, ngrams

# The reference's own constants: a set without a single shared run of four words scores nearly 0 instead of 0.
_TINY: Final = 1e-15
_SMALL: Final = 1e-9
ROUNDS: Final = 10_000


class Bleu:
    """BLEU-4 of captions.

    Args:
        captions: one for each picture.
        references: for each picture, one or more captions that people wrote.

    Raises:
        UsageError: no pictures, unequal numbers, or a picture without references.
    """

    def __init__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        if len(captions) != len(references) or not len(captions):
            raise UsageError(f"BLEU needs a caption for each picture; got {len(captions)} for {len(references)}")
        # A row a picture: shared runs of each length, runs of each length, words, words of the nearest reference.
        self._counts = np.array(
            [_counts(caption, references[place], place) for place, caption in enumerate(captions)], dtype=np.float64
        )

    @property
    def score(self) -> float:
        """From 0 to 1, over the whole set."""
        return float(_bleu(self._counts.sum(0)[None])[0])

    def bootstrap(self, *, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Any]:
        """{mean, n, interval}: the score, how many pictures, and its 95% interval over drawn sets of pictures.

        Args:
            seed, rounds: of the percentile bootstrap.
        """
        rounds = checks.count("rounds", rounds)
        draw, n = np.random.default_rng(seed), len(self._counts)
        drawn = np.concatenate(
            [_bleu(self._counts[draw.integers(0, n, (100, n))].sum(1)) for _ in range(-(-rounds // 100))]
        )
        low, high = (float(edge) for edge in np.quantile(drawn, (0.025, 0.975)))
        return {"mean": self.score, "n": n, "interval": [low, high]}


def sentence_bleu(caption: str, references: Sequence[str]) -> float:
    """BLEU-4 of one caption, smoothed: 1 is added to both counts of runs of two words and more (Lin and Och 2004), so
    that a short caption without a shared run of four is not 0 (runs longer than the caption count as one that is not
    shared). Another figure than ``Bleu``: name it where you quote it.

    Raises:
        UsageError: no references.
    """
    shared, runs, (words, nearest) = np.split(np.array(_counts(caption, references, 0)), [LONGEST, 2 * LONGEST])
    if not shared[0]:
        return 0.0
    added = np.array([0.0, *[1.0] * (LONGEST - 1)])
    precision = float(np.exp(np.log((shared + added) / (np.maximum(runs, 1) + added)).mean()))
    return precision * (1.0 if words >= nearest else math.exp(1 - nearest / words))


def _counts(caption: str, references: Sequence[str], place: int) -> list[float]:
    if isinstance(references, str) or not references:
        raise UsageError(f"picture {place + 1} needs a list of one or more reference captions")
    words = caption_tokens(caption)
    tokenized = [caption_tokens(reference) for reference in references]
    most: list[Counter[Ngram]] = [Counter() for _ in range(LONGEST)]
    for reference in tokenized:
        for kept, counts in zip(most, ngrams(reference), strict=True):
            kept |= counts  # the largest count of any one reference
    shared = [float((counts & kept).total()) for counts, kept in zip(ngrams(words), most, strict=True)]
    runs = [float(max(0, len(words) - length)) for length in range(LONGEST)]
    nearest = min((abs(len(reference) - len(words)), len(reference)) for reference in tokenized)[1]
    return [*shared, *runs, float(len(words)), float(nearest)]


def _bleu(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 [N] of [N, 10] summed counts."""
    shared, runs = sums[:, :LONGEST], sums[:, LONGEST : 2 * LONGEST]
    precision = np.exp(np.log((shared + _TINY) / (runs + _SMALL)).mean(1))
    ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(precision * penalty, dtype=np.float64)
