"""What is put to an LLM about one query, and what comes back: continuations to be scored, or a text to be written.

Knows: scores and texts, and that what was paid for is never asked again. Refuses to know: what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from icl_vision.contracts import Constraint, Prompt, TextLLM, Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.answers import check
from icl_vision.llms.scores import PartialScores, checked_logprobs, is_logprob, take

TERMINATOR = "\n"
"""What ends an answer: the line's end."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How an LLM is to write its answer.

    max_tokens: at most. stop: texts that end it. temperature: 0 for the likeliest. seed: left out where the LLM takes
    none. constraint: what it may write, None for anything. logprobs: have it say how likely its answer is, if it can.
    """

    max_tokens: int
    stop: tuple[str, ...] = (TERMINATOR,)
    temperature: float = 0.0
    seed: int | None = None
    constraint: Constraint | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Everything that is put to an LLM about one query.

    pairs: (prompt, continuation): all that are scored, or the one prompt after which the LLM writes, with an empty
    continuation. terminator: what ends a scored continuation. writing: how an answer is written, None where
    continuations are scored.
    """

    pairs: tuple[tuple[Prompt, str], ...]
    terminator: str = TERMINATOR
    writing: Writing | None = None

    @classmethod
    def written(cls, prompt: Prompt, writing: Writing) -> Inquiry:
        """An answer that the LLM writes after a prompt."""
        return cls(((prompt, ""),), writing=writing)

    @property
    def texts(self) -> list[str]:
        """Everything that has to fit the LLM's window, each text by itself."""
        return list(dict.fromkeys(prompt.text + continuation + TERMINATOR for prompt, continuation in self.pairs))

    def __str__(self) -> str:
        parts: list[str] = []
        shown: str | None = None
        for prompt, continuation in self.pairs:
            if prompt.text != shown:
                shown = prompt.text
                parts.append(shown)
            parts.append(f"    -> {continuation!r}, scored" if continuation else "    -> (the LLM writes)")
        return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back to one inquiry: log-probabilities in the order of its pairs, or a text; and what it cost.

    finish_reason, logprob: of a text, as in ``Completion``.
    """

    logprobs: tuple[float, ...] | None = None
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = ""
    logprob: float | None = None


async def score(llm: TextLLM, inquiries: Sequence[Inquiry]) -> list[Reply]:
    """Replies by log-probability, all inquiries in one call: an adapter can then sort them by shared prefix.

    inquiries: of one kind, one at least.

    Raises:
        LLMResponseError: the LLM gave another number of scores, or one that is no log-probability.
    """
    pairs = [pair for inquiry in inquiries for pair in inquiry.pairs]
    scores = await llm.score(pairs, terminator=inquiries[0].terminator)
    logprobs = checked_logprobs(scores, len(pairs), llm.profile.name)
    shares = _shares(scores.usage, len(inquiries))
    return [
        Reply(logprobs[span.start : span.stop], usage=usage)
        for span, usage in zip(_spans(inquiries), shares, strict=True)
    ]


async def score_apart(llm: TextLLM, inquiries: Sequence[Inquiry]) -> list[Reply | Exception]:
    """``score``, where an inquiry that fails costs no other: an error stands in its reply's place.

    What came back of a call that failed is kept, and only what is missing (or is no log-probability) is asked again,
    inquiry by inquiry and once. A call for one inquiry is not made again.
    """
    pairs = [pair for inquiry in inquiries for pair in inquiry.pairs]
    came, failure = await _asked(llm, pairs, inquiries[0].terminator)
    spans = _spans(inquiries)
    # Spread over the inquiries that have any of it, so that the sum over all is what was spent.
    touched = [number for number, span in enumerate(spans) if any(index in came.logprobs for index in span)]
    touched = touched or [*range(len(spans))]
    spent = dict(zip(touched, _shares(came.usage, len(touched)), strict=True))
    replies: list[Reply | Exception] = []
    for number, (inquiry, span) in enumerate(zip(inquiries, spans, strict=True)):
        known = {index - span.start: came.logprobs[index] for index in span if index in came.logprobs}
        usage = spent.get(number, Usage())
        missing = [index for index in range(len(span)) if index not in known]
        if missing and (len(inquiries) > 1 or failure is None):
            again, failure = await _asked(llm, [inquiry.pairs[index] for index in missing], inquiry.terminator)
            usage += again.usage
            known |= {missing[index]: logprob for index, logprob in again.logprobs.items()}
        if len(known) == len(span):
            replies.append(Reply(tuple(known[index] for index in range(len(span))), usage=usage))
        else:
            assert failure is not None
            replies.append(failure)
    return replies


async def complete(llm: TextLLM, inquiry: Inquiry) -> Reply:
    """The answer that the LLM writes.

    Raises:
        LLMNoAnswerError: it answered with nothing, only with thoughts, or withheld its answer.
    """
    writing = inquiry.writing
    assert writing is not None  # the caller's choice between this and ``score``
    completion = await llm.complete(
        inquiry.pairs[0][0],
        max_tokens=writing.max_tokens,
        stop=writing.stop,
        temperature=writing.temperature,
        seed=writing.seed if llm.profile.seed else None,
        constraint=writing.constraint,
        **({"logprobs": True} if writing.logprobs and llm.profile.logprobs else {}),
    )
    check(completion, llm.profile.name)  # again, for an LLM that is not one of this library's
    return Reply(None, completion.text, completion.usage, completion.finish_reason, completion.logprob)


async def _asked(
    llm: TextLLM, pairs: Sequence[tuple[Prompt, str]], terminator: str
) -> tuple[PartialScores, Exception | None]:
    """The log-probabilities that come back, and why there are no others."""
    try:
        scores = await llm.score(pairs, terminator=terminator)
    except Exception as error:
        came = take(error)
        sound = {index: logprob for index, logprob in came.logprobs.items() if is_logprob(logprob)}
        return replace(came, logprobs=sound), error
    try:
        checked_logprobs(scores, len(pairs), llm.profile.name)
    except LLMResponseError as error:
        # Of another number of scores nobody knows which is whose.
        whole = len(scores.logprobs) == len(pairs)
        sound = {index: logprob for index, logprob in enumerate(scores.logprobs) if whole and is_logprob(logprob)}
        return PartialScores(sound, scores.usage), error
    return PartialScores(dict(enumerate(scores.logprobs)), scores.usage), None


def _spans(inquiries: Sequence[Inquiry]) -> list[range]:
    """Where each inquiry's pairs stand among those of all."""
    spans: list[range] = []
    for inquiry in inquiries:
        start = spans[-1].stop if spans else 0
        spans.append(range(start, start + len(inquiry.pairs)))
    return spans


def _shares(usage: Usage, parts: int) -> list[Usage]:
    """One call's usage spread over the inquiries it answered, so that the sum over all is what was spent."""
    counts = {field.name: divmod(getattr(usage, field.name), parts) for field in fields(usage)}
    return [Usage(**{name: each + (part < rest) for name, (each, rest) in counts.items()}) for part in range(parts)]
