"""Errors inside an answer with status 200: an error like any other, in every adapter, for answers and scores alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llm_contract import ADAPTERS, PROMPT, Adapter, quick
from llm_servers import Fault, LoopbackServer

from icl_vision import connect
from icl_vision.errors import LLMGarbledError, LLMResponseError, LLMStatusError, PromptTooLongError, UsageError
from icl_vision.llms.remote.errors.provider_errors import error_in, status_of

NAMES = (
    *("openai-chat", "openai-responses", "anthropic", "compatible-chat", "compatible-completions"),
    *("vllm-echo", "vllm-prompt-logprobs", "llama.cpp"),
)
WIRES = [one for one in ADAPTERS if one.name in NAMES]
SCORES = [one for one in WIRES if one.name in ("vllm-echo", "vllm-prompt-logprobs", "llama.cpp")]

PASSING: list[Any] = [
    {"error": {"code": 429, "message": "slow down"}},
    {"error": {"code": "429", "message": "slow down"}},
    {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    {"error": {"type": "overloaded_error", "message": "slow down"}, "type": "error"},
    {"error": {"type": "server_error", "message": "slow down", "code": None}, "choices": []},
    {"error": {"message": "slow down", "code": 503}, "choices": [], "output": [], "content": []},
    {"error": {"status": "RESOURCE_EXHAUSTED", "message": "slow down"}},
    {"error": {"message": "slow down", "type": "RateLimitError"}},
    {"error": "slow down: too many requests"},
    {"error": "slow down", "code": 429},
    {"message": "slow down", "code": 429},
    {"message": "slow down", "status": 503, "choices": None},
    {"object": "error", "message": "slow down", "type": "InternalServerError", "param": None, "code": 500},
    {"detail": "slow down, rate limit reached"},
    {"detail": {"message": "slow down", "status_code": 502}},
    {"success": False, "errors": [{"code": 429, "message": "slow down"}]},
    {"choices": [{"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "slow down"}}]},
    [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}],
]
FINAL: list[tuple[Any, int]] = [
    ({"error": {"code": "invalid_api_key", "message": "no such key"}}, 401),
    ({"error": {"code": "insufficient_quota", "message": "no such key"}}, 429),
    ({"error": {"code": 404, "message": "no such key"}}, 404),
    ({"error": {"type": "invalid_request_error", "message": "no such key, try again"}}, 400),
    ({"error": "no such key"}, 400),
    ({"error": {"error": {"message": "no such key", "code": 403}}}, 403),
    ({"detail": "no such key"}, 400),
    ({"detail": [{"loc": ["body"], "msg": "no such key", "type": "value_error"}]}, 400),
    ({"message": "no such key", "code": "permission_denied"}, 403),
]


def shown(case: Any) -> str:
    return json.dumps(case)[:60]


@pytest.fixture(scope="module")
def standing() -> Iterator[dict[str, tuple[LoopbackServer, Any]]]:
    made: dict[str, tuple[LoopbackServer, Any]] = {}
    yield made
    for server, llm in made.values():
        llm.close()
        server.__exit__()


@pytest.fixture
def served(request: pytest.FixtureRequest, standing: Any) -> tuple[LoopbackServer, Any]:
    adapter: Adapter = request.param
    if adapter.name not in standing:
        server = LoopbackServer(adapter.provider()).__enter__()
        standing[adapter.name] = (server, adapter.llm(server))
    server, llm = standing[adapter.name]
    server.forget()
    return server, llm


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize("document", PASSING, ids=shown)
async def test_what_passes_is_asked_again(served, document):
    server, llm = served
    server.faults.append(Fault(raw=json.dumps(document).encode()))
    assert (await llm.complete(PROMPT)).text.strip()
    assert len(server.requests) == 2
    server.faults.extend([Fault(raw=json.dumps(document).encode())] * 3)
    with pytest.raises(LLMStatusError, match="slow down") as caught:
        await llm.complete(PROMPT)
    assert caught.value.status in (429, 500, 502, 503, 529) and len(server.requests) == 5


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(("document", "status"), FINAL, ids=shown)
async def test_what_does_not_pass_is_told_at_once_in_the_providers_words(served, document, status):
    server, llm = served
    server.faults.append(Fault(raw=json.dumps(document).encode()))
    with pytest.raises(LLMStatusError, match=f"status {status}: no such key") as caught:
        await llm.complete(PROMPT)
    assert caught.value.status == status and len(server.requests) == 1


@pytest.mark.parametrize("served", SCORES, indirect=True, ids=str)
@pytest.mark.parametrize("document", PASSING, ids=shown)
async def test_scores_are_asked_again_too(served, document):
    server, llm = served
    pairs = [(PROMPT, " cat"), (PROMPT, " sea lion")]
    before = await llm.score(pairs)
    server.faults.append(Fault(raw=json.dumps(document).encode()))
    assert (await llm.score(pairs)).logprobs == before.logprobs
    server.faults.append(Fault(raw=b'{"error": {"code": 401, "message": "no such key"}}'))
    with pytest.raises(LLMStatusError, match="status 401: no such key"):
        await llm.score(pairs)
    server.faults.append(Fault(raw=b""))
    assert (await llm.score(pairs)).logprobs == before.logprobs
    server.faults.extend([Fault(raw=b"<html>busy</html>")] * 20)
    with pytest.raises(LLMGarbledError):
        await llm.score(pairs)


@pytest.mark.parametrize(
    "document",
    [
        *({"choices": [{"message": {"content": "dog"}}], **more} for more in ({"error": None}, {"error": {}})),
        {"choices": [{"text": "dog"}], "error": {"code": 0, "message": ""}},
        {"choices": [{"message": {"content": "dog"}}], "message": "ok", "code": 200, "detail": "fine"},
        {"output": [{"type": "message"}], "error": None, "status": "completed"},
        {"content": [{"type": "text", "text": "dog"}], "type": "message"},
        {"tokens": [1, 2]},
        {},
        {"choices": []},
        {"message": {"content": "an answer of another protocol"}, "choices": [{}]},
        None,
        "text",
        [],
        [1, 2],
        {"error": False},
    ],
    ids=shown,
)
def test_what_reports_no_error(document):
    assert error_in(document) is None


@pytest.mark.parametrize(
    ("detail", "status"),
    [
        ({"code": 529}, 529),
        ({"code": "503"}, 503),
        ({"code": 200}, 400),
        ({"code": True}, 400),
        ({"code": "engine_overloaded_error"}, 529),
        ({"code": "model_overloaded"}, 529),
        ({"type": "ServiceUnavailable"}, 503),
        ({"type": "timeout_error"}, 504),
        ({"type": "api_error"}, 500),
        ({"code": "vector_store_timeout"}, 504),
        ({"code": "ThrottlingException"}, 429),
        ({"code": "context_length_exceeded"}, 400),
        ({"details": {"error_code": "rate_limit_exceeded"}}, 429),
        ({"status": "failed", "code": "server_error"}, 500),
        ({"type": "billing_error"}, 402),
        ({}, 400),
    ],
)
def test_which_status_a_code_stands_for(detail, status):
    assert status_of(detail) == status


def test_langchain_reports_it_too():
    adapter = next(one for one in ADAPTERS if one.name == "langchain")
    with LoopbackServer(adapter.provider()) as server, adapter.llm(server) as llm:
        for document in PASSING[:3]:
            server.faults.append(Fault(raw=json.dumps(document).encode()))
            assert llm.complete_sync(PROMPT).text.strip()
        server.faults.append(Fault(raw=b'{"error": {"code": 401, "message": "no such key"}}'))
        with pytest.raises(LLMStatusError, match="status 401: no such key"):
            llm.complete_sync(PROMPT)


# ---- "too long" is never guessed ----


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(
    "message",
    [
        "the context size must be a multiple of 32",
        "context limit: set it below 8000",
        "your plan exceeds the context of this offer",
        "maximum context length is 8192 tokens. However, you requested 12 tokens",
        "prompt is too long: 90 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 10 + 20 > 200000",
    ],
)
async def test_words_about_the_context_are_not_a_prompt_too_long(served, message):
    server, llm = served
    for fault in (Fault(status=400, message=message), Fault(raw=json.dumps({"error": message}).encode())):
        server.faults.append(fault)
        with pytest.raises(LLMStatusError) as caught:
            await llm.complete("hi")
        assert message.split(":")[0] in str(caught.value)


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(
    ("message", "tokens", "window"),
    [
        ("maximum context length is 8192 tokens. However, you requested 9000 tokens", 9000, 8192),
        ("prompt is too long: 210000 tokens > 200000 maximum", 210_000, 200_000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", 209_573, 200_000),
        ("the request (9000 tokens) exceeds the available context size (8192 tokens)", 9000, 8192),
    ],
)
async def test_the_providers_own_numbers_are_believed(served, message, tokens, window):
    server, llm = served
    for fault in (Fault(status=400, message=message), Fault(raw=json.dumps({"error": message}).encode())):
        server.faults.append(fault)
        with pytest.raises(PromptTooLongError) as caught:
            await llm.complete("hi")
        assert (caught.value.tokens, caught.value.window) == (tokens, window)


def test_a_known_window_and_a_long_prompt():
    adapter = next(one for one in ADAPTERS if one.name == "compatible-chat")
    with LoopbackServer(adapter.provider(window=10_000)) as server, adapter.llm(server, context_window=50) as llm:
        for text, kind in (("word " * 200, PromptTooLongError), ("word", LLMStatusError)):
            server.faults.append(Fault(status=400, message="exceeds the context size"))
            with pytest.raises(kind):
                llm.complete_sync(text)


# ---- the field that bounds an answer ----


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_max_tokens_by_another_name_or_not_at_all(api):
    adapter = next(one for one in ADAPTERS if one.name == "compatible-chat")
    with LoopbackServer(adapter.provider()) as server:
        for field in ("max_completion_tokens", None):
            server.faults.append(
                Fault(raw=b'{"choices": [{"message": {"content": "dog"}, "text": "dog", "finish_reason": "stop"}]}')
            )
            with adapter.llm(server, api=api, max_tokens_field=field) as llm:
                assert llm.complete_sync("x", max_tokens=7).text == "dog"
                assert llm.identity != adapter.llm(server, api=api).identity
        named, left_out = (request.body for request in server.requests)
        assert named["max_completion_tokens"] == 7 and "max_tokens" not in named
        assert not {"max_tokens", "max_completion_tokens", None} & left_out.keys()
        for wrong in ("", 3):
            with pytest.raises(UsageError, match=f"max_tokens_field must be a field's name.* got {wrong!r}"):
                adapter.llm(server, max_tokens_field=wrong)


def test_max_tokens_of_a_score_by_another_name():
    adapter = next(one for one in ADAPTERS if one.name == "vllm-echo")
    with LoopbackServer(adapter.provider()) as server:
        with adapter.llm(server, max_tokens_field="n_tokens") as llm, pytest.raises(LLMStatusError):
            llm.score_sync([(PROMPT, " cat"), (PROMPT, " dogs")])
        assert server.requests[0].body["n_tokens"] == 1 and "max_tokens" not in server.requests[0].body


def test_an_answer_without_what_every_answer_has_is_still_told_by_its_fields():
    adapter = next(one for one in ADAPTERS if one.name == "openai-chat")
    with LoopbackServer(adapter.provider()) as server, adapter.llm(server, resilience=quick()) as llm:
        server.faults.append(Fault(raw=b'{"id": "x", "choices": []}'))
        with pytest.raises(LLMResponseError, match="without choices; the answer's fields are: choices, id"):
            llm.complete_sync("x")


def test_connect_knows_the_option():
    assert connect("openai-compatible:m@http://127.0.0.1:9/v1", max_tokens_field=None).profile.api == "chat"


@pytest.mark.parametrize(
    "document",
    [
        {"error": 429},
        {"error": {"code": 429.0, "message": "x"}},
        {"error": {"code": "E429", "message": "x"}},
        {"error": {"http_code": "429 Too Many Requests"}},
        {"detail": {"error": {"code": 429, "message": "x"}}},
        {"status": 429, "title": "x"},
        {"statusCode": "429"},
        {"status": "error", "code": 429},
        {"Error": {"Code": "ThrottlingException", "Message": "x"}},
        {"__type": "ThrottlingException", "message": "x"},
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
        {"data": {"error": {"code": 429}}},
        {"response": {"error": "too many requests"}},
        {"fault": {"faultstring": "x", "detail": {"errorcode": "policies.ratelimit.SpikeArrestViolation"}}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": {"code": 429}}'}}},
    ],
    ids=shown,
)
def test_less_common_places_of_a_limit(document: Any) -> None:
    found = error_in(document)
    assert found is not None and found.status == 429


@pytest.mark.parametrize(
    "error", [{"code": 0, "message": "success"}, {"code": "200"}, {"message": "ok", "code": None}, "success", "OK"]
)
@pytest.mark.parametrize(
    "answer", [{"choices": [{"message": {"content": "dog"}}]}, {"output": [{}]}, {"content": [{}]}]
)
def test_an_error_that_says_there_is_none_costs_no_answer(error: Any, answer: Any) -> None:
    assert error_in(answer | {"error": error}) is None
    assert error_in(answer | {"base_resp": {"status_code": 0, "status_msg": ""}, "data": None}) is None


@pytest.mark.parametrize("served", WIRES, indirect=True, ids=str)
@pytest.mark.parametrize(
    "document", [{"error": 429}, {"status": 503, "title": "busy"}, {"result": {"error": "too many requests"}}]
)
async def test_less_common_places_are_asked_again(served, document):
    server, llm = served
    server.faults.append(Fault(raw=json.dumps(document).encode()))
    assert (await llm.complete(PROMPT)).text.strip()
    assert len(server.requests) == 2
