"""What is sent to OpenAI and what is made of its answers, endpoint by endpoint and model by model."""

from __future__ import annotations

import json
import math
import warnings

import pytest
from llm_contract import LABELS, PROMPT, quick
from llm_servers import CANARY, Fault, LoopbackServer, OpenAIChat, OpenAIResponses

from icl_vision import connect
from icl_vision.contracts import Constraint, Prompt, Usage
from icl_vision.errors import (
    CapabilityError,
    DroppedGuaranteeWarning,
    LLMNoAnswerError,
    LLMResponseError,
    LLMSpecError,
    LLMStatusError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.llms import OpenAILLM
from icl_vision.llms.remote.structured import answer_from_json, constraint_schema

TOKENS = "message.output_text.logprobs"
LONG = Prompt("Name the animal.", "\n".join(f"word{number} fur tail: cat" for number in range(400)), "bark:")


@pytest.fixture
def chat():
    with LoopbackServer(OpenAIChat(window=10_000)) as server:
        yield server


@pytest.fixture
def responses():
    with LoopbackServer(OpenAIResponses(window=10_000)) as server:
        yield server


@pytest.fixture
def llm_of():
    """connect() to a server; closed at the end."""
    made = []

    def make(server, model, **options):
        given = {"api_key": CANARY, "resilience": quick(attempts=1)}
        made.append(connect(f"openai:{model}", base_url=server.url, **given | options))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


# ---- requests ----


def test_a_chat_request(chat, llm_of):
    answer = llm_of(chat, "gpt-4o-mini", extra_body={"user": "me"}).complete_sync(
        PROMPT, max_tokens=7, stop=["\n", "?"], temperature=0.5, seed=3
    )
    assert answer.text == "golden retriever"
    (request,) = chat.requests
    key = request.body.pop("prompt_cache_key")
    assert key.startswith("icl-") and len(key) == 36
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Name the animal."},
            {"role": "user", "content": "tail whiskers fur: cat\nfeathers beak wing: bird\nbark fetch leash:"},
        ],
        "max_completion_tokens": 7,
        "stop": ["?"],  # the line's end is cut here, from the first visible character on
        "temperature": 0.5,
        "seed": 3,
        "user": "me",
    }


def test_a_responses_request(responses, llm_of):
    answer = llm_of(responses, "gpt-5.1", api="responses").complete_sync(PROMPT, max_tokens=7, stop=["\n"])
    assert (answer.text, answer.finish_reason) == ("golden retriever", "stop")  # the endpoint takes no stop strings
    body = responses.requests[0].body
    body.pop("prompt_cache_key")
    assert body == {
        "model": "gpt-5.1",
        "instructions": "Name the animal.",
        "input": [{"role": "user", "content": "tail whiskers fur: cat\nfeathers beak wing: bird\nbark fetch leash:"}],
        "max_output_tokens": 16,
        "temperature": 0.0,
        "reasoning": {"effort": "none"},
        "store": False,
    }


@pytest.mark.parametrize(
    ("model", "effort", "temperature", "room"),
    [
        ("gpt-4o-mini", None, True, 0),
        ("gpt-5-mini", "minimal", False, 4096),
        ("gpt-5.1", "none", True, 0),
        ("gpt-5.5", "none", True, 0),
        ("o4-mini", "low", False, 4096),
        ("gpt-6-astra", "low", False, 4096),
        ("gpt-5.3-chat-latest", None, False, 4096),
        ("ft:gpt-4o-mini:mine::x", None, True, 0),
        ("codename-7", None, False, 4096),
    ],
)
def test_reasoning_models(chat, llm_of, model, effort, temperature, room):
    assert llm_of(chat, model).complete_sync(PROMPT, max_tokens=8).text.startswith("golden")
    body = chat.requests[0].body
    assert body.get("reasoning_effort") == effort
    assert ("temperature" in body) == temperature
    assert body["max_completion_tokens"] == 8 + room


