"""Log-probabilities that came back from an LLM, before anything is chosen by them; also of a call that failed.

A call of ``score`` with many pairs ends in one error or in all the scores. Where some were there already, the error
carries them: they are paid for, so whoever keeps answers (a cache, a recording, a task with a journal) takes them from
it, and asks again only for the others.

Knows: which numbers can be log-probabilities, and how partial scores travel. Refuses to know: what they are of, who
asks, who keeps.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from icl_vision.contracts import Scores, Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.attempts import account

ROUNDING = 1e-3
"""A log-probability may lie so far above 0 by rounding, and is taken for 0 then."""

_FINITE = frozenset({"forced tokens"})
"""Methods whose log-probabilities have a floor (``llama_scoring.LOWEST``): -inf cannot come from them."""


_NAME = "_icl_vision_partial_scores"


def checked_logprobs(scores: Scores, count: int, name: str) -> tuple[float, ...]:
    """The log-probabilities of ``count`` continuations. -inf is one: the LLM holds such a continuation impossible.

    Raises:
        LLMResponseError: another number of them, or one that is no log-probability.
    """
    if len(scores.logprobs) != count:
        raise LLMResponseError(f"{name!r} gave {len(scores.logprobs)} scores for {count} continuations")
    for value in scores.logprobs:
        if not is_logprob(value, scores.method):
            raise LLMResponseError(f"{name!r} gave {value!r} as a log-probability; one is a number, and 0 at the most")
    return tuple(min(value, 0.0) for value in scores.logprobs)


def is_logprob(value: object, method: str = "") -> TypeGuard[float]:
    """Whether a value can be a log-probability: finite and not above 0, or -inf where the ``method`` can give it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > ROUNDING:
        return False
    return math.isfinite(value) or method not in _FINITE


def known_logprob(value: object) -> float | None:
    """The log-probability that a stored value is, None for anything else: what is not known is no reason to fail."""
    return min(float(value), 0.0) if is_logprob(value) else None


def all_impossible(logprobs: Sequence[float]) -> bool:
    """Whether the LLM holds every one of them impossible, so that there is nothing to choose by."""
    return all(value == -math.inf for value in logprobs)


# ---- of a call that failed ----


@dataclass(frozen=True, slots=True)
class PartialScores:
    """What came back of a call that failed.

    logprobs: by the pair's index in the call, from 0. usage: what these cost. method: as in ``Scores``.
    """

    logprobs: Mapping[int, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    method: str = ""


def attach(error: BaseException, partial: PartialScores) -> None:
    """Let an error carry what came back."""
    setattr(error, _NAME, partial)


def take(error: BaseException) -> PartialScores:
    """What an error carries, taken from it; nothing where it carries nothing."""
    carried = error.__dict__.pop(_NAME, None)
    return carried if isinstance(carried, PartialScores) else PartialScores()


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

    async def ask(index: int) -> None:
        with account() as tried:
            task = asyncio.ensure_future(asks[index]())
            ended = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and not (tried.known and tried.in_flight):
                    task.cancel()
                done[index] = await task
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

    others = [asyncio.create_task(ask(index)) for index in range(1, len(asks))]
    try:
        await asyncio.gather(*others)
    except BaseException as error:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        failed.insert(0, error)
    usage = sum((spent for _, spent in done.values()), Usage())
    if failed:
        attach(failed[0], PartialScores({index: logprob for index, (logprob, _) in done.items()}, usage, method))
        raise failed[0]
    return Scores(tuple(done[index][0] for index in range(len(asks))), usage, method)
