"""Listening at an address until Ctrl-C: how an ASGI application of ours is run.

Knows: uvicorn's options. Refuses to know: what is served, and who may ask (``hosts``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.serving.hosts import Application

IDLE_SECONDS = 15
"""A client's connection is kept for so long between two requests."""

LEAVE_SECONDS = 2
"""What is at work when the server is stopped has so long to end: a client that listens to a stream would keep it."""

MOST_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""


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
    # No access log: a request line may hold what nobody should keep. Forwarded headers are believed of nobody. h11 is
    # strict about lengths, and the only one that is tested here.
    config = uvicorn.Config(
        app,
        http="h11",
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
    with listener:
        listener.listen(1024)
        ready(listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])
