"""What vLLM, llama.cpp and Ollama add to OpenAI's protocol."""

from __future__ import annotations

import re

import pytest
from llm_contract import LABELS, PROMPT, quick
from llm_servers import CANARY, Compatible, Fault, LoopbackServer

from icl_vision import connect
from icl_vision.contracts import Constraint
from icl_vision.errors import (
    CapabilityError,
    DroppedGuaranteeWarning,
    LLMResponseError,
    LLMStatusError,
    UsageError,
)
from icl_vision.llms import profiles, register_profile
from icl_vision.llms.local.remote import root_of
from icl_vision.llms.remote.openai import dialects


@pytest.fixture
def llm_of():
    """connect() to a server of a dialect; closed at the end."""
    made = []

    def make(server, **options):
        given = {"api_key": CANARY, "resilience": quick(attempts=1), "dialect": server.provider.dialect}
        made.append(connect(f"openai-compatible:m@{server.url}", **given | options))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


@pytest.mark.parametrize(
    ("dialect", "api", "count", "field", "value"),
    [
        ("vllm", "chat", 1, "structured_outputs", {"choice": list(LABELS)}),
        ("vllm", "completions", 1, "structured_outputs", {"choice": [" " + label for label in LABELS]}),
        ("vllm-0.11", "chat", 1, "guided_choice", list(LABELS)),
        ("llama.cpp", "chat", 1, "grammar", 'root ::= word\nword ::= "golden retriever" | "cat" | "sea lion"\n'),
    ],
)
def test_how_an_answer_is_restricted(llm_of, dialect, api, count, field, value):
    with LoopbackServer(Compatible(dialect)) as server:
        answer = llm_of(server, api=api).complete_sync(PROMPT, constraint=Constraint(LABELS, count))
        assert answer.text.strip() == "golden retriever"
        assert server.requests[0].body[field] == value


def test_several_words_are_a_pattern_for_vllm(llm_of):
    constraint = Constraint(("a.b", "c d"), 3)
    with LoopbackServer(Compatible("vllm")) as server:
        assert llm_of(server).complete_sync(PROMPT, constraint=constraint).text == "a.b c d a.b"
        pattern = server.requests[0].body["structured_outputs"]["regex"]
    assert re.fullmatch(pattern, "c d c d a.b")
    assert not re.fullmatch(pattern, "axb c d c d") and not re.fullmatch(pattern, "c d c d")


def test_ollama_takes_a_schema_in_chat_only(llm_of):
    with LoopbackServer(Compatible("ollama")) as server:
        assert llm_of(server).complete_sync(PROMPT, constraint=Constraint(LABELS)).text == "golden retriever"
        assert server.requests[0].body["response_format"]["type"] == "json_schema"
        with pytest.raises(CapabilityError, match="cannot restrict its answers"):
            llm_of(server, api="completions").complete_sync(PROMPT, constraint=Constraint(LABELS))


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
def test_a_server_that_ignores_the_constraint(llm_of, dialect):
    answer = b'{"choices": [{"message": {"content": "a dog, I think"}, "finish_reason": "stop"}]}'
    with LoopbackServer(Compatible(dialect)) as server:
        llm = llm_of(server)
        server.faults.extend([Fault(raw=answer)] * 2)
        with pytest.warns(DroppedGuaranteeWarning, match="keeps no constraint") as seen:
            for _ in range(2):
                assert llm.complete_sync(PROMPT, constraint=Constraint(LABELS)).text == "a dog, I think"
        assert len(seen) == 1


def test_too_many_strings_for_a_grammar(llm_of):
    with LoopbackServer(Compatible("llama.cpp")) as server:
        many = Constraint(tuple(f"w{number}" for number in range(257)))
        with pytest.raises(CapabilityError, match="bears 256 allowed strings"):
            llm_of(server).complete_sync(PROMPT, constraint=many)
        assert server.requests == []


