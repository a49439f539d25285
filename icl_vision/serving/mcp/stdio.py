"""The MCP server on standard input and output, where nothing but messages may be printed.

A library that logs to file descriptor 1, as llama.cpp's parts do, would end the connection. So the descriptor is taken
away before anything is loaded: what anybody prints goes to standard error, and messages go to a private copy.

    with kept_stdout() as wire:
        tools = ...                  # whatever they print
        run_stdio(server, wire)

Knows: descriptors. Refuses to know: what is served.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server


@contextlib.contextmanager
def kept_stdout() -> Iterator[io.TextIOWrapper]:
    """Standard output as a stream of one's own; inside, descriptor 1 (and ``print``) is standard error."""
    sys.stdout.flush()
    wire = os.dup(1)
    try:
        spare = os.dup(2)
    except OSError:  # started without a standard error
        spare = os.open(os.devnull, os.O_WRONLY)
    os.dup2(spare, 1)
    os.close(spare)
    # Lines end as the protocol says, whatever the system's way; what cannot be written was never text.
    stream = io.TextIOWrapper(os.fdopen(wire, "wb", closefd=False), encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError, ValueError):  # the client is gone
            stream.flush()
        sys.stdout.flush()
        os.dup2(wire, 1)


def run_stdio(server: Server[Any], wire: io.TextIOWrapper) -> None:
    """Serve one client until it closes standard input."""

    async def serve() -> None:
        async with stdio_server(stdout=anyio.wrap_file(wire)) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())

    anyio.run(serve)
