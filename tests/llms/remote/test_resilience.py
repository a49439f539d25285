"""Retries, pauses and budgets, on a clock of our own: no test here waits for real."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from icl_vision.errors import (
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy, is_retryable


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def make(clock: Clock, policy: RetryPolicy | None = None, **limits: int) -> Resilience:
    limiter = Limiter(clock=clock, sleep=clock.sleep, **limits)
    return Resilience(policy, limiter, sleep=clock.sleep, random_source=random.Random(0))


def failing(*errors: BaseException) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A call that raises the errors one after the other, then answers; and the list of its calls."""
    queue, calls = list(errors), []

    async def ask() -> str:
        calls.append(1)
        if queue:
            raise queue.pop(0)
        return "answer"

    return ask, calls


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_passing_faults_are_tried_again(status: int) -> None:
    clock = Clock()
    ask, calls = failing(LLMStatusError("no", status), LLMStatusError("no", status))
    assert asyncio.run(make(clock).call(ask)) == "answer"
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        LLMStatusError("bad request", 400),
        LLMStatusError("no key", 401),
        LLMStatusError("not found", 404),
        LLMStatusError("unprocessable", 422),
        LLMStatusError("quota", 429, code="insufficient_quota"),
        LLMResponseError("no JSON"),
        UsageError("ours"),
    ],
)
def test_final_errors_are_not(error: Exception) -> None:
    clock = Clock()
    ask, calls = failing(error)
    with pytest.raises(type(error)):
        asyncio.run(make(clock).call(ask))
    assert len(calls) == 1
    assert clock.slept == []
    assert not is_retryable(error)


def test_attempts_are_counted_and_the_last_error_raised() -> None:
    ask, calls = failing(*[LLMUnavailableError(f"down {i}") for i in range(9)])
    with pytest.raises(LLMUnavailableError, match="down 2"):
        asyncio.run(make(Clock(), RetryPolicy(attempts=3)).call(ask))
    assert len(calls) == 3


def test_the_provider_says_how_long_and_is_capped() -> None:
    clock = Clock()
    ask, _ = failing(
        LLMStatusError("slow down", 429, retry_after=7.0), LLMStatusError("later", 503, retry_after=9999.0)
    )
    asyncio.run(make(clock, RetryPolicy(retry_after_maximum=20.0, total_timeout=1e6)).call(ask))
    assert 27 <= clock.now - 1000 <= 30


@pytest.mark.parametrize("asked", [None, 0.006])
def test_throttling_is_waited_out_for_a_minute_or_two(asked: float | None) -> None:
    """Limits are counted by the minute: six tries within seconds would all fall into the same one."""
    for seed in range(20):
        clock = Clock()
        ask, calls = failing(*[LLMStatusError("slow down", 429, retry_after=asked)] * 5)
        resilience = Resilience(None, Limiter(clock=clock, sleep=clock.sleep), sleep=clock.sleep)
        resilience._random = random.Random(seed)
        assert asyncio.run(resilience.call(ask)) == "answer"
        assert len(calls) == 6
        # What the provider said is believed twice.
        assert (60 if asked is None else 10) <= clock.now - 1000 <= 150
        if asked is not None:
            assert all(slept <= 2 for slept in clock.slept[:2])


def test_a_thousand_attempts_are_no_number_too_large() -> None:
    clock = Clock()
    ask, calls = failing(*[LLMStatusError("slow down", 429)] * 800, *[LLMUnavailableError("down")] * 1199)
    policy = RetryPolicy(attempts=2000, total_timeout=1e9)
    assert asyncio.run(make(clock, policy).call(ask)) == "answer"
    assert len(calls) == 2000


def test_retry_after_pauses_every_caller_of_the_limiter() -> None:
    clock = Clock()
    resilience = make(clock)
    started: list[float] = []
    first = True

    async def ask() -> str:
        nonlocal first
        if first:
            first = False
            raise LLMStatusError("slow down", 429, retry_after=30.0)
        started.append(clock.now)
        return "answer"

    async def main() -> None:
        await asyncio.gather(*(resilience.call(ask) for _ in range(5)))

    async def late() -> None:
        with pytest.raises(LLMStatusError):
            async with resilience.limiter.slot():
                resilience.limiter.throttled(30.0)
                raise LLMStatusError("slow down", 429, retry_after=30.0)
        first_started = clock.now
        await resilience.call(ask_plain)
        assert clock.now >= first_started + 30

    async def ask_plain() -> str:
        return "answer"

    asyncio.run(main())
    assert all(moment >= 1000 for moment in started)
    assert max(started) >= 1030
    asyncio.run(late())


def test_limit_grows_only_while_saturated_and_shrinks_only_on_429() -> None:
    clock = Clock()
    limiter = Limiter(start=4, maximum=100, clock=clock, sleep=clock.sleep)
    limiter.in_use = 1
    limiter.succeeded()
    assert limiter.limit == 4
    limiter.in_use = 4
    for _ in range(4):
        limiter.succeeded()
        limiter.in_use = int(limiter.limit)
    assert limiter.limit == 8  # slow start: one more a success
    limiter.throttled(None)
    assert limiter.limit == pytest.approx(6.4)
    limiter.throttled(None)
    assert limiter.limit == pytest.approx(6.4)  # once per cooldown
    limiter.in_use = 6
    limiter.succeeded()
    assert limiter.limit == pytest.approx(6.4)  # no growth while it cools down
    clock.now += 15
    limiter.succeeded()
    assert limiter.limit == pytest.approx(6.4 + 1 / 6.4)  # additive from now on
    for _ in range(50):
        clock.now += 15
        limiter.throttled(None)
    assert limiter.limit == 1