def test_reasoning_that_was_asked_for(chat, llm_of):
    llm = llm_of(chat, "gpt-5.5", reasoning_effort="high", reasoning_room=100)
    llm.complete_sync(PROMPT, max_tokens=8, temperature=0.7)
    body = chat.requests[0].body
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("high", 108)
    assert "temperature" not in body  # a tuning wish, dropped without a word
    assert llm.most_tokens(8, None) == 108


def test_models_of_the_responses_endpoint_go_there(responses, llm_of):
    llm = llm_of(responses, "gpt-5.2-pro")
    assert llm.profile.api == "responses"
    llm.complete_sync(PROMPT)
    assert responses.requests[0].path == "/v1/responses"
    assert responses.requests[0].body["reasoning"] == {"effort": "medium"}


def test_more_stop_strings_than_the_endpoint_takes(chat, llm_of):
    answer = llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT, stop=["1", "2", "3", "4", "retr"])
    assert chat.requests[0].body["stop"] == ["1", "2", "3", "4"]
    assert (answer.text, answer.finish_reason) == ("golden ", "stop")


# ---- the fixed prefix ----


def test_the_cache_key_is_the_prefix_and_nothing_else(chat, llm_of):
    llm = llm_of(chat, "gpt-4o-mini")
    for prompt in (LONG, Prompt(LONG.instruction, LONG.context, "another:"), Prompt("x", LONG.context, "bark:")):
        llm.complete_sync(prompt)
    keys = [request.body["prompt_cache_key"] for request in chat.requests]
    assert keys[0] == keys[1] != keys[2]
    contents = [request.body["messages"][1]["content"] for request in chat.requests[:2]]
    assert contents[0].startswith(LONG.context + "\n") and contents[1].startswith(LONG.context + "\n")
    llm.complete_sync("only a query")
    assert "prompt_cache_key" not in chat.requests[3].body


def test_models_that_must_be_shown_the_end_of_the_prefix(chat, llm_of):
    llm = llm_of(chat, "gpt-5.6-luna")
    first = llm.complete_sync(LONG)
    second = llm.complete_sync(Prompt(LONG.instruction, LONG.context, "purr:"))
    bodies = [request.body for request in chat.requests]
    fixed = {
        "type": "text",
        "text": LONG.context + "\n",
        "prompt_cache_breakpoint": {"mode": "explicit"},
    }
    for body, query in zip(bodies, ("bark:", "purr:"), strict=True):
        assert body["messages"][1]["content"] == [fixed, {"type": "text", "text": query}]
        assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 8)
    # A short prefix is not cached: one string, no options.
    llm.complete_sync(PROMPT)
    assert isinstance(chat.requests[2].body["messages"][1]["content"], str)
    assert "prompt_cache_options" not in chat.requests[2].body


def test_no_prompt_cache(chat, llm_of):
    llm_of(chat, "gpt-5.6-luna", prompt_cache=False).complete_sync(LONG)
    assert not {"prompt_cache_key", "prompt_cache_options"} & set(chat.requests[0].body)


# ---- constraints ----


def test_a_constraint_becomes_a_strict_schema(chat, llm_of):
    answer = llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT, max_tokens=5, constraint=Constraint(LABELS), stop=["\n"])
    assert answer.text == "golden retriever"
    body = chat.requests[0].body
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"answer": {"type": "string", "enum": list(LABELS)}},
                "required": ["answer"],
                "additionalProperties": False,
            },
        },
    }
    assert body["max_completion_tokens"] > 5 and "stop" not in body


def test_many_words_are_an_array_of_that_length(responses, llm_of):
    llm = llm_of(responses, "gpt-5.2-pro")
    answer = llm.complete_sync(PROMPT, constraint=Constraint(("a", "b"), 4))
    assert answer.text == "a b a b"
    schema = responses.requests[0].body["text"]["format"]["schema"]
    assert schema["properties"]["answer"]["minItems"] == schema["properties"]["answer"]["maxItems"] == 4


