"""One prompt prefix, many queries: they are asked so that the prefix is read once, and each gets a result of its own.

    results = await ask(llm, [Group(inquiry, len(queries))], concurrency=8, read=read)

A task says what is put to the LLM about each query (``Group.inquiry``) and what a reply means (``read``); results come
back in the order of the queries, and where one cannot be asked the others do not pay for it.

Knows: calls, their order, errors query by query. Refuses to know: what is asked about, and what a reply means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Generic, TypeVar

from icl_vision.asking.inquiries import Inquiry, Reply, complete, score, score_apart
from icl_vision.asking.scheduling import Job, Order, run_jobs
from icl_vision.contracts import TextLLM
from icl_vision.errors import PromptError

T = TypeVar("T")

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
    asked and awaited before everything else; begun: told of what came back to it.
    """

    inquiry: Callable[[int], Inquiry]
    queries: int
    size: int = 1
    leads: bool = True
    before: Sequence[Inquiry] = ()
    begun: Callable[[Sequence[Reply]], None] = lambda replies: None

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
        order: of the groups, see ``run_jobs``.
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
            self._results[query] = await self._read(self._number, query, reply)
        self._done(len(call))

    async def _replies(self, call: Sequence[int]) -> list[Reply | Exception]:
        try:
            inquiries = [self._group.inquiry(query) for query in call]
            await self._refuse(inquiries)
            if inquiries[0].writing is None:
                if self._keep_errors:
                    return await score_apart(self._llm, inquiries)
                return [*await score(self._llm, inquiries)]
            if len(inquiries) == 1:
                return [await complete(self._llm, inquiries[0])]
        except Exception as error:
            if not self._keep_errors:
                raise
            if len(call) == 1:
                return [error]
        # Answers are written one by one; and where one query cannot be asked, the others must not pay for it.
        return [reply for query in call for reply in await self._replies([query])]

    async def _refuse(self, inquiries: Sequence[Inquiry]) -> None:
        if self._check is not None:
            for inquiry in inquiries:
                await self._check(inquiry)
