"""A stand-in for a provider, on loopback, in a process of its own: Chat Completions after a fixed delay, or in chaos.

    python benchmarks/loopback_server.py --delay 0.05
    python benchmarks/loopback_server.py --delay 0.002 --chaos 0.4 --seed 7

Prints one line, the port it listens on, and serves until its standard input is closed, so it never outlives whoever
started it. Raw asyncio protocol, keep-alive, no framework: 64 connections at 50 ms must not be limited by the server.

What it answers is a function of what it is asked (``answer_for``), so whoever asks can tell a right answer from one
that belongs to somebody else. In chaos, what happens to the n-th attempt at a request is a function of seed, request
and n, whatever the order of arrival: a run can be repeated.

GET /stats gives counts: of fates, of connections, and for every request how often it arrived and was answered well.

Knows: HTTP/1.1, one wire format, failures. Refuses to know: the library that is measured against it.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import collections
import hashlib
import itertools
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from types import TracebackType
from typing import Any

LABEL = re.compile(r"^Output: (.+)$", re.MULTILINE)
WORDS = re.compile(r"^(?:A:|.* ->) (.+)$", re.MULTILINE)

# Fates of an attempt in chaos, with their shares among the failures.
FAILURES: dict[str, float] = {
    "429 retry-after-ms": 2.0,
    "429 retry-after": 0.15,  # whole seconds are the finest it can say, and it stops every caller: seldom
    "429 bare": 1.5,
    # Limits told without a retry-after: in headers (one of them broken), in words, in the error object.
    "429 reset": 1.0,
    "429 reset beside nan": 0.5,
    "429 said": 1.0,
    "429 details": 0.5,
    "500": 3.0,
    "529": 2.0,
    "503 retry-after-ms": 1.0,
    "reset before": 2.0,
    "reset inside": 2.0,
    "truncated": 2.0,
    "slow": 0.5,  # longer than any attempt may take
    "not json": 1.0,
    "empty body": 1.0,
    "429 in a 200": 1.0,
    "503 in a 200": 1.0,
    # What asking again at once does not mend: an error by its name.
    "wrong form": 0.5,
    "400": 0.5,
    "400 in a 200": 0.25,
    "thoughts only": 0.4,
    "thoughts unfinished": 0.25,
    "empty answer": 0.25,
    "withheld": 0.25,
    "broken off": 0.25,
    # No failure: the answer behind a block of thoughts.
    "thoughts and answer": 2.0,
}
GOOD = ("answer", "slow", "thoughts and answer")
"""Fates with a right answer in them."""

# Finish reason and message of answers that are none.
NO_ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "thoughts only": ("length", {"content": None, "reasoning_content": "Let me think about red, green and blue"}),
    "thoughts unfinished": ("length", {"content": "<think>It could be red, or else"}),
    "empty answer": ("stop", {"content": " \n"}),
    "withheld": ("content_filter", {"content": "red"}),
    "broken off": ("error", {"content": "gre"}),
}


def key_of(text: str) -> str:
    """What a request is counted under."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer_for(text: str) -> str:
    """The right answer to a prompt: one of its labels or drawn segments where it shows such, else a word of its own."""
    digest = hashlib.sha256(text.encode()).digest()
    labels = sorted(set(LABEL.findall(text) or WORDS.findall(text)))
    return labels[digest[0] % len(labels)] if labels else f"answer-{digest.hex()[:12]}"