def test_constraints_that_cannot_be_kept(chat, llm_of):
    with pytest.raises(CapabilityError, match="cannot restrict its answers"):
        llm_of(chat, "gpt-4-turbo").complete_sync(PROMPT, constraint=Constraint(LABELS))
    many = Constraint(tuple(f"w{number}" for number in range(1001)))
    with pytest.raises(CapabilityError, match="bears 1000 allowed strings in a constraint; got 1001"):
        llm_of(chat, "gpt-4o").complete_sync(PROMPT, constraint=many)
    assert chat.requests == []


def chat_answer(content, finish="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    return Fault(raw=json.dumps({"choices": [choice], "usage": usage}).encode())


def test_a_constraint_that_was_ignored_warns_once_by_name(chat, llm_of):
    llm = llm_of(chat, "gpt-4o-mini")
    chat.faults.extend([chat_answer("a dog, I think"), chat_answer('{"answer": "dog"}')])
    with pytest.warns(DroppedGuaranteeWarning, match="'openai:gpt-4o-mini' keeps no constraint") as seen:
        assert llm.complete_sync(PROMPT, constraint=Constraint(LABELS)).text == "a dog, I think"
        assert llm.complete_sync(PROMPT, constraint=Constraint(LABELS)).text == '{"answer": "dog"}'
    assert len(seen) == 1


def test_a_constrained_answer_cut_short(chat, llm_of):
    chat.faults.append(chat_answer('{"answer": "gol', "length"))
    with pytest.raises(LLMResponseError, match="did not finish its constrained answer.*raise max_tokens"):
        llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT, constraint=Constraint(LABELS))


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_json_and_back(arrays, count):
    constraint = Constraint(("a b", "c", "c"), count)
    schema = constraint_schema(constraint, arrays=arrays)
    names = list(schema["properties"])
    words = ["a b", "c"] * count
    if names == ["answer"]:
        document = {"answer": words[0] if count == 1 else words[:count]}
    else:
        document = dict(zip(names, words, strict=False))
        assert schema["$defs"]["word"]["enum"] == ["a b", "c"]
    assert schema["required"] == names and len(names) == (1 if arrays or count == 1 else count)
    assert answer_from_json(json.dumps(document), constraint, arrays=arrays) == " ".join(words[:count])
    for wrong in ("", "[]", "{}", '{"answer": 3}', '{"answer": "d"}', '{"answer": ["c"]}', '{"w1": "c"}', '"c"'):
        if json.dumps({"answer": ["c"]}) != wrong or count != 1:
            assert answer_from_json(wrong, constraint, arrays=arrays) is None


# ---- guarantees and answers ----


def test_a_dropped_seed_warns_once_and_a_dropped_temperature_never(chat, responses, llm_of):
    for server, model in ((chat, "gpt-6-astra"), (responses, "gpt-5.2-pro")):
        llm = llm_of(server, model)
        with pytest.warns(DroppedGuaranteeWarning, match=f"'openai:{model}' keeps no seed") as seen:
            for _ in range(3):
                llm.complete_sync(PROMPT, seed=1, temperature=1.5)
        assert len(seen) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llm.complete_sync(PROMPT, temperature=1.5)


@pytest.mark.parametrize(("api", "field"), [("chat", ("logprobs", True)), ("responses", ("include", [TOKENS]))])
def test_the_logprob_of_an_answer_is_asked_for_by_a_field_more(chat, responses, llm_of, api, field):
    server = chat if api == "chat" else responses
    llm = llm_of(server, "gpt-4o-mini", api=api)
    assert llm.profile.logprobs
    plain, asked = llm.complete_sync(PROMPT), llm.complete_sync(PROMPT, logprobs=True)
    assert (plain.text, plain.logprob) == (asked.text, None)
    assert asked.logprob == -0.5 * math.ceil(len(asked.text.encode()) / 4)
    bodies = [request.body for request in server.requests]
    assert bodies[1] == bodies[0] | dict([field]) and field[0] not in bodies[0]


