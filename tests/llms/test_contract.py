"""Every adapter keeps one contract: the suite of ``llm_contract`` over every adapter of ours, on loopback servers."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from collections.abc import Iterator

import pytest
from llm_contract import (
    ADAPTERS,
    CHECKS,
    PROMPT,
    Adapter,
    all_text_of,
    check_bad_arguments,
    check_constraint,
    check_max_tokens,
    check_profile,
    quick,
)
from llm_servers import CANARY, AnthropicMessages, Fault, LoopbackServer

from icl_vision import connect
from icl_vision.contracts import TextLLM
from icl_vision.errors import (
    LLMError,
    LLMGarbledError,
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
)
from icl_vision.llms import CachedLLM, FakeLLM, FallbackLLM, Meter, MeteredLLM, ResponseCache

# One for every way onto the wire; the others differ in what they send, not in how they fail.
NAMES = ("openai-chat", "openai-responses", "anthropic", "compatible-completions")
WIRES = [one for one in ADAPTERS if one.name in NAMES]
OURS_AND_LANGCHAIN = [*WIRES, *(one for one in ADAPTERS if one.name == "langchain")]


@pytest.fixture(scope="module")
def standing() -> Iterator[dict[str, tuple[LoopbackServer, TextLLM]]]:
    """Servers and LLMs by adapter, made at first use: an SDK's client takes longer than most tests."""
    with contextlib.ExitStack() as stack:
        made: dict[str, tuple[LoopbackServer, TextLLM]] = {}
        yield made
        for server, llm in made.values():
            stack.push(server)
            stack.callback(llm.close)


@pytest.fixture
def served(request: pytest.FixtureRequest, standing) -> tuple[Adapter, LoopbackServer, TextLLM]:
    """An adapter, its server, and an LLM connected to it; nothing of an earlier test is left in the server."""
    adapter: Adapter = request.param
    if adapter.name not in standing:
        server = LoopbackServer(adapter.provider())
        server.__enter__()
        standing[adapter.name] = server, adapter.llm(server)
    server, llm = standing[adapter.name]
    server.forget()
    return adapter, server, llm


@pytest.mark.parametrize("served", ADAPTERS, indirect=True, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_contract(check, served):
    adapter, _, llm = served
    if check is check_max_tokens and not adapter.exact:
        pytest.skip("reasoning and JSON need room, so max_tokens bounds only what may be billed")
    await check(llm)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("kind", ["fake", "fake-constrained", "cached", "metered", "fallback"])
async def test_contract_without_a_wire(check, kind, tmp_path):
    answers = "golden retriever\nand more"
    if kind == "fake-constrained":
        llm = FakeLLM(constraint="grammar", scores_text=False)
    else:
        llm = FakeLLM(answers)
    if kind == "cached":
        llm = CachedLLM(llm, ResponseCache(tmp_path / "responses.sqlite"))
    elif kind == "metered":
        llm = MeteredLLM(llm, Meter())
    elif kind == "fallback":
        llm = FallbackLLM([FakeLLM(LLMUnavailableError("gone") for _ in range(99)), llm])
    if kind == "fake-constrained" and check not in (check_constraint, check_bad_arguments, check_profile):
        pytest.skip("a fake that keeps constraints answers nothing else than labels")
    if kind == "cached" and check.__name__ == "check_score":
        pytest.skip("a hit spends nothing; test_cache checks its scores")
    await check(llm)


# ---- errors ----


@pytest.mark.parametrize("served", OURS_AND_LANGCHAIN, indirect=True, ids=str)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_statuses_that_are_final(served, status):
    _, server, llm = served
    server.faults.extend([Fault(status=status, code="some_code")] * 3)
    with pytest.raises(LLMStatusError, match=f"status {status}.*this request was made to fail") as caught:
        await llm.complete(PROMPT)
    assert (caught.value.status, len(server.requests)) == (status, 1)
    assert CANARY not in all_text_of(caught.value)


@pytest.mark.parametrize("served", OURS_AND_LANGCHAIN, indirect=True, ids=str)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_statuses_that_pass(served, status):
    _, server, llm = served
    server.faults.extend([Fault(status=status, headers={"retry-after-ms": "1"})] * 2)
    assert (await llm.complete(PROMPT)).text.strip()
    assert len(server.requests) == 3
    server.faults.extend([Fault(status=status)] * 3)
    with pytest.raises(LLMStatusError) as caught:
        await llm.complete(PROMPT)
    assert (caught.value.status, len(server.requests)) == (status, 6)
    assert CANARY not in all_text_of(caught.value)


@pytest.mark.parametrize("adapter", OURS_AND_LANGCHAIN, ids=str)
def test_retry_after_in_all_its_forms(adapter):
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    with LoopbackServer(adapter.provider()) as server:
        for headers, least, most in (
            ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, 1.5),
            ({"retry-after": "2"}, 2, 2),
            ({"retry-after": date}, 60, 101),
            ({"retry-after": "soon"}, None, None),
            ({}, None, None),
        ):
            server.faults.append(Fault(status=429, headers=headers))
            # A fresh one each time: what a provider asks for pauses every caller of the limiter.
            llm = adapter.llm(server, resilience=quick(attempts=1))
            with pytest.raises(LLMStatusError) as caught:
                llm.complete_sync(PROMPT)
            asked = caught.value.retry_after
            assert asked is None if least is None else least <= asked <= most
            llm.close()


