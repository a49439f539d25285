"""How an LLM's answer becomes a label: the ladder of methods, best available first, and contextual calibration.

Knows: what is asked for one query by each method, and how the answers are weighed.
Refuses to know: images, examples, scheduling.

The ladder (``scoring="auto"`` takes the first that the LLM and the template allow):

- "channel": log P(words | label, examples) for every label: the noisy channel of Min et al. 2022 (Noisy Channel
  Language Model Prompting for Few-Shot Text Classification, eq. 2), labels a priori equal. With an ensemble (the
  default) every example has a prompt of its own, and each word is scored by itself: see
  ``icl_vision.tasks.classify.ensemble``.
- "direct": log P(label | words, examples) for every label.
- "constrained": the LLM writes one of the labels and can write nothing else.
- "parse": the LLM writes what it likes; a label is looked for in it.

The first two give probabilities. Without an ensemble they score whole continuations including the terminator, so a
label that is a prefix of another has no advantage. Only a known label is ever returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Constraint, Profile, Prompt, ScoringMethod, TextLLM, Usage
from icl_vision.errors import CapabilityError, LLMResponseError, TemplateError
from icl_vision.llms.answers import check
from icl_vision.llms.checked_scores import all_impossible, checked_logprobs, is_logprob
from icl_vision.llms.partial_scores import PartialScores, take
from icl_vision.spelling import composed
from icl_vision.tasks.classify.ensemble import Ensemble, pool
from icl_vision.tasks.classify.prompts import PreparedPrompt, PromptBuilder

Scoring = Literal["auto", "channel", "direct", "constrained", "parse"]
EnsembleOption = Literal["auto", "examples"] | None
Shown = PreparedPrompt | Ensemble
"""The examples as a query finds them: all in one prompt, or each in its own."""

TERMINATOR = "\n"
CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs without content, as of Zhao et al. 2021 (Calibrate Before Use, section 5), in place of an image's words."""

ANSWER_ROOM = 16
"""Tokens left for an answer beyond the longest label: quotes, a full stop, "The answer is"."""


def choose_method(
    scoring: str, profile: Profile, builder: PromptBuilder, labels: int | Sequence[str] = 2
) -> ScoringMethod:
    """The rung of the ladder to stand on, to choose among these ``labels``, or so many of no length to speak of.

    Raises:
        CapabilityError: the LLM cannot do what ``scoring`` asks for.
        TemplateError: ``builder`` has no channel twin where one is needed, or is nothing but a channel template.
    """
    if scoring in ("channel", "direct") and not profile.scores_text:
        raise CapabilityError(
            f"scoring={scoring!r} needs log-probabilities of given text, which the LLM {profile.name!r} does not give; "
            "use scoring='auto', or an LLM that gives them (local does)"
        )
    if scoring == "constrained" and profile.constraint is None:
        raise CapabilityError(
            f"scoring='constrained' needs an LLM whose output can be restricted; that of {profile.name!r} cannot: "
            "use scoring='parse' or 'auto'"
        )
    limit = profile.too_much(_stand_ins(labels) if isinstance(labels, int) else labels)
    restrictable = profile.constraint is not None and not limit
    if scoring == "constrained" and not restrictable:
        number = labels if isinstance(labels, int) else len(labels)
        if profile.constraint_limit is not None and number > profile.constraint_limit:
            limit = str(profile.constraint_limit)
        raise CapabilityError(
            f"scoring='constrained' among {number} labels is more than {profile.name!r} can be restricted to ({limit}"
            "); use scoring='parse' or 'auto'"
        )
    method: ScoringMethod
    if scoring == "channel" or (scoring == "auto" and profile.scores_text and builder.has_channel()):
        method = "channel"
    elif scoring == "direct" or (scoring == "auto" and profile.scores_text):
        method = "direct"
    elif scoring == "constrained" or (scoring == "auto" and restrictable):
        method = "constrained"
    else:
        method = "parse"
    if method == "channel":
        builder.channel()  # raises, with what to add, where there is none
    elif builder.kind == "channel":
        raise TemplateError(
            f"the template {builder.template.info.name!r} is for noisy-channel scoring only, but scoring is "
            f"{method!r}; use its direct twin, or an LLM that scores text (local does)"
        )
    return method


def _stand_ins(number: int) -> list[str]:
    return [f"{place}" for place in range(number)]


