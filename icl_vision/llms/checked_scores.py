"""Log-probabilities that came back from an LLM, before anything is chosen by them.

Knows: which numbers can be log-probabilities. Refuses to know: what they are of, and how they were had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from icl_vision.contracts import Scores
from icl_vision.errors import LLMResponseError


def checked_logprobs(scores: Scores, count: int, name: str) -> tuple[float, ...]:
    """The log-probabilities of ``count`` continuations. -inf is one: the LLM holds such a continuation impossible.

    Raises:
        LLMResponseError: another number of them, or one that is no log-probability.
    """
    if len(scores.logprobs) != count:
        raise LLMResponseError(f"{name!r} gave {len(scores.logprobs)} scores for {count} continuations")
    wrong = [value for value in scores.logprobs if math.isnan(value) or value == math.inf]
    if wrong:
        raise LLMResponseError(f"{name!r} gave {wrong[0]} as a log-probability")
    return scores.logprobs


def all_impossible(logprobs: Sequence[float]) -> bool:
    """Whether the LLM holds every one of them impossible, so that there is nothing to choose by."""
    return all(value == -math.inf for value in logprobs)