@pytest.mark.parametrize("adapter", OURS_AND_LANGCHAIN, ids=str)
def test_limits_that_say_when_they_are_filled_again(adapter):
    reset = email.utils.formatdate(time.time() + 100, usegmt=True)
    forms = (
        (429, {"x-ratelimit-reset-requests": "38s"}, "busy", 38),
        (429, {"x-ratelimit-reset-tokens": "1m3.2s", "x-ratelimit-remaining-tokens": "0"}, "busy", 63.2),
        (429, {"anthropic-ratelimit-requests-reset": reset}, "busy", 100),
        (429, {"ratelimit-reset": "38", "retry-after-ms": "nan"}, "busy", 38),
        (503, {"x-ratelimit-reset": str(time.time() + 100)}, "busy", 100),
        (529, {}, "Overloaded, please try again in 2 minutes", 120),
        (429, {}, "Rate limit reached. Please try again in 38.5s. See the docs", 38.5),
        (429, {"x-ratelimit-reset-requests": "38s", "x-ratelimit-remaining-requests": "9"}, "busy", None),
        (500, {"x-ratelimit-reset-requests": "38s"}, "try again in 38s", None),
        (429, {}, "try again later", None),
    )
    with LoopbackServer(adapter.provider()) as server:
        for status, headers, message, seconds in forms:
            server.faults.append(Fault(status=status, headers=headers, message=message))
            llm = adapter.llm(server, resilience=quick(attempts=1))
            with pytest.raises(LLMStatusError) as caught:
                llm.complete_sync(PROMPT)
            asked = caught.value.retry_after
            assert asked is None if seconds is None else seconds - 40 * (seconds == 100) <= asked <= seconds + 1
            llm.close()


@pytest.mark.parametrize("served", OURS_AND_LANGCHAIN, indirect=True, ids=str)
async def test_an_exhausted_quota_is_final(served):
    _, server, llm = served
    code = "enforced_spend_limit_reached" if isinstance(server.provider, AnthropicMessages) else "insufficient_quota"
    server.faults.extend([Fault(status=429, code=code, message="You exceeded your current quota")] * 3)
    with pytest.raises(LLMStatusError, match="quota") as caught:
        await llm.complete(PROMPT)
    assert (caught.value.code, len(server.requests)) == (code, 1)


@pytest.mark.parametrize("served", OURS_AND_LANGCHAIN, indirect=True, ids=str)
async def test_connections_that_break(served):
    _, server, llm = served
    for fault in (Fault(reset=True), Fault(truncated=True)):
        server.faults.append(fault)
        assert (await llm.complete(PROMPT)).text.strip()
        server.faults.extend([fault] * 3)
        with pytest.raises(LLMUnavailableError) as caught:
            await llm.complete(PROMPT)
        assert CANARY not in all_text_of(caught.value)
    assert len(server.requests) == 2 * (2 + 3)