def choose_ensemble(ensemble: EnsembleOption, method: ScoringMethod, profile: Profile) -> bool:
    """Whether every example gets a prompt of its own.

    "auto": yes, where the channel is scored by an LLM that scores bags of words cheaply. Elsewhere each word of each
    example would be a request.

    Raises:
        CapabilityError: "examples" with another rung of the ladder.
    """
    if ensemble == "examples" and method != "channel":
        raise CapabilityError(
            f"ensemble='examples' scores words by noisy channel, but scoring is {method!r}; use scoring='channel' with "
            "an LLM that scores text (local does), or ensemble='auto'"
        )
    return ensemble == "examples" or (ensemble == "auto" and method == "channel" and profile.scores_bags)


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent to the LLM for one image.

    method: the rung. labels: in the order of ``classes_``. pairs: (prompt, continuation); for "channel" and "direct"
    one per label, whose continuation is scored; otherwise one, with the continuation left for the LLM to write ("").
    shown: for an ensemble, the label of each of its prompts in turn; each prompt is asked for every word of the image.
    """

    method: ScoringMethod
    labels: tuple[str, ...]
    pairs: tuple[tuple[Prompt, str], ...]
    shown: tuple[str, ...] = ()

    @property
    def terminator(self) -> str:
        """What ends a scored continuation: the line's end, and nothing where words are scored one by one."""
        return "" if self.shown else TERMINATOR

    def weigh(self, logprobs: Sequence[float]) -> tuple[float, ...]:
        """The log-probabilities of ``pairs`` as one for each label."""
        return pool(logprobs, self.shown, self.labels) if self.shown else tuple(logprobs)

    def __str__(self) -> str:
        parts: list[str] = []
        shown: str | None = None
        for prompt, continuation in self.pairs:
            if prompt.text != shown:
                shown = prompt.text
                parts.append(shown)
            parts.append(f"    -> {continuation!r}, scored" if continuation else "    -> (the LLM writes)")
        return "\n".join(parts)


def make_question(method: ScoringMethod, prepared: Shown, labels: tuple[str, ...], words: str) -> Question:
    """The question about an image with these words. ``prepared``: for "channel", of the channel template.

    What is scored is in composed characters, as the prompts are.
    """
    words = composed(words)
    if isinstance(prepared, Ensemble):
        return Question(method, labels, prepared.pairs(words), prepared.shown)
    if method == "channel":
        return Question(method, labels, tuple((prepared.query(label=label), " " + words) for label in labels))
    prompt = prepared.query(words=words)
    if method == "direct":
        return Question(method, labels, tuple((prompt, " " + composed(label)) for label in labels))
    return Question(method, labels, ((prompt, ""),))


