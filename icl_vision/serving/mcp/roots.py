"""A client's roots: which of the server's folders it lets a call read; they can only take away.

The protocol of 2026-07-28 deprecates roots and no longer lets a server ask while it works: the call is answered with
the question, and the client calls again with its answer. Clients of earlier protocols are asked in between. Both are
handled here; a client that declares no roots narrows nothing.

Knows: both ways to ask, file: addresses. Refuses to know: what is in a folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mcp import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import CallToolRequestParams, InputRequiredResult, ListRootsRequest, ListRootsResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.roots import Roots

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext

_KEY = "roots"
_SECONDS = 10.0
"""That a client has to name its roots."""

MOST_ROOTS = 256
"""Roots of a client that are looked at; more are refused, since each costs a look at the disk."""


async def asked_roots(
    context: ServerRequestContext[Any, Any], params: CallToolRequestParams
) -> list[str] | InputRequiredResult | None:
    """The client's roots as addresses; None where it has none to declare; what to answer instead, where it must be
    asked by calling again.

    Raises:
        RequestRefusedError: it declares roots and does not name them. Nothing is read then: they might forbid it.
    """
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.roots is None:
        return None
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        answers = params.input_responses or {}
        if _KEY not in answers:
            return InputRequiredResult(input_requests={_KEY: ListRootsRequest()})
        answer = answers[_KEY]
        if not isinstance(answer, ListRootsResult):
            raise _unnamed()
        return _addresses(answer)
    try:
        # `session.list_roots` is this, on the connection's own channel, which an HTTP client need not listen to.
        result = await context.session.send_request(
            ListRootsRequest(),
            ListRootsResult,
            request_read_timeout_seconds=_SECONDS,
            metadata=ServerMessageMetadata(related_request_id=context.request_id),
        )
    except (MCPError, ValidationError, TimeoutError) as error:
        raise _unnamed() from error
    return _addresses(result)


def narrowed(own: Roots, named: list[str] | None) -> Roots:
    """The server's folders as far as the client's roots allow; None allows all of them."""
    if named is None:
        return own
    return own.narrowed([folder for address in named if (folder := folder_of(address)) is not None])


def folder_of(address: str) -> Path | None:
    """The folder of a file: address of this machine; None for anything else."""
    parts = urlsplit(address)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        return None
    path = unquote(parts.path, errors="strict") if parts.path.isascii() else parts.path
    if os.name == "nt":
        path = path.lstrip("/")
    if not path or "\0" in path or not os.path.isabs(path):
        return None
    return Path(path)


def _addresses(result: ListRootsResult) -> list[str]:
    if len(result.roots) > MOST_ROOTS:
        raise RequestRefusedError(f"the client names {len(result.roots):,} roots; at most {MOST_ROOTS} are looked at")
    return [str(root.uri) for root in result.roots]


def _unnamed() -> RequestRefusedError:
    return RequestRefusedError(
        f"the client declares roots and did not name them within {_SECONDS:g} seconds, so that no file is read; give "
        "the picture as base64, or let the client name its roots"
    )