@pytest.mark.parametrize("adapter", OURS_AND_LANGCHAIN, ids=str)
async def test_an_answer_that_takes_too_long(adapter):
    with LoopbackServer(adapter.provider()) as server:
        llm = adapter.llm(server, resilience=quick(attempts=99, attempt_timeout=0.15))  # a good answer may take so long
        server.faults.append(Fault(slow=30))
        assert (await llm.complete(PROMPT)).text.strip()
        await llm.aclose()
        llm = adapter.llm(server, resilience=quick(attempts=2, attempt_timeout=0.15))
        server.faults.extend([Fault(slow=30)] * 2)
        with pytest.raises(LLMTimeoutError) as caught:
            await llm.complete(PROMPT)
        assert CANARY not in all_text_of(caught.value)
        await llm.aclose()


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b'{"choices": [], "content": null, "output": 3}',
        b'{"choices": [{}], "content": {"text": 1}, "output": []}',
        b'{"choices": [{"message": {"content": 3}, "text": 3}], "content": "x", "output": null}',
        b'{"choices": "x"}',
    ],
)
async def test_answers_of_an_unexpected_form(served, raw):
    _, server, llm = served
    server.faults.append(Fault(raw=raw))
    with pytest.raises(LLMResponseError) as caught:
        await llm.complete(PROMPT)
    assert len(server.requests) == 1  # it was paid for: asking again would pay again
    assert len(str(caught.value)) < 700
    assert (await llm.complete(PROMPT)).text.strip()


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(
    "raw",
    [
        b"<html>busy</html>",
        b'{"choices": [{"mess',
        b"",
        b"  ",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_what_is_not_json_is_asked_for_again(served, raw):
    _, server, llm = served
    server.faults.append(Fault(raw=raw))
    assert (await llm.complete(PROMPT)).text.strip()
    assert len(server.requests) == 2
    server.faults.extend([Fault(raw=raw)] * 20)
    with pytest.raises(LLMGarbledError, match="which is not JSON|with an empty body") as caught:
        await llm.complete(PROMPT)
    assert len(str(caught.value)) < 700


async def test_langchain_answers_of_an_unexpected_form():
    (adapter,) = (one for one in ADAPTERS if one.name == "langchain")
    with LoopbackServer(adapter.provider()) as server:
        llm = adapter.llm(server, resilience=quick(attempts=1))
        for raw in (b"<html>busy</html>", b"{}", b"[]"):
            server.faults.append(Fault(raw=raw))
            with pytest.raises(LLMError) as caught:
                await llm.complete(PROMPT)
            assert CANARY not in all_text_of(caught.value)
        await llm.aclose()


@pytest.mark.parametrize("served", ADAPTERS, indirect=True, ids=str)
async def test_a_prompt_too_long(served):
    _, server, llm = served
    with pytest.raises(PromptTooLongError, match="fewer") as caught:
        await llm.complete("tail " * 500)
    assert caught.value.window == 400 and caught.value.tokens >= 500
    assert len(server.requests) == 1


@pytest.mark.parametrize("served", OURS_AND_LANGCHAIN, indirect=True, ids=str)
async def test_a_wrong_key(served):
    adapter, server, _ = served
    llm = adapter.llm(server, api_key="sk-wrong-0123456789")
    with pytest.raises(LLMStatusError, match="status 401") as caught:
        await llm.complete(PROMPT)
    # The server repeats the key it got, as careless proxies do.
    assert "sk-wrong-0123456789" not in all_text_of(caught.value)
    await llm.aclose()


# ---- cancelling, closing, keys at call time ----


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
async def test_cancelling_is_clean(served):
    _, server, llm = served
    server.faults.append(Fault(slow=30))
    task = asyncio.create_task(llm.complete(PROMPT))
    assert await asyncio.to_thread(server.wait_for, lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The provider sees that nobody waits any more, and the next request is as good as any.
    assert await asyncio.to_thread(server.wait_for, lambda: server.dropped == 1)
    assert (await llm.complete(PROMPT)).text.strip()


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
async def test_closing_twice_and_asking_afterwards(served):
    adapter, server, _ = served
    llm = adapter.llm(server)
    await llm.complete(PROMPT)
    await llm.aclose()
    await llm.aclose()
    with pytest.raises(LLMUnavailableError, match=r"was closed; connect\(\) again"):
        await llm.complete(PROMPT)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("spec", "variable", "adapter"),
    [
        ("openai:gpt-4o-mini", "OPENAI_API_KEY", "openai-chat"),
        ("anthropic:claude-haiku-4-5", "ANTHROPIC_API_KEY", "anthropic"),
    ],
)
def test_the_key_is_read_at_each_call(spec, variable, adapter, monkeypatch):
    (found,) = (one for one in ADAPTERS if one.name == adapter)
    with LoopbackServer(found.provider()) as server:
        llm = connect(spec, base_url=server.url, resilience=quick())
        with pytest.raises(LLMUnavailableError, match=f"needs a key: set {variable}, or give connect\\(\\) api_key="):
            llm.complete_sync(PROMPT)
        monkeypatch.setenv(variable, "sk-old-key-0123")
        with pytest.raises(LLMStatusError, match="401"):
            llm.complete_sync(PROMPT)
        monkeypatch.setenv(variable, CANARY)
        assert llm.complete_sync(PROMPT).text.strip()
        monkeypatch.setenv(variable, CANARY + "\n")
        with pytest.raises(LLMError.__base__, match="holds a space, a line end") as caught:
            llm.complete_sync(PROMPT)
        assert CANARY not in all_text_of(caught.value)
        llm.close()


@pytest.mark.parametrize("adapter", WIRES, ids=str)
def test_a_key_from_a_function(adapter):
    keys = iter([CANARY, "sk-later-0123456"])
    with LoopbackServer(adapter.provider()) as server:
        llm = adapter.llm(server, api_key=lambda: next(keys))
        llm.complete_sync(PROMPT)
        with pytest.raises(LLMStatusError, match="401"):
            llm.complete_sync(PROMPT)
        llm.close()


@pytest.mark.parametrize("adapter", WIRES, ids=str)
def test_one_connection_serves_many_requests(adapter):
    with LoopbackServer(adapter.provider(), delay=0.02) as server:
        llm = adapter.llm(server)

        async def many():
            return await asyncio.gather(*(llm.complete(PROMPT, max_tokens=4) for _ in range(20)))

        assert len(asyncio.run(many())) == 20
        assert len(asyncio.run(many())) == 20  # from another loop of the user's
        assert server.most_at_once > 1
        llm.close()
