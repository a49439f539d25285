"""Many small requests to an LLM, so that its prefix cache helps and one failure costs only itself.

Knows: order, bounded concurrency, cancelling. Refuses to know: what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def fan_out(
    groups: Sequence[Sequence[Callable[[], Awaitable[T]]]],
    *,
    concurrency: int,
    keep_errors: bool,
    done: Callable[[], None] = lambda: None,
) -> list[list[T | Exception]]:
    """Run every job; results in the order of ``groups``.

    The jobs of one group share a prompt prefix: its first job is awaited alone, so that the provider holds the prefix
    when the others arrive. Different groups do not wait for each other.

    Args:
        groups: jobs that start a request when called.
        concurrency: at most so many requests in flight.
        keep_errors: put a job's exception in its place and go on; otherwise the first cancels the rest and is raised.
        done: called after each finished job.
    """
    gate = asyncio.Semaphore(concurrency)
    results: list[list[T | Exception]] = [[RuntimeError("this job never ran")] * len(group) for group in groups]
    tasks: list[asyncio.Task[None]] = []
    ending = False

    async def one(group: int, place: int) -> None:
        nonlocal ending
        async with gate:
            if ending:
                return  # the next in line wakes up before its cancellation arrives
            try:
                results[group][place] = await groups[group][place]()
            except BaseException as error:
                if not (keep_errors and isinstance(error, Exception)):
                    ending = True
                    raise
                results[group][place] = error
        done()

    async def first_then_rest(group: int) -> None:
        await one(group, 0)
        rest = [asyncio.create_task(one(group, place)) for place in range(1, len(groups[group]))]
        tasks.extend(rest)
        await asyncio.gather(*rest)

    leaders = [asyncio.create_task(first_then_rest(group)) for group in range(len(groups)) if groups[group]]
    tasks.extend(leaders)
    try:
        await asyncio.gather(*leaders)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return results
