"""The MCP server on standard input and output, where nothing but messages may be printed.

A library that logs to file descriptor 1, as llama.cpp's parts do, would end the connection, and a child that reads from
descriptor 0 would steal from it. So both are taken away before anything is loaded: what anybody prints goes to standard
error, who reads finds the end, and messages go by private copies.

    with kept_streams() as wire:
        tools = ...                  # whatever they print
        run_stdio(server, wire)

Lines are read by a thread that nobody waits for, so that Ctrl-C ends the server while its client says nothing.

Knows: descriptors, lines. Refuses to know: what is served.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

_AT_ONCE = 2**16


@dataclass(frozen=True, slots=True)
class Wire:
    """Private copies of standard input, as a descriptor, and of standard output, as a stream."""

    received: int
    sent: io.TextIOWrapper


@contextlib.contextmanager
def kept_streams() -> Iterator[Wire]:
    """Standard input and output for messages alone; inside, descriptor 1 (and ``print``) is standard error."""
    sys.stdout.flush()
    received, sent = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        spare = os.dup(2)
    except OSError:  # started without a standard error
        spare = os.open(os.devnull, os.O_WRONLY)
    os.dup2(spare, 1)
    os.close(spare)
    # Lines end as the protocol says, whatever the system's way.
    stream = io.TextIOWrapper(os.fdopen(sent, "wb", closefd=False), encoding="utf-8", newline="\n")
    try:
        yield Wire(received, stream)
    finally:
        with contextlib.suppress(OSError, ValueError):  # the client is gone
            stream.flush()
        sys.stdout.flush()
        os.dup2(sent, 1)
        os.dup2(received, 0)


def run_stdio(server: Server[Any], wire: Wire) -> None:
    """Serve one client until it closes standard input."""

    async def serve() -> None:
        # (The SDK asks of its input that lines come out of it, and its own reads them where nothing can end it.)
        lines = cast("anyio.AsyncFile[str]", _lines(wire.received))
        async with stdio_server(lines, anyio.wrap_file(wire.sent)) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())

    anyio.run(serve)


async def _lines(descriptor: int) -> AsyncIterator[str]:
    """The lines that come in, each when the one before it was taken."""
    loop = asyncio.get_running_loop()
    filled, taken = anyio.create_memory_object_stream[bytes](0)

    def read() -> None:
        pieces: list[bytes] = []
        with contextlib.suppress(OSError, RuntimeError, anyio.BrokenResourceError, concurrent.futures.CancelledError):
            while data := os.read(descriptor, _AT_ONCE):
                first, *others = data.split(b"\n")
                pieces.append(first)
                for piece in others:
                    asyncio.run_coroutine_threadsafe(filled.send(b"".join(pieces)), loop).result()
                    pieces = [piece]
            if any(pieces):
                asyncio.run_coroutine_threadsafe(filled.send(b"".join(pieces)), loop).result()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(filled.close)

    threading.Thread(target=read, name="icl-vision-stdin", daemon=True).start()
    async with taken:
        async for line in taken:
            yield line.decode("utf-8", "replace")
