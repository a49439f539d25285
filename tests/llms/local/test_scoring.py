"""Forced-token scoring on a toy server whose probabilities are known; slots; the small HTTP client."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from icl_vision.errors import LLMResponseError, LLMStatusError, LLMUnavailableError
from icl_vision.llms.forced_requests import common_prefix
from icl_vision.llms.local.loopback import LoopbackClient
from icl_vision.llms.local.scoring import LOWEST, SHARE_BIAS, TokenPair, score_pairs
from icl_vision.llms.local.server import LlamaServer, ServerOptions
from icl_vision.llms.loop import run_sync


def probability(prefix: tuple[int, ...], token: int) -> float:
    """Any function of the whole prefix will do."""
    return 1 / (2 + (sum(prefix) * 7 + len(prefix) * 3 + token) % 11)


class ToyServer:
    """llama.cpp's /completion for tokens below 100, with one prefix cache per slot."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.caches: dict[int, list[int]] = {}
        self.answer = None
        self.reports_shares = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                status, document = outer.answer or (200, outer.complete(body))
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def complete(self, body: dict) -> dict:
        prompt, slot = body["prompt"], body["id_slot"]
        known = self.caches.get(slot, []) if body["cache_prompt"] else []
        # At least one token is always evaluated.
        cached = min(common_prefix(known, prompt), len(prompt) - 1)
        self.caches[slot] = prompt
        document = {"timings": {"cache_n": cached, "prompt_n": len(prompt) - cached, "predicted_n": 1}}
        if body.get("post_sampling_probs"):
            if self.reports_shares:
                raw = {token: probability(tuple(prompt), token) for token, _ in body["logit_bias"]}
                assert all(bias == SHARE_BIAS for _, bias in body["logit_bias"]) and body["n_probs"] == len(raw)
                entries = [{"id": token, "prob": p / sum(raw.values())} for token, p in raw.items()]
                document["completion_probabilities"] = [{"top_probs": entries}]
            else:
                document["completion_probabilities"] = [{"id": 1, "logprob": -1.0}]
        elif "logit_bias" in body:
            ((token, bias),) = body["logit_bias"]
            assert bias > 1000
            entry = {"id": token, "logprob": math.log(probability(tuple(prompt), token))}
            document["completion_probabilities"] = [entry]
        return document


@pytest.fixture
def toy() -> Iterator[ToyServer]:
    toy = ToyServer()
    yield toy
    toy.http.shutdown()
    toy.http.server_close()
    toy.thread.join()


def server_of(toy: ToyServer, slots: int = 1) -> LlamaServer:
    process = SimpleNamespace(poll=lambda: None)
    return LlamaServer(ServerOptions("m", 1, 64, slots), process, toy.http.server_port, "k")


CONTEXT = (1, 5, 6, 7, 8, 9)


def expected(pair: TokenPair) -> float:
    tokens = pair.prompt + pair.continuation
    return sum(math.log(probability(tokens[:at], tokens[at])) for at in range(len(pair.prompt), len(tokens)))


@pytest.mark.parametrize(("reports", "requests"), [(True, 1 + 2 * 2), (False, 1 + 2 * (1 + 4))])
def test_words_after_one_prefix_are_asked_together(toy, reports, requests):
    toy.reports_shares = reports
    pairs = [TokenPair((*CONTEXT, label), (word,)) for label in (10, 11) for word in (20, 21, 22, 23)]
    scores = run_sync(score_pairs(server_of(toy), pairs))
    assert scores.logprobs == pytest.approx([expected(pair) for pair in pairs])
    assert len(toy.requests) == scores.usage.requests == requests


def test_a_share_too_small_to_tell_is_asked_for_by_itself(toy, monkeypatch):
    monkeypatch.setattr("icl_vision.llms.local.scoring.LEAST_SHARE", 0.2)
    pairs = [TokenPair(CONTEXT, (word,)) for word in range(20, 31)]
    scores = run_sync(score_pairs(server_of(toy), pairs))
    assert scores.logprobs == pytest.approx([expected(pair) for pair in pairs])
    assert 1 + 2 < len(toy.requests) <= 1 + 1 + 11


def test_sums_the_raw_logprobs_of_every_token(toy):
    pairs = [TokenPair((*CONTEXT, label, 3), (20, 21, 20, 4)) for label in (10, 11, 12)]
    pairs.append(TokenPair(CONTEXT, (30, 4)))
    scores = run_sync(score_pairs(server_of(toy), pairs))
    assert scores.logprobs == pytest.approx([expected(pair) for pair in pairs])
    assert scores.method == "forced tokens"


def test_each_node_is_asked_once_and_the_shared_prefix_first(toy):
    server = server_of(toy)
    pairs = [TokenPair((*CONTEXT, label), (20, 21, 4)) for label in (12, 10, 11, 10)]
    scores = run_sync(score_pairs(server, pairs))
    assert toy.requests[0]["prompt"] == list(CONTEXT) and "logit_bias" not in toy.requests[0]
    assert len(toy.requests) == 1 + 3 * 3
    assert scores.logprobs[1] == scores.logprobs[3]
    # Beyond the context, only labels and words are evaluated, each once.
    evaluated = scores.usage.prompt_tokens - scores.usage.cached_tokens
    assert evaluated == len(CONTEXT) + 3 * 3
    assert scores.usage.requests == scores.usage.completion_tokens == 10
    again = run_sync(score_pairs(server, pairs))
    assert again.usage.prompt_tokens - again.usage.cached_tokens == 3 * 3
    assert again.logprobs == scores.logprobs


