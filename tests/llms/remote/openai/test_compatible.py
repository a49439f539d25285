"""The OpenAI wire format against a server on loopback: bodies, answers, echo, errors, keys that must not show."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from icl_vision import FewShotClassifier, connect
from icl_vision.contracts import Prompt, Usage
from icl_vision.errors import (
    CapabilityError,
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.llms import Meter
from icl_vision.llms.remote.openai.compatible import PROBE, PROBE_ENDS
from icl_vision.llms.wrappers.dry import DryLLM


class Server:
    """Answers with what ``replies`` holds, in turn, the last one for ever; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict]] = []
        self.replies: list = []
        self.gate: threading.Event | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, headers, body))
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                if outer.gate is not None:
                    outer.gate.wait(10)
                if callable(reply):
                    reply = reply(body)
                status, headers, content = reply if isinstance(reply, tuple) else (200, {}, reply)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def llm_of(server):
    """connect() to the server; closed at the end."""
    made = []

    def make(**options):
        made.append(connect(f"openai-compatible:m@{server.url}", **{"attempts": 1, **options}))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
TEXT = {"choices": [{"index": 0, "text": " dog", "finish_reason": "stop"}], "usage": USAGE}
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "dog"}, "finish_reason": "length"}]}
PROMPT = Prompt("Be brief.", "a: b", "c:")


ENTRIES = {"content": [{"token": "do", "logprob": -1.0}, {"token": "g", "bytes": [103], "logprob": -0.5}]}
LISTS = {"tokens": [" do", "g", "\n"], "token_logprobs": [-1.0, -0.5, -4.0], "text_offset": [0, 3, 4]}


@pytest.mark.parametrize(
    ("api", "field", "answer"),
    [
        ("chat", True, {"message": {"content": "dog"}, "logprobs": ENTRIES}),
        ("completions", 1, {"text": " dog\n", "logprobs": LISTS}),
        # llama.cpp answers both endpoints in the form of the one.
        ("completions", 1, {"text": "dog", "logprobs": ENTRIES}),
    ],
)
def test_the_logprob_of_an_answer(server, llm_of, api, field, answer):
    server.replies = [{"choices": [{"index": 0, "finish_reason": "stop", **answer}]}]
    llm = llm_of(api=api, dialect="vllm")
    assert llm.profile.logprobs and not llm_of(api=api).profile.logprobs
    found = llm.complete_sync(PROMPT, stop="\n", logprobs=True)
    assert (found.text.strip(), found.logprob) == ("dog", -1.5)
    assert llm.complete_sync(PROMPT, stop="\n").text == found.text
    asked, plain = (body for _, _, body in server.requests)
    assert asked == plain | {"logprobs": field} and "logprobs" not in plain


@pytest.mark.parametrize(
    "logprobs", [None, [], {"content": None}, {"content": [{"token": "dog"}]}, {"tokens": ["dog"]}]
)
def test_a_server_that_tells_no_logprobs_costs_no_answer(server, llm_of, logprobs):
    server.replies = [{"choices": [{"message": {"content": "dog"}, "finish_reason": "stop", "logprobs": logprobs}]}]
    answer = llm_of(api="chat", dialect="vllm").complete_sync(PROMPT, logprobs=True)
    assert (answer.text, answer.logprob) == ("dog", None)


def test_completions(server, llm_of):
    server.replies = [TEXT]
    llm = llm_of(api="completions")
    answer = llm.complete_sync(PROMPT, max_tokens=3, stop=["\n", "###"], temperature=0.5, seed=4)
    assert (answer.text, answer.finish_reason, answer.usage) == (" dog", "stop", Usage(1, 7, 5, 2))
    ((path, headers, body),) = server.requests
    assert path == "/v1/completions"
    assert headers["authorization"] == "Bearer not-needed"
    assert body == {
        "model": "m",
        "prompt": "Be brief.\na: b\nc:",
        "max_tokens": 3,
        "stop": ["###"],
        "temperature": 0.5,
        "seed": 4,
    }
    assert not llm.profile.scores_text


