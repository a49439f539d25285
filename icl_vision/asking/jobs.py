"""Jobs that ask an LLM: in which order they run, how far they are, and what came back of them kept on disk.

Knows: order, bounded concurrency, cancelling; a progress bar; run folders, failures one after the other. Refuses to
know: what is asked, and what an answer means.

The first job of a group is awaited before the group's others start, so that the LLM holds the prefix when they arrive.
Between groups there are two orders. "together": all groups begin at once, and whoever is ready first goes first; best
where a provider holds many prefixes. "in turn": a group is used up before the next one; best for an LLM that holds one
prefix at a time and would otherwise read each of them anew. No worker idles for the sake of an order: who would wait
takes a job of a later group.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from types import TracebackType
from typing import Any, Literal, Self

from icl_vision.contracts import Usage
from icl_vision.errors import LLMStatusError
from icl_vision.files.runs import Run
from icl_vision.llms.remote.resilience import QUOTA_CODES

Job = Callable[[], Awaitable[None]]
"""A coroutine function without arguments: one inquiry, from its prompt to the journal."""

Order = Literal["together", "in turn"]

FAILURES_IN_A_ROW = 20
"""So many inquiries in a row that the LLM could not answer, each after all its retries, and the run stops."""


async def run_jobs(
    groups: Sequence[Sequence[Job]], *, concurrency: int, lead: bool = True, order: Order = "together"
) -> None:
    """Run every job. The first exception cancels what is running, and is raised.

    Args:
        groups: jobs of one group share a prompt prefix.
        concurrency: at most so many jobs at the same time.
        lead: await the first job of a group before its others.
        order: of the groups, see above.
    """
    if not lead:
        groups = [[job] for group in groups for job in group]
    arrivals = itertools.count()
    ready: list[tuple[int, int, int]] = []  # what may start: its turn, its group, its number there
    held = 0  # jobs whose group's first is not done yet
    changed = asyncio.Condition()
    ending = False

    def admit(group: int, numbers: range) -> None:
        for number in numbers:
            heappush(ready, (group if order == "in turn" else next(arrivals), group, number))

    async def worker() -> None:
        nonlocal ending, held
        while not ending:  # who is free at this moment must not start another before its cancellation arrives
            async with changed:
                while not ready:
                    if not held:
                        return
                    await changed.wait()
                _, group, number = heappop(ready)
            try:
                await groups[group][number]()
            except BaseException:
                ending = True
                raise
            rest = range(1, len(groups[group]))
            if number == 0 and rest:
                async with changed:
                    admit(group, rest)
                    held -= len(rest)
                    changed.notify_all()

    for group, jobs in enumerate(groups):
        if jobs:
            admit(group, range(1))
            held += len(jobs) - 1
    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(ready) + held))]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise


@contextmanager
def progress_bar(total: int, what: str, wanted: bool | None) -> Iterator[Callable[[int], None]]:
    """A function that counts finished items while the block runs.

    wanted: True shows a bar, False none, None one only if stderr is a terminal.
    """
    if not total or not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, file=sys.stderr, leave=False) as bar:
        yield lambda count: bar.update(count) and None


class Failures:
    """Errors one after the other, and when there is no use in going on.

    own: kinds of errors that say something of their item alone.
    """

    def __init__(self, own: tuple[type[Exception], ...] = ()) -> None:
        self._own = own
        self._in_a_row = 0

    def none(self) -> None:
        """Something was answered."""
        self._in_a_row = 0

    def end(self, error: BaseException) -> bool:
        """Count an error; whether the run ends with it."""
        self._in_a_row += not isinstance(error, self._own)
        return is_final(error) or self._in_a_row >= FAILURES_IN_A_ROW


def is_final(error: BaseException) -> bool:
    """Whether every other inquiry would fail the same way: a wrong key, no money, no such model."""
    return isinstance(error, LLMStatusError) and (error.status in (401, 402, 403, 404) or error.code in QUOTA_CODES)


class Journal:
    """The journal of one call; without a run it keeps nothing.

    One thread writes, in order, so that its fsync does not hold up the event loop.

    Args:
        run: an open run folder, which the caller closes after the journal.
        own: see ``Failures``.
    """

    def __init__(self, run: Run | None, own: tuple[type[Exception], ...] = ()) -> None:
        self.run = run
        self._writer = None if run is None else concurrent.futures.ThreadPoolExecutor(1, "icl-vision-journal")
        self._failures = Failures(own)

    def results(self) -> Iterator[tuple[str, Any]]:
        """What the run had before this call: finished items with their results."""
        if self.run is not None:
            yield from self.run.results()

    async def record(self, item: str, result: dict[str, Any]) -> None:
        """Keep an item's result; returns when it is on disk."""
        if self.run is not None:
            await self._write(partial(self.run.record, item, result))
        self._failures.none()

    async def record_error(self, item: str, error: Exception, usage: Usage) -> bool:
        """Keep a failure and what it cost, to be asked again on resume; whether there is no use in going on."""
        if self.run is not None:
            await self._write(partial(self.run.record_error, item, error, usage))
        return self._failures.end(error)

    async def _write(self, write: Callable[[], None]) -> None:
        # Shielded: an answer that was paid for is written down even if another one ends the call right now.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, write))

    def close(self) -> None:
        """Wait until everything is written."""
        if self._writer is not None:
            self._writer.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