def test_server_errors_do_not_shrink_the_limit() -> None:
    clock = Clock()
    resilience = make(clock, start=8)
    ask, _ = failing(LLMStatusError("down", 503), LLMUnavailableError("reset"))
    asyncio.run(resilience.call(ask))
    assert resilience.limiter.limit >= 8


def test_concurrency_never_exceeds_the_limit() -> None:
    limiter = Limiter(start=3, maximum=3)
    running, most = 0, 0

    async def ask() -> None:
        nonlocal running, most
        async with limiter.slot():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    async def main() -> None:
        await asyncio.gather(*(ask() for _ in range(50)))

    asyncio.run(main())
    assert most == 3
    assert limiter.in_use == 0


def test_a_retry_goes_before_those_who_have_not_begun() -> None:
    limiter = Limiter(start=1, maximum=1)
    order: list[str] = []

    async def take(name: str, again: bool) -> None:
        async with limiter.slot(again=again):
            order.append(name)

    async def main() -> None:
        async with limiter.slot():
            waiting = [asyncio.create_task(take(f"new {i}", False)) for i in range(3)]
            await asyncio.sleep(0)
            retry = asyncio.create_task(take("retry", True))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, retry)

    asyncio.run(main())
    assert order == ["retry", "new 0", "new 1", "new 2"]


def test_cancelling_a_waiting_or_running_call_gives_its_place_back() -> None:
    limiter = Limiter(start=1, maximum=1)

    async def hold(seconds: float) -> None:
        async with limiter.slot():
            await asyncio.sleep(seconds)

    async def main() -> None:
        running = asyncio.create_task(hold(3600))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(hold(3600))
        handed = asyncio.create_task(hold(0))
        await asyncio.sleep(0)
        waiting.cancel()
        running.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        await asyncio.wait_for(handed, 5)
        # cancelled in the very moment its place was handed over
        running = asyncio.create_task(hold(0))
        await asyncio.sleep(0)
        handed = asyncio.create_task(hold(0))
        await asyncio.sleep(0)
        await running
        handed.cancel()
        await asyncio.gather(handed, return_exceptions=True)
        await asyncio.wait_for(hold(0), 5)

    asyncio.run(main())
    assert limiter.in_use == 0


def test_token_budget_spreads_requests_and_lets_one_oversize_through() -> None:
    clock = Clock()
    limiter = Limiter(tokens_per_minute=600, clock=clock, sleep=clock.sleep)

    async def spend(tokens: int) -> float:
        async with limiter.slot(tokens):
            return clock.now

    async def main() -> list[float]:
        return [await spend(tokens) for tokens in (600, 100, 5000, 10)]

    first, second, oversize, after = asyncio.run(main())
    assert first == 1000
    assert second == pytest.approx(1010)  # 100 tokens at 10 a second
    assert oversize == pytest.approx(1070)  # waits for a full bucket, not for ever
    assert after > oversize + 400  # and those after it pay its debt


def test_request_budget() -> None:
    clock = Clock()
    limiter = Limiter(requests_per_minute=60, clock=clock, sleep=clock.sleep)

    async def main() -> None:
        for _ in range(70):
            async with limiter.slot():
                pass

    asyncio.run(main())
    assert clock.now - 1000 == pytest.approx(10)


def test_timeouts_per_attempt_and_in_all() -> None:
    async def never() -> str:
        await asyncio.sleep(3600)
        return "never"

    policy = RetryPolicy(attempts=2, attempt_timeout=0.01, wait_initial=0)
    with pytest.raises(LLMTimeoutError, match=r"within 0\.01 s \(attempt_timeout\)"):
        asyncio.run(Resilience(policy).call(never))
    policy = RetryPolicy(attempts=1000, attempt_timeout=0.01, total_timeout=0.5, wait_initial=0)
    with pytest.raises(LLMTimeoutError, match=r"within 0\.5 s in all \(total_timeout\); the last error was"):
        asyncio.run(Resilience(policy).call(never))


def test_cancellation_is_clean() -> None:
    resilience = Resilience()

    async def never() -> str:
        await asyncio.sleep(3600)
        return "never"

    async def main() -> None:
        task = asyncio.create_task(resilience.call(never))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert resilience.limiter.in_use == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number of 1 or more; got 0"),
        ({"attempt_timeout": 0}, "attempt_timeout must be more than 0"),
        ({"total_timeout": -1}, "total_timeout must be more than 0"),
        ({"wait_initial": -1}, "wait_initial must be 0 seconds or more"),
    ],
)
def test_bad_policies(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RetryPolicy(**kwargs)  # type: ignore[arg-type]  # wrong on purpose


def test_bad_limits() -> None:
    with pytest.raises(UsageError, match="minimum <= start <= maximum; got 1, 9, 4"):
        Limiter(start=9, maximum=4)
    with pytest.raises(UsageError, match="tokens_per_minute must be 1 or more; got 0"):
        Limiter(tokens_per_minute=0)


def test_waiting_for_a_place_is_not_waiting_for_an_answer() -> None:
    """A thousand calls started at once are not a thousand slow answers."""

    async def slow() -> str:
        await asyncio.sleep(0.02)
        return "answer"

    async def main() -> list[str]:
        resilience = Resilience(RetryPolicy(total_timeout=0.7), Limiter(start=1, maximum=1))
        return await asyncio.gather(*(resilience.call(slow) for _ in range(50)))  # 1 s in all

    assert asyncio.run(main()) == ["answer"] * 50


def test_a_single_attempt_is_a_single_attempt() -> None:
    ask, calls = failing(LLMUnavailableError("down"))
    with pytest.raises(LLMUnavailableError, match="down"):
        asyncio.run(make(Clock(), RetryPolicy(attempts=1)).call(ask))
    assert len(calls) == 1