def test_chat_is_the_default_and_splits_the_prompt(server, llm_of):
    server.replies = [CHAT]
    llm = llm_of(extra_body={"top_k": 1})
    answer = llm.complete_sync(PROMPT)
    assert (answer.text, answer.finish_reason, answer.usage) == ("dog", "length", Usage(1))
    ((path, _, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a: b\nc:"}],
        "max_tokens": 16,
        "temperature": 0.0,
        "top_k": 1,
    }
    llm.complete_sync("only a query")
    assert server.requests[1][2]["messages"] == [{"role": "user", "content": "only a query"}]


async def test_inside_a_running_loop_and_awaited(server, llm_of):
    server.replies = [TEXT]
    llm = llm_of(api="completions")
    assert llm.complete_sync("p").text == (await llm.complete("p")).text == " dog"


def echo_server(body):
    """An echo with a character a token, each at a hundredth of its code point below zero."""
    if not body.get("echo"):
        return TEXT
    text = body["prompt"] + "!"
    values = [None, *(-ord(character) / 100 for character in text[1:])]
    logprobs = {"tokens": list(text), "token_logprobs": values, "text_offset": list(range(len(text)))}
    return {"choices": [{"text": text, "finish_reason": "length", "logprobs": logprobs}], "usage": {"prompt_tokens": 3}}


def test_echo_scoring(server, llm_of):
    server.replies = [echo_server]
    llm = llm_of(echo=True)
    assert (llm.profile.scores_text, llm.profile.api) == (True, "completions")
    scores = llm.score_sync([(PROMPT, " ab"), (PROMPT, " c")])
    expected = [-sum(map(ord, text)) / 100 for text in (" ab\n", " c\n")]
    assert scores.logprobs == pytest.approx(expected)
    assert (scores.method, scores.usage.requests, scores.usage.prompt_tokens) == ("echo", 2, 6)
    assert server.requests[0][2] == {
        "model": "m",
        "prompt": "Be brief.\na: b\nc: ab\n",
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "echo": True,
    }


async def test_scores_that_are_of_no_use_any_more_are_not_asked_for(server, llm_of):
    def refuses_two(body):
        return (400, {}, {"error": {"message": "no"}}) if " 2" in body["prompt"] else echo_server(body)

    server.replies = [refuses_two]
    llm = llm_of(echo=True, concurrency=1)
    with pytest.raises(LLMStatusError):
        await llm.score([(PROMPT, f" {number}") for number in range(1, 30)])
    await llm.score([(PROMPT, " 1")])  # behind whatever still waits for its turn
    # Of 29: the first, the refused one, one that may have been on its way already, and the last; and the two that show
    # that the server tells texts apart.
    assert len(server.requests) <= 6
    assert [body["prompt"] for _, _, body in server.requests[-2:]] == [PROBE + end for end in PROBE_ENDS]


# ---- does it score what it is sent? ----


def alike(body):
    """A server that sends the prompt back and knows nothing of it."""
    tokens = [*body["prompt"], "!"]
    logprobs = {"tokens": tokens, "token_logprobs": [None, *[0.0] * (len(tokens) - 1)], "text_offset": []}
    return {"choices": [{"text": "", "finish_reason": "length", "logprobs": logprobs}], "usage": {"prompt_tokens": 3}}


@pytest.mark.parametrize("pairs", [[(PROMPT, " ab")], [(PROMPT, " ab"), (PROMPT, " c")], [(PROMPT, " a"), ("q", " a")]])
def test_a_server_that_scores_everything_alike_is_found_out_before_a_score_is_used(server, pairs):
    server.replies = [alike]
    meter = Meter()
    with connect(f"openai-compatible:m@{server.url}", attempts=1, echo=True, meter=meter) as llm:
        pairs = [(Prompt.of(prompt), text) for prompt, text in pairs]
        for round_ in (1, 2):
            with pytest.raises(CapabilityError, match="gives every text the same log-probability .*without echo=True"):
                llm.score_sync(pairs)
            # Every one of them was answered and is booked.
            assert meter.total()[0].requests == len(server.requests) == round_ * (len(pairs) + 2)
            assert meter.total()[0].prompt_tokens == 3 * len(server.requests)


def test_what_it_scored_alike_is_not_kept(server, tmp_path):
    server.replies = [alike]
    with connect(f"openai-compatible:m@{server.url}", attempts=1, echo=True, cache=tmp_path / "c.sqlite") as llm:
        with pytest.raises(CapabilityError):
            llm.score_sync([(PROMPT, " ab"), (PROMPT, " c")])
        assert len(llm.cache) == 0
        refusing = (400, {}, {"error": {"message": "no"}})
        server.replies = [lambda body: refusing if body["prompt"].endswith("d\n") else alike(body)]
        with pytest.raises(LLMStatusError):
            llm.score_sync([(PROMPT, " ab"), (PROMPT, " c"), (PROMPT, " d")])
        assert len(llm.cache) == 0


def test_what_was_asked_for_may_show_it_by_itself(server, llm_of):
    server.replies = [echo_server]
    llm = llm_of(echo=True)
    llm.score_sync([(PROMPT, " ab"), (PROMPT, " c")])
    llm.score_sync([(PROMPT, " ab")])
    assert len(server.requests) == 3


async def test_otherwise_two_more_requests_once_a_connection(server, llm_of):
    server.replies = [echo_server]
    meter = Meter()
    llm = connect(llm_of(echo=True), meter=meter)
    found = await asyncio.gather(*(llm.score([(PROMPT, f" {letter}")]) for letter in "abcd"))
    assert len({scores.logprobs for scores in found}) == 4
    assert len(server.requests) == meter.total()[0].requests == 4 + 2
    await llm.score([(PROMPT, " e")])
    assert len(server.requests) == meter.total()[0].requests == 7


def test_a_dry_run_asks_nothing(server, llm_of):
    server.replies = [echo_server]
    images = [np.full((8, 8), value, dtype=np.uint8) for value in (10, 250)]
    llm = DryLLM(llm_of(echo=True))
    clf = FewShotClassifier(llm, "ascii", k=None, scoring="channel").fit(images, ["dark", "light"])
    clf.plan(images)
    assert server.requests == []


@pytest.mark.parametrize("values", [[0.2], [float("nan")], [None]])
def test_an_echo_with_values_that_are_no_log_probabilities(server, llm_of, values):
    def wrong(body):
        answer = echo_server(body)
        answer["choices"][0]["logprobs"]["token_logprobs"][-2:-1] = values
        return answer

    server.replies = [wrong]
    with pytest.raises(LLMResponseError, match="has no log-probability for the token at character"):
        llm_of(echo=True).score_sync([(PROMPT, " ab"), (PROMPT, " c")])


def test_a_dialect_is_part_of_the_identity(llm_of):
    # A server of another version ignores the constraint: right answers must not be taken from its wrong ones.
    assert len({llm_of(dialect=one).identity for one in ("generic", "vllm", "vllm-0.11", "ollama")}) == 4


def test_scoring_without_echo(server, llm_of):
    with pytest.raises(CapabilityError, match=r"connect with echo=True, otherwise classify with scoring='parse'"):
        llm_of().score_sync([(PROMPT, " a")])
    server.replies = [TEXT]
    with pytest.raises(CapabilityError, match="does not echo log-probabilities of the prompt"):
        llm_of(echo=True).score_sync([(PROMPT, " a")])


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (
            400,
            {"error": {"message": "This model's maximum context length is 8 tokens. However, you requested 19 tokens"}},
            PromptTooLongError,
            "the prompt has 19 tokens but the LLM's window holds 8",
        ),
        (
            400,
            {"error": {"message": "too much", "type": "exceed_context_size_error", "n_prompt_tokens": 19, "n_ctx": 8}},
            PromptTooLongError,
            "the prompt has 19 tokens but the LLM's window holds 8",
        ),
        (404, {"error": {"message": "no model m"}}, LLMStatusError, "status 404.*no model m"),
        (401, {"error": {"message": "wrong key sk-secret-1"}}, LLMStatusError, "OPENAI_COMPATIBLE_API_KEY"),
        (200, b"<html>", LLMResponseError, "which is not JSON"),
        (200, [1], LLMResponseError, "expected an object"),
        (200, {}, LLMResponseError, "without choices"),
        (200, {"choices": []}, LLMResponseError, "without choices"),
        (200, {"choices": [{"text": 3}]}, LLMResponseError, r"without choices\[0\]\.text"),
    ],
)
def test_errors(server, llm_of, status, body, error, message):
    server.replies = [(status, {}, body)]
    llm = llm_of(api="completions", api_key="sk-secret-1")
    with pytest.raises(error, match=message) as caught:
        llm.complete_sync("p")
    assert "sk-secret-1" not in f"{caught.value!r} {llm!r} {llm.identity}"
    assert server.requests[0][1]["authorization"] == "Bearer sk-secret-1"


