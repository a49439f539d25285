"""The LLM's server: a request goes there as it is, and its answer comes back byte by byte.

Nothing is asked a second time: a request may have been answered, and billed, when its connection broke. No redirect is
followed, no variable of the environment names a proxy or a key, no cookie is kept. A client that goes away takes its
request with it, and a server that breaks off breaks the answer off, so that nobody takes half of it for a whole one.

Knows: httpx2's transport, which statuses stand for which failures. Refuses to know: what is asked and answered.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import urllib.parse
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx2

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.serving.bodies import GONE
from icl_vision.serving.hosts import Headers, Receive, Send
from icl_vision.serving.proxy.headers import Keys

T = TypeVar("T")

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
SEND_SECONDS = 120.0
"""A client that takes nothing for so long is given up."""

IDLE_SECONDS = 2.0
"""Connections are kept for so long: servers close theirs after 5 and more."""

MOST_IDLE = 128
"""Connections that are kept for later requests."""

MOST_OF_AN_ERROR = 2**20
"""Bytes of an error's answer that are held in order to take the key out of it."""


def checked_url(url: str) -> httpx2.URL:
    """The address of an LLM's server; a ``/v1`` at its end is what every path begins with, and is taken off.

    Raises:
        UsageError: it is no http(s) address, or holds a user, a password or a query.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise UsageError(f"the LLM's address must be like http://127.0.0.1:8080; got {url!r:.200}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"the LLM's address must be like http://127.0.0.1:8080; got {url!r:.200}")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise UsageError("the LLM's address holds a user, a query or a fragment; a key is named by --upstream-key-env")
    return parsed.copy_with(raw_path=parsed.raw_path.rstrip(b"/").removesuffix(b"/v1").rstrip(b"/") or b"/")


class Upstream:
    """One LLM's server.

    Args:
        url: its address.
        keys: what opens it.
        seconds: between two pieces of an answer; LLMs think long.
        transport: of httpx2, in place of its own.

    Raises:
        UsageError: see ``checked_url``.
    """

    def __init__(
        self, url: str, keys: Keys, *, seconds: float = 600.0, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.url = checked_url(url)
        self.keys = keys
        self._prefix = self.url.raw_path.rstrip(b"/")
        self._timeouts = {"connect": CONNECT_SECONDS, "read": seconds, "write": SEND_SECONDS, "pool": CONNECT_SECONDS}
        self._lines = _Lines(self.url.scheme, None if transport is None else lambda: transport)

    async def close(self) -> None:
        """Close what is open."""
        await self._lines.close()

    async def forward(
        self, method: str, target: bytes, headers: Headers, body: bytes, receive: Receive, send: Send, told: Headers
    ) -> None:
        """Ask, and send back what comes.

        Args:
            target: path and query, as they came in.
            headers: of the request, as they came in.
            told: headers that the answer gets besides.

        Raises:
            RequestRefusedError: 400 for a query that is none; 502 or 504, where no answer began; ``GONE``, the client
                went away.
        """
        await while_there(receive, self._relay(method, target, headers, body, send, told))

    async def _relay(
        self, method: str, target: bytes, headers: Headers, body: bytes, send: Send, told: Headers
    ) -> None:
        path = urllib.parse.unquote_to_bytes(target.partition(b"?")[0]).decode("latin-1")
        try:
            url = self.url.copy_with(raw_path=self._prefix + target)
        except httpx2.InvalidURL:  # a "#" in it, or more than anybody reads
            raise RequestRefusedError("the request's path and query are no address that can go on", 400) from None
        request = httpx2.Request(
            method,
            url,
            headers=self.keys.onward(headers, path),
            content=body if method == "POST" else None,
            extensions={"timeout": self._timeouts},
        )
        line = self._lines.take()
        try:
            await self._asked(line, request, send, told)
        finally:
            await self._lines.give(line)

    async def _asked(self, line: httpx2.AsyncBaseTransport, request: httpx2.Request, send: Send, told: Headers) -> None:
        try:
            response = await line.handle_async_request(request)
        except httpx2.TimeoutException as error:
            raise RequestRefusedError(
                f"the LLM's server did not answer in time ({type(error).__name__})", 504
            ) from None
        except httpx2.TransportError as error:
            raise RequestRefusedError(f"the LLM's server cannot be reached ({type(error).__name__})", 502) from None
        try:
            await self._answer(response, send, told)
        except httpx2.TransportError as error:
            # The answer has begun: without its end it is broken off for the client too.
            logger.warning("the LLM's server broke off its answer (%s)", type(error).__name__)
        finally:
            await response.aclose()

    async def _answer(self, response: httpx2.Response, send: Send, told: Headers) -> None:
        if 300 <= response.status_code < 400 and response.status_code != 304:
            raise RequestRefusedError(
                f"the LLM's server redirects ({response.status_code}), which is not followed; whoever started this "
                "server should name the final address with --llm-url",
                502,
            )
        headers = [*self.keys.back(response.headers.raw), *told]
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        if self.keys.upstream is not None and response.status_code >= 400:
            packed = [name for name, _ in headers if name == b"content-encoding"]
            if packed:
                raise RequestRefusedError("the LLM's server answered with an error that cannot be passed on", 502)
            content = self.keys.hidden(await _whole(stream))
            headers = [(name, value) for name, value in headers if name != b"content-length"]
            headers.append((b"content-length", str(len(content)).encode()))
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": content})
            return
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for chunk in stream:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class _Lines:
    """Connections to one server, each with a transport of its own.

    httpx2's pool looks at all of its connections whenever one begins or ends, which with a hundred at a time costs more
    than everything else that is done for a request.

    scheme: "http" or "https". make: what makes a transport, in place of httpx2's own.
    """

    def __init__(self, scheme: str, make: Callable[[], httpx2.AsyncBaseTransport] | None = None) -> None:
        self._make = self._made if make is None else make
        self._free: list[httpx2.AsyncBaseTransport] = []
        # Made once: reading certificates takes longer than anything else here.
        self._tls: ssl.SSLContext | bool = httpx2.create_ssl_context(trust_env=False) if scheme == "https" else False

    def take(self) -> httpx2.AsyncBaseTransport:
        """The one that was used last, whose connection is the likeliest to be open still; or a new one."""
        return self._free.pop() if self._free else self._make()

    async def give(self, line: httpx2.AsyncBaseTransport) -> None:
        """Take it back."""
        if len(self._free) < MOST_IDLE:
            self._free.append(line)
        else:
            await line.aclose()

    async def close(self) -> None:
        """Close those that are free."""
        while self._free:
            await self._free.pop().aclose()

    def _made(self) -> httpx2.AsyncBaseTransport:
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
        return httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=limits)


async def _whole(stream: httpx2.AsyncByteStream) -> bytes:
    content = b""
    async for chunk in stream:
        content += chunk
        if len(content) > MOST_OF_AN_ERROR:
            raise RequestRefusedError("the LLM's server answered with an error that is too long to pass on", 502)
    return content


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What comes of work for a client, ended when that client goes away. Raises what the work raises.

    Raises:
        RequestRefusedError: ``GONE``, the client went away.
    """
    relay = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
        if relay.done():
            return relay.result()
        raise RequestRefusedError("the client went away", GONE)
    finally:
        for task in (relay, gone):
            task.cancel()
        await asyncio.gather(relay, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