def content_free_questions(method: ScoringMethod, prepared: Shown, labels: tuple[str, ...]) -> tuple[Question, ...]:
    """What contextual calibration asks: the same prompts about inputs without content.

    For "channel" the empty input is left out: an empty text has no probability to compare.
    """
    return tuple(
        make_question(method, prepared, labels, words) for words in CONTENT_FREE if words or method == "direct"
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """The LLM's answer to one question: log-probabilities in the order of ``labels``, or a text."""

    logprobs: tuple[float, ...] | None
    text: str
    usage: Usage


async def score(llm: TextLLM, questions: Sequence[Question]) -> list[Answer]:
    """Answers by log-probability, all questions in one call: an adapter can then sort them by shared prefix.

    questions: of one kind, one at least.

    Raises:
        LLMResponseError: the LLM gave another number of scores, or one that is no log-probability.
    """
    pairs = [pair for question in questions for pair in question.pairs]
    scores = await llm.score(pairs, terminator=questions[0].terminator)
    logprobs = checked_logprobs(scores, len(pairs), llm.profile.name)
    answers: list[Answer] = []
    shares = _shares(scores.usage, len(questions))
    start = 0
    for question, usage in zip(questions, shares, strict=True):
        end = start + len(question.pairs)
        answers.append(Answer(question.weigh(logprobs[start:end]), "", usage))
        start = end
    return answers


async def score_apart(llm: TextLLM, questions: Sequence[Question]) -> list[Answer | Exception]:
    """``score``, where a question that fails costs no other: an error stands in its answer's place.

    What came back of a call that failed is kept, and only what is missing (or is no log-probability) is asked again,
    question by question and once. A call for one question is not made again.
    """
    pairs = [pair for question in questions for pair in question.pairs]
    came, failure = await _asked(llm, pairs, questions[0].terminator)
    spans: list[range] = []
    for question in questions:
        start = spans[-1].stop if spans else 0
        spans.append(range(start, start + len(question.pairs)))
    # Spread over the questions that have any of it, so that the sum over images is what was spent.
    touched = [number for number, span in enumerate(spans) if any(place in came.logprobs for place in span)]
    touched = touched or [*range(len(spans))]
    spent = dict(zip(touched, _shares(came.usage, len(touched)), strict=True))
    found: list[Answer | Exception] = []
    for number, (question, span) in enumerate(zip(questions, spans, strict=True)):
        known = {place - span.start: came.logprobs[place] for place in span if place in came.logprobs}
        usage = spent.get(number, Usage())
        missing = [place for place in range(len(span)) if place not in known]
        if missing and (len(questions) > 1 or failure is None):
            again, failure = await _asked(llm, [question.pairs[place] for place in missing], question.terminator)
            usage += again.usage
            known |= {missing[place]: value for place, value in again.logprobs.items()}
        if len(known) == len(span):
            found.append(Answer(question.weigh([known[place] for place in range(len(span))]), "", usage))
        else:
            assert failure is not None
            found.append(failure)
    return found


async def _asked(
    llm: TextLLM, pairs: Sequence[tuple[Prompt, str]], terminator: str
) -> tuple[PartialScores, Exception | None]:
    """The log-probabilities that come back, and why there are no others."""
    try:
        scores = await llm.score(pairs, terminator=terminator)
    except Exception as error:
        came, failure = take(error), error
        return replace(came, logprobs={place: one for place, one in came.logprobs.items() if is_logprob(one)}), failure
    try:
        checked_logprobs(scores, len(pairs), llm.profile.name)
    except LLMResponseError as error:
        # Of another number of scores nobody knows which is whose.
        whole = len(scores.logprobs) == len(pairs)
        good = {place: one for place, one in enumerate(scores.logprobs) if whole and is_logprob(one)}
        return PartialScores(good, scores.usage), error
    return PartialScores(dict(enumerate(scores.logprobs)), scores.usage), None


async def complete(llm: TextLLM, question: Question, *, max_tokens: int, seed: int) -> Answer:
    """The answer the LLM writes, greedily, up to the end of the line; restricted to the labels for "constrained".

    Raises:
        LLMNoAnswerError: it answered with nothing, only with thoughts, or withheld its answer.
    """
    constraint = Constraint(question.labels) if question.method == "constrained" else None
    answer = await llm.complete(
        question.pairs[0][0],
        max_tokens=max_tokens,
        # A constrained answer ends by itself, and a JSON one may hold line ends.
        stop=() if constraint else (TERMINATOR,),
        seed=seed if llm.profile.seed else None,
        constraint=constraint,
    )
    check(answer, llm.profile.name)  # again, for an LLM that is not one of this library's
    return Answer(None, answer.text, answer.usage)


def _shares(usage: Usage, parts: int) -> list[Usage]:
    """One call's usage spread over the questions it answered, so that the sum over images is what was spent."""
    counts = {field.name: divmod(getattr(usage, field.name), parts) for field in fields(usage)}
    return [Usage(**{name: each + (place < rest) for name, (each, rest) in counts.items()}) for place in range(parts)]


def log_bias(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """What the prompt alone says of each label: log of its mean probability over inputs without content.

    Zhao et al. 2021, section 5: subtracting it from a query's log-probabilities is their W = diag(p_cf)^-1, b = 0.
    rows: log-probabilities [inputs, labels]; one that holds every label impossible says nothing and is left out.
    Returns finite values [labels].

    Raises:
        LLMResponseError: every row is such a one.
    """
    rows = [row for row in rows if not all_impossible(row)]
    if not rows:
        raise LLMResponseError(
            "the LLM holds every label impossible for inputs without content, so there is nothing to calibrate by; use "
            "calibration=None"
        )
    # In log space: noisy-channel scores of different labels lie so far apart that probabilities would underflow.
    logs = np.asarray([log_softmax(row) for row in rows], dtype=np.float64)
    bias = np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))
    # A label held impossible for every such input must not become certain for every image.
    return np.asarray(np.maximum(bias, bias[np.isfinite(bias)].min()), dtype=np.float64)


def log_softmax(logprobs: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log-probabilities of continuations, normalised over labels. logprobs: one finite at least."""
    values = np.asarray(logprobs, dtype=np.float64)
    # From the likeliest on: beside numbers as large as a mask's (-3.4e38) a sum of shares leaves no trace.
    values = values - values.max()
    return np.asarray(values - np.logaddexp.reduce(values), dtype=np.float64)