def test_retries_are_in_one_place(server, llm_of):
    busy = (429, {"retry-after": "0"}, {"error": {"message": "busy"}})
    server.replies = [busy, (503, {"retry-after": "0"}, {}), TEXT]
    assert llm_of(api="completions", attempts=3).complete_sync("p").text == " dog"
    assert len(server.requests) == 3
    server.replies, server.requests = [busy], []
    with pytest.raises(LLMStatusError, match="429"):
        llm_of(api="completions", attempts=2).complete_sync("p")
    assert len(server.requests) == 2


def test_timeout_and_no_server(server, llm_of):
    server.replies, server.gate = [TEXT], threading.Event()
    with pytest.raises(LLMTimeoutError):
        llm_of(api="completions", attempt_timeout=0.1).complete_sync("p")
    server.gate.set()
    gone = connect("openai-compatible:m@http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(LLMUnavailableError, match="cannot be reached"):
        gone.complete_sync("p")


def test_key_from_the_environment_at_call_time(server, llm_of, monkeypatch):
    server.replies = [TEXT]
    llm = llm_of(api="completions")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-another-host")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "first-key")
    llm.complete_sync("p")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "second-key")
    llm.complete_sync("p")
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer first-key", "Bearer second-key"]


def test_closed(server, llm_of):
    server.replies = [TEXT]
    llm = llm_of(api="completions")
    llm.complete_sync("p")
    llm.close()
    llm.close()
    with pytest.raises(LLMUnavailableError, match="was closed; connect\\(\\) again"):
        llm.complete_sync("p")


def test_options_that_cannot_work():
    url = "openai-compatible:m@http://127.0.0.1:9/v1"
    for options, message in (
        ({"api": "responses"}, "has no api='responses'"),
        ({"api": "chat", "echo": True}, "echo=True scores through completions"),
        ({"context_window": 0}, "context_window must be a whole number"),
        ({"attempts": 0}, "attempts must be a whole number of 1 or more"),
        ({"echoes": True}, "does not take the option 'echoes'"),
    ):
        with pytest.raises(UsageError, match=message):
            connect(url, **options)


def test_counts_tokens_without_asking(server, llm_of):
    assert llm_of().count_tokens_sync("one two three") >= 3
    assert server.requests == []
