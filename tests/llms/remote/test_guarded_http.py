"""Where a request goes and how much may come back, in every adapter: redirects, packed gigabytes, dropped LLMs."""

from __future__ import annotations

import gc
import gzip
import json
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from llm_contract import ADAPTERS, PROMPT, Adapter, all_text_of
from llm_servers import CANARY, AnthropicMessages, LoopbackServer

from icl_vision.contracts import Prompt
from icl_vision.errors import LLMGarbledError, LLMResponseError, LLMStatusError, PromptTooLongError
from icl_vision.llms.batch.llm import _provider
from icl_vision.llms.remote import guarded_http

NAMES = ("openai-chat", "openai-responses", "anthropic", "compatible-chat", "compatible-completions", "vllm-echo")
WIRES = [one for one in ADAPTERS if one.name in NAMES]


class Front:
    """A server before a provider: answers with what ``reply(path, body)`` gives, (status, headers, pieces of body)."""

    def __init__(self, behind: LoopbackServer) -> None:
        self.provider = behind.provider
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.reply: Any = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers))
                status, headers, pieces = outer.reply(self.path, content)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:  # the other side has had enough
                    self.close_connection = True

            do_POST = do_GET = answer

            def log_message(self, *args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        self.url = self.root if isinstance(behind.provider, AnthropicMessages) else self.root + "/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(params=WIRES, ids=str)
def fronted(request: pytest.FixtureRequest) -> Iterator[tuple[Front, LoopbackServer, Any]]:
    adapter: Adapter = request.param
    with LoopbackServer(adapter.provider()) as behind:
        front = Front(behind)
        llm: Any = adapter.llm(front)  # type: ignore[arg-type]  # the adapter of the row
        yield front, behind, llm
        llm.close()
        front.close()


def asks(llm: Any) -> list[Any]:
    """Every way to ask."""
    found = [lambda: llm.complete_sync(PROMPT)]
    if llm.profile.scores_text:
        found.append(lambda: llm.score_sync([(PROMPT, " cat"), (PROMPT, " dogs")]))
    return found


def good(llm: Any) -> bytes:
    """An answer in the form of every endpoint."""
    choice = {"message": {"content": "dog"}, "text": "dog", "finish_reason": "stop"}
    output = [{"type": "message", "content": [{"type": "output_text", "text": "dog"}]}]
    content = [{"type": "text", "text": "dog"}]
    return json.dumps({"choices": [choice], "output": output, "content": content, "stop_reason": "end_turn"}).encode()


# ---- redirects ----


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_place_is_refused_by_its_name(fronted, status):
    front, behind, llm = fronted
    target = behind.url.replace("127.0.0.1", "localhost") + "/elsewhere?key=secret-in-a-query"
    front.reply = lambda path, body: (status, {"Location": target}, [])
    for number, ask in enumerate(asks(llm), 1):
        with pytest.raises(
            LLMStatusError, match=r"redirected .* to another place, 'http://localhost:\d+.*/elsewhere'"
        ) as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (status, "redirected")
        assert "secret-in-a-query" not in str(caught.value) and CANARY not in all_text_of(caught.value)
        assert len(front.requests) == number and behind.requests == []


def test_a_redirect_of_the_same_place_is_followed(fronted):
    front, _, llm = fronted

    def reply(path: str, body: bytes) -> Any:
        if not path.startswith("/moved"):
            return 307, {"Location": f"/moved{path}"}, []
        assert body
        return 200, {"Content-Type": "application/json"}, [good(llm)]

    front.reply = reply
    assert llm.complete_sync(PROMPT).text == "dog"
    assert [path.startswith("/moved") for _, path, _ in front.requests] == [False, True]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_in_a_circle_is_told_and_not_tried_again(fronted, status):
    front, _, llm = fronted
    front.reply = lambda path, body: (status, {"Location": path}, [])
    with pytest.raises(LLMStatusError, match="redirected .* in a circle"):
        llm.complete_sync(PROMPT)
    assert len(front.requests) <= 2
    front.requests.clear()
    front.reply = lambda path, body: (status, {"Location": path + "x"}, [])
    with pytest.raises(LLMStatusError, match="redirected .* in a circle"):
        llm.complete_sync(PROMPT)
    assert len(front.requests) <= guarded_http.REDIRECTS + 1


# ---- sizes ----


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_http, "MOST_BYTES", 3 * 2**20)
    monkeypatch.setattr(guarded_http, "MOST_OF_AN_ERROR", 2**16)


