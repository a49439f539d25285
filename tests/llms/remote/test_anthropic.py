"""What is sent to Anthropic and what is made of its answers, model by model."""

from __future__ import annotations

import json

import pytest
from llm_contract import LABELS, PROMPT, quick
from llm_servers import CANARY, AnthropicMessages, Fault, LoopbackServer

from icl_vision import connect
from icl_vision.contracts import Constraint, Prompt, Usage
from icl_vision.errors import (
    CapabilityError,
    DroppedGuaranteeWarning,
    LLMResponseError,
    LLMStatusError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.llms import AnthropicLLM

LONG = Prompt("Name the animal.", "\n".join(f"word{number} fur tail: cat" for number in range(1200)), "bark:")


@pytest.fixture
def server():
    with LoopbackServer(AnthropicMessages(window=100_000)) as server:
        yield server


@pytest.fixture
def llm_of(server):
    """connect() to the server; closed at the end."""
    made = []

    def make(model, **options):
        given = {"api_key": CANARY, "resilience": quick(attempts=1)}
        made.append(connect(f"anthropic:{model}", base_url=server.url, **given | options))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


def message(content, stop_reason="end_turn", **usage):
    used = {"input_tokens": 9, "output_tokens": 4, **usage}
    return Fault(raw=json.dumps({"content": content, "stop_reason": stop_reason, "usage": used}).encode())


def text(words):
    return [{"type": "text", "text": words}]


def test_a_request(server, llm_of):
    answer = llm_of("claude-haiku-4-5", extra_body={"service_tier": "auto"}).complete_sync(
        PROMPT, max_tokens=7, stop=["\n", "?"], temperature=0.9
    )
    assert (answer.text, answer.finish_reason) == ("golden retriever", "stop")
    (request,) = server.requests
    assert request.headers["anthropic-version"]
    assert request.body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 7,
        "system": [{"type": "text", "text": "Name the animal."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "tail whiskers fur: cat\nfeathers beak wing: bird\n"},
                    {"type": "text", "text": "bark fetch leash:"},
                ],
            }
        ],
        "stop_sequences": ["?"],  # those of white space only are refused, and cut here
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    ("model", "thinking", "config", "room"),
    [
        ("claude-haiku-4-5", None, None, 0),
        ("claude-opus-4-8", None, None, 0),
        ("claude-opus-5", {"type": "disabled"}, None, 0),
        ("claude-haiku-5-5", {"type": "disabled"}, None, 0),
        ("claude-sonnet-5-5", {"type": "between_tools"}, None, 0),
        ("claude-opus-5-5", None, {"effort": "low"}, 4096),
        ("claude-fable-5-1", None, {"effort": "low"}, 4096),
        ("claude-not-yet-known", None, None, 4096),
    ],
)
def test_thinking(server, llm_of, model, thinking, config, room):
    assert llm_of(model).complete_sync(PROMPT, max_tokens=8).text.startswith("golden")
    body = server.requests[0].body
    assert (body.get("thinking"), body.get("output_config")) == (thinking, config)
    assert body["max_tokens"] == 8 + room


def test_thinking_that_was_asked_for(server, llm_of):
    llm = llm_of("claude-sonnet-5", effort="high", reasoning_room=50)
    llm.complete_sync(PROMPT, max_tokens=8)
    body = server.requests[0].body
    assert (body["output_config"], body["max_tokens"]) == ({"effort": "high"}, 58)
    assert "thinking" not in body
    llm_of("claude-opus-4-8", effort="low").complete_sync(PROMPT)
    assert server.requests[1].body["thinking"] == {"type": "adaptive"}


def test_the_fixed_prefix_is_marked_and_the_query_is_not(server, llm_of):
    llm = llm_of("claude-haiku-4-5")
    first = llm.complete_sync(LONG)
    second = llm.complete_sync(Prompt(LONG.instruction, LONG.context, "purr:"))
    blocks = [request.body["messages"][0]["content"] for request in server.requests]
    mark = {"type": "ephemeral", "ttl": "5m"}
    assert blocks[0][0] == blocks[1][0] == {"type": "text", "text": LONG.context + "\n", "cache_control": mark}
    assert [block[1] for block in blocks] == [{"type": "text", "text": "bark:"}, {"type": "text", "text": "purr:"}]
    assert server.requests[0].body["system"] == server.requests[1].body["system"]
    # Anthropic counts what went through the cache apart; our prompt_tokens hold everything.
    words = len(LONG.text.split())
    assert first.usage == Usage(1, words + 20, 0, first.usage.completion_tokens, 20)
    assert second.usage == Usage(1, words + 20, 20, second.usage.completion_tokens, 0)


