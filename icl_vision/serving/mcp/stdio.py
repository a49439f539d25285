"""The MCP server on standard input and output, where nothing but messages may be printed.

A library that logs to file descriptor 1, as llama.cpp's parts do, would end the connection, and a child that reads from
descriptor 0 would steal from it. So both are taken away before anything is loaded: what anybody prints goes to standard
error, who reads finds the end, and messages go by private copies.

    with kept_streams() as wire:
        tools = ...                  # whatever they print
        run_stdio(server, wire)

Lines are read by a thread that nobody waits for, so that Ctrl-C ends the server while its client says nothing. A line
that is too long is not kept; where its two ends tell its number it is answered with an error, so that no client waits.

Knows: descriptors, lines, where a message has its number. Refuses to know: what is served.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import logging
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from icl_vision.forks import ForkLock

logger = logging.getLogger(__name__)

_AT_ONCE = 2**16

_END = 1024  # bytes
_ID = rb"""\s*"id"\s*:\s*(\d{1,18}|"[\w.:-]{1,64}")\s*"""
_SAID = rb"""\s*"(?:jsonrpc|method)"\s*:\s*"[\w./-]{1,64}"\s*"""
_FIRST_ID = re.compile(rb"\s*\{(?:" + _SAID + rb",)*" + _ID + rb",")
_LAST_ID = re.compile(rb"[}\]]\s*(?:," + _SAID + rb")*," + _ID + rb"(?:," + _SAID + rb")*\}\s*$")
_TOO_LONG = (
    b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32600,"message":"the message has %d bytes and was not read; %d are'
    b' allowed"}}'
)


class Sent(io.TextIOWrapper):
    """A stream of whole lines, which several threads may write to."""

    _turn = ForkLock()

    def write(self, line: str) -> int:
        """Write a line, and let it go."""
        with self._turn:
            count = super().write(line)
            super().flush()
        return count

    def flush(self) -> None:
        """Let go what was written."""
        with self._turn:
            super().flush()


@dataclass(frozen=True, slots=True)
class Wire:
    """Private copies of standard input, as a descriptor, and of standard output, as a stream."""

    received: int
    sent: Sent


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
    stream = Sent(os.fdopen(sent, "wb", closefd=False), encoding="utf-8", newline="\n")
    try:
        yield Wire(received, stream)
    finally:
        with contextlib.suppress(OSError, ValueError):  # the client is gone
            stream.flush()
        sys.stdout.flush()
        os.dup2(sent, 1)
        os.dup2(received, 0)


def run_stdio(server: Server[Any], wire: Wire, most: int = 32 * 2**20) -> None:
    """Serve one client until it closes standard input. most: bytes of a line."""

    async def serve() -> None:
        # (The SDK asks of its input that lines come out of it, and its own reads them where nothing can end it.)
        lines = cast("anyio.AsyncFile[str]", _lines(wire, most))
        async with stdio_server(lines, anyio.wrap_file(wire.sent)) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())

    anyio.run(serve)


class Line:
    """A line that is put together from pieces, and kept only up to ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        """More of it."""
        self._size += len(piece)
        if self._size <= self.most:
            self._pieces.append(piece)
        else:  # its two ends, where its number may stand
            whole = b"".join(self._pieces) + piece
            self._pieces = [whole[:_END], whole[_END:][-_END:]]

    def taken(self) -> tuple[bytes, bytes]:
        """It, and what is answered at once where it is too long (and then it is empty); the next one begins."""
        ends, size = b"".join(self._pieces), self._size
        self._pieces, self._size = [], 0
        if size <= self.most:
            return ends, b""
        logger.error("a message of %d bytes was not read; %d are allowed", size, self.most)
        found = _FIRST_ID.match(ends[:_END]) or _LAST_ID.search(ends[_END:])
        return b"", b"" if found is None else _TOO_LONG % (found[1], size, self.most)


async def _lines(wire: Wire, most: int) -> AsyncIterator[str]:
    """The lines that come in, each when the one before it was taken."""
    loop = asyncio.get_running_loop()
    filled, taken = anyio.create_memory_object_stream[bytes](0)

    def read() -> None:
        line = Line(most)

        def end() -> None:
            whole, answer = line.taken()
            if answer:
                wire.sent.write(answer.decode() + "\n")
            if whole.strip():
                asyncio.run_coroutine_threadsafe(filled.send(whole), loop).result()

        with contextlib.suppress(OSError, RuntimeError, anyio.BrokenResourceError, concurrent.futures.CancelledError):
            while data := os.read(wire.received, _AT_ONCE):
                first, *others = data.split(b"\n")
                line.add(first)
                for piece in others:
                    end()
                    line.add(piece)
            end()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(filled.close)

    threading.Thread(target=read, name="icl-vision-stdin", daemon=True).start()
    async with taken:
        async for line in taken:
            yield line.decode("utf-8", "replace")
