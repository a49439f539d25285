"""Scores that came back though a sibling failed are kept, booked, and not asked for again."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from icl_vision.asking.inquiries import Inquiry, Reply, score_apart
from icl_vision.contracts import Completion, Profile, Prompt, Scores, Usage
from icl_vision.errors import LLMError, LLMResponseError, LLMStatusError, LLMTimeoutError, LLMUnavailableError
from icl_vision.evaluation.few_shot.scorers import SharedAnswers
from icl_vision.llms import CachedLLM, FakeLLM, FallbackLLM, Meter, MeteredLLM, ResponseCache, connect, record
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.loop import run_sync
from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy
from icl_vision.llms.scores import score_each, take

COST = Usage(1, 10, 0, 1)


class PairLLM(BaseLLM):
    """Scores pair by pair through a retry layer. ``fails``: for a continuation, errors of its attempts in turn."""

    def __init__(
        self,
        fails: dict[str, list[Any]] | None = None,
        *,
        concurrency: int = 64,
        attempts: int = 3,
        attempt_timeout: float = 60.0,
    ) -> None:
        self.fails = fails or {}
        self.asked: list[str] = []
        policy = RetryPolicy(attempts=attempts, attempt_timeout=attempt_timeout, wait_initial=0, wait_maximum=0)
        self.resilience = Resilience(policy, Limiter(start=concurrency, maximum=concurrency))
        self.hold: Callable[[str], Any] | None = None

    @property
    def profile(self) -> Profile:
        return Profile("pairs", scores_text=True)

    async def _attempt(self, text: str) -> float:
        self.asked.append(text)
        if self.hold is not None:
            await self.hold(text)
        error = self.fails[text].pop(0) if self.fails.get(text) else None
        if error == "never":
            await asyncio.sleep(60)
        elif error == "slow":
            await asyncio.sleep(0.05)
        elif error is not None:
            raise error
        await asyncio.sleep(0.005)
        return -float(len(text))

    async def _one(self, text: str) -> tuple[float, Usage]:
        return await self.resilience.call(lambda: self._attempt(text)), COST

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        return await score_each([partial(self._one, text) for _, text in pairs], method="pairs")

    async def _complete(self, prompt: Prompt, **settings: Any) -> Completion:
        await self._one(prompt.text)
        return Completion("yes", "stop", COST)


def pairs(count: int) -> list[tuple[Prompt, str]]:
    return [(Prompt("", "", "which?"), " " + "x" * (number + 1)) for number in range(count)]


def text(number: int) -> str:
    return " " + "x" * (number + 1)


async def until(true: Callable[[], Any]) -> None:
    for _ in range(5000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


def busy() -> LLMStatusError:
    return LLMStatusError("no", 400)


def test_an_error_carries_what_came_back() -> None:
    llm = PairLLM({text(2): [busy()]})
    with pytest.raises(LLMStatusError) as caught:
        llm.score_sync(pairs(5))
    came = take(caught.value)
    # All were on their way already: paid for, waited for, kept.
    assert came.logprobs == {place: -(place + 2.0) for place in (0, 1, 3, 4)}
    assert (came.usage, came.method) == (Usage(4, 40, 0, 4), "pairs")
    assert take(caught.value).logprobs == {}  # taken


def test_what_waits_for_its_turn_is_not_sent() -> None:
    llm = PairLLM({text(1): [busy()]}, concurrency=1)
    with pytest.raises(LLMStatusError) as caught:
        llm.score_sync(pairs(30))
    assert len(llm.asked) <= 3
    assert llm.resilience.limiter.in_use == 0
    assert set(take(caught.value).logprobs) <= {0, 2}


def test_the_first_alone() -> None:
    llm = PairLLM({text(0): [busy()]})
    with pytest.raises(LLMStatusError) as caught:
        llm.score_sync(pairs(5))
    assert llm.asked == [text(0)] and take(caught.value).logprobs == {}


def test_an_end_to_waiting_ends_everything() -> None:
    llm = PairLLM({text(3): ["never"]})

    async def main() -> None:
        task = asyncio.create_task(llm.score(pairs(5)))
        await until(lambda: len(llm.asked) == 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    run_sync(until(lambda: llm.resilience.limiter.in_use == 0))


def test_a_cache_keeps_it_and_asks_only_for_the_others(tmp_path: Path) -> None:
    llm = PairLLM({text(2): [busy()]})
    cached = CachedLLM(llm, ResponseCache(tmp_path / "a.sqlite"))
    cached.score_sync(pairs(1))
    with pytest.raises(LLMStatusError) as caught:
        cached.score_sync([*pairs(5), *pairs(1)])
    # With what was known before, in the places of this call.
    assert take(caught.value).logprobs == {0: -2.0, 1: -3.0, 3: -5.0, 4: -6.0, 5: -2.0}
    llm.asked.clear()
    scores = cached.score_sync(pairs(5))
    assert llm.asked == [text(2)]
    assert scores.logprobs == (-2.0, -3.0, -4.0, -5.0, -6.0) and scores.usage.requests == 1
    cached.cache.close()


def test_a_recording_and_answers_shared_by_rows_keep_it(tmp_path: Path) -> None:
    llm = PairLLM({text(2): [busy()]})
    recording = record(llm, tmp_path / "r.jsonl")
    shared = SharedAnswers(recording)
    with pytest.raises(LLMStatusError) as caught:
        shared.score_sync(pairs(5))
    assert set(take(caught.value).logprobs) == {0, 1, 3, 4}
    assert (shared.asked, shared.usage) == (4, Usage(4, 40, 0, 4))
    replayed = connect(f"replay:{tmp_path / 'r.jsonl'}").score_sync([pairs(5)[place] for place in (4, 0)])
    assert replayed.logprobs == (-6.0, -2.0)
    llm.asked.clear()
    shared.score_sync(pairs(5))
    assert llm.asked == [text(2)]


def test_a_fallback_never_mixes_two_llms(tmp_path: Path) -> None:
    first = PairLLM({text(2): [busy()], text(3): [LLMUnavailableError("down")] * 9})
    both = CachedLLM(FallbackLLM([first, FakeLLM(score=lambda prompt, text: -50.0)]), ResponseCache(tmp_path / "a"))
    with pytest.raises(LLMStatusError) as caught:
        both.score_sync(pairs(3))
    assert take(caught.value).logprobs == {}
    assert len(both.cache) == 0
    assert both.score_sync(pairs(4)).logprobs == (-50.0,) * 4
    both.cache.close()


def spent(meter: Meter) -> Usage:
    return meter.total()[0]


class TestBooks:
    """What a meter says afterwards."""

    def test_siblings_of_a_failure_count(self) -> None:
        meter = Meter()
        with pytest.raises(LLMStatusError) as caught:
            MeteredLLM(PairLLM({text(2): [busy()]}), meter).score_sync(pairs(5))
        assert spent(meter) == Usage(5, 40, 0, 4)  # four answered, one refused
        assert len(take(caught.value).logprobs) == 4  # handed on to whoever keeps them

    def test_a_pair_that_may_have_been_answered(self) -> None:
        meter = Meter()
        metered = MeteredLLM(PairLLM({text(2): ["never"] * 3}, attempt_timeout=0.5), meter)
        with pytest.raises(LLMTimeoutError):
            metered.score_sync(pairs(5))
        found = spent(meter)
        assert found.requests == 7 and found.prompt_tokens > 40 + 3 and found.completion_tokens > 4 + 3

    def test_attempts_that_timed_out_before_an_answer(self) -> None:
        meter = Meter()
        metered = MeteredLLM(PairLLM({"which?": ["never", LLMResponseError("no JSON")]}, attempt_timeout=0.5), meter)
        with pytest.raises(LLMResponseError):
            metered.complete_sync("which?")
        one = metered.estimate("which?")
        assert spent(meter) == one + one

        meter = Meter()
        metered = MeteredLLM(PairLLM({"which?": ["never"]}, attempt_timeout=0.5), meter)
        metered.complete_sync("which?")
        assert spent(meter) == one + COST

    def test_an_answer_lost_on_the_way(self) -> None:
        cut = LLMUnavailableError("the connection was cut")
        cut.sent = True
        meter = Meter()
        metered = MeteredLLM(PairLLM({"which?": [cut]}), meter)
        metered.complete_sync("which?")
        assert spent(meter) == COST + metered.estimate("which?")

    def test_refused_attempts_cost_nothing(self) -> None:
        meter = Meter()
        fails = {"which?": [LLMStatusError("busy", 429), LLMUnavailableError("down")]}
        MeteredLLM(PairLLM(fails), meter).complete_sync("which?")
        assert spent(meter) == COST
        with pytest.raises(LLMStatusError):
            MeteredLLM(PairLLM({"which?": [LLMStatusError("busy", 429)] * 3}), meter).complete_sync("which?")
        assert spent(meter) == COST + Usage(1)

    def test_what_was_never_sent(self) -> None:
        meter, llm = Meter(), PairLLM({"first": ["never"]}, concurrency=1)
        metered = MeteredLLM(llm, meter)

        async def main() -> None:
            first = asyncio.create_task(metered.complete("first"))
            await until(lambda: llm.asked)
            waiting = asyncio.create_task(metered.complete("which?"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await until(lambda: meter._reserved["pairs"] == metered.estimate("first"))
            assert spent(meter) == Usage()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await until(lambda: spent(meter).requests)

        asyncio.run(main())
        assert spent(meter) == metered.estimate("first")

    def test_an_llm_without_a_retry_layer(self) -> None:
        meter = Meter()
        metered = MeteredLLM(FakeLLM([LLMTimeoutError("slow"), LLMStatusError("no", 400)]), meter)
        for error, booked in ((LLMTimeoutError, metered.estimate("x")), (LLMStatusError, Usage(1))):
            before = spent(meter)
            with pytest.raises(error):
                metered.complete_sync("x")
            assert spent(meter) == before + booked


class TestTasks:
    """Inquiries of one call, some of which fail."""

    def inquiries(self, count: int) -> list[Inquiry]:
        return [
            Inquiry(tuple((Prompt("", "", f"q{number}"), f" {number}{name}") for name in "abc"))
            for number in range(count)
        ]

    def test_only_what_failed_is_asked_again(self) -> None:
        llm = PairLLM({" 1b": [busy()]})
        found = run_sync(score_apart(llm, self.inquiries(4)))
        assert all(isinstance(one, Reply) and one.logprobs == (-3.0,) * 3 for one in found)
        assert collections.Counter(llm.asked) == {
            f" {number}{name}": 1 + ((number, name) == (1, "b")) for number in range(4) for name in "abc"
        }
        assert sum((one.usage for one in found if isinstance(one, Reply)), Usage()).requests == 12

    def test_one_that_fails_for_good_costs_no_other(self) -> None:
        llm = PairLLM({" 1b": [busy()] * 9})
        found = run_sync(score_apart(llm, self.inquiries(4)))
        assert [type(one) for one in found] == [Reply, LLMStatusError, Reply, Reply]
        assert max(count for name, count in collections.Counter(llm.asked).items() if name != " 1b") == 1

    def test_a_single_inquiry_is_not_asked_twice(self) -> None:
        llm = PairLLM({" 0b": [busy()] * 9})
        (found,) = run_sync(score_apart(llm, self.inquiries(1)))
        assert isinstance(found, LLMStatusError) and len(llm.asked) == 3

    def test_a_number_that_is_none(self) -> None:
        values = {" 1b": [float("nan"), -1.0]}
        asked: list[str] = []

        def score(prompt: Prompt, text: str) -> float:
            asked.append(text)
            return values[text].pop(0) if values.get(text) else -2.0

        found = run_sync(score_apart(FakeLLM(score=score), self.inquiries(2)))
        assert [one.logprobs for one in found if isinstance(one, Reply)] == [(-2.0,) * 3, (-2.0, -1.0, -2.0)]
        assert asked.count(" 1b") == 2 and len(asked) == 7
        values = {" 0b": [float("nan")] * 2}
        (one,) = run_sync(score_apart(FakeLLM(score=score), self.inquiries(1)))
        assert isinstance(one, LLMResponseError)

    def test_another_number_of_scores(self) -> None:
        class Short(FakeLLM):
            async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
                return Scores((-1.0,) * (len(pairs) - 1))

        found = run_sync(score_apart(Short(), self.inquiries(2)))
        assert all(isinstance(one, LLMError) and "gave 2 scores for 3" in str(one) for one in found)


def test_what_a_fallbacks_first_llm_scored_is_booked_whoever_answers() -> None:
    busy_one = PairLLM({text(2): [LLMStatusError("busy", 503)] * 3})
    found = FallbackLLM([busy_one, PairLLM()]).score_sync(pairs(5))
    assert found.usage == Usage(9, 90, 0, 9)  # four of the first, and all five of the second
    assert busy_one.fails == {text(2): []}  # from now on it answers
    busy_one.fails[text(2)] = [LLMStatusError("busy", 503)] * 3
    with pytest.raises(LLMUnavailableError) as caught:
        FallbackLLM([busy_one, PairLLM({text(0): [LLMStatusError("busy", 503)] * 3})]).score_sync(pairs(5))
    came = take(caught.value)
    assert (came.logprobs, came.usage) == ({}, Usage(4, 40, 0, 4))
