"""Who may ask: names of this server, pages of browsers, a token, and what must be there beyond this machine.

A page in a browser can send requests to 127.0.0.1, and by a name of its own that it lets point there (DNS rebinding)
read the answers too. So the Host header must be a name of this machine or one that was allowed, a page's Origin
likewise, a POST must be JSON (which no page can send elsewhere without asking first), and no header tells a browser
that a page may read anything, unless an origin was allowed by name. Where others than this machine can connect, nothing
is served without a token.

    app = Guarded(app, Access(hosts=["box.lan"], token=token))     # any ASGI application

Knows: headers of HTTP, ASGI. Refuses to know: what is served, and frameworks.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.llms.redaction import Secret

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TOKEN_HEADER = "x-icl-vision-token"
"""Where a client puts the token if its Authorization is for the LLM."""

LEAST_TOKEN = 16
"""Characters of a token: shorter ones can be guessed."""

_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's alone: localhost, 127.0.0.0/8, ::1."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def checked_token(token: str | None, named: str = "the token") -> Secret | None:
    """A token fit for use, hidden from reprs; None for none.

    Raises:
        UsageError: it is too short, or holds what no header can.
    """
    if token is None:
        return None
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{named} must have at least {LEAST_TOKEN} printable ASCII characters and no space; it has {len(token)} "
            "characters (python -c 'import secrets; print(secrets.token_urlsafe())' makes one)"
        )
    return Secret(token)


def check_binding(host: str, token: Secret | None) -> None:
    """Whether a server may listen at this address.

    Raises:
        UsageError: others than this machine can reach it, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"listening at {host!r} lets other machines in, and there is no token: name the variable that holds one "
            "with --token-env NAME, or listen at 127.0.0.1"
        )


class Access:
    """Which requests are let in.

    Args:
        hosts: names this server may be called by, besides those of loopback: "box.lan", with or without a port.
        origins: origins whose pages may read answers (CORS), "https://app.example"; none by default.
        token: what every client must show, as ``Authorization: Bearer``, ``x-api-key`` or ``X-Icl-Vision-Token``.

    Raises:
        UsageError: a host or origin that is none.
    """

    def __init__(self, *, hosts: Iterable[str] = (), origins: Iterable[str] = (), token: Secret | None = None) -> None:
        self.hosts = frozenset(_host_name(host) for host in hosts)
        self.origins = frozenset(_origin(origin) for origin in origins)
        self.token = token

    def check(self, method: str, headers: Headers) -> None:
        """Whether a request is let in, by its headers alone.

        Raises:
            RequestRefusedError: it is not: 400 (no Host, or lengths that can be read in two ways), 401 (no token), 403
                (a foreign Host or Origin), 415 (a POST that is no JSON).
        """
        lengths = _values(headers, b"content-length")
        codings = _values(headers, b"transfer-encoding")
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise RequestRefusedError("the request says in two ways how long it is", 400)
        names = _values(headers, b"host")
        match = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        if match is None:
            raise RequestRefusedError("the request needs one Host header that is a name or an address", 400)
        if not self._known(match[1], match[0]):
            raise RequestRefusedError(
                f"this server is not known as {match[0]!r}; whoever started it can allow the name with --allow-host",
                403,
            )
        for origin in _values(headers, b"origin"):
            self._check_origin(origin)
        if method == "POST":
            kinds = [value.partition(";")[0].strip().lower() for value in _values(headers, b"content-type")]
            if kinds != ["application/json"]:
                raise RequestRefusedError("the body must be JSON: Content-Type: application/json", 415)
        if self.token is not None and not any(self.is_token(value) for value in _credentials(headers)):
            raise RequestRefusedError(
                "this server needs its token, as Authorization: Bearer TOKEN or X-Icl-Vision-Token: TOKEN", 401
            )

    def is_token(self, value: str) -> bool:
        """Whether a header's value (without "Bearer") is this server's token."""
        return self.token is not None and hmac.compare_digest(
            value.encode("utf-8", "surrogateescape"), self.token.reveal().encode()
        )

    def cors(self, headers: Headers) -> Headers:
        """What tells a browser that the asking page may read the answer; nothing where its origin was not allowed."""
        origins = _values(headers, b"origin")
        if len(origins) != 1 or origins[0].lower() not in self.origins:
            return []
        return [
            (b"access-control-allow-origin", origins[0].encode("latin-1")),
            # The page may read our own headers too: a session's id (MCP), what was converted (the proxy).
            (b"access-control-expose-headers", b"*"),
            (b"vary", b"Origin"),
        ]

    def preflight(self, method: str, headers: Headers) -> Headers | None:
        """The headers that answer a browser's question beforehand; None where it is none or its page is not allowed."""
        allowed = self.cors(headers)
        if method != "OPTIONS" or not allowed or not _values(headers, b"access-control-request-method"):
            return None
        wanted = _values(headers, b"access-control-request-headers")
        names = [name.strip().lower() for value in wanted for name in value.split(",")]
        known = ", ".join(name for name in names if re.fullmatch(r"[a-z0-9-]{1,64}", name) and name != "cookie")
        return [
            *allowed,
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", known.encode("ascii")),
            (b"access-control-max-age", b"600"),
        ]

    def _known(self, name: str, whole: str) -> bool:
        return is_loopback(name) or bool({_plain(name), whole.lower()} & self.hosts)

    def _check_origin(self, origin: str) -> None:
        if origin.lower() in self.origins:
            return
        match = _ORIGIN.fullmatch(origin)
        if match is None or not self._known(match[2], match[2] + (match[3] or "")):
            raise RequestRefusedError(
                "pages of this origin may not ask here; whoever started this server can allow them with --cors ORIGIN",
                403,
            )