def test_direct_scoring_shares_first_tokens(toy):
    pairs = [TokenPair(CONTEXT, (20, 4)), TokenPair(CONTEXT, (20, 21, 4)), TokenPair(CONTEXT, (22, 4))]
    scores = run_sync(score_pairs(server_of(toy), pairs))
    assert scores.logprobs == pytest.approx([expected(pair) for pair in pairs])
    assert len(toy.requests) == 1 + 6  # the shared prefix, then 20 and 22; 4 and 21; 4; 4


def test_fresh_starts_from_an_empty_cache(toy):
    server = server_of(toy)
    pairs = [TokenPair(CONTEXT, (20, 4))]
    first = run_sync(score_pairs(server, pairs, fresh=True))
    second = run_sync(score_pairs(server, pairs, fresh=True))
    assert first == second
    assert [request["cache_prompt"] for request in toy.requests] == [False, True, True] * 2


def test_an_impossible_token_has_a_floor(toy):
    toy.answer = (200, {"completion_probabilities": [{"id": 20, "logprob": None}], "timings": {}})
    assert run_sync(score_pairs(server_of(toy), [TokenPair(CONTEXT, (20,))])).logprobs == (LOWEST,)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"completion_probabilities": [{"id": 9, "logprob": -1.0}]}, "generated token 9 where token 20 was forced"),
        ({}, "has no token probability"),
        ({"completion_probabilities": []}, "has no token probability"),
    ],
)
def test_odd_answers(toy, document, message):
    toy.answer = (200, document)
    with pytest.raises(LLMResponseError, match=message):
        run_sync(score_pairs(server_of(toy), [TokenPair(CONTEXT, (20,))]))


def test_split_at_the_first_token_that_differs():
    assert TokenPair.split([1, 2, 3], [1, 2, 3, 4, 5]) == TokenPair((1, 2, 3), (4, 5))
    assert TokenPair.split([1, 2, 3], [1, 2, 34, 5]) == TokenPair((1, 2), (34, 5))


def test_common_prefix():
    assert [common_prefix([1, 2], other) for other in ([], [1], [1, 2, 3], [1, 3], [2])] == [0, 1, 2, 1, 0]


def test_slots_are_chosen_by_their_cache_and_waited_for(toy):
    server = server_of(toy, slots=2)

    async def check() -> None:
        async with server.slot([1, 2]) as first:
            first.tokens = [1, 2, 3]
            async with server.slot([7]) as second:
                second.tokens = [7, 8]
                third = server.slot([7, 8, 9])
                waiting = asyncio.create_task(third.__aenter__())
                await asyncio.sleep(0.01)
                assert not waiting.done()
            assert (await waiting) is second
            await third.__aexit__(None, None, None)
        async with server.slot([1, 2, 3, 4]) as again:
            assert again is first
        with pytest.raises(RuntimeError, match="cut"):
            async with server.slot([1]) as broken:
                raise RuntimeError("cut")
        assert broken.tokens == [], "what a cut request left in the cache is not known"

    run_sync(check())


def test_a_slot_keeps_what_another_prompt_will_need(toy):
    server = server_of(toy, slots=3)

    async def check() -> None:
        used = []
        for tokens in ([1, 2, 3, 4], [1, 20, 30, 40], [1, 2, 3, 5], [1, 20, 30, 41], [1, 200, 300], [1, 7, 7, 7]):
            async with server.slot(tokens) as slot:
                slot.tokens = tokens
                used.append(slot.number)
        # The start token, which all share, is no reason to give up a cache; the one unused for longest goes first.
        assert used == [0, 1, 0, 1, 2, 0]

    run_sync(check())


def test_client_errors(toy):
    client = LoopbackClient(toy.http.server_port, "secret-key")
    assert "secret-key" not in repr(client)
    for answer, error, message in (
        ((200, b"<html>"), LLMResponseError, "which is not JSON"),
        ((200, [1]), LLMResponseError, "answered a list, expected an object"),
        ((500, {"error": {"message": "oops"}}), LLMStatusError, "answered status 500: oops"),
    ):
        toy.answer = answer
        with pytest.raises(error, match=message):
            run_sync(client.post("/completion", {}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LLMUnavailableError, match=f"port {port} cannot be reached"):
        run_sync(LoopbackClient(port, "k").post("/completion", {}))


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"", LLMUnavailableError, "cut the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", LLMUnavailableError, "cut the connection"),
        (b"hello\r\n\r\n", LLMResponseError, "began its answer with 'hello'"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", LLMResponseError, "gave content-length ''"),
    ],
)
def test_broken_connections(reply, error, message):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(error, match=message):
            run_sync(LoopbackClient(listener.getsockname()[1], "k").post("/x", {}))
        thread.join()