def test_where_the_mark_goes(server, llm_of):
    long = "Name the animal. " * 1200
    llm_of("claude-haiku-4-5", prompt_cache="1h").complete_sync(Prompt(long, "", "bark:"))
    assert server.requests[0].body["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    llm_of("claude-haiku-4-5", prompt_cache=False).complete_sync(LONG)
    llm_of("claude-haiku-4-5").complete_sync(PROMPT)  # shorter than what is cached
    llm_of("claude-haiku-4-5").complete_sync(LONG.text)  # nothing in it is known to be fixed
    assert "cache_control" not in json.dumps([request.body for request in server.requests[1:]])


def test_constraints(server, llm_of):
    llm = llm_of("claude-haiku-4-5")
    assert llm.complete_sync(PROMPT, max_tokens=5, constraint=Constraint(LABELS), stop=["x"]).text == "golden retriever"
    body = server.requests[0].body
    assert body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": list(LABELS)}},
            "required": ["answer"],
            "additionalProperties": False,
        },
    }
    assert body["max_tokens"] > 5 and "stop_sequences" not in body
    assert llm.complete_sync(PROMPT, constraint=Constraint(("a", "b"), 11)).text == "a b a b a b a b a b a"
    schema = server.requests[1].body["output_config"]["format"]["schema"]
    assert list(schema["properties"])[:2] == ["w01", "w02"] and schema["$defs"]["word"]["enum"] == ["a", "b"]
    with pytest.raises(CapabilityError, match="cannot restrict its answers"):
        llm_of("claude-3-haiku-20240307").complete_sync(PROMPT, constraint=Constraint(LABELS))


def test_a_seed_warns_once(server, llm_of):
    llm = llm_of("claude-haiku-4-5")
    with pytest.warns(DroppedGuaranteeWarning, match="'anthropic:claude-haiku-4-5' keeps no seed") as seen:
        for _ in range(3):
            llm.complete_sync(PROMPT, seed=1)
    assert len(seen) == 1


def test_answers(server, llm_of):
    llm = llm_of("claude-opus-5-5")
    server.faults.extend(
        [
            message([{"type": "thinking", "thinking": "hm"}, *text("a dog"), *text(" or two")]),
            message(text("a dog"), "max_tokens"),
            message(text("a do"), "model_context_window_exceeded"),
            message(text("dog"), "end_turn", cache_read_input_tokens=30, cache_creation_input_tokens=None),
        ]
    )
    answers = [llm.complete_sync(PROMPT) for _ in range(4)]
    assert [(answer.text, answer.finish_reason) for answer in answers] == [
        ("a dog or two", "stop"),
        ("a dog", "length"),
        ("a do", "length"),
        ("dog", "stop"),
    ]
    assert answers[3].usage == Usage(1, 39, 30, 4, 0)
    server.faults.append(message([{"type": "thinking", "thinking": "hm"}], "max_tokens"))
    with pytest.raises(LLMResponseError, match="used up its 4 tokens thinking"):
        llm.complete_sync(PROMPT)


def test_errors_of_anthropic(server, llm_of):
    llm = llm_of("claude-haiku-4-5")
    server.faults.extend(
        [
            Fault(status=400, message="prompt is too long: 210000 tokens > 200000 maximum"),
            Fault(status=400, message="input length and `max_tokens` exceed context limit: 199999 + 20 > 200000"),
            Fault(status=402, message="no credit"),
            Fault(status=529, message="Overloaded", headers={"retry-after": "3"}),
        ]
    )
    with pytest.raises(PromptTooLongError, match="210000 tokens but the LLM's window holds 200000"):
        llm.complete_sync(PROMPT)
    with pytest.raises(PromptTooLongError, match="window holds 200000"):
        llm.complete_sync(PROMPT)
    with pytest.raises(LLMStatusError, match="status 402: no credit") as caught:
        llm.complete_sync(PROMPT)
    assert caught.value.code == "billing_error"
    with pytest.raises(LLMStatusError, match="status 529: Overloaded") as caught:
        llm.complete_sync(PROMPT)
    assert (caught.value.code, caught.value.retry_after) == ("overloaded_error", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api": "completions"}, "'anthropic' has no api='completions'; use 'auto' or 'chat'"),
        ({"prompt_cache": "2h"}, "prompt_cache must be True, False, '5m' or '1h'; got '2h'"),
        ({"reasoning_room": 1.5}, "reasoning_room must be a whole number"),
        ({"seed": 1}, r"connect\('anthropic'\) does not take the option 'seed'"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(UsageError, match=message):
        connect("anthropic:claude-haiku-4-5", **options)
    with pytest.raises(UsageError, match="the model must be one of Anthropic's names"):
        AnthropicLLM("")
