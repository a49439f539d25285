"""Calibrated probabilities of answers: a map fitted to questions whose answer is known.

Knows: which questions may calibrate, how answers become outcomes. Refuses to know: how a temperature is found
(``icl_vision.probabilities``), how anything is asked.

The right answer need not be among the candidates, so what is fitted is how often the best of them is right
(``fit_outcomes``): a probability says how sure an answer is, and those of other candidates only how they compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from icl_vision.contracts import Answer, TextLLM
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.probabilities import ProbabilityMap, fit_outcomes
from icl_vision.tasks.answer.reading import normal_form
from icl_vision.wording import counted

LEAST_QUESTIONS = 50
"""Questions that ``calibrate_probabilities`` needs: with fewer, chance decides (docs/probabilities.md)."""

UNDERFLOWED = 1e-300
"""A probability that a float cannot tell from 0 is taken for this, so that it has a logarithm."""


def check_questions(number: int) -> None:
    """Refuse too few questions. Raises UsageError."""
    if number < LEAST_QUESTIONS:
        raise UsageError(
            f"calibrate_probabilities needs {LEAST_QUESTIONS} questions or more that are not among the examples; got "
            f"{number}"
        )


def map_of(answers: Sequence[Answer], references: Sequence[Sequence[str]], llm: TextLLM) -> ProbabilityMap:
    """The map fitted to raw answers, which tell the probability of every candidate.

    Raises:
        CapabilityError: an answer has no probabilities.
    """
    if any(answer.probabilities is None for answer in answers):
        methods = sorted({str(answer.method) for answer in answers if answer.probabilities is None})
        raise CapabilityError(
            f"answers found by {', '.join(map(repr, methods))} have no probabilities to calibrate; use an LLM that "
            "scores text (local does) with scoring='auto', 'fused' or 'direct'"
        )
    # Since probabilities are scores up to a constant, their logarithms fit the same map. One candidate alone is certain
    # whatever the temperature, and says nothing.
    told = [(answer, known) for answer, known in zip(answers, references, strict=True)
            if len(answer.probabilities or ()) > 1]  # fmt: skip
    scores = [
        [math.log(max(share, UNDERFLOWED)) for share in (answer.probabilities or {}).values()] for answer, _ in told
    ]
    right = [normal_form(answer.text) in set(map(normal_form, known)) for answer, known in told]
    return fit_outcomes(scores, right, note=f"fitted to {counted(len(told), 'question')} asked of {llm.profile.name}")
