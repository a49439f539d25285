"""The map from scores to probabilities: one temperature, which changes how sure an answer is and never which it is.

Knows: scores in, shares out, the form in a file. Refuses to know: where a temperature comes from (``fitting``,
``packaged``).

    P(label) = exp(score / temperature) / sum over labels of exp(score / temperature)

Above 1 it takes certainty away, below 1 it adds some. Dividing by a positive number keeps every order and every tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import UsageError

Source = Literal["packaged", "own"]

LEAST, MOST = 0.05, 200.0
"""Temperatures that a map may have: beyond them it would be a constant answer, or a shrug."""


@dataclass(frozen=True, slots=True)
class ProbabilityMap:
    """Scores (log-probabilities of labels, up to a constant) to calibrated probabilities.

    temperature: above 0. source: "packaged" (fitted by this library on its training classes) or "own" (fitted on
    somebody's own images). n: answers it was fitted on. note: what the reader should know, such as a number of ways
    beyond those that were measured; "" where there is nothing. measured: figures of the fit, JSON-ready.
    """

    temperature: float
    source: Source = "own"
    n: int = 0
    note: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        checks.number("the temperature of a probability map", self.temperature, least=LEAST, most=MOST)

    def __call__(self, scores: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities [labels] of one answer's scores [labels]; -inf stays impossible, all -inf is uniform."""
        return softmax(np.asarray(scores, dtype=np.float64) / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` reads it back."""
        return {
            "temperature": self.temperature,
            "source": self.source,
            "n": self.n,
            "note": self.note,
            "measured": dict(self.measured),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ProbabilityMap:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: a field is missing or has a value that cannot work.
        """
        try:
            temperature, source, n = document["temperature"], document["source"], document["n"]
            note, measured = document.get("note", ""), document.get("measured", {})
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a probability map: {error!r} while reading its fields") from error
        counted = checks.as_whole(n)
        if source not in ("packaged", "own") or counted is None or counted < 0 or not isinstance(note, str):
            raise UsageError(f"not a probability map: source={source!r}, n={n!r}, note={note!r}")
        if not isinstance(measured, Mapping):
            raise UsageError(f"not a probability map: 'measured' is {measured!r}")
        return cls(temperature, source, n, note, dict(measured))


def softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shares of exp(scores), by the last axis; uniform where every score is -inf."""
    top = scores.max(axis=-1, keepdims=True)
    lifted = np.exp(np.where(np.isneginf(top), 0.0, scores - np.where(np.isneginf(top), 0.0, top)))
    return np.asarray(lifted / lifted.sum(axis=-1, keepdims=True))


def log_loss(scores: npt.NDArray[np.float64], truth: int, temperature: float) -> float:
    """-log of the share that one answer gives to the true label; finite where the label is not impossible."""
    scaled = scores / temperature
    top = float(scaled.max())
    if math.isinf(top) or math.isinf(scaled[truth]):
        return math.inf
    return top + math.log(float(np.exp(scaled - top).sum())) - float(scaled[truth])