def packed(size: int) -> Iterator[bytes]:
    """Spaces, packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    for _ in range(size // 2**20):
        yield packer.compress(b" " * 2**20) + b""
    yield packer.flush()


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 2**16


@pytest.mark.parametrize("kind", ["packed", "endless"])
def test_an_answer_without_end_is_an_error(fronted, small, kind):
    front, _, llm = fronted
    bomb = [piece for piece in packed(200 * 2**20) if piece]
    assert sum(map(len, bomb)) < 2**20
    headers = {"Content-Encoding": "gzip"} if kind == "packed" else {}
    front.reply = lambda path, body: (200, headers, bomb if kind == "packed" else endless())
    for number, ask in enumerate(asks(llm), 1):
        with pytest.raises(LLMResponseError, match="answered with more than 3 MB; no answer is that long"):
            ask()
        assert len(front.requests) == number


def test_an_error_without_end_is_still_the_error(fronted, small):
    front, _, llm = fronted
    front.reply = lambda path, body: (400, {}, endless())
    with pytest.raises(LLMStatusError) as caught:
        llm.complete_sync(PROMPT)
    assert caught.value.status == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "identity", "two members"])
def test_packed_answers_are_unpacked(fronted, encoding):
    front, _, llm = fronted
    body = good(llm) + b" " * 200_000
    raw = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": raw.compress(body) + raw.flush(),
        "identity": body,
        "two members": gzip.compress(body[:20]) + gzip.compress(body[20:]),
    }[encoding]
    name = {"raw deflate": "deflate", "two members": "GZIP"}.get(encoding, encoding)
    pieces = [content[at : at + 7] for at in range(0, len(content), 7)] if encoding != "identity" else [content]
    front.reply = lambda path, body: (200, {"Content-Encoding": name}, pieces)
    assert llm.complete_sync(PROMPT).text == "dog"
    assert front.requests[0][2]["accept-encoding"] == "gzip, deflate"


def test_encodings_that_were_not_offered(fronted):
    front, _, llm = fronted
    for name in ("zstd", "br", "gzip, gzip"):
        front.reply = lambda path, body, name=name: (200, {"Content-Encoding": name}, [b"x"])
        with pytest.raises(LLMResponseError, match=f"in the encoding '{name}', which it was not offered"):
            llm.complete_sync(PROMPT)


def test_what_cannot_be_unpacked_is_asked_for_again(fronted):
    front, _, llm = fronted
    front.reply = lambda path, body: (200, {"Content-Encoding": "gzip"}, [b"no gzip at all"])
    with pytest.raises(LLMGarbledError, match="answered what cannot be unpacked"):
        llm.complete_sync(PROMPT)
    assert len(front.requests) == 3


def test_results_of_a_batch_may_be_long_but_no_line_of_them(small, monkeypatch):
    from icl_vision.llms.batch import provider as batch_provider
    from icl_vision.llms.loop import run_sync

    monkeypatch.setattr(batch_provider, "MOST_BYTES", 2**20)
    adapter = next(one for one in ADAPTERS if one.name == "anthropic")
    with LoopbackServer(adapter.provider()) as behind:
        front = Front(behind)
        with adapter.llm(front) as llm:  # type: ignore[arg-type, attr-defined]  # the adapter of the row
            provider = _provider(llm, llm._resilience())
            line = json.dumps({"custom_id": "a", "filling": "x" * 500_000}).encode() + b"\n"
            where = {
                "id": "b",
                "processing_status": "ended",
                "results_url": front.root + "/v1/messages/batches/b/results",
            }
            answers: dict[str, Any] = {"results": [line] * 20}

            def reply(path: str, body: bytes) -> Any:
                return 200, {}, answers["results"] if path.endswith("/results") else [json.dumps(where).encode()]

            front.reply = reply
            assert run_sync(provider.fetch("b", {})) == ({}, 20)
            answers["results"] = endless()
            with pytest.raises(LLMResponseError, match="hold a line of more than 1 MB"):
                run_sync(provider.fetch("b", {}))
        front.close()


# ---- dropped LLMs ----


@pytest.mark.parametrize("adapter", WIRES, ids=str)
def test_an_llm_that_is_dropped_closes_its_connections(adapter):
    gc.collect()  # what earlier tests left is not this one's
    with LoopbackServer(adapter.provider()) as server, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        llm: Any = adapter.llm(server)
        assert llm.complete_sync(PROMPT).text.strip()
        assert server._connections
        del llm
        gc.collect()
        assert server.wait_for(lambda: not server._connections)
        gc.collect()
    assert [one for one in seen if issubclass(one.category, ResourceWarning)] == []


def test_one_that_failed_or_was_closed_too():
    adapter = next(one for one in ADAPTERS if one.name == "compatible-chat")
    with LoopbackServer(adapter.provider(window=3)) as server, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for closes in (False, True):
            llm: Any = adapter.llm(server)
            with pytest.raises(PromptTooLongError):
                llm.complete_sync(Prompt.of("more than three words are here"))
            if closes:
                llm.close()
            del llm
            gc.collect()
            assert server.wait_for(lambda: not server._connections)
    assert [one for one in seen if issubclass(one.category, ResourceWarning)] == []


def test_a_program_that_ends_with_an_llm_open_says_nothing():
    adapter = next(one for one in ADAPTERS if one.name == "compatible-chat")
    with LoopbackServer(adapter.provider()) as server:
        program = (
            "from icl_vision import connect\n"
            f"llm = connect('openai-compatible:m@{server.url}', api_key={CANARY!r})\n"
            "print(llm.complete_sync('x').text[:6])\n"
        )
        ran = subprocess.run(
            [sys.executable, "-W", "always::ResourceWarning", "-c", program], capture_output=True, text=True, check=True
        )
    assert ran.stdout == "golden\n" and "ResourceWarning" not in ran.stderr
