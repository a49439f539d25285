"""How good words and their probabilities are, against what people wrote.

Knows: precision of the first words, reliability of probabilities. Refuses to know: where either comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.training.said.words import Tokens

FIRST = (5, 10)
BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def precision(words: Sequence[Sequence[str]], pictures: Sequence[Tokens], first: int) -> dict[str, Any] | None:
    """The share of a picture's first words that its own captions hold, letter for letter: mean, n, interval.

    A picture that has fewer words is judged by those it has; one without any counts as 0.
    """
    mean = RunningMean()
    for said, picture in zip(words, pictures, strict=True):
        given = said[:first]
        mean.add(sum(word in picture.all for word in given) / max(len(given), 1))
    return mean.to_dict()


def ranked(scores: npt.NDArray[np.floating[Any]], words: Sequence[str], first: int) -> list[list[str]]:
    """The words of the highest scores [N, S] of each picture, best first; equal ones in the words' order."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :first]
    return [[words[place] for place in row] for row in best.tolist()]


def reliability(chances: npt.ArrayLike, right: npt.ArrayLike) -> dict[str, Any]:
    """Probabilities in bins: how probable they said, how often it was so, and the mean difference.

    Args:
        chances: probabilities, any shape. right: of the same shape, whether it was so.

    Returns:
        {n, error: the expected calibration error over these bins, brier, rows: [{from, to, n, said, seen}]}.
    """
    said, seen = np.asarray(chances, dtype=np.float64).ravel(), np.asarray(right, dtype=np.float64).ravel()
    places = np.clip(np.searchsorted(BINS, said, side="right") - 1, 0, len(BINS) - 2)
    rows, error = [], 0.0
    for place in range(len(BINS) - 1):
        inside = places == place
        count = int(inside.sum())
        if count:
            mean, share = float(said[inside].mean()), float(seen[inside].mean())
            error += abs(mean - share) * count / len(said)
            rows.append({"from": BINS[place], "to": BINS[place + 1], "n": count, "said": mean, "seen": share})
    brier = float(np.square(said - seen).mean()) if len(said) else 0.0
    return {"n": len(said), "error": error, "brier": brier, "rows": rows}
