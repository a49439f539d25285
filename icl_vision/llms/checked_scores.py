"""Log-probabilities that came back from an LLM, before anything is chosen by them.

Knows: which numbers can be log-probabilities. Refuses to know: what they are of, and how they were had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from icl_vision.contracts import Scores
from icl_vision.errors import LLMResponseError

ROUNDING = 1e-3
"""A log-probability may lie so far above 0 by rounding, and is taken for 0 then."""

_FINITE = frozenset({"forced tokens"})
"""Methods whose log-probabilities have a floor (``llama_scoring.LOWEST``): -inf cannot come from them."""


def checked_logprobs(scores: Scores, count: int, name: str) -> tuple[float, ...]:
    """The log-probabilities of ``count`` continuations. -inf is one: the LLM holds such a continuation impossible.

    Raises:
        LLMResponseError: another number of them, or one that is no log-probability.
    """
    if len(scores.logprobs) != count:
        raise LLMResponseError(f"{name!r} gave {len(scores.logprobs)} scores for {count} continuations")
    for value in scores.logprobs:
        if not is_logprob(value, scores.method):
            raise LLMResponseError(f"{name!r} gave {value!r} as a log-probability; one is a number, and 0 at the most")
    return tuple(min(value, 0.0) for value in scores.logprobs)


def is_logprob(value: object, method: str = "") -> TypeGuard[float]:
    """Whether a value can be a log-probability: finite and not above 0, or -inf where the ``method`` can give it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > ROUNDING:
        return False
    return math.isfinite(value) or method not in _FINITE


def known_logprob(value: object) -> float | None:
    """The log-probability that a stored value is, None for anything else: what is not known is no reason to fail."""
    return min(float(value), 0.0) if is_logprob(value) else None


def all_impossible(logprobs: Sequence[float]) -> bool:
    """Whether the LLM holds every one of them impossible, so that there is nothing to choose by."""
    return all(value == -math.inf for value in logprobs)
