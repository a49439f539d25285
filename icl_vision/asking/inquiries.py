"""One prompt prefix, many queries: what is put to an LLM about each, and asked so that the prefix is read once.

    results = await ask(llm, [Group(inquiry, len(queries))], concurrency=8, read=read)

A task says what is put to the LLM about each query (``Group.inquiry``), continuations to be scored or an answer to be
written, and what a reply means (``read``). Results come back in the order of the queries, and where one cannot be asked
the others do not pay for it; what was paid for is never asked again.

Knows: scores and texts, whether they fit the LLM's window, calls and their order, errors query by query. Refuses to
know: what is asked about, what a reply means, what makes a prompt long.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from icl_vision.asking.jobs import Job, Order, run_jobs
from icl_vision.contracts import Constraint, Prompt, TextLLM, Usage
from icl_vision.errors import CapabilityError, LLMNoAnswerError, LLMResponseError, PromptError
from icl_vision.llms.answers import check
from icl_vision.llms.scores import PartialScores, checked_logprobs, is_logprob, take
from icl_vision.llms.tokens import most_tokens

logger = logging.getLogger(__name__)

T = TypeVar("T")

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


class Excess(NamedTuple):
    """What does not fit: tokens of the longest text, those kept free for an answer, and those of the window."""

    tokens: int
    room: int
    window: int


class Window:
    """The context window of one LLM."""

    def __init__(self, llm: TextLLM) -> None:
        self._llm = llm
        self._rooms: dict[str, int] = {}  # answers' tokens: the same few are asked for again and again

    @property
    def tokens(self) -> int | None:
        """Tokens that the LLM can read and write in one request; None where that is not known."""
        return self._llm.profile.context_window

    async def excess(self, texts: Iterable[str], *, room: int = 0, answers: Sequence[str] = ()) -> Excess | None:
        """What does not fit; None where all of it does.

        Also None where nothing is known: an LLM of unknown window, or one that cannot count and will have to refuse a
        long prompt itself.

        Args:
            texts: what would be sent, each by itself.
            room: tokens kept free for an answer.
            answers: what an answer may be, in place of ``room``: as much is kept free as the longest needs.
        """
        window = self.tokens
        if window is None:
            return None
        texts = dict.fromkeys(texts)
        longest = max(map(most_tokens, texts), default=0)
        if longest + max(map(most_tokens, answers), default=room) <= window:
            return None  # whatever they are written in
        if answers:
            counted = await self.most_counted(answers, self._rooms)
            if counted is None:
                return None
            room = counted
        tokens = await self.most_counted([text for text in texts if most_tokens(text) + room > window])
        return None if tokens is None or tokens + room <= window else Excess(tokens, room, window)

    async def most_counted(self, texts: Iterable[str], known: dict[str, int] | None = None) -> int | None:
        """Tokens of the text that has the most of them, which need not be the longest; None where the LLM cannot count.

        known: counts from before, to which these are added.
        """
        most = 0
        for text in sorted(dict.fromkeys(texts), key=most_tokens, reverse=True):
            if most_tokens(text) <= most:
                break  # neither this one nor a shorter one can have more
            tokens = None if known is None else known.get(text)
            if tokens is None:
                try:
                    tokens = await self._llm.count_tokens(text)
                except CapabilityError as error:
                    logger.debug("prompt length unchecked: %s", error)
                    return None
                if known is not None:
                    known[text] = tokens
            most = max(most, tokens)
        return most


Check = Callable[[Inquiry], Awaitable[None]]
"""Refuses an inquiry that cannot be sent, before it is, by a ``PromptError``: too long a prompt."""

Read = Callable[[int, int, Reply | Exception], Awaitable[T]]
"""What a reply means: told the number of its group and of its query there (from 0), and the reply or the error in its
place; gives the query's result, which may be kept on disk by then."""


@dataclass(frozen=True, slots=True)
class Group:
    """Queries whose prompts begin alike.

    inquiry: what is put to the LLM about the query of a number, from 0; made when it is about to be asked. queries: how
    many there are. size: so many are scored in one call; where the LLM writes, each is asked by itself all the same.
    leads: the first query goes alone and is awaited before the others, to fill the provider's prefix cache. before:
    asked and awaited before everything else; begun: told of what came back to it. then: what is put to the LLM next
    about the query of a number, after what came back last (a reply, or the error in its place); None, and a function
    that gives None: nothing, and ``read`` is told.
    """

    inquiry: Callable[[int], Inquiry]
    queries: int
    size: int = 1
    leads: bool = True
    before: Sequence[Inquiry] = ()
    begun: Callable[[Sequence[Reply]], None] = lambda replies: None
    then: Callable[[int, Reply | Exception], Inquiry | None] | None = None

    @property
    def calls(self) -> list[range]:
        """Which queries are asked together, each once and in order."""
        edges = [0, *range(1 if self.leads else self.size, self.queries, self.size), self.queries]
        return [range(start, stop) for start, stop in pairwise(edges) if start < stop]