class Guarded:
    """An ASGI application that only such requests reach as its ``Access`` lets in. Web sockets are closed."""

    def __init__(self, app: Application, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        extra = self.access.cors(headers)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and extra:
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        try:
            preflight = self.access.preflight(scope["method"], headers)
            if preflight is not None:
                await send({"type": "http.response.start", "status": 204, "headers": preflight})
                await send({"type": "http.response.body", "body": b""})
                return
            self.access.check(scope["method"], headers)
        except RequestRefusedError as error:
            await refuse(answered, error)
            return
        await self.app(scope, receive, answered)


async def refuse(send: Send, error: RequestRefusedError, headers: Headers | None = None) -> None:
    """Answer with an error in the one form that clients of OpenAI's and of Anthropic's API read alike."""
    body = error_body(str(error), error.status)
    extra: Headers = [*(headers or ())]
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if error.status == 429:
        extra.append((b"retry-after", b"2"))
    start: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": [*start, *extra]})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str, status: int) -> bytes:
    """The JSON of an error."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    error = {"type": kind, "message": f"icl-vision: {message}", "param": None, "code": f"icl_vision_{status}"}
    return json.dumps({"type": "error", "error": error}).encode()


_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]


def _credentials(headers: Headers) -> Iterator[str]:
    """What a client may show its token as."""
    for value in _values(headers, b"authorization"):
        kind, _, credential = value.partition(" ")
        if kind.lower() == "bearer":
            yield credential.strip()
    yield from _values(headers, b"x-api-key")
    yield from _values(headers, TOKEN_HEADER.encode())


def _plain(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()


def _host_name(host: str) -> str:
    match = _HOST.fullmatch(host)
    if match is None:
        raise UsageError(f"an allowed host is a name or an address, with or without a port; got {host!r}")
    return match[0].lower() if match[2] else _plain(match[1])


def _origin(origin: str) -> str:
    if origin == "*" or not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", origin, re.IGNORECASE):
        raise UsageError(f"an allowed origin is written as browsers send it, https://app.example; got {origin!r}")
    return origin.lower()
