"""One retry layer and one adaptive limiter for every remote LLM.

The SDKs' own retries are off: retries in two places multiply. Here:

- 408, 409, 429, 5xx (529 among them), connection errors, attempt timeouts and bodies that are no JSON are
  tried again, with jittered exponential waits, or after what the provider asks for (``retry_hints`` reads it), capped.
  An exhausted quota and every other 4xx are final.
- Limits are counted by the minute, so the waits after 429s grow faster: with the default policy they last
  one to two minutes together. The same where a provider's own "try again in 6 ms" proves too short.
- A provider's "retry after" pauses every caller of the same limiter, not only the one that failed.
- The limiter starts slowly, grows while it is saturated and shrinks only on 429.
- A prompt larger than the whole token budget of a minute is let through alone instead of never.

Knows: waiting, counting, giving up. Refuses to know: wire formats and SDKs (adapters translate
their errors into our tree first, see ``LLMStatusError.retry_after``).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from icl_vision import checks
from icl_vision.errors import (
    LLMError,
    LLMGarbledError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.llms.attempts import requested, sending
from icl_vision.llms.remote.errors.retry_hints import parse_retry_after as parse_retry_after

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Error codes of a 429 that no waiting will mend.
QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_too_low",
        # anthropic 2.x, types/shared/*_spend_limit_reached_error.py: 429s too.
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
    }
)


def is_retryable(error: BaseException) -> bool:
    """Whether asking again can help: see the module docstring."""
    if isinstance(error, LLMStatusError):
        if error.code in QUOTA_CODES:
            return False
        return error.status in (408, 409, 429) or error.status >= 500
    return isinstance(error, LLMUnavailableError | LLMTimeoutError | LLMGarbledError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again and when to give up.

    attempts: tries in all, 1 or more. attempt_timeout, total_timeout: seconds for one try and for the whole call, waits
    between tries included; the time until the limiter lets the first one go does not count. wait_initial, wait_maximum:
    seconds; the wait after the n-th try is uniform in [0, min(maximum, initial * 2**(n-1))], full jitter; after a 429
    that names no time it is between half and all of min(2 * maximum, initial * 4**(n-1)). retry_after_maximum: cap in
    seconds on what a provider may ask for.
    """

    attempts: int = 6
    attempt_timeout: float = 60.0
    total_timeout: float = 300.0
    wait_initial: float = 1.0
    wait_maximum: float = 30.0
    retry_after_maximum: float = 120.0

    def __post_init__(self) -> None:
        checks.count("attempts", self.attempts)
        for name in ("attempt_timeout", "total_timeout"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be more than 0 seconds; got {getattr(self, name)}")
        for name in ("wait_initial", "wait_maximum", "retry_after_maximum"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 seconds or more; got {getattr(self, name)}")


class Limiter:
    """How many requests, and how many tokens a minute, go to one provider at a time; lives on one event loop.

    start, minimum, maximum: concurrent requests. Growth: one more per success while saturated until the first 429
    (which doubles the limit every round trip), later one more per round. A 429 shrinks the limit to 80%, at most once
    per ``cooldown`` seconds. tokens_per_minute, requests_per_minute: budgets, None for none.
    """

    SHRINK = 0.8
    SATURATED = 0.8

    def __init__(
        self,
        *,
        start: int = 8,
        minimum: int = 1,
        maximum: int = 64,
        tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
        cooldown: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 1 <= minimum <= start <= maximum:
            raise UsageError(f"need 1 <= minimum <= start <= maximum; got {minimum}, {start}, {maximum}")
        self.limit: float = start
        self.minimum = minimum
        self.maximum = maximum
        self.in_use = 0
        self._cooldown = cooldown
        self._clock = clock
        self._sleep = sleep
        self._slow_start = True
        self._shrunk_at = float("-inf")
        self._paused_until = float("-inf")
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._buckets = [
            _Bucket(budget, counts, clock(), clock)
            for budget, counts in ((requests_per_minute, "requests"), (tokens_per_minute, "tokens"))
            if budget is not None
        ]

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a budget of tokens, so that an estimate of a request's tokens is worth making."""
        return any(bucket.counts == "tokens" for bucket in self._buckets)

    @contextlib.asynccontextmanager
    async def slot(self, tokens: int = 0, *, again: bool = False) -> AsyncIterator[None]:
        """One request's place: waits for a free one, for a pause to end and for the budgets, in that order.

        again: this is a retry, whose clock is running already: it goes before those who have not begun.
        """
        await self._take(again)
        try:
            for bucket in self._buckets:
                delay = bucket.take(tokens)
                if delay > 0:
                    await self._sleep(delay)
            while (delay := self._paused_until - self._clock()) > 0:
                await self._sleep(delay)
            yield
        finally:
            self.in_use -= 1
            self._wake()

    def succeeded(self) -> None:
        """A request was answered: grow, if the limit was what held us back."""
        if self.in_use < self.SATURATED * int(self.limit) or self._clock() < self._shrunk_at + self._cooldown:
            return
        self.limit = min(self.maximum, self.limit + (1.0 if self._slow_start else 1.0 / self.limit))
        self._wake()

    def throttled(self, retry_after: float | None) -> None:
        """The provider said 429 (or asked for a pause with another status): shrink, and pause everyone."""
        now = self._clock()
        self._slow_start = False
        if now >= self._shrunk_at + self._cooldown:
            self.limit = max(self.minimum, self.limit * self.SHRINK)
            self._shrunk_at = now
        if retry_after is not None:
            self.pause(retry_after)

    def pause(self, seconds: float) -> None:
        """No request of this limiter starts for so long; a longer pause under way stays."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def _take(self, again: bool) -> None:
        if self.in_use < int(self.limit) and (again or not self._waiting):
            self.in_use += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(future)
        else:
            self._waiting.append(future)
        try:
            await future  # whoever wakes us has counted us in
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.in_use -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self.in_use < int(self.limit):
            future = self._waiting.popleft()
            if not future.done():
                self.in_use += 1
                future.set_result(None)


class _Bucket:
    """A budget per minute that refills steadily and may go into debt once: an oversize request waits for a full
    bucket and goes alone."""

    def __init__(self, per_minute: int, counts: str, now: float, clock: Callable[[], float]) -> None:
        if per_minute < 1:
            raise UsageError(f"{counts}_per_minute must be 1 or more; got {per_minute}")
        self.capacity = float(per_minute)
        self.counts = counts
        self.level = self.capacity
        self.at = now
        self._clock = clock

    def take(self, tokens: int) -> float:
        """Reserve now, and give the seconds to wait until the reservation is covered."""
        now = self._clock()
        rate = self.capacity / 60
        self.level = min(self.capacity, self.level + (now - self.at) * rate)
        self.at = now
        wanted = 1.0 if self.counts == "requests" else float(tokens)
        # An oversize request needs no more than a full bucket before it starts; the debt is paid by those after it.
        missing = min(wanted, self.capacity) - self.level
        self.level -= wanted
        return max(0.0, missing / rate)


class Resilience:
    """Runs one request after another through the limiter, again and again as the policy allows.

    random_source: for the jitter; give a seeded one in tests.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        limiter: Limiter | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random_source: random.Random | None = None,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.limiter = limiter or Limiter()
        self._sleep = sleep
        self._random = random_source or random.Random()
        self._told = False  # that the server cannot be reached, since it last answered

    async def call(self, ask: Callable[[], Awaitable[T]], *, tokens: int = 0) -> T:
        """The result of ``ask()``, tried again where that can help.

        ask: makes one attempt and raises errors of our tree. tokens: estimate for the token budget.
        Raises the last error; LLMTimeoutError where the total time ran out.
        """
        policy = self.policy
        last: list[BaseException] = []
        requested()

        async def attempt() -> T:
            async with self.limiter.slot(tokens, again=total.when() is not None):
                if total.when() is None:
                    # From here on: one of ten thousand calls may wait an hour for its turn with nothing being wrong.
                    total.reschedule(asyncio.get_running_loop().time() + policy.total_timeout)
                try:
                    with sending():
                        async with asyncio.timeout(policy.attempt_timeout):
                            result = await ask()
                except TimeoutError as error:
                    if isinstance(error, LLMError):
                        raise
                    raise LLMTimeoutError(
                        f"no answer within {policy.attempt_timeout:g} s (attempt_timeout); raise it or ask for less"
                    ) from None
                except LLMStatusError as error:
                    if error.status == 429 and is_retryable(error):
                        self.limiter.throttled(self._capped(error.retry_after))
                    elif error.retry_after is not None and is_retryable(error):
                        self.limiter.pause(self._capped(error.retry_after) or 0.0)
                    raise
                self.limiter.succeeded()
                self._told = False
                return result

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.retry_after if isinstance(error, LLMStatusError) else None
            throttled = isinstance(error, LLMStatusError) and error.status == 429
            tried = state.attempt_number
            most = min(policy.wait_maximum, policy.wait_initial * 2 ** min(tried - 1, 30))
            jitter = self._random.uniform(0, most)
            if asked is not None:
                # The limiter holds everyone back for the time asked; a little jitter spreads the crowd afterwards.
                told = (self._capped(asked) or 0.0) + min(jitter, 1.0)
                # Twice what the provider said was not enough: its limit is somewhere else than it thinks.
                return max(told, self._throttled_wait(tried - 2)) if throttled and tried > 2 else told
            return self._throttled_wait(tried) if throttled else jitter

        def note(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            if error is not None:
                last[:] = [error]
            if isinstance(error, LLMUnavailableError) and not self._told:
                # A server that is not running: seconds of silence would look like work.
                self._told = True
                logger.warning("not reachable, trying again: %s", error)
            logger.info("attempt %d failed (%s); trying again", state.attempt_number, error)

        failed: list[Exception] = []

        async def again() -> T:
            if failed:
                raise failed.pop()  # the first try, which tenacity did not see
            return await attempt()

        try:
            async with asyncio.timeout(None) as total:
                try:
                    # Nearly every request needs one try, and tenacity costs more than all the rest of this layer.
                    return await attempt()
                except Exception as error:
                    if not is_retryable(error):
                        raise
                    failed.append(error)
                return await self._retrying(note, wait)(again)
        except TimeoutError as error:
            if isinstance(error, LLMError):
                raise
            cause = f"; the last error was {type(last[0]).__name__}: {last[0]}" if last else ""
            raise LLMTimeoutError(
                f"no answer within {policy.total_timeout:g} s in all (total_timeout){cause}"
            ) from None

    def _retrying(
        self, note: Callable[[tenacity.RetryCallState], None], wait: Callable[[tenacity.RetryCallState], float]
    ) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.policy.attempts),
            wait=wait,
            retry=tenacity.retry_if_exception(is_retryable),
            sleep=self._sleep,
            before_sleep=note,
            reraise=True,
        )

    def _throttled_wait(self, tried: int) -> float:
        """After so many 429s: never short by chance, since the limit's minute has to pass."""
        most = min(2 * self.policy.wait_maximum, self.policy.wait_initial * 4 ** min(tried - 1, 30))
        return self._random.uniform(most / 2, most)

    def _capped(self, seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, self.policy.retry_after_maximum)
