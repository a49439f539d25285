"""Scores that came back though a sibling of theirs failed: paid for, so they must not get lost.

A call of ``score`` with many pairs ends in one error or in all the scores. Where some were there already, the error
carries them: whoever keeps answers (a cache, a recording, a task with a journal) takes them from it, and asks again
only for the others.

Knows: how they travel. Refuses to know: who asks, who keeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from icl_vision.contracts import Scores, Usage
from icl_vision.llms.remote.attempts import account

_NAME = "_icl_vision_partial_scores"


@dataclass(frozen=True, slots=True)
class PartialScores:
    """What came back of a call that failed.

    logprobs: by the pair's place in the call, from 0. usage: what these cost. method: as in ``Scores``.
    """

    logprobs: Mapping[int, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    method: str = ""


def attach(error: BaseException, partial: PartialScores) -> None:
    """Let an error carry what came back."""
    setattr(error, _NAME, partial)


def take(error: BaseException) -> PartialScores:
    """What an error carries, taken from it; nothing where it carries nothing."""
    found = error.__dict__.pop(_NAME, None)
    return found if isinstance(found, PartialScores) else PartialScores()


async def score_each(asks: Sequence[Callable[[], Awaitable[tuple[float, Usage]]]], *, method: str) -> Scores:
    """Scores by one request each: the first alone, so that the others find what it put into the provider's cache.

    asks: one for each pair. method: as in ``Scores``.

    Raises:
        The first error, with everything that came back (see ``take``): what is under way is waited for, since it is
        paid for; what still waits for its turn is not sent.
    """
    done: dict[int, tuple[float, Usage]] = {0: await asks[0]()}
    failed: list[BaseException] = []
    stop = asyncio.Event()

    async def one(place: int) -> None:
        with account() as tried:
            task = asyncio.ensure_future(asks[place]())
            ended = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and not (tried.known and tried.in_flight):
                    task.cancel()
                done[place] = await task
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError) and stop.is_set()
                if not cancelled:
                    failed.append(error)
                if not isinstance(error, Exception) and not cancelled:
                    raise
                stop.set()
            finally:
                ended.cancel()
                if not task.done():  # we were cancelled ourselves
                    task.cancel()
                    await asyncio.wait((task,))

    others = [asyncio.create_task(one(place)) for place in range(1, len(asks))]
    try:
        await asyncio.gather(*others)
    except BaseException as error:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        failed.insert(0, error)
    usage = sum((spent for _, spent in done.values()), Usage())
    if failed:
        attach(failed[0], PartialScores({place: logprob for place, (logprob, _) in done.items()}, usage, method))
        raise failed[0]
    return Scores(tuple(done[place][0] for place in range(len(asks))), usage, method)
