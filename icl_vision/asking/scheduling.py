"""Many small requests to an LLM in groups that share a prompt prefix, so that its prefix cache helps.

Knows: order, bounded concurrency, cancelling. Refuses to know: what is asked, and what comes back.

The first job of a group is awaited before the group's others start, so that the LLM holds the prefix when they arrive.
Between groups there are two orders. "together": all groups begin at once, and whoever is ready first goes first; best
where a provider holds many prefixes. "in turn": a group is used up before the next one; best for an LLM that holds one
prefix at a time and would otherwise read each of them anew. No worker idles for the sake of an order: who would wait
takes a job of a later group.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush
from typing import Literal

Job = Callable[[], Awaitable[None]]
"""A coroutine function without arguments: one inquiry, from its prompt to the journal."""

Order = Literal["together", "in turn"]


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
