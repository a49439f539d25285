"""The MCP server over streamable HTTP, guarded as the proxy is.

Knows: the SDK's application, its path and caps. Refuses to know: who may ask (``serving.hosts``), what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcp.server.transport_security import TransportSecuritySettings

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.bodies import GONE, Room, read_body
from icl_vision.serving.hosts import Access, Application, Guarded, Message, Receive, Scope, Send, refuse
from icl_vision.serving.listening import run

if TYPE_CHECKING:
    from mcp.server import Server

    from icl_vision.serving.pictures import Limits

PATH = "/mcp"

MOST_SESSIONS = 256
"""Clients of earlier protocols, which keep a session each."""

MOST_CONNECTIONS = 512
"""Connections at once; further ones are told to come again (503)."""

IDLE_SECONDS = 1800.0
"""After which a session that nothing is asked in is forgotten."""


def http_app(server: Server[Any], access: Access, limits: Limits) -> Guarded:
    """An ASGI application at ``PATH`` that lets in what ``access`` does. limits: of requests' bodies."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=limits.body,
        session_idle_timeout=IDLE_SECONDS,
        max_sessions=MOST_SESSIONS,
        # Who may ask is decided before, in one way for the proxy too.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return Guarded(_Whole(app, limits), access)


class _Whole:
    """An ASGI application that gets a request when its body is there; the SDK would wait for it for ever."""

    def __init__(self, app: Application, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._room = Room(limits.bodies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._room.share() as share:
            try:
                body = await read_body(scope["headers"], receive, self._limits, share)
            except RequestRefusedError as error:
                if error.status != GONE:
                    await refuse(send, error)
                return
            await self._whole(scope, body, receive, send)

    async def _whole(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def received() -> Message:
            return waiting.pop() if waiting else await receive()  # (what comes then is that the client hangs up)

        await self._app(scope, received, send)


def run_http(app: Guarded, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve until Ctrl-C. ready: called with the port once it can be connected to (0 takes a free one).

    Raises:
        UsageError: the address cannot be listened at.
    """
    run(app, host, port, ready, extra="mcp", connections=MOST_CONNECTIONS)
