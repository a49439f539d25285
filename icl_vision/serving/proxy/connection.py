"""Connections to the LLM's server, each for one request at a time: HTTP/1.1 by h11, over asyncio's transports.

    line = await lines.take()
    answered = await line.ask(method, target, headers, body, seconds)     # status, headers
    async for piece in line.pieces(seconds): ...                          # as they come
    lines.give(line)                                                      # kept where it can be used again

A client library does this with five times the work (pools, locks, tasks of its own), and where many ask in the same
moment that is what each of them waits for.

Knows: sockets, TLS, h11's states. Refuses to know: which headers go on, what an answer is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import h11

from icl_vision.serving.hosts import Headers

CONNECT_SECONDS = 10.0

IDLE_SECONDS = 2.0
"""Connections are kept for so long: servers close theirs after 5 and more."""

MOST_IDLE = 128
"""Connections that are kept for later requests."""

MOST_HEAD = 100 * 1024
"""Bytes of an answer's status line and headers."""

_AT_ONCE = 2**16
"""Bytes of a body that are copied rather than sent apart."""

_AHEAD = 2**18
"""Bytes that are received before somebody takes them."""


class BrokenError(Exception):
    """The server closed the connection, or says what is no HTTP. Its text names neither address nor content."""


class _Wire(asyncio.Protocol):
    """What comes in, until it is taken."""

    def __init__(self) -> None:
        self.ended = False
        self._received: list[bytes] = []
        self._size = 0
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def quiet(self) -> bool:
        """Whether nothing came that nobody asked for, its end neither."""
        return not self.ended and not self._received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._size += len(data)
        if self._size > _AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def taken(self) -> bytes:
        """What came since the last time, or what comes first; b"" at the end."""
        if not self._received and not self.ended:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        data = b"".join(self._received)
        if self._size > _AHEAD and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._received, self._size = [], 0
        return data


class Line:
    """One connection."""

    def __init__(self, transport: asyncio.Transport, wire: _Wire) -> None:
        self._transport = transport
        self._wire = wire
        self._http = h11.Connection(h11.CLIENT, MOST_HEAD)
        self.since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        # (A server may have answered before it has read all.)
        sent = self._transport.get_write_buffer_size() == 0
        return self._http.our_state is h11.IDLE and self._wire.quiet and sent and not self._transport.is_closing()

    def close(self) -> None:
        """Close it at once, whatever is under way."""
        self._transport.abort()

    async def ask(
        self, method: str, target: bytes, headers: Headers, body: bytes | None, seconds: float
    ) -> tuple[int, Headers]:
        """Send a request; gives the status and the headers of its answer.

        Args:
            headers: all of them, Host too; Content-Length apart.
            body: None for none.
            seconds: between two pieces of the answer.

        Raises:
            TimeoutError, BrokenError.
        """
        length = [] if body is None else [(b"content-length", b"%d" % len(body))]
        try:
            head = self._http.send(h11.Request(method=method, target=target, headers=[*headers, *length]))
            if body:
                self._http.send(h11.Data(data=body))
            self._http.send(h11.EndOfMessage())  # (its length was said: nothing is sent for its end)
        except h11.LocalProtocolError:
            raise BrokenError("the request's headers cannot go on") from None
        # Its answer is waited for at once: a server may refuse a body before it has read it.
        if body and len(body) > _AT_ONCE:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + (body or b""))
        while not isinstance(event := await self._event(seconds), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise BrokenError("the answer has no beginning")
        return event.status_code, list(event.headers)

    async def pieces(self, seconds: float) -> AsyncIterator[bytes]:
        """The body of the answer. Raises as ``ask``."""
        while not isinstance(event := await self._event(seconds), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise BrokenError("the answer has no end")
            yield bytes(event.data)
        with contextlib.suppress(h11.LocalProtocolError):  # (the server closes it)
            self._http.start_next_cycle()

    async def _event(self, seconds: float) -> Any:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(seconds):
                    data = await self._wire.taken()
                self._http.receive_data(data)
        except h11.RemoteProtocolError:
            raise BrokenError("the answer breaks off, or is no HTTP") from None
        return event


class Lines:
    """Connections to one server, those that are free.

    host, port: where it listens. secure: by TLS, with the certificates that this system or ``certifi`` knows.
    """

    def __init__(self, host: str, port: int, *, secure: bool) -> None:
        self._host = host
        self._port = port
        # Made once: reading certificates takes longer than anything else here.
        self.tls = _tls() if secure else None
        self._free: deque[Line] = deque()  # by the time since when they are

    async def take(self) -> Line:
        """The one that was used last, whose connection is the likeliest to be open still; or a new one.

        Raises:
            TimeoutError, OSError: there is no connection to be had.
        """
        self._forget()
        while self._free:
            line = self._free.pop()
            if line.usable:
                return line
            line.close()
        options: dict[str, Any] = {} if self.tls is None else {"ssl": self.tls, "server_hostname": self._host}
        if not _is_address(self._host):
            options["happy_eyeballs_delay"] = 0.25  # of a name's addresses some may lead nowhere
        async with asyncio.timeout(CONNECT_SECONDS):
            made = await asyncio.get_running_loop().create_connection(_Wire, self._host, self._port, **options)
        return Line(*made)

    def give(self, line: Line) -> None:
        """Take it back; closed where it cannot be used again."""
        if not line.usable:
            line.close()
            return
        line.since = time.monotonic()
        self._free.append(line)
        self._forget()

    def close(self) -> None:
        """Close those that are free."""
        while self._free:
            self._free.pop().close()

    def _forget(self) -> None:
        old = time.monotonic() - IDLE_SECONDS
        while self._free and (self._free[0].since < old or len(self._free) > MOST_IDLE):
            self._free.popleft().close()


def _tls() -> ssl.SSLContext:
    import httpx2

    context: ssl.SSLContext = httpx2.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