def test_a_kind_that_the_protocol_cannot_ask_for(llm_of, monkeypatch):
    monkeypatch.setattr(profiles, "_registered", [])
    register_profile("openai-compatible:m@*", constraint="logit_bias")
    with LoopbackServer(Compatible()) as server:
        with pytest.raises(CapabilityError, match="cannot be asked for a 'logit_bias' constraint on its 'chat' end"):
            llm_of(server).complete_sync(PROMPT, constraint=Constraint(LABELS))


def test_both_ways_of_scoring_agree(llm_of):
    pairs = [(PROMPT, " cat"), (PROMPT, " golden retriever")]
    with LoopbackServer(Compatible("vllm")) as server:
        echo = llm_of(server, echo=True).score_sync(pairs)
        other = llm_of(server, echo="prompt_logprobs").score_sync(pairs)
        assert echo.logprobs == pytest.approx(other.logprobs)
        # " cat" and the newline: a space, a word and a newline of the server's tokenizer, a tenth a character each.
        assert echo.logprobs[0] == pytest.approx(-0.5)
        assert (echo.method, other.method) == ("echo", "prompt_logprobs")
        assert server.requests[-1].body["prompt_logprobs"] == 0


@pytest.mark.parametrize("echo", [True, "prompt_logprobs"])
def test_a_server_that_echoes_nothing(llm_of, echo):
    answer = b'{"choices": [{"text": " cat", "finish_reason": "stop"}]}'
    with LoopbackServer(Compatible("vllm")) as server:
        server.faults.append(Fault(raw=answer))
        with pytest.raises(CapabilityError, match=f"connect without echo={echo!r}"):
            llm_of(server, echo=echo).score_sync([(PROMPT, " cat")])
    with LoopbackServer(Compatible("ollama")) as server, pytest.raises(LLMStatusError, match="Unrecognized"):
        llm_of(server, echo=echo).score_sync([(PROMPT, " cat")])


@pytest.mark.parametrize("positions", [None, "x", [None, None], [None, {}], [None, {"1": {"logprob": -1}}], [3]])
def test_prompt_logprobs_of_another_form(positions):
    assert dialects.prompt_logprobs(positions) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "vlm"}, "dialect must be one of 'generic', 'vllm', 'vllm-0.11', 'llama.cpp', 'ollama'; got 'vlm'"),
        ({"echo": "yes"}, "echo must be True, False or 'prompt_logprobs'; got 'yes'"),
        ({"echo": "prompt_logprobs", "api": "chat"}, "echo='prompt_logprobs' scores through completions"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(UsageError, match=message):
        connect("openai-compatible:m@http://127.0.0.1:9/v1", **options)


def test_llama_cpp_scores_through_its_own_endpoints(llm_of):
    with LoopbackServer(Compatible("llama.cpp")) as server:
        llm = llm_of(server, api="completions")
        scores = llm.score_sync([(PROMPT, " cat"), (PROMPT, " golden retriever")])
        # As by echo: a space, a word and a newline of the server's tokenizer, a tenth a character each.
        assert scores.logprobs == pytest.approx([-0.5, -(1 + 6 + 1 + 9 + 1) / 10])
        assert scores.method == "forced tokens"
        assert {request.path for request in server.requests} == {"/tokenize", "/completion"}
        assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in server.requests)
        assert all(request.body.get("id_slot", -1) == -1 for request in server.requests)
        server.faults.append(Fault(raw=b'{"detail": "no such page"}'))
        with pytest.raises(LLMStatusError, match="status 400: no such page"):
            llm.score_sync([(PROMPT, " cat")])
        server.faults.append(Fault(raw=b'{"tokens": "none"}'))
        with pytest.raises(LLMResponseError, match="/tokenize answered without tokens; is the URL"):
            llm.score_sync([(PROMPT, " cat")])
        assert not llm_of(server).profile.scores_text  # a chat template stands between


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://u:p@h/models/a/v1?x=1", "https://u:p@h/models/a"),
        ("http://h:1", "http://h:1"),
    ],
)
def test_the_root_of_a_server(base_url, root):
    assert root_of(base_url) == root