def test_models_that_may_refuse_it_are_not_asked_for_logprobs(chat, llm_of):
    for model in ("o3", "gpt-5", "gpt-5.1", "gpt-4o-search-preview", "gpt-99"):
        llm = llm_of(chat, model)
        assert not llm.profile.logprobs
        assert llm.complete_sync(PROMPT, logprobs=True).logprob is None
    constrained = llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT, logprobs=True, constraint=Constraint(LABELS))
    assert constrained.logprob is None
    assert not any("logprobs" in request.body for request in chat.requests)


def test_usage_includes_what_was_cached(chat, llm_of):
    chat.faults.append(chat_answer("dog"))
    answer = llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT)
    assert answer.usage == Usage(requests=1, prompt_tokens=9, cached_tokens=5, completion_tokens=4)
    assert answer.raw["usage"]["prompt_tokens"] == 9


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}, [], {"prompt_tokens": -3}])
def test_a_wrong_usage_costs_no_answer(chat, llm_of, usage):
    body = {"choices": [{"message": {"content": "dog"}, "finish_reason": None}], "usage": usage}
    chat.faults.append(Fault(raw=json.dumps(body).encode()))
    assert llm_of(chat, "gpt-4o-mini").complete_sync(PROMPT).usage == Usage(requests=1)


def test_refusals_and_filters(chat, responses, llm_of):
    llm = llm_of(chat, "gpt-4o-mini")
    chat.faults.extend([chat_answer(None, refusal="I cannot."), chat_answer(None, "content_filter")])
    with pytest.raises(LLMNoAnswerError, match="'openai:gpt-4o-mini' refused to answer: I cannot"):
        llm.complete_sync(PROMPT, constraint=Constraint(LABELS))
    with pytest.raises(LLMNoAnswerError, match=r"withheld its answer \(content_filter\)") as caught:
        llm.complete_sync(PROMPT)
    assert (caught.value.reason, caught.value.requests, caught.value.prompt_tokens) == ("withheld", 1, 9)
    output = [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]
    responses.faults.append(Fault(raw=json.dumps({"status": "completed", "output": output}).encode()))
    with pytest.raises(LLMNoAnswerError, match="refused to answer: No."):
        llm_of(responses, "gpt-5.2-pro").complete_sync(PROMPT)


def test_thinking_that_leaves_no_answer(chat, llm_of):
    chat.faults.append(chat_answer("", "length"))
    with pytest.raises(LLMResponseError, match="used up its 4 tokens thinking.*raise reasoning_room"):
        llm_of(chat, "gpt-6-astra").complete_sync(PROMPT)


