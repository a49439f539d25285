"""A server as it is run: clients that do not say what they want, or do not take what they get."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from proxied import received

from icl_vision.serving.listening import configured

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
SECONDS = 0.4
"""That a head may take here."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Refuses what it is asked under /no unread, and else answers what it was sent, after a while."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    body, more = b"no", scope["path"] != "/no"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    if scope["path"] == "/late":
        await asyncio.sleep(3 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port() -> Iterator[int]:
    server = uvicorn.Server(configured(application, head_seconds=SECONDS))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    listener.close()


def slowly(port: int, first: bytes, piece: bytes) -> bytes:
    """All that comes back to a client that sends something, and then a piece more every tenth of a second until the
    connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(first)
        client.settimeout(SECONDS / 4)
        answer, end = b"", time.monotonic() + 20
        while time.monotonic() < end:
            try:
                data = client.recv(65536)
            except TimeoutError:
                with contextlib.suppress(OSError):
                    client.sendall(piece)
                continue
            except ConnectionError:
                return answer
            if not data:
                return answer
            answer += data
        raise AssertionError("the connection is open still")


@pytest.mark.parametrize("first", [b"", b"P", b"POST / HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_a_head_that_never_ends(port: int, first: bytes) -> None:
    answer = slowly(port, first, b"a" if first else b"")
    assert answer.startswith(b"HTTP/1.1 408 ") if first else answer == b""


def test_a_second_head_that_never_ends(port: int) -> None:
    answer = slowly(port, HEAD + b"body", b"a")
    assert b"\r\n\r\nnobody" in answer and b"HTTP/1.1 408 " in answer


def test_a_body_that_goes_on_after_the_answer(port: int) -> None:
    answer = slowly(port, HEAD.replace(b"/ ", b"/no ").replace(b"4", b"999"), b"a")
    assert answer.endswith(b"\r\n\r\nno")


def test_what_takes_its_time_rightly(port: int) -> None:
    """A body that is slow is not a head, nor is an answer that the server takes long for; and pipelined requests."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(HEAD)
        for piece in (b"s", b"l", b"o", b"w"):
            time.sleep(SECONDS / 2)
            client.sendall(piece)
        assert b"200 OK" in received(client, b"\r\n\r\nnoslow")
        late = HEAD.replace(b"/ ", b"/late ")
        client.sendall(late + b"late" + late + b"last")
        assert b"nolate" in received(client, b"nolast")
