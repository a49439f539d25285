"""The next LLM where one cannot answer; budgets that stop in time; what connect() puts around an LLM."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading

import pytest
from llm_contract import PROMPT, quick
from llm_servers import CANARY, AnthropicMessages, Fault, LoopbackServer, OpenAIChat

from icl_vision import connect
from icl_vision.contracts import Constraint, Profile, Prompt, Usage
from icl_vision.errors import (
    BudgetExceededError,
    CapabilityError,
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.llms import (
    BatchLLM,
    Budget,
    CachedLLM,
    FakeLLM,
    FallbackLLM,
    Meter,
    MeteredLLM,
    Price,
    PriceTable,
    ResponseCache,
    record,
)
from icl_vision.llms.wrappers import fallback

# ---- fallback ----


@pytest.mark.parametrize(
    "error",
    [
        LLMUnavailableError("gone"),
        LLMTimeoutError("slow"),
        LLMStatusError("busy", 503),
        LLMStatusError("slow down", 429),
        LLMStatusError("no money", 429, code="insufficient_quota"),
        LLMStatusError("no money", 402, code="billing_error"),
    ],
)
def test_the_next_one_answers(error, caplog):
    llm = FallbackLLM([FakeLLM([error, "first again"], name="first"), FakeLLM("second", name="second")])
    with caplog.at_level(logging.WARNING, logger="icl_vision"):
        answer = llm.complete_sync(PROMPT)
    assert (answer.text, answer.raw["answered_by"]) == ("second", "second")
    assert "'first' cannot answer" in caplog.text
    assert llm.complete_sync(PROMPT).raw["answered_by"] == "first"
    assert llm.answered == {"first": 1, "second": 1}


@pytest.mark.parametrize(
    "error",
    [
        LLMStatusError("wrong key", 401),
        LLMStatusError("no such model", 404),
        LLMStatusError("bad request", 400),
        LLMResponseError("not JSON"),
        BudgetExceededError("over"),
        PromptTooLongError(9, 5, "less"),
        CapabilityError("cannot"),
    ],
)
def test_a_mistake_is_not_hidden(error):
    second = FakeLLM("second")
    with pytest.raises(type(error)):
        FallbackLLM([FakeLLM([error]), second]).complete_sync(PROMPT)
    assert second.calls == []


def test_none_of_them():
    gone, busy = FakeLLM([LLMUnavailableError("no route")] * 2, name="a"), LLMStatusError("busy", 503)
    with pytest.raises(LLMUnavailableError, match=r"none of 2 LLMs could answer: 'a': .*no route; 'b': .*busy"):
        FallbackLLM([gone, FakeLLM([busy], name="b")]).complete_sync(PROMPT)
    slow = [FakeLLM([LLMTimeoutError("slow")]) for _ in range(2)]
    with pytest.raises(LLMTimeoutError, match="none of 2 LLMs"):
        FallbackLLM(slow).complete_sync(PROMPT)


def test_its_profile_promises_what_all_keep():
    a = FakeLLM(constraint="grammar", context_window=100, name="a")
    b = FakeLLM(constraint="choice", context_window=50, name="b")
    both = FallbackLLM([a, b])
    assert both.profile == Profile(
        "fallback(a, b)", context_window=50, api="completions", scores_text=True, constraint="grammar", seed=True
    )
    assert both.identity == "fallback(a, b)"
    assert FallbackLLM([a, FakeLLM()]).profile.constraint is None
    assert FallbackLLM([a, FakeLLM(scores_text=False)]).profile.scores_text is False
    with pytest.raises(CapabilityError, match="not every LLM in it"):
        FallbackLLM([a, FakeLLM(scores_text=False)]).score_sync([(PROMPT, " cat")])


# For each field of a profile: what a first LLM may say, what a second one says, and what both keep.
PROMISES = {
    "name": ("a", "b", "fallback(a, b)"),
    "context_window": (100, 50, 50),
    "api": ("completions", "chat", "chat"),
    "scores_text": (True, False, False),
    "constraint": ("grammar", None, None),
    "seed": (True, False, False),
    "prefix_cache": (True, False, False),
    "constraint_limit": (500, 20, 20),
    "constraint_characters": (500, 20, 20),
    "constraint_characters_many": (500, 20, 20),
    "scores_bags": (True, False, False),
    "temperature": (True, False, False),
    "stop_strings": (4, 0, 0),
    "batch": (True, True, False),
    "embedded": (True, False, False),
    "logprobs": (True, False, False),
    "prompt_cache": ("breakpoints", "automatic", None),
    "prompt_cache_minimum": (0, 1024, 1024),
    "reasoning": ("never", "always", "always"),
    "least_reasoning": ("none", "low", None),
    "tokenizer": ("o200k_base", "cl100k_base", None),
}


class Profiled(FakeLLM):
    """An LLM that says of itself what it is told to say."""

    def __init__(self, profile):
        super().__init__()
        self._profile = profile


def test_every_field_of_a_profile_has_its_rule():
    fields = {field.name for field in dataclasses.fields(Profile)}
    assert set(fallback._RULES) == fields, "say in fallback._RULES what of a new field all LLMs of a fallback keep"
    assert set(PROMISES) == fields


@pytest.mark.parametrize("field", PROMISES)
def test_it_promises_nothing_that_the_second_cannot_do(field):
    first, second, both = PROMISES[field]
    names = {"name": "a"}, {"name": "b"}
    llms = [Profiled(Profile(**(name | {field: value}))) for name, value in zip(names, (first, second), strict=True)]
    assert getattr(FallbackLLM(llms).profile, field) == both
    if field != "name":
        assert getattr(FallbackLLM(llms[::-1]).profile, field) == both
        # What both say, they keep; in three as in two.
        same = FallbackLLM([llms[0], llms[0], llms[0]]).profile
        assert getattr(same, field) == (False if field == "batch" else first)
        assert getattr(FallbackLLM([llms[0], llms[0], llms[1]]).profile, field) == both


def test_unknown_bounds_are_none():
    known, unknown = Profiled(Profile("a", context_window=9, constraint_limit=3)), Profiled(Profile("b"))
    profile = FallbackLLM([unknown, known]).profile
    assert (profile.context_window, profile.constraint_limit) == (9, 3)


def test_a_field_without_a_rule_is_not_promised(monkeypatch):
    monkeypatch.delitem(fallback._RULES, "stop_strings")
    a, b = Profiled(Profile("a", stop_strings=4)), Profiled(Profile("b", stop_strings=2))
    assert FallbackLLM([a, b]).profile.stop_strings == 0
    assert FallbackLLM([a, a]).profile.stop_strings == 4


def test_all_pairs_are_scored_by_one_llm():
    asked = []

    def broken(prompt, continuation):
        asked.append(continuation)
        if continuation == " bird":
            raise LLMUnavailableError("gone")
        return -1.0

    llm = FallbackLLM([FakeLLM(score=broken), FakeLLM(score=lambda prompt, continuation: -2.0, name="other")])
    assert llm.score_sync([(PROMPT, " cat"), (PROMPT, " bird")]).logprobs == (-2.0, -2.0)
    assert asked == [" cat", " bird"]


def test_fallbacks_that_cannot_be():
    with pytest.raises(UsageError, match="two LLMs or more; got 1"):
        FallbackLLM([FakeLLM()])
    with pytest.raises(UsageError, match="holds LLM objects, see connect"):
        FallbackLLM([FakeLLM(), "local"])
    with pytest.raises(UsageError, match="fallback must be a list of LLMs; got the string 'fake'"):
        connect("fake", fallback="fake")


# ---- metering ----

PRICES = PriceTable({"fake": Price(1.0, 2.0, cache_read=0.1, cache_write=1.25)})


@pytest.mark.parametrize(("fault", "billed"), [({"reset": True}, 2), ({"truncated": True}, 2), ({"status": 503}, 1)])
def test_answers_lost_on_the_way_are_booked(fault, billed):
    meter = Meter()
    with LoopbackServer(OpenAIChat()) as server:
        server.faults.append(Fault(**fault))
        llm = connect("openai:gpt-4o-mini", base_url=server.url, api_key=CANARY, resilience=quick(), meter=meter)
        llm.complete_sync(PROMPT)
        gone = connect("openai:gpt-4o-mini", base_url="http://127.0.0.1:9/v1", api_key=CANARY, meter=meter, attempts=1)
        assert meter.total()[0].requests == billed
        with pytest.raises(LLMUnavailableError):
            gone.complete_sync(PROMPT)  # never arrived: a request without tokens
        tokens = meter.total()[0].prompt_tokens
        assert meter.total()[0].requests == billed + 1 and tokens == meter.total()[0].prompt_tokens
        llm.close()
        gone.close()


def test_usage_is_booked_by_model():
    meter = Meter(PRICES)
    llm = MeteredLLM(FakeLLM("two words"), meter)
    for _ in range(3):
        llm.complete_sync(PROMPT)
    llm.score_sync([(PROMPT, " cat"), (PROMPT, " bird")])
    usage, cost = meter.total()
    assert meter.spent == {"fake": usage} and usage.requests == 5 and usage.completion_tokens == 6
    assert cost.amount == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)


def test_a_budget_stops_before_the_limit_even_when_all_ask_at_once():
    fake = FakeLLM("word")
    llm = MeteredLLM(fake, Meter(budget=Budget(requests=5)))

    async def many():
        return await asyncio.gather(*(llm.complete(PROMPT) for _ in range(20)), return_exceptions=True)

    answers = asyncio.run(many())
    assert sum(isinstance(answer, BudgetExceededError) for answer in answers) == 15
    assert len(fake.calls) == 5


def test_a_budget_in_tokens_and_money():
    words = "word " * 300
    for budget in (Budget(tokens=1000), Budget(cost=0.001)):
        meter = Meter(PRICES, budget)
        llm = MeteredLLM(FakeLLM("word"), meter)
        with pytest.raises(BudgetExceededError):
            for _ in range(10):
                llm.complete_sync(words)
        usage, cost = meter.total()
        assert 300 <= usage.prompt_tokens + usage.completion_tokens <= 1000 and cost.amount <= 0.001
    with pytest.raises(BudgetExceededError, match="add the price to the table"):
        MeteredLLM(FakeLLM(name="unpriced"), Meter(PRICES, Budget(cost=1))).complete_sync(PROMPT)


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (LLMStatusError("bad", 400), False),
        (LLMUnavailableError("gone"), False),
        (PromptTooLongError(9, 5, "less"), False),
        (LLMTimeoutError("slow"), True),
        (LLMResponseError("not JSON"), True),
    ],
)
def test_what_a_failure_costs_on_the_safe_side(error, billed):
    meter = Meter()
    llm = MeteredLLM(FakeLLM([error]), meter)
    with pytest.raises(type(error)):
        llm.complete_sync(PROMPT)
    usage = meter.spent["fake"]
    assert usage.requests == 1 and (usage.prompt_tokens > 0) == billed
    assert meter._reserved["fake"] == Usage()


def test_a_cancelled_request_frees_what_it_reserved():
    meter = Meter()
    asked = threading.Event()

    class Waits(FakeLLM):
        async def _complete(self, prompt, **settings):
            asked.set()
            await asyncio.Event().wait()

    async def cancel():
        task = asyncio.create_task(MeteredLLM(Waits(), meter).complete(PROMPT))
        assert await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(3000):  # the LLM lives on another thread, which has to hear of it
            if meter.total()[0].requests:
                break
            await asyncio.sleep(0.01)

    asyncio.run(cancel())
    assert meter._reserved["fake"] == Usage() and meter.spent["fake"].requests == 1


def test_the_estimate_is_an_upper_bound():
    with LoopbackServer(OpenAIChat(window=9_000)) as server:
        llm = MeteredLLM(
            connect("openai:gpt-6-astra", base_url=server.url, api_key=CANARY, resilience=quick()), Meter()
        )
        for prompt, constraint in ((PROMPT, None), (PROMPT, Constraint(("cat", "dog"))), ("word " * 2000, None)):
            estimate = llm.estimate(prompt, max_tokens=16, constraint=constraint)
            actual = llm.complete_sync(prompt, constraint=constraint).usage
            assert estimate.prompt_tokens >= actual.prompt_tokens
            assert estimate.completion_tokens >= 4096 + 16 >= actual.completion_tokens
        llm.close()


def test_writing_to_a_providers_cache_is_reckoned_with():
    long = Prompt("", "\n".join(f"word{number} fur: cat" for number in range(1200)), "bark:")
    with LoopbackServer(AnthropicMessages(window=50_000)) as server:
        llm = connect(
            "anthropic:claude-haiku-4-5",
            base_url=server.url,
            api_key=CANARY,
            resilience=quick(),
            prices={"claude-haiku-4-5": Price(1, 5)},
            budget=Budget(cost=10),
        )
        assert llm.estimate(long).cache_write_tokens > 4096 and llm.estimate(PROMPT).cache_write_tokens == 0
        llm.complete_sync(PROMPT)
        with pytest.raises(BudgetExceededError, match="no cache_write price"):
            llm.complete_sync(long)
        assert len(server.requests) == 1
        llm.close()


def test_no_wrapper_hides_what_a_request_may_cost(tmp_path):
    long = Prompt("", "word " * 6000, "bark:")
    for spec in ("openai:o3", "anthropic:claude-haiku-4-5"):
        llm = connect(spec)
        bare = MeteredLLM(llm, Meter()).estimate(long, max_tokens=10)
        assert bare.completion_tokens > 4096 or bare.cache_write_tokens > 4096
        for wrapper in (
            CachedLLM(llm, ResponseCache(tmp_path / "cache.sqlite")),
            MeteredLLM(llm, Meter()),
            FallbackLLM([llm, FakeLLM("cat")]),
            BatchLLM(llm, tmp_path / "batches"),
            record(llm, tmp_path / f"{llm.profile.name}.jsonl"),
        ):
            found = MeteredLLM(wrapper, Meter(), name=spec).estimate(long, max_tokens=10)
            assert (found.completion_tokens, found.cache_write_tokens) == (
                bare.completion_tokens,
                bare.cache_write_tokens,
            ), wrapper


# ---- connect() ----


def test_connect_puts_the_cache_outside(tmp_path):
    with LoopbackServer(OpenAIChat()) as first, LoopbackServer(OpenAIChat("from the second")) as second:
        meter = Meter(PriceTable({"gpt-4o-mini": Price(1, 2)}))
        other = connect("openai:gpt-4.1", base_url=second.url, api_key=CANARY, resilience=quick())
        llm = connect(
            "openai:gpt-4o-mini",
            base_url=first.url,
            api_key=CANARY,
            resilience=quick(attempts=1),
            cache=tmp_path / "answers.sqlite",
            meter=meter,
            fallback=[other],
        )
        assert isinstance(llm, CachedLLM) and isinstance(llm.llm, FallbackLLM)
        assert all(isinstance(one, MeteredLLM) for one in llm.llm.llms)
        first.faults.append(Fault(status=500))
        assert [llm.complete_sync(PROMPT).text for _ in range(3)] == ["from the second"] * 3
        assert (len(first.requests), len(second.requests)) == (1, 1)
        assert set(meter.spent) == {"openai:gpt-4o-mini", "openai:gpt-4.1"}
        assert llm.complete_sync(PROMPT).usage == Usage()
        llm.close()
        with pytest.raises(LLMUnavailableError, match="was closed"):
            other.complete_sync(PROMPT)


def test_connect_with_a_budget_a_cache_of_ones_own_and_a_price_file(tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("fake: {input: 1.0, output: 2.0}\n")
    cache = ResponseCache(tmp_path / "a.sqlite")
    llm = connect("fake", answers="word", cache=cache, prices=prices, budget=Budget(requests=1))
    assert llm.cache is cache
    assert llm.complete_sync(PROMPT).text == llm.complete_sync(PROMPT).text == "word"
    with pytest.raises(BudgetExceededError, match="the next request would be number 2; the budget is 1"):
        llm.complete_sync("another")
    usage, cost = llm.llm.meter.total()
    assert usage.requests == 1 and cost.amount > 0
    cache.close()


def test_connect_wraps_objects_too():
    fake = FakeLLM("word")
    assert connect(fake) is fake
    meter = Meter()
    assert connect(fake, meter=meter).complete_sync(PROMPT).text == "word"
    assert meter.spent["fake"].requests == 1


def test_connect_options_that_exclude_each_other():
    with pytest.raises(UsageError, match="give either meter or budget and prices"):
        connect("fake", meter=Meter(), budget=Budget())
    with pytest.raises(UsageError, match="budget must be an icl_vision.llms.cost.Budget; got 5"):
        connect("fake", budget=5)


def test_withheld_answers_are_not_kept(tmp_path):
    class Refuses(FakeLLM):
        async def _complete(self, prompt, **settings):
            answer = await super()._complete(prompt, **settings)
            return type(answer)(answer.text, "refusal" if len(self.calls) == 1 else "stop", answer.usage)

    fake = Refuses("no")
    llm = CachedLLM(fake, ResponseCache(tmp_path / "a.sqlite"))
    for _ in range(3):
        llm.complete_sync(PROMPT)
    assert len(fake.calls) == 2
    llm.cache.close()
