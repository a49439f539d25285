"""Calibrated probabilities of answers: which packaged map is a task's own, or one fitted to questions of the user's.

Knows: what of a task decides its map, which questions may calibrate, how answers become outcomes. Refuses to know: how
a temperature is found (``icl_vision.probabilities``), how anything is asked.

A packaged map is known for the default way of the embedded LLM: open questions, fused with the words of a packaged
tokenizer, the nearest examples, the packaged template. Anything else stays raw.

The right answer need not be among the candidates, so what is fitted is how often the best of them is right
(``fit_outcomes``): a probability says how sure an answer is, and those of other candidates only how they compare.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icl_vision.contracts import Answer, TextLLM
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.probabilities import ProbabilityMap, fit_outcomes
from icl_vision.probabilities.packaged import Situation, find_map, knows_llm
from icl_vision.tasks.answer.candidates import MOST_WORDS
from icl_vision.tasks.answer.prompts import ShownExample
from icl_vision.tasks.answer.reading import normal_form
from icl_vision.tokenizers.wrapping import fingerprint
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.tasks.answer.fitted import FittedAnswering

logger = logging.getLogger(__name__)

LEAST_QUESTIONS = 50
"""Questions that ``calibrate_probabilities`` needs: with fewer, chance decides (docs/probabilities.md)."""

UNDERFLOWED = 1e-300
"""A probability that a float cannot tell from 0 is taken for this, so that it has a logarithm."""


def packaged_map(fitted: FittedAnswering) -> ProbabilityMap | None:
    """The packaged map for open questions asked by a task that was fitted like this; None where none was measured."""
    situation = situation_of(fitted)
    packaged = None if situation is None else find_map(situation)
    if packaged is not None and packaged.note:
        logger.info("calibrated probabilities of answers: %s", packaged.note)
    return packaged


def holding(found: ProbabilityMap | None, choices: Sequence[str] | None) -> ProbabilityMap | None:
    """A map as far as it holds for a query: a packaged one is of open questions, one's own of whatever it is fitted to.

    choices: what may be answered, None where that is open.
    """
    return None if found is not None and found.source == "packaged" and choices is not None else found


def situation_of(fitted: FittedAnswering) -> Situation | None:
    """What decides how sure the answers of a task look; None for ways of which no map can be known.

    Its words are those of a picture that are weighed, of any picture alike; there is one way, since answers are open;
    its shots are the examples shown.
    """
    params, llm = fitted.params, fitted.llm
    identity = str(getattr(llm, "identity", llm.profile.name))
    if not fitted.short or params.get("choices") is not None or not fitted.examples or not knows_llm(identity):
        return None
    way, selection = fitted.way(None), fitted.selection
    if way.method != "fused" or not way.bags or selection.how != "nearest" or selection.ways is not None:
        return None
    if selection.prompts != 1:  # a mean of several is surer or less sure than one
        return None
    every = len(fitted.examples)
    return Situation(
        llm=identity,
        prompt=prompt_digest(fitted),
        tokenizer=fingerprint(fitted.tokenizer),
        method="fused",
        ensemble=False,
        contextual=False,
        words=MOST_WORDS,
        ways=1,
        shots=every if selection.shots is None else min(selection.shots, every),
    )


def prompt_digest(fitted: FittedAnswering) -> str:
    """Hex sha256 of what the template makes of two fixed examples, with its options, and of vision's weight."""
    way = fitted.way(None)
    words = fitted.shows_words(way)
    shown = [
        ShownExample((line,) if words else (), question, answer)
        for line, question, answer in (("one two", "what is this?", "this"), ("three four", "what is that?", "that"))
    ]
    prompt = fitted.builder.prepare(shown, ()).query(["five six"] if words else [], "what is it?")
    return hashlib.sha256(f"{prompt.text}\n{way.weight:g}".encode()).hexdigest()


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
    # (What was read in a picture has none, and takes none from the others.)
    told = [(answer, known) for answer, known in zip(answers, references, strict=True) if answer.method != "read"]
    if not told or any(answer.probabilities is None for answer, _ in told):
        methods = sorted({str(answer.method) for answer in answers if answer.probabilities is None})
        raise CapabilityError(
            f"answers found by {', '.join(map(repr, methods))} have no probabilities to calibrate; use an LLM that "
            "scores text (local does) with scoring='auto', 'fused' or 'direct'"
        )
    # Since probabilities are scores up to a constant, their logarithms fit the same map. One candidate alone is certain
    # whatever the temperature, and says nothing.
    told = [(answer, known) for answer, known in told if len(answer.probabilities or ()) > 1]
    scores = [
        [math.log(max(share, UNDERFLOWED)) for share in (answer.probabilities or {}).values()] for answer, _ in told
    ]
    right = [normal_form(answer.text) in set(map(normal_form, known)) for answer, known in told]
    return fit_outcomes(scores, right, note=f"fitted to {counted(len(told), 'question')} asked of {llm.profile.name}")