def test_a_response_that_failed_with_status_200(responses, llm_of):
    llm = llm_of(responses, "gpt-5.2-pro", resilience=quick(attempts=2))
    busy = {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow down"}, "output": []}
    responses.faults.append(Fault(raw=json.dumps(busy).encode()))
    assert llm.complete_sync(PROMPT).text.startswith("golden")
    wrong = {"status": "failed", "error": {"code": "invalid_prompt", "message": "no"}, "output": []}
    responses.faults.append(Fault(raw=json.dumps(wrong).encode()))
    with pytest.raises(LLMStatusError, match="status 400: no") as caught:
        llm.complete_sync(PROMPT)
    assert (caught.value.code, len(responses.requests)) == ("invalid_prompt", 3)


def test_a_window_the_provider_does_not_name(chat, llm_of):
    fault = Fault(status=400, code="context_length_exceeded", message="too much")
    chat.faults.extend([fault, fault, fault])
    with pytest.raises(PromptTooLongError) as caught:
        llm_of(chat, "gpt-4o-mini", context_window=7).complete_sync(PROMPT)
    assert caught.value.window == 7 and caught.value.tokens > 7
    # Nobody says how many tokens it has, and by our count they fit: then it is the provider's error and not ours.
    with pytest.raises(LLMStatusError, match="too much"):
        llm_of(chat, "gpt-4o-mini", context_window=77).complete_sync(PROMPT)
    with pytest.raises(LLMStatusError, match="too much"):
        llm_of(chat, "codename-7").complete_sync(PROMPT)


# ---- options ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api": "completions"}, "'openai' has no api='completions'; for the few models that have"),
        ({"api_key": 3}, "api_key must be a string or a function that returns one; got int"),
        ({"base_url": "api.openai.com"}, "base_url must be http://HOST"),
        ({"base_url": "ftp://u:secret@h/"}, r"base_url must be http://HOST.*got 'ftp://\*\*\*@h/'"),
        ({"attempts": 0}, "attempts must be a whole number of 1 or more; got 0"),
        ({"attempt_timeout": 0}, "attempt_timeout must be more than 0"),
        ({"concurrency": 0}, "concurrency must be a whole number of 1 or more requests; got 0"),
        ({"reasoning_room": -1}, "reasoning_room must be a whole number of 0 or more tokens; got -1"),
        ({"context_window": 0}, "context_window must be a whole number of 1 or more"),
        ({"extra_body": [1]}, "extra_body must be a mapping of JSON fields; got list"),
        ({"attempts": 2, "resilience": quick()}, "resilience= says all that attempts say"),
        ({"temperature": 1}, r"connect\('openai'\) does not take the option 'temperature'"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(UsageError, match=message):
        connect("openai:gpt-4o-mini", **options)


def test_names_that_name_nothing():
    with pytest.raises(LLMSpecError, match="names no LLM"):
        connect("openai:")
    with pytest.raises(UsageError, match="the model must be one of OpenAI's names"):
        OpenAILLM(" ")
    with pytest.raises(UsageError, match="must be 'auto', 'chat' or 'responses'"):
        OpenAILLM("gpt-5.1", api="completions")


def test_identity_tells_apart_what_answers_differently():
    def of(**options):
        return connect("openai:gpt-5.1", **options).identity

    assert of() == of(api_key="sk-1", attempts=2, attempt_timeout=3, prompt_cache=False, concurrency=2)
    others = [
        of(reasoning_effort="low"),
        of(api="responses"),
        of(base_url="http://127.0.0.1:1/v1"),
        of(extra_body={"a": 1}),
    ]
    assert len({of(), *others}) == 5
    assert "pw" not in of(base_url="http://u:pw@127.0.0.1:1/v1?token=pw")


def test_an_address_from_the_environment_counts_and_its_password_does_not_show(monkeypatch):
    llm = connect("openai:gpt-5.1", api_key="sk-1")
    before = llm.identity
    monkeypatch.setenv("OPENAI_BASE_URL", "http://u:pass-4711@127.0.0.1:1/v1")
    assert llm.identity != before  # another server's answers must not be served from the cache
    assert llm.identity == connect("openai:gpt-5.1", base_url="http://127.0.0.1:1/v1").identity
    assert "pass-4711" not in llm.identity and "pass-4711" in llm.secrets()
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    assert llm.identity == before


@pytest.mark.parametrize("spec", ["openai:gpt-5.1", "anthropic:claude-haiku-4-5", "openai-compatible"])
def test_an_addresss_query_counts_and_its_secrets_do_not(spec):
    def of(query):
        url = f"http://127.0.0.1:1/v1{query}"
        if spec == "openai-compatible":
            return connect(f"openai-compatible:m@{url}").identity
        return connect(spec, base_url=url).identity

    assert of("") == of("?token=a") == of("?api_key=b&sig=c")
    assert len({of(""), of("?version=1"), of("?version=2"), of("?version=1&region=x"), of("?flag")}) == 5
    assert of("?version=1") == of("?version=1&token=b") and of("?a=1&b=2") == of("?b=2&a=1")
    assert "swordfish" not in of("?note=swordfish&password=swordfish")
