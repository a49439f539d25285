"""Jobs that share a prompt prefix, one group after the other, so that a prefix is read once and then used up.

Knows: order, bounded concurrency, cancelling. Refuses to know: what is asked.

Unlike ``tasks.scheduling.fan_out``, which starts all groups together, a group comes before the next: an LLM that holds
one prefix at a time would otherwise read each of them anew. Work is never held back for that: a place that would be
idle goes to the next group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

Job = Callable[[], Awaitable[None]]


async def in_order(groups: Sequence[Sequence[Job]], *, concurrency: int, lead: bool) -> None:
    """Run every job. The first exception cancels what is running, and is raised.

    Args:
        groups: jobs of one group share a prompt prefix.
        concurrency: at most so many jobs at the same time.
        lead: await the first job of a group before its others, so that the prefix is held when they arrive.
    """
    queues = [list(group) for group in groups if group]
    taken = [0] * len(queues)
    led = [not lead] * len(queues)
    first = 0  # groups before this one have no job left to start
    changed = asyncio.Condition()
    ending = False

    def next_job() -> tuple[int, Job] | None:
        nonlocal first
        while first < len(queues) and taken[first] == len(queues[first]):
            first += 1
        for group in range(first, len(queues)):
            if taken[group] < len(queues[group]) and (led[group] or not taken[group]):
                taken[group] += 1
                return group, queues[group][taken[group] - 1]
        return None

    async def work() -> None:
        nonlocal ending
        while not ending:  # who is free at this moment must not start another before its cancellation arrives
            async with changed:
                while (found := next_job()) is None:
                    if first == len(queues):
                        return
                    await changed.wait()
            group, job = found
            try:
                await job()
            except BaseException:
                ending = True
                raise
            async with changed:
                led[group] = True
                changed.notify_all()

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, sum(map(len, queues))))]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
