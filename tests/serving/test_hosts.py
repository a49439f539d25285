"""Who may ask: hosts, origins, tokens, lengths; and where a server may listen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.serving.hosts import Access, Guarded, check_binding, checked_token, is_loopback

TOKEN = "a-token-of-some-length-1"
JSON = (b"content-type", b"application/json")


def headers(host: str = "127.0.0.1:8000", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", host.encode()), *more]


def refusal(access: Access, found: list[tuple[bytes, bytes]], method: str = "GET") -> int:
    with pytest.raises(RequestRefusedError) as caught:
        access.check(method, found)
    return caught.value.status


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]:8000", "localhost."])
def test_names_of_this_machine_are_known(host: str):
    Access().check("GET", headers(host))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "0.0.0.0", "2130706433"],
)
def test_foreign_names_are_refused(host: str):
    assert refusal(Access(), headers(host)) == 403


@pytest.mark.parametrize("host", ["", "a b", "localhost/x", "localhost:999999", "user@localhost", "localhost,evil"])
def test_what_is_no_host_is_refused(host: str):
    assert refusal(Access(), headers(host)) == 400


def test_one_host_is_needed():
    assert refusal(Access(), []) == 400
    assert refusal(Access(), headers("localhost", (b"host", b"localhost"))) == 400


def test_hosts_that_were_allowed():
    access = Access(hosts=["box.lan", "other.lan:9000"])
    access.check("GET", headers("BOX.lan:1234"))
    access.check("GET", headers("other.lan:9000"))
    assert refusal(access, headers("other.lan:9001")) == 403
    with pytest.raises(UsageError, match="an allowed host is a name or an address"):
        Access(hosts=["http://box.lan"])


def test_origins():
    access = Access(hosts=["box.lan"], origins=["https://app.example"])
    for origin in (b"http://localhost:3000", b"http://127.0.0.1", b"https://app.example", b"http://box.lan:80"):
        access.check("GET", headers("localhost", (b"origin", origin)))
    for origin in (b"null", b"https://evil.example", b"file://", b"https://app.example.evil", b"http://app.example"):
        assert refusal(access, headers("localhost", (b"origin", origin))) == 403
    assert access.cors(headers("localhost", (b"origin", b"http://localhost:3000"))) == []
    assert (b"access-control-allow-origin", b"https://app.example") in access.cors(
        headers("localhost", (b"origin", b"https://app.example"))
    )
    for origin in ("*", "https://app.example/page", "app.example"):
        with pytest.raises(UsageError, match="as browsers send it"):
            Access(origins=[origin])


@pytest.mark.parametrize("kind", [None, b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"])
def test_a_post_is_json(kind: bytes | None):
    more = [] if kind is None else [(b"content-type", kind)]
    assert refusal(Access(), headers("localhost", *more), "POST") == 415
    Access().check("POST", headers("localhost", (b"content-type", b"Application/JSON; charset=utf-8")))


@pytest.mark.parametrize(
    "lengths",
    [
        [(b"content-length", b"3"), (b"content-length", b"3")],
        [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_lengths_that_can_be_read_in_two_ways(lengths: list[tuple[bytes, bytes]]):
    assert refusal(Access(), headers("localhost", JSON, *lengths), "POST") == 400


def test_a_token_is_shown_in_one_of_three_ways():
    access = Access(token=checked_token(TOKEN))
    for name, value in [
        (b"authorization", f"Bearer {TOKEN}"),
        (b"x-api-key", TOKEN),
        (b"x-icl-vision-token", TOKEN),
    ]:
        access.check("GET", headers("localhost", (name, value.encode())))
    for more in ([], [(b"authorization", b"Bearer no")], [(b"authorization", f"Basic {TOKEN}".encode())]):
        assert refusal(access, headers("localhost", *more)) == 401
    assert TOKEN not in repr(access.token)


def test_a_token_must_be_hard_to_guess():
    for token in ("", "short", "with a space in it and long", "café-café-café-café"):
        with pytest.raises(UsageError, match="at least 16 printable ASCII characters"):
            checked_token(token)


def test_beyond_this_machine_nothing_is_served_without_a_token():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_binding(host, None)
    for host in ("0.0.0.0", "::", "", "192.168.1.4", "box.lan"):
        with pytest.raises(UsageError, match="there is no token"):
            check_binding(host, None)
        check_binding(host, checked_token(TOKEN))
    assert not is_loopback("")


async def asked(access: Access, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Guarded(app, access)({"type": "http", "method": "GET", **scope}, receive, send)
    return sent


async def test_a_guarded_application():
    access = Access(origins=["https://app.example"])
    start, body = await asked(access, {"headers": headers("localhost")})
    assert (start["status"], start["headers"], body["body"]) == (200, [], b"in")
    start, body = await asked(access, {"headers": headers("evil.example")})
    assert start["status"] == 403
    document = json.loads(body["body"])
    assert document["type"] == "error" and document["error"]["type"] == "permission_error"
    assert "evil.example" in document["error"]["message"]
    origin = (b"origin", b"https://app.example")
    start, _ = await asked(access, {"headers": headers("localhost", origin)})
    assert (b"access-control-allow-origin", b"https://app.example") in start["headers"]
    (closed,) = await asked(access, {"type": "websocket", "headers": headers("localhost")})
    assert closed == {"type": "websocket.close", "code": 1008}


async def test_a_browser_is_told_beforehand_only_where_its_page_is_allowed():
    question = (b"access-control-request-method", b"POST")
    wanted = (b"access-control-request-headers", b"authorization, Content-Type,cookie")
    allowed = headers("localhost", (b"origin", b"https://app.example"), question, wanted)
    start, _ = await asked(Access(origins=["https://app.example"]), {"method": "OPTIONS", "headers": allowed})
    found = dict(start["headers"])
    assert start["status"] == 204 and found[b"access-control-allow-headers"] == b"authorization, content-type"
    start, _ = await asked(Access(), {"method": "OPTIONS", "headers": allowed})
    assert start["status"] == 403 and not any(name.startswith(b"access-control") for name, _ in start["headers"])
