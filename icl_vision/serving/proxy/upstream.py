"""The LLM's server: a request goes there as it is, and its answer comes back byte by byte.

Nothing is asked a second time: a request may have been answered, and billed, when its connection broke. No redirect is
followed, no variable of the environment names a proxy or a key, no cookie is kept. A client that goes away takes its
request with it, and a server that breaks off breaks the answer off, so that nobody takes half of it for a whole one.

Knows: which statuses stand for which failures. Refuses to know: what is asked and answered, how HTTP is spoken.
"""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import httpx2

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.serving.bodies import GONE
from icl_vision.serving.hosts import Headers, Receive, Send
from icl_vision.serving.proxy.connection import BrokenError, Line, Lines
from icl_vision.serving.proxy.headers import Keys

T = TypeVar("T")

logger = logging.getLogger(__name__)

SEND_SECONDS = 120.0
"""A client that takes nothing for so long is given up."""

MOST_TARGET = 2**16
"""Bytes of a path and query."""

_TARGET = re.compile(rb"/[\x21-\x22\x24-\x7e]*")  # a "#" begins what no server is sent

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
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
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

    Raises:
        UsageError: see ``checked_url``.
    """

    def __init__(self, url: str, keys: Keys, *, seconds: float = 600.0) -> None:
        self.url = checked_url(url)
        self.keys = keys
        self.seconds = seconds
        self._prefix = self.url.raw_path.rstrip(b"/")
        secure = self.url.scheme == "https"
        self._lines = Lines(self.url.raw_host.decode("ascii"), self.url.port or (443 if secure else 80), secure=secure)

    async def close(self) -> None:
        """Close what is open."""
        self._lines.close()

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
        onto = self._prefix + target
        if len(onto) > MOST_TARGET or not _TARGET.fullmatch(onto):
            raise RequestRefusedError("the request's path and query are no address that can go on", 400)
        onward = [(b"host", self.url.netloc), *self.keys.onward(headers, path)]
        try:
            line = await self._lines.take()
            try:
                status, back = await line.ask(method, onto, onward, body if method == "POST" else None, self.seconds)
                await self._answer(status, back, line, send, told)
            finally:
                self._lines.give(line)
        except TimeoutError:
            raise RequestRefusedError("the LLM's server did not answer in time", 504) from None
        except (OSError, BrokenError) as error:
            raise RequestRefusedError(f"the LLM's server cannot be reached ({type(error).__name__})", 502) from None

    async def _answer(self, status: int, back: Headers, line: Line, send: Send, told: Headers) -> None:
        if 300 <= status < 400 and status != 304:
            raise RequestRefusedError(
                f"the LLM's server redirects ({status}), which is not followed; whoever started this "
                "server should name the final address with --llm-url",
                502,
            )
        headers = [*self.keys.back(back), *told]
        pieces = line.pieces(self.seconds)
        if self.keys.upstream is not None and status >= 400:
            packed = [name for name, _ in headers if name == b"content-encoding"]
            if packed:
                raise RequestRefusedError("the LLM's server answered with an error that cannot be passed on", 502)
            content = self.keys.hidden(await _whole(pieces))
            headers = [(name, value) for name, value in headers if name != b"content-length"]
            headers.append((b"content-length", str(len(content)).encode()))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            async for chunk in pieces:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (OSError, BrokenError) as error:
            # The answer has begun: without its end it is broken off for the client too, who may be the one that waits.
            logger.warning("an answer was broken off (%s)", type(error).__name__)
            return
        await send({"type": "http.response.body", "body": b""})


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    content = b""
    async for chunk in pieces:
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
