"""Listening at an address until Ctrl-C: how an ASGI application of ours is run.

Knows: uvicorn's options, and what it leaves undone: how long a request's line and headers may take. Refuses to know:
what is served, and who may ask (``hosts``).
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.serving.hosts import Application, error_body

if TYPE_CHECKING:
    import uvicorn

IDLE_SECONDS = 15
"""A client's connection is kept for so long between two requests."""

HEAD_SECONDS = 20.0
"""That a request's line and headers may take, from the beginning of the connection or the end of the answer before. (A
body has a limit of its own: ``bodies``.)"""

LEAVE_SECONDS = 2
"""What is at work when the server is stopped has so long to end: a client that listens to a stream would keep it."""

MOST_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""


_LATE_BODY = error_body("the request's line and headers did not arrive in time", 408)
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_LATE_BODY), _LATE_BODY)
)


def run(
    app: Application, host: str, port: int, ready: Callable[[int], None], *, extra: str, connections: int = 1024
) -> None:
    """Serve until Ctrl-C.

    Args:
        ready: called with the port once it can be connected to (port 0 takes a free one).
        extra: which extra brings uvicorn, for the message where it is missing.
        connections: at the same time; further ones are told 503.

    Raises:
        UsageError: the address cannot be listened at. MissingExtraError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("a server over HTTP", extra) from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = error.strerror or error
        raise UsageError(f"host and port: {host!r}, {port} cannot be listened at ({why}); name others") from error
    with listener:
        listener.listen(1024)
        ready(listener.getsockname()[1])
        uvicorn.Server(configured(app, connections)).run(sockets=[listener])


def configured(app: Application, connections: int = 1024, head_seconds: float = HEAD_SECONDS) -> uvicorn.Config:
    """How uvicorn is to serve an application. connections: as ``run``. head_seconds: see ``HEAD_SECONDS``."""
    import uvicorn

    # No access log: a request line may hold what nobody should keep. Forwarded headers are believed of nobody. h11 is
    # strict about lengths, and the only one that is tested here.
    return uvicorn.Config(
        app,
        http=_impatient(head_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LEAVE_SECONDS,
        h11_max_incomplete_event_size=MOST_HEAD,
    )


@functools.cache
def _impatient(seconds: float) -> type[Any]:
    """uvicorn's protocol, which closes a connection that does not say what it wants within so many seconds."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Each time that a request may come, a clock runs until its headers are there. uvicorn's own ends with the
        first byte after an answer, and does not run before the first request."""

        _clock: Any = None
        _answered: Any = None  # the request that was answered last

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wind()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not self._answered:
                self._stop()

        def on_response_complete(self) -> None:
            self._answered = self.cycle
            self._wind()
            super().on_response_complete()  # which may find the next request, where it came before its turn
            if self.cycle is not self._answered:
                self._stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _unsupported_upgrade_warning(self) -> None:
            """Nothing: whoever asks for a web socket gets an answer without one, and the log is not for that."""

        def _wind(self) -> None:
            self._stop()
            self._clock = self.loop.call_later(seconds, self._late)

        def _late(self) -> None:
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:  # a head without an end
                self.transport.write(_LATE)
            self.transport.close()
            # Of a client that takes nothing, what waits to be sent would keep it open.
            self._clock = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return Impatient
