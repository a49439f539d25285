"""Pictures at http addresses: which are public, what is connected to, redirects, sizes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.fetching import Fetcher, is_public, resolved

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "203.0.113.5", "192.0.0.8",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2002:a00:1::1", "2001::1", "64:ff9b:1::1", "100::1", "3fff::1",
        "", "localhost", "2130706433", "0x7f000001",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])
def test_addresses_that_are(address: str):
    assert is_public(address)


class World:
    """Names, and what answers at them; everything that was asked is kept."""

    def __init__(self, names: dict[str, list[list[str]]], answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
        self.names = names
        self.looked_up: list[tuple[str, int]] = []
        self.requests: list[httpx2.Request] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            self.requests.append(request)
            return answer(request)

        self.fetcher = Fetcher(100, 2.0, resolve=self.resolve, transport=httpx2.MockTransport(handle))

    async def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append((host, port))
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def refused(self, url: str) -> tuple[int, str]:
        with pytest.raises(RequestRefusedError) as caught:
            await self.fetcher.fetch(url, "image 1")
        return caught.value.status, str(caught.value)


class Raw(httpx2.AsyncByteStream):
    """Bytes as they come from a connection, not read yet."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


def ok(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, stream=Raw(b"bytes"))


async def test_the_address_that_was_looked_at_is_connected_to():
    # The name would lead to loopback the second time: nobody asks it a second time.
    world = World({"photos.example": [[PUBLIC], ["127.0.0.1"]]}, ok)
    assert await world.fetcher.fetch("https://photos.example/a.png?size=1#x", "image 1") == b"bytes"
    (request,) = world.requests
    assert world.looked_up == [("photos.example", 443)]
    assert request.url.host == PUBLIC and request.headers["host"] == "photos.example"
    assert request.extensions["sni_hostname"] == "photos.example" and request.url.raw_path == b"/a.png?size=1"
    assert {"authorization", "cookie", "referer"}.isdisjoint(request.headers)
    assert request.headers["user-agent"] == "icl-vision"


@pytest.mark.parametrize("addresses", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1"], []])
async def test_one_bad_address_is_enough(addresses: list[str]):
    world = World({"photos.example": [addresses]}, ok)
    assert (await world.refused("http://photos.example/a.png"))[0] == 400
    assert world.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://photos.example:8080/a", "https://photos.example:80/a", "http://user:canary@photos.example/a", "http:///a",
        "http://missing.example/a", "ftp://photos.example/a", "http://photos.example/" + "a" * 3000, "http://[::1",
        "http://\n/a", "https://exa mple/",
    ],
)  # fmt: skip
async def test_other_addresses_are_refused_alike(url: str):
    world = World({"photos.example": [[PUBLIC]]}, ok)
    status, message = await world.refused(url)
    assert (status, message) == await world.refused("http://missing.example/")
    assert world.requests == [] and "canary" not in message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_other_spellings_of_this_machine(host: str):
    fetcher = Fetcher(100, 2.0, resolve=resolved, transport=httpx2.MockTransport(ok))
    names = {"127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]"}
    if host in names:  # the guard of the tests lets only plain names of this machine be looked up

        async def system(name: str, port: int) -> list[str]:
            return ["::ffff:127.0.0.1"] if ":" in name else ["127.0.0.1"]

        fetcher.resolve = system
    with pytest.raises(RequestRefusedError):
        await fetcher.fetch(f"http://{host}/a.png", "image 1")


async def test_redirects_are_checked_again():
    def lead(request: httpx2.Request) -> httpx2.Response:
        target = {"/inside": "http://inside.example/a", "/port": "http://photos.example:22/", "/file": "file:///etc/passwd",
                  "/loop": "/loop", "/good": "//other.example/b"}.get(request.url.path)  # fmt: skip
        return httpx2.Response(302, headers={"location": target}) if target else ok(request)

    def world() -> World:
        names = {"photos.example": [[PUBLIC]], "inside.example": [["10.0.0.1"]], "other.example": [["1.1.1.1"]]}
        return World(names, lead)

    for path in ("/inside", "/port", "/file"):
        one = world()
        assert (await one.refused(f"http://photos.example{path}"))[0] == 400
        assert len(one.requests) == 1
    one = world()
    assert (await one.refused("http://photos.example/loop"))[0] == 400
    assert len(one.requests) == 4  # the first, and three redirects
    one = world()
    assert await one.fetcher.fetch("http://photos.example/good", "image 1") == b"bytes"
    assert [str(request.url.host) for request in one.requests] == [PUBLIC, "1.1.1.1"]
    assert one.requests[1].headers["host"] == "other.example"


async def test_sizes_and_statuses():
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/large":
            return httpx2.Response(200, stream=Raw(bytes(101)))
        if request.url.path == "/packed":
            return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Raw(b"\x1f\x8b"))
        return httpx2.Response(404 if request.url.path == "/gone" else 500)

    world = World({"photos.example": [[PUBLIC]]}, answer)
    assert (await world.refused("http://photos.example/large"))[0] == 413
    for path in ("/packed", "/gone", "/broken"):
        assert (await world.refused(f"http://photos.example{path}"))[0] == 400


async def test_time_is_limited():
    async def slow(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    fetcher = Fetcher(100, 0.05, resolve=slow)
    with pytest.raises(RequestRefusedError, match="answer in time"):
        await fetcher.fetch("http://photos.example/a", "image 1")


async def test_names_that_nobody_answers_for_hold_nobody_else_up(monkeypatch: pytest.MonkeyPatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60) and [])
    asking = [asyncio.ensure_future(resolved(f"{number}.example", 80)) for number in range(64)]
    try:
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 20) == "done"
    finally:
        answered.set()
    assert await asyncio.gather(*asking) == [[]] * 64


async def test_a_real_connection_goes_to_the_address_and_takes_the_bytes():
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    class Moved(httpx2.AsyncHTTPTransport):
        """The usual port is not ours to listen at."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            request.url = request.url.copy_with(port=port)
            return await super().handle_async_request(request)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(
        100, 5.0, resolve=resolve, may_reach=lambda address: True, transport=Moved(verify=ssl.create_default_context())
    )
    async with server:
        assert await fetcher.fetch("http://photos.example/a.png", "image 1") == b"bytes"
    assert b"Host: photos.example\r\n" in seen[0] and b"GET /a.png HTTP/1.1" in seen[0]