class Server:
    """The counts, and what is decided about each request."""

    def __init__(self, *, delay: float, chaos: float, seed: int, slow: float) -> None:
        self.delay = delay
        self.chaos = chaos
        self.seed = seed
        self.slow = slow
        self.fates: collections.Counter[str] = collections.Counter()
        self.arrived: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def fate(self, key: str) -> str:
        """What happens to this attempt, "answer" or a failure; counts it."""
        attempt = self.arrived[key]
        self.arrived[key] += 1
        fate = "answer"
        if self.chaos:
            digest = hashlib.sha256(f"{self.seed}/{key}/{attempt}".encode()).digest()
            draw = int.from_bytes(digest[:8], "big") / 2**64
            if draw < self.chaos:
                shares = list(itertools.accumulate(FAILURES.values()))
                fate = list(FAILURES)[bisect.bisect_right(shares, draw / self.chaos * shares[-1])]
        self.fates[fate] += 1
        return fate

    def stats(self) -> dict[str, Any]:
        return {
            "fates": dict(self.fates),
            "requests": sum(self.arrived.values()),
            "connections": self.connections,
            "most_in_flight": self.most_in_flight,
            "arrived": dict(self.arrived),
            "answered": dict(self.answered),
            "cpu_seconds": sum(os.times()[:2]),
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it come one after the other."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            # Whoever asked has gone: a real server may notice or not, ours stops the work.
            self.timer.cancel()
            self.timer = None
            self.server.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.timer is None:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            match = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            length = int(match[1]) if match else 0
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            if head.startswith(b"GET "):
                self._send(200, self.server.stats())
            else:
                self._ask(body)

    def _ask(self, body: bytes) -> None:
        document = json.loads(body)
        messages = document.get("messages")
        text = "\n".join(message["content"] for message in messages) if messages else str(document.get("prompt", ""))
        key = key_of(text)
        fate = self.server.fate(key)
        self.server.in_flight += 1
        self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        delay = self.server.slow if fate == "slow" else self.server.delay
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(delay, self._answer, fate, key, text, document.get("model"))

    def _answer(self, fate: str, key: str, text: str, model: str) -> None:
        self.timer = None
        self.server.in_flight -= 1
        assert self.transport is not None
        good = completion(text, model)
        choice = good["choices"][0]
        if fate in GOOD:
            self.server.answered[key] += 1
            if fate == "thoughts and answer":
                thoughts = "<think>\nred, green or blue?\nOutput: none of them yet\n</think>\n\n"
                choice["message"]["content"] = thoughts + choice["message"]["content"]
            self._send(200, good)
        elif fate in NO_ANSWERS:
            choice["finish_reason"], message = NO_ANSWERS[fate]
            choice["message"] |= message
            self._send(200, good)
        elif fate == "empty body":
            self._send(200, b"")
        elif fate.endswith(" in a 200"):
            status = int(fate.partition(" ")[0])
            self._send(200, {"error": {"code": status, "message": f"chaos: {fate}"}})
        elif fate == "reset before":
            self._reset()
        elif fate in ("reset inside", "truncated"):
            payload = json.dumps(good).encode()
            self.transport.write(head_of(200, len(payload)) + payload[: len(payload) // 2])
            if fate == "truncated":
                self.transport.close()  # an orderly end, too early
            else:
                asyncio.get_running_loop().call_later(0.001, self._reset)
        elif fate == "not json":
            self._send(200, b"<html><body>upstream connect error</body></html>")
        elif fate == "wrong form":
            self._send(200, {"id": "x", "object": "chat.completion", "choices": []})
        else:
            status, _, how = fate.partition(" ")
            code = {"429": "rate_limit_exceeded", "529": "overloaded_error"}.get(status, "some_error")
            error: dict[str, Any] = {"message": f"chaos: {fate}", "type": code, "code": code}
            headers = {
                "retry-after-ms": "retry-after-ms: 40\r\n",
                "retry-after": "retry-after: 1\r\n",
                "reset": "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 40ms\r\n"
                "x-ratelimit-remaining-tokens: 9000\r\nx-ratelimit-reset-tokens: 8h\r\n",
                "reset beside nan": "retry-after-ms: nan\r\nx-ratelimit-reset-requests: 40ms\r\n",
            }.get(how, "")
            if how == "said":
                error["message"] = "Rate limit reached. Please try again in 40ms. See the documentation"
            elif how == "details":
                error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.040s"}]
            self._send(int(status), {"error": error}, headers)
        if self.buffer:
            self.data_received(b"")

    def _send(self, status: int, document: dict[str, Any] | bytes, headers: str = "") -> None:
        if self.transport is None or self.transport.is_closing():
            return
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.transport.write(head_of(status, len(payload), headers) + payload)

    def _reset(self) -> None:
        assert self.transport is not None
        own = self.transport.get_extra_info("socket")
        if own is not None and own.fileno() >= 0:
            # Linger 0: closing sends RST.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def completion(text: str, model: str) -> dict[str, Any]:
    """A Chat Completions answer; its usage counts words."""
    answer = answer_for(text)
    prompt, written = len(text.split()), len(answer.split())
    message = {"role": "assistant", "content": answer}
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }


def head_of(status: int, length: int, headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    ).encode()


async def serve(server: Server) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def wait_for_owner() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_owner, daemon=True).start()
    await ended.wait()


class Loopback:
    """The server as a child process; a context manager. ``url`` is its base URL."""

    def __init__(self, *, delay: float = 0.0, chaos: float = 0.0, seed: int = 0, slow: float = 5.0) -> None:
        options = {"delay": delay, "chaos": chaos, "seed": seed, "slow": slow}
        command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def close(self) -> None:
        self._process.communicate(timeout=30)  # closes its standard input, which ends it

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before every answer (default: 0.05)")
    parser.add_argument("--chaos", type=float, default=0.0, help="share of attempts that fail (default: 0)")
    parser.add_argument("--slow", type=float, default=5.0, help="seconds that a slow answer takes (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    server = Server(delay=arguments.delay, chaos=arguments.chaos, seed=arguments.seed, slow=arguments.slow)
    asyncio.run(serve(server))


if __name__ == "__main__":
    main()
