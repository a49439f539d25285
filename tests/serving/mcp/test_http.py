"""Streamable HTTP on loopback: the SDK's client, and whom the server does not let in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ListRootsResult, Root
from proxied import received

from icl_vision.llms.fake import FakeLLM
from icl_vision.serving.hosts import Access, checked_token
from icl_vision.serving.mcp.http import http_app
from icl_vision.serving.pictures import Limits

TOKEN = "a-token-of-many-characters"


@contextmanager
def serving(world: Any, access: Access | None = None, **options: Any) -> Iterator[str]:
    """The address of a server in a thread."""
    kit = world.kit(**options)
    app = http_app(kit.assembled()[0], Access() if access is None else access, kit.limits)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


async def test_the_sdks_client(world: Any, era: str, encoded: str, text_of: Any) -> None:
    with serving(world) as address:
        async with Client(address, mode=era) as client:
            assert "describe_image" in [tool.name for tool in (await client.list_tools()).tools]
            by_path = await client.call_tool("describe_image", {"path": "red.png"})
            by_bytes = await client.call_tool("describe_image", {"image": encoded})
            asked = await client.call_tool("ask_image", {"path": "red.png", "question": "what colour is it?"})
            refused = await client.call_tool("describe_image", {"path": "../outside-canary/secret.png"})
    assert by_path.structured_content == by_bytes.structured_content
    assert not asked.is_error and asked.structured_content["answer"]
    assert refused.is_error and "canary" not in text_of(refused)


async def test_progress_and_roots_over_http(world: Any, era: str) -> None:
    steps = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async def roots(context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=(world.root / "below").as_uri())])

    with serving(world) as address:
        async with Client(address, mode=era, list_roots_callback=roots) as client:
            given = {"folder": ".", "out": "all.jsonl"}
            result = await client.call_tool("tokenize_folder", given, progress_callback=progress)
            other = await client.call_tool("describe_image", {"path": "red.png"})
    assert result.structured_content["images"] == 1 and other.is_error
    assert steps == [0, 1]


async def test_a_client_that_hangs_up_ends_the_work(world: Any, era: str) -> None:
    class Hanging(FakeLLM):
        asked, given_up = threading.Event(), threading.Event()

        async def _complete(self, *_: Any, **__: Any) -> Any:
            self.asked.set()
            try:
                await anyio.sleep(60)
            except BaseException:
                self.given_up.set()
                raise

    llm = Hanging("nothing", scores_text=False)
    llm.asked.clear()
    llm.given_up.clear()
    with serving(world, llm=llm) as address:
        async with Client(address, mode=era) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "ask_image", {"path": "red.png", "question": "what is it?"})
                assert await anyio.to_thread.run_sync(llm.asked.wait, 30)
                group.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(llm.given_up.wait, 30)


# Whom it does not let in ----------------------------------------------------------------------------------------------

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "attacker.example"}, 403),
        ({"host": "attacker.example:80"}, 403),
        ({"host": "127.0.0.1.attacker.example"}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.attacker.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_foreign_pages_and_names(world: Any, headers: dict[str, str], status: int) -> None:
    with serving(world) as address:
        answer = httpx2.post(address, json=CALL, headers=JSON | headers)
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers and "canary" not in answer.text
        asked = httpx2.get(address, headers={"accept": "text/event-stream", **headers})
        assert asked.status_code == (403 if status == 403 else asked.status_code)
        before = httpx2.request(
            "OPTIONS", address, headers={"origin": "https://attacker.example", "access-control-request-method": "POST"}
        )
        assert before.status_code == 403 and "access-control-allow-origin" not in before.headers


def test_a_page_that_was_allowed(world: Any) -> None:
    page = {"origin": "https://app.example"}
    with serving(world, Access(origins=["https://app.example"])) as address:
        asking = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type, mcp-session-id",
        }
        before = httpx2.request("OPTIONS", address, headers=page | asking)
        assert before.status_code == 204 and "mcp-session-id" in before.headers["access-control-allow-headers"]
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
        begun = httpx2.post(address, json=CALL | {"method": "initialize", "params": hello}, headers=JSON | page)
    assert begun.headers["access-control-allow-origin"] == "https://app.example"
    assert begun.headers["access-control-expose-headers"] == "*" and begun.headers["mcp-session-id"]


async def test_a_token(world: Any, era: str) -> None:
    with serving(world, Access(token=checked_token(TOKEN))) as address:
        for headers in ({}, {"authorization": "Bearer wrong-token-of-many-characters"}, {"authorization": TOKEN}):
            assert httpx2.post(address, json=CALL, headers=JSON | headers).status_code == 401
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as http:
            async with Client(streamable_http_client(address, http_client=http), mode=era) as client:
                assert not (await client.call_tool("describe_image", {"path": "red.png"})).is_error


def test_a_body_beyond_the_cap(world: Any) -> None:
    with serving(world, limits=Limits(body=1000)) as address:
        answer = httpx2.post(address, json=CALL | {"params": {"x": "y" * 2000}}, headers=JSON)
        assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 500, b'{"jsonrpc": "2.0"}'])
def test_a_body_that_is_no_message(world: Any, body: bytes) -> None:
    with serving(world) as address:
        answer = httpx2.post(address, content=body, headers=JSON)
        assert 400 <= answer.status_code < 500
        assert httpx2.get(address.removesuffix("/mcp") + "/", headers=JSON).status_code == 404


def test_a_body_that_never_comes(world: Any) -> None:
    with serving(world, limits=Limits(seconds=0.3)) as address:
        with socket.create_connection(("127.0.0.1", httpx2.URL(address).port or 0), timeout=30) as connection:
            head = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in JSON.items())
            connection.sendall(f"{head}\r\n{{".encode())
            answer = received(connection, b"}")
        assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.3 seconds" in answer


def test_the_command(world: Any, tiny_folder: Path) -> None:
    """It says where it listens, serves, and ends by Ctrl-C."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "icl_vision", "mcp", "--http", "--port", "0", "--tokenizer", str(tiny_folder),
            "--llm", "fake", "--no-draw", "--token-env", "MCP_TOKEN", "--root", str(world.root),
        ],
        env=os.environ | {"MCP_TOKEN": TOKEN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    while not (said and "serving MCP at" in said[-1]):
        said.append(process.stderr.readline())
        assert said[-1], said
    address = said[-1].split()[3].rstrip(";")
    assert httpx2.post(address, json=CALL, headers=JSON).status_code == 401

    async def call() -> Any:
        async with httpx2.AsyncClient(headers={"x-icl-vision-token": TOKEN}) as http:
            async with Client(streamable_http_client(address, http_client=http)) as client:
                return await client.call_tool("describe_image", {"path": "red.png"})

    assert anyio.run(call).structured_content["words"]["colours"][0] == "red"
    # A client that listens, as those of earlier protocols do, does not keep it from ending.
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    shown = JSON | {"x-icl-vision-token": TOKEN}
    begun = httpx2.post(address, json=CALL | {"method": "initialize", "params": hello}, headers=shown)
    listening = shown | {"accept": "text/event-stream", "mcp-session-id": begun.headers["mcp-session-id"]}
    with httpx2.stream("GET", address, headers=listening) as stream:
        assert stream.status_code == 200
        process.send_signal(signal.SIGINT)
        process.wait(30)
    printed, errors = process.communicate(timeout=60)
    assert printed == "" and TOKEN not in "".join(said) + errors and "Traceback" not in errors