async def fitting(groups: Sequence[Group], check: Check) -> tuple[list[Group], list[PromptError]]:
    """The groups without the queries that cannot be sent, and why each of those cannot."""
    fitted: list[Group] = []
    refused: list[PromptError] = []
    for group in groups:
        inquiries: list[Inquiry] = []
        for query in range(group.queries):
            inquiry = group.inquiry(query)
            try:
                await check(inquiry)
            except PromptError as error:
                refused.append(error)
            else:
                inquiries.append(inquiry)
        fitted.append(replace(group, inquiry=inquiries.__getitem__, queries=len(inquiries)))
    return fitted, refused


async def ask(
    llm: TextLLM,
    groups: Sequence[Group],
    *,
    concurrency: int,
    read: Read[T],
    keep_errors: bool = True,
    check: Check | None = None,
    order: Order = "together",
    done: Callable[[int], None] = lambda count: None,
) -> list[list[T]]:
    """Ask about every query of every group; the results of ``read``, in the order of groups and queries.

    Args:
        concurrency: calls at the same time.
        read: awaited with each reply as soon as there is one, before anything else is asked in its stead; what it
            raises ends everything.
        keep_errors: give ``read`` the error of a query that cannot be answered; otherwise the first one is raised.
        check: awaited with each inquiry before it is sent.
        order: of the groups, see ``jobs.run_jobs``.
        done: told how many queries were answered.
    """
    askings = [_Asking(llm, number, group, keep_errors, check, read, done) for number, group in enumerate(groups)]
    # The jobs keep errors themselves: what leaves one is meant to end everything.
    await run_jobs([jobs for asking in askings for jobs in asking.jobs()], concurrency=concurrency, order=order)
    return [asking.ordered() for asking in askings]


class _Asking(Generic[T]):
    """A group while it is asked."""

    def __init__(
        self,
        llm: TextLLM,
        number: int,
        group: Group,
        keep_errors: bool,
        check: Check | None,
        read: Read[T],
        done: Callable[[int], None],
    ) -> None:
        self._group = group
        self._results: dict[int, T] = {}
        self._failure: Exception | None = None
        self._llm, self._number, self._keep_errors = llm, number, keep_errors
        self._check, self._read, self._done = check, read, done

    def jobs(self) -> list[list[Job]]:
        """What is to be done, in groups of which the first job goes before the others."""
        calls: list[Job] = [partial(self._ask, call) for call in self._group.calls]
        if self._group.before and calls:
            return [[self._begin, *calls]]
        return [calls] if self._group.leads else [[call] for call in calls]

    def ordered(self) -> list[T]:
        """The results, when everything was asked."""
        return [self._results[query] for query in range(self._group.queries)]

    async def _begin(self) -> None:
        """Ask what has to be known first."""
        try:
            await self._refuse(self._group.before)
            self._group.begun(await score(self._llm, self._group.before))
        except Exception as error:
            if not self._keep_errors:
                raise
            self._failure = error

    async def _ask(self, call: range) -> None:
        """Ask about some queries together, and read what comes back."""
        if self._failure is not None:
            replies: list[Reply | Exception] = [self._failure] * len(call)
        else:
            replies = await self._replies(call)
        for query, reply in zip(call, replies, strict=True):
            last = reply if self._group.then is None else await self._gone_on(query, reply)
            self._results[query] = await self._read(self._number, query, last)
        self._done(len(call))

    async def _gone_on(self, query: int, reply: Reply | Exception) -> Reply | Exception:
        """What comes back last about a query that one inquiry does not settle."""
        assert self._group.then is not None
        while (following := self._group.then(query, reply)) is not None:
            (reply,) = await self._replies([following])
        return reply

    async def _replies(self, call: Sequence[int | Inquiry]) -> list[Reply | Exception]:
        """What comes back of inquiries; where the number of a query stands, its first is made now."""
        try:
            inquiries = [asked if isinstance(asked, Inquiry) else self._group.inquiry(asked) for asked in call]
            await self._refuse(inquiries)
            if inquiries[0].writing is None:
                if self._keep_errors:
                    return await score_apart(self._llm, inquiries)
                return [*await score(self._llm, inquiries)]
            if len(inquiries) == 1:
                return [await complete(self._llm, inquiries[0])]
        except Exception as error:
            # Where something may follow, who asks may go on without an answer.
            if not self._keep_errors and not (self._group.then and isinstance(error, LLMNoAnswerError)):
                raise
            if len(call) == 1:
                return [error]
        # Answers are written one by one; and where one query cannot be asked, the others must not pay for it.
        return [reply for asked in call for reply in await self._replies([asked])]

    async def _refuse(self, inquiries: Sequence[Inquiry]) -> None:
        if self._check is not None:
            for inquiry in inquiries:
                await self._check(inquiry)
