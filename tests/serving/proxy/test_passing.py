"""Requests and answers go on as they are: bytes, headers, paths, streams, breaks; and what is refused is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from proxied import Proxied, Seen, answer_json, data_url, picture, run

from icl_vision.errors import UsageError
from icl_vision.llms.redaction import Secret
from icl_vision.serving.hosts import Access, checked_token
from icl_vision.serving.pictures import Limits
from icl_vision.serving.proxy.app import PLAIN
from icl_vision.serving.proxy.upstream import checked_url

Serve = Callable[..., Proxied]
TOKEN = "a-token-of-some-length-1"
ODD = b' {"model" : "m","messages":[ {"role":"user","content":"caf\\u00e9 \xc3\xa9"} ],"seed":0.70, "x":1e2,"y":3} '


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}


POST = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextlib.asynccontextmanager
async def talking(proxied: Proxied) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which anything can be said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxied.url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def shown(seed: int = 0) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(picture(seed))}}


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", *PLAIN],
)
async def test_without_pictures_the_same_bytes_go_on(serve: Serve, path: str):
    proxied = serve()
    answer = await proxied.post(
        f"{path}?beta=true&x=%20", ODD, headers={"authorization": "Bearer canary", "x-odd": "1"}
    )
    (seen,) = proxied.talker.seen
    assert answer.status_code == 200 and "x-icl-vision" not in answer.headers
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", path, "beta=true&x=%20", ODD)
    assert seen.header("authorization") == "Bearer canary" and seen.header("x-odd") == "1"


async def test_a_query_that_is_none(serve: Serve):
    proxied = serve()
    for query in ("?a#canary", f"?{'canary' * 11_000}"):
        async with talking(proxied) as (reader, writer):
            head = POST.replace(" HTTP", f"{query} HTTP")
            writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
            assert b" 400 " in await reader.readline()
            assert b"canary" not in await reader.readuntil(b"\r\n\r\n")
    assert proxied.talker.seen == []


async def test_models_are_asked_for(serve: Serve):
    proxied = serve()
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{proxied.url}/v1/models")).json()["data"][0]["id"] == "m"
        await client.get(f"{proxied.url}/v1/models/org/name:tag")
        assert (await client.post(f"{proxied.url}/v1/models", json={})).status_code == 405
        assert (await client.get(f"{proxied.url}/v1/chat/completions")).status_code == 405
    assert [seen.path for seen in proxied.talker.seen] == ["/v1/models", "/v1/models/org/name:tag"]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/chat/completions", "/v1/files", "/v1/images/generations", "/v1/chat/completions/", "//v1/models",
     "/v1/models/../files", "/v1/models/%2e%2e/files", "/v1/models/./x", "/V1/models", "/v1/responses/abc", "/healthz"],
)  # fmt: skip
async def test_other_paths_lead_nowhere(serve: Serve, path: str):
    proxied = serve()
    for request in (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    "Content-Length: 2\r\n\r\n{}"):  # fmt: skip
        async with talking(proxied) as (reader, writer):
            writer.write(request.encode())
            assert b" 404 " in await reader.readline()
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            assert b"/v1/chat/completions" in await reader.readexactly(int(length.split(b":")[1]))
    assert proxied.talker.seen == []


async def test_headers_of_one_connection_and_of_other_proxies_end_here(serve: Serve):
    proxied = serve()
    await proxied.post(
        "/v1/chat/completions",
        ODD,
        headers={
            "cookie": "canary=1", "x-forwarded-for": "1.2.3.4", "X-Forwarded-Host": "h", "forwarded": "for=1",
            "via": "x", "x-real-ip": "1.2.3.4", "connection": "close, x-mine", "x-mine": "1", "te": "trailers",
            "upgrade": "h2c", "proxy-authorization": "Basic x", "x-icl-vision-token": "t", "accept-encoding": "gzip",
            "user-agent": "mine",
        },
    )  # fmt: skip
    (seen,) = proxied.talker.seen
    names = {name for name, _ in seen.headers}
    assert names == {"host", "content-length", "content-type", "accept", "accept-encoding", "user-agent"}
    assert seen.header("host") != proxied.url.removeprefix("http://") and seen.header("user-agent") == "mine"
    assert seen.header("content-length") == str(len(ODD))


async def test_headers_of_an_answer(serve: Serve):
    proxied = serve()

    async def answer(request: Seen, send: Any) -> None:
        await answer_json(
            send,
            {"a": 1},
            418,
            [(b"set-cookie", b"a=1"), (b"access-control-allow-origin", b"*"), (b"x-request-id", b"7"),
             (b"x-icl-vision", b"no"), (b"alt-svc", b"h3"), (b"connection", b"x-inner"), (b"x-inner", b"1"),
             (b"retry-after", b"9")],
        )  # fmt: skip

    proxied.talker.answer = answer
    response = await proxied.post("/v1/chat/completions", ODD)
    assert response.status_code == 418 and response.json() == {"a": 1}
    assert dict(response.headers) == {
        "content-type": "application/json", "content-length": "8", "x-request-id": "7", "retry-after": "9"
    }  # fmt: skip


async def test_a_compressed_answer_stays_as_it_is(serve: Serve):
    proxied = serve()
    packed = gzip.compress(b'{"a": "' + b"x" * 1000 + b'"}')

    async def answer(request: Seen, send: Any) -> None:
        head = [(b"content-encoding", b"gzip"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": packed})

    proxied.talker.answer = answer
    async with httpx2.AsyncClient() as client:
        headers = {"content-type": "application/json", "accept-encoding": "gzip"}
        async with client.stream("POST", f"{proxied.url}/v1/completions", content=b"{}", headers=headers) as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert raw == packed and response.headers["content-encoding"] == "gzip"


async def test_a_stream_comes_as_it_is_made(serve: Serve):
    proxied = serve()
    go_on = threading.Event()

    async def answer(request: Seen, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: \xf0\x9f", "more_body": True})
        await asyncio.to_thread(go_on.wait, 20)
        await send({"type": "http.response.body", "body": b"\x98\x80\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    proxied.talker.answer = answer
    async with httpx2.AsyncClient(timeout=20) as client:
        headers = {"content-type": "application/json"}
        async with client.stream("POST", f"{proxied.url}/v1/responses", content=b"{}", headers=headers) as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"data: \xf0\x9f"  # half a character, and nothing waited for
            go_on.set()
            assert b"".join([chunk async for chunk in chunks]) == b"\x98\x80\n\n"


async def test_a_client_that_hangs_up_takes_its_request_along(serve: Serve):
    proxied = serve()
    entered = threading.Event()

    async def answer(request: Seen, send: Any) -> None:
        if request.path == "/v1/messages":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        entered.set()
        await asyncio.to_thread(proxied.talker.gone.wait, 20)

    proxied.talker.answer = answer
    for path in ("/v1/chat/completions", "/v1/messages"):  # before the answer begins, and in the middle of it
        entered.clear()
        proxied.talker.gone.clear()
        async with talking(proxied) as (_, writer):
            writer.write(f"{POST.replace('/v1/completions', path)}Content-Length: 2\r\n\r\n{{}}".encode())
            assert await asyncio.to_thread(entered.wait, 20)
            assert not proxied.talker.gone.is_set()
        assert await asyncio.to_thread(proxied.talker.gone.wait, 10)


@pytest.mark.parametrize("sized", [True, False])
async def test_a_server_that_breaks_off_breaks_the_answer_off(serve: Serve, sized: bool):
    proxied = serve()

    async def answer(request: Seen, send: Any) -> None:
        head = [(b"content-length", b"100")] if sized else []
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    proxied.talker.answer = answer
    with pytest.raises(httpx2.RemoteProtocolError):
        await proxied.post("/v1/chat/completions", b"{}")
    assert len(proxied.talker.seen) == 1  # nobody asks again


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_nor_handed_on(serve: Serve, status: int):
    proxied = serve()

    async def answer(request: Seen, send: Any) -> None:
        await answer_json(send, {}, status, [(b"location", b"http://127.0.0.1:1/canary")])

    proxied.talker.answer = answer
    response = await proxied.post("/v1/chat/completions", b"{}")
    assert response.status_code == 502 and "--llm-url" in response.text and "canary" not in response.text
    assert "location" not in response.headers and len(proxied.talker.seen) == 1


async def test_a_server_that_is_not_there_or_silent(serve: Serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    response = await serve(url=f"http://127.0.0.1:{port}").post("/v1/completions", b"{}")
    assert response.status_code == 502 and str(port) not in response.text

    proxied = serve(seconds=0.1)

    async def answer(request: Seen, send: Any) -> None:
        await asyncio.to_thread(proxied.talker.gone.wait, 20)

    proxied.talker.answer = answer
    response = await proxied.post("/v1/completions", b"{}")
    assert response.status_code == 504 and len(proxied.talker.seen) == 1


async def test_the_address_of_the_server(serve: Serve, talker: Any):
    behind = run(talker)
    try:
        for end in ("/v1", "/v1/", "/"):
            await serve(url=behind.url + end).post("/v1/completions?a=b", b"{}")
        await serve(url=f"{behind.url}/api/v1").post("/v1/completions", b"{}")
    finally:
        behind.stop()
    assert [seen.path for seen in talker.seen] == ["/v1/completions"] * 3 + ["/api/v1/completions"]
    no_paths = ("ftp://x", "x", "http://", "http://x:99999", "localhost:8080/v1", 3)
    for url in (*no_paths, "http://user:canary@x/v1", "http://x/v1?key=canary", "http://x/#a"):
        with pytest.raises(UsageError, match="the LLM's address") as caught:
            checked_url(url)  # type: ignore[arg-type]  # what a caller may pass
        assert "canary" not in str(caught.value)


# Keys -----------------------------------------------------------------------------------------------------------------


async def test_a_key_of_the_environment_takes_the_place_of_the_token(serve: Serve):
    access = Access(token=checked_token(TOKEN))
    proxied = serve(access=access, upstream_key=Secret("canary-key"))
    assert (await proxied.post("/v1/chat/completions", b"{}")).status_code == 401
    assert (
        await proxied.post("/v1/chat/completions", b"{}", headers={"authorization": "Bearer no"})
    ).status_code == 401
    for name, value in (("authorization", f"Bearer {TOKEN}"), ("x-api-key", TOKEN), ("x-icl-vision-token", TOKEN)):
        for path in ("/v1/chat/completions", "/v1/messages"):
            assert (await proxied.post(path, b"{}", headers={name: value})).status_code == 200
    bearer, key = ("Bearer canary-key", None), (None, "canary-key")
    sent = [(seen.header("authorization"), seen.header("x-api-key")) for seen in proxied.talker.seen]
    assert sent == [bearer, bearer, key, key, bearer, key]
    assert not any(TOKEN in value for seen in proxied.talker.seen for _, value in seen.headers)


async def test_a_server_that_repeats_the_key_in_an_error(serve: Serve):
    proxied = serve(access=Access(token=checked_token(TOKEN)), upstream_key=Secret("canary-key"))

    async def answer(request: Seen, send: Any) -> None:
        await answer_json(send, {"error": "no such key: canary-key"}, 401, [(b"x-key", b"canary-key")])

    proxied.talker.answer = answer
    response = await proxied.post("/v1/chat/completions", b"{}", headers={"x-icl-vision-token": TOKEN})
    assert response.status_code == 401 and response.json() == {"error": "no such key: ***"}
    assert "canary" not in str(response.headers)
    assert proxied.talker.seen[0].header("accept-encoding") == "identity"

    async def packed(request: Seen, send: Any) -> None:
        head = [(b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 400, "headers": head})
        await send({"type": "http.response.body", "body": gzip.compress(b"canary-key")})

    proxied.talker.answer = packed
    response = await proxied.post("/v1/chat/completions", b"{}", headers={"x-icl-vision-token": TOKEN})
    assert response.status_code == 502 and "canary" not in response.text


async def test_with_a_token_the_clients_own_key_goes_on_and_none_is_made_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "canary-of-the-environment")
    proxied = serve(access=Access(token=checked_token(TOKEN)))
    headers = {"x-icl-vision-token": TOKEN, "authorization": "Bearer mine"}
    assert (await proxied.post("/v1/completions", b"{}", headers=headers)).status_code == 200
    assert (
        await proxied.post("/v1/completions", b"{}", headers={"authorization": f"Bearer {TOKEN}"})
    ).status_code == 200
    assert [seen.header("authorization") for seen in proxied.talker.seen] == ["Bearer mine", None]
    proxied = serve()
    await proxied.post("/v1/completions", b"{}")
    assert proxied.talker.seen[-1].header("authorization") is None


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"[" * 100_000,
        b'{"a": ' * 50_000,
        '{"a": 1}'.encode("utf-16"),
    ],
)
async def test_bodies_that_are_no_json(serve: Serve, body: bytes):
    proxied = serve()
    response = await proxied.post("/v1/chat/completions", body)
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]
    assert proxied.talker.seen == []


async def test_bodies_that_would_fill_the_memory(serve: Serve):
    proxied = serve()
    response = await proxied.post("/v1/chat/completions", b'{"messages": [' + b"[]," * 1_000_000 + b"[]]}")
    assert response.status_code == 413 and "values" in response.text and proxied.talker.seen == []


async def test_odd_documents_go_on_for_the_llm_to_refuse(serve: Serve):
    proxied = serve()
    bodies = [
        b"3", b"[]", b'{"messages": 3}', b'{"messages": [3, {"content": [3, {"type": []}]}], "input": [{}]}',
        b'{"messages": [{"role": [], "content": {"type": {}}}], "input": [{"role": {}, "type": []}, {"type": null}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "tool_result", "content": {"type": 3}}]}], "system": {}}',
    ]  # fmt: skip
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        for body in bodies:
            proxied.talker.answer = lambda request, send: answer_json(send, {})
            assert (await proxied.post(path, body)).status_code == 200
    assert [seen.body for seen in proxied.talker.seen] == bodies * 3


async def test_bodies_too_large_too_slow_or_packed(serve: Serve):
    proxied = serve(limits=Limits(body=1000, seconds=0.2))
    assert (await proxied.post("/v1/completions", b"x" * 1001)).status_code == 413

    async def endless() -> Any:
        for _ in range(100):
            yield b"x" * 100

    async with httpx2.AsyncClient() as client:
        head = {"content-type": "application/json"}
        assert (await client.post(f"{proxied.url}/v1/completions", content=endless(), headers=head)).status_code == 413
    assert (
        await proxied.post("/v1/completions", gzip.compress(b"{}"), headers={"content-encoding": "gzip"})
    ).status_code == 415
    async with talking(proxied) as (reader, writer):
        writer.write(f"{POST}Content-Length: 9\r\n\r\n{{".encode())
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
    assert proxied.talker.seen == []


@pytest.mark.parametrize(
    "lengths",
    [
        "Content-Length: 2\r\nContent-Length: 20",
        "Content-Length: 2, 20",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Content-Length: -1",
        "Content-Length: +2",
    ],
)
async def test_ambiguous_lengths(serve: Serve, lengths: str):
    proxied = serve()
    async with talking(proxied) as (reader, writer):
        writer.write(f"{POST}{lengths}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 10)
    assert line.split()[1] in (b"400", b"501"), line
    assert proxied.talker.seen == []


async def test_one_length_said_twice_is_one_length(serve: Serve):
    proxied = serve()
    async with talking(proxied) as (reader, writer):
        writer.write(f"{POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
    (seen,) = proxied.talker.seen
    assert [value for name, value in seen.headers if name == "content-length"] == ["2"] and seen.body == b"{}"


async def test_foreign_hosts_and_origins(serve: Serve):
    proxied = serve()
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        response = await proxied.post("/v1/chat/completions", b"{}", headers=headers)
        assert response.status_code == 403 and "access-control-allow-origin" not in response.headers
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = await proxied.post("/v1/chat/completions", b"{}", headers={"content-type": kind})
        assert response.status_code == 415
    assert proxied.talker.seen == []


async def test_an_allowed_page_may_read_answers_and_errors(serve: Serve):
    proxied = serve(access=Access(origins=["https://app.example"]))
    for body in (b"{}", b"{"):
        response = await proxied.post("/v1/chat/completions", body, headers={"origin": "https://app.example"})
        assert response.headers["access-control-allow-origin"] == "https://app.example"


async def test_a_failure_of_ours_tells_nothing(serve: Serve, caplog: pytest.LogCaptureFixture):
    proxied = serve()

    async def broken(*_: Any, **__: Any) -> str:
        raise KeyError("canary")

    proxied.words.line = broken  # type: ignore[method-assign]  # a failure that nobody thought of
    response = await proxied.post("/v1/chat/completions", chat(shown()))
    assert response.status_code == 500 and "canary" not in response.text
    assert "KeyError" in caplog.text and "canary" not in caplog.text and "Traceback" not in caplog.text
    assert json.loads(response.content)["type"] == "error"
