"""The body of a request, whole, within a size and a time; and all of them together within what memory is for them.

Knows: lengths, pieces, a client that is slow or goes away. Refuses to know: what a body says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from icl_vision.errors import RequestRefusedError

if TYPE_CHECKING:
    from icl_vision.serving.hosts import Headers, Receive
    from icl_vision.serving.pictures import Limits

GONE = 499
"""The status of a client that went away before its request was whole; nobody is there to be told."""


class Room:
    """Memory for the bodies of all requests that are at work. Counted is what has come, not what a client announces:
    nobody takes room by words.

    most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """One request's part of it, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken -= share.taken


class Share:
    """What one request has taken of a ``Room``."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def take(self, size: int) -> None:
        """Room for so many bytes more.

        Raises:
            RequestRefusedError: 429, there is none.
        """
        if self._room.taken + size > self._room.most:
            raise RequestRefusedError(
                f"requests of {self._room.taken:,} bytes are at work already, of {self._room.most:,} for all together; "
                "try again later",
                429,
            )
        self._room.taken += size
        self.taken += size


async def read_body(headers: Headers, receive: Receive, limits: Limits, share: Share) -> bytes:
    """A request's body.

    Args:
        headers: the request's; a length in them that is too much is refused before anything is read.
        receive: as ASGI gives it.
        limits: of these ``body``, bytes, and ``seconds`` until the last of them is there.
        share: where room for it is taken, piece by piece.

    Raises:
        RequestRefusedError: 413 for more bytes, 408 for more seconds, 429 where there is no room, ``GONE`` for a client
            that went away.
    """
    too_large = RequestRefusedError(f"the body is larger than the {limits.body:,} bytes that are allowed", 413)
    length = next((value for name, value in headers if name.lower() == b"content-length"), b"0")
    if len(length) > 18 or (length.isdigit() and int(length) > limits.body):
        raise too_large
    chunks, size, more = [], 0, True
    try:
        async with asyncio.timeout(limits.seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefusedError("the client went away", GONE)
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                more = message.get("more_body", False)
                if size > limits.body:
                    raise too_large
                share.take(len(chunks[-1]))
    except TimeoutError:
        raise RequestRefusedError(f"the body did not arrive within {limits.seconds:g} seconds", 408) from None
    return b"".join(chunks)
