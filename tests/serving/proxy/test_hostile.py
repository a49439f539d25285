"""Many bad requests, one after the other and all at once: each gets a status in time, and nothing of them leaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from proxied import Proxied, answer_json, data_url, picture

from icl_vision.serving.fetching import Fetcher
from icl_vision.serving.pictures import Limits
from icl_vision.serving.roots import Roots

Serve = Callable[..., Proxied]
KEY = "canary-key-0123456789"
LIMIT = 10.0
"""Seconds that any request may take here."""


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of some kilobytes that would be 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(width + 1) * 50, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def of(*urls: Any) -> bytes:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "canary-question what is it?"}, *parts]
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def gif_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (1, 1)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::]",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "[fe80::1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "rebinding.example", "redirecting.example",
]  # fmt: skip


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, tuple[bytes, set[int]]]:
    """Bodies by what is wrong with them, and which statuses are right."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "secret.txt").write_text("canary-of-a-file")
    (tmp_path / "outside.png").write_bytes(picture(99))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    cases: dict[str, tuple[bytes, set[int]]] = {
        "bomb": (of(data_url(bomb())), {413}),
        "gif": (of(data_url(gif_of(65_000, 65_000))), {413, 400}),
        "cut": (of(data_url(picture(1)[:-30])), {400}),
        "no picture": (of(data_url(b"canary-of-bytes " * 20)), {400}),
        "pdf": (of("data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4 canary-of-bytes").decode()), {400}),
        "large": (of(data_url(b"\x89PNG\r\n\x1a\n" + bytes(300_000))), {413}),
        "hundred": (of(*[data_url(picture(2))] * 100), {413}),
        "broken json": (of(data_url(picture(3)))[:-5], {400}),
        "deep": (b'{"messages": ' + b"[" * 50_000, {400}),
        "no base64": (of("data:image/png;base64,canary-of-bytes!!"), {400}),
        "other scheme": (of("gopher://canary-of-bytes/"), {400}),
        "number": (of(17), {400}),
    }
    for place, name in enumerate(
        ["../outside.png", "link.png", "secret.txt", "/etc/passwd", "%2e%2e/outside.png", "nowhere.png"]
    ):
        cases[f"file {place}"] = (of(f"file:{name}"), {400})
    for place, host in enumerate(INSIDE):
        cases[f"address {place}"] = (of(f"http://{host}/canary-of-a-path.png"), {400})
    return cases


async def resolve(host: str, port: int) -> list[str]:
    """As the system would; some names of ours lead to the outside first."""
    import ipaddress
    import socket

    if host.endswith(".example"):
        return ["93.184.216.34"]
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    return ["127.0.0.1"] if host == "localhost" else [socket.inet_ntoa(socket.inet_aton(host))]


class Outside(httpx2.AsyncBaseTransport):
    """What lies at the one public address: a redirect to the inside."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.hosts.append(request.url.host)
        where = "http://127.0.0.1/canary-of-a-path" if b"redirecting" in request.headers["host"].encode() else None
        return httpx2.Response(302 if where else 404, headers={"location": where} if where else {})


async def test_bad_requests(
    serve: Serve, hostile: dict[str, tuple[bytes, set[int]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    outside = Outside()
    limits = Limits(bytes=200_000, pixels=1_000_000, seconds=LIMIT, waiting=1000)
    proxied = serve(
        limits=limits,
        roots=Roots([tmp_path / "root"]),
        fetcher=Fetcher(limits.bytes, LIMIT, resolve=resolve, transport=outside),
    )
    proxied.talker.answer = lambda request, send: answer_json(send, {"choices": []})
    texts: list[str] = []

    async def one(name: str, client: httpx2.AsyncClient) -> None:
        body, right = hostile[name]
        began = time.monotonic()
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        response = await client.post(f"{proxied.url}/v1/chat/completions", content=body, headers=headers)
        assert response.status_code in right, (name, response.status_code, response.text)
        assert time.monotonic() - began < LIMIT
        texts.append(response.text + str(response.headers))

    async with httpx2.AsyncClient(timeout=LIMIT) as client:
        for name in hostile:  # one after the other, then all together
            await one(name, client)
        await asyncio.gather(*[one(name, client) for name in hostile for _ in range(3)])
        good = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        response = await client.post(
            f"{proxied.url}/v1/chat/completions", content=of(data_url(picture(4))), headers=good
        )
        assert response.status_code == 200
    assert len(proxied.talker.seen) == 1 and set(outside.hosts) == {"93.184.216.34"}
    logged = "\n".join(f"{record.name} {record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    told = "\n".join(texts)
    for canary in (KEY, "canary-of", "canary-question", str(tmp_path)):
        assert canary not in logged and canary not in told, canary
    encoded = base64.b64encode(picture(4)).decode()
    assert encoded[:40] not in logged and encoded[:40] not in told


def cached() -> set[Path]:
    """Everything in the user's cache."""
    return set(Path(os.environ["ICL_VISION_CACHE"]).rglob("*"))


async def test_nothing_is_written(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    real = os.open

    def counting(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(str(path))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", counting)
    before = cached()
    proxied = serve()
    assert (await proxied.post("/v1/chat/completions", of(data_url(picture(5))))).status_code == 200
    assert opened == [] and cached() == before


async def test_clients_that_hang_up_while_pictures_become_words(serve: Serve):
    proxied = serve(limits=Limits(encodings=1))
    body = of(*[data_url(picture(seed)) for seed in range(100, 110)])
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", int(proxied.url.rsplit(":", 1)[1]))
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    response = await proxied.post("/v1/chat/completions", body)
    assert response.status_code == 200 and response.headers["x-icl-vision"].startswith("10 images")


async def test_room_for_all_bodies_together(serve: Serve):
    """While one request is at work there is none for a second; when it ends there is."""
    body = of(data_url(picture(6, (64, 64))))
    proxied = serve(limits=Limits(body=len(body), bodies=len(body) * 3 // 2))
    asked, go_on, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    async def slow(request: Any, send: Any) -> None:  # in the thread of the LLM's server
        loop.call_soon_threadsafe(asked.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go_on.wait(), loop))
        await answer_json(send, {})

    proxied.talker.answer = slow
    first = asyncio.ensure_future(proxied.post("/v1/chat/completions", body))
    await asked.wait()
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        response = await proxied.post(path, body)
        assert response.status_code == 429 and response.headers["retry-after"] == "2"
    go_on.set()
    assert (await first).status_code == 200
    assert (await proxied.post("/v1/chat/completions", body)).status_code == 200
