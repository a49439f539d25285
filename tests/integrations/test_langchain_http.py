"""The ``langchain:`` adapter with the real OpenAI SDK in front of a loopback server."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

pytest.importorskip("langchain_openai")

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI

from icl_vision import connect
from icl_vision.contracts import Prompt
from icl_vision.errors import LLMStatusError, LLMUnavailableError

CANARY = "sk-canary-0123456789abcdef"
PROMPT = Prompt("Say light or dark.", "Input: ....\nOutput: light", "Input: @@@@\nOutput:")


def test_a_string_is_enough(openai_server) -> None:
    llm = connect("langchain:openai:gpt-test", base_url=openai_server.url, api_key=CANARY)
    assert llm.profile.name == "langchain:gpt-test" and llm.model.max_retries == 0
    answer = llm.complete_sync(PROMPT, stop=["\n", "###"], max_tokens=8, seed=3)
    assert (answer.text, answer.finish_reason) == ("hello", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.completion_tokens) == (100, 40, 7)
    (sent,) = openai_server.requests
    assert sent["path"] == "/v1/chat/completions"
    assert sent["messages"] == [
        {"content": "Say light or dark.", "role": "system"},
        {"content": "Input: ....\nOutput: light\nInput: @@@@\nOutput:", "role": "user"},
    ]
    assert (sent["temperature"], sent["seed"], sent["stop"], sent["max_completion_tokens"]) == (0.0, 3, ["###"], 8)
    assert openai_server.headers[0]["authorization"] == f"Bearer {CANARY}"


def test_retries_are_ours_and_heed_the_server(openai_server) -> None:
    answers: list[Any] = [
        (429, {"retry-after-ms": "1"}, {"error": {"message": "slow down"}}),
        (529, {}, {"error": {"message": "overloaded"}}),
        {"role": "assistant", "content": "at last"},
    ]
    openai_server.behave = lambda body: answers.pop(0)
    llm = connect("langchain:openai:gpt-test", base_url=openai_server.url, api_key=CANARY)
    assert llm.complete_sync("x").text == "at last" and len(openai_server.requests) == 3


def test_no_key_in_errors_logs_and_reprs(openai_server, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    openai_server.behave = lambda body: (401, {}, {"error": {"message": f"Incorrect API key provided: {CANARY}"}})
    llm = connect(ChatOpenAI(model="gpt-test", base_url=openai_server.url, api_key=CANARY, max_retries=0))
    with pytest.raises(LLMStatusError, match="status 401: Incorrect API key provided: \\*\\*\\*") as found:
        llm.complete_sync("x")
    assert found.value.__cause__ is None and found.value.__context__ is None
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("icl_vision")]
    assert CANARY not in f"{found.value!r} {llm!r} {llm.identity} {llm.profile} {ours}"


def test_nobody_there(openai_server) -> None:
    openai_server.close()
    llm = connect("langchain:openai:gpt-test", base_url=openai_server.url, api_key=CANARY, attempts=1)
    with pytest.raises(LLMUnavailableError, match="'langchain:gpt-test' failed with .*Connection"):
        llm.complete_sync("x")


def test_a_missing_key_is_told_at_once() -> None:
    with pytest.raises(LLMUnavailableError, match="LangChain cannot make 'langchain:openai:gpt-test'.*OPENAI_API_KEY"):
        connect("langchain:openai:gpt-test")


def test_a_model_used_on_many_loops(openai_server) -> None:
    """One model, one HTTP client; asked from several event loops and from none."""
    llm = connect("langchain:openai:gpt-test", base_url=openai_server.url, api_key=CANARY)

    async def ask() -> list[str]:
        return [answer.text for answer in await asyncio.gather(*(llm.complete(str(n)) for n in range(4)))]

    with get_usage_metadata_callback() as usage:
        for _ in range(3):
            assert asyncio.run(ask()) == ["hello"] * 4
        assert llm.complete_sync("x").text == "hello"
    assert usage.usage_metadata["gpt-test"]["input_tokens"] == 1300


def test_a_classifier_with_it(openai_server, make_classifier, grey, say) -> None:
    openai_server.behave = lambda body: {"role": "assistant", "content": say(body["messages"][-1]["content"])}
    chat = ChatOpenAI(model="gpt-test", base_url=openai_server.url, api_key=CANARY, max_retries=0)
    clf = make_classifier(chat)
    assert clf.predict([grey(255), grey(0)]) == ["light", "dark"]
    assert clf.method_ == "parse"
