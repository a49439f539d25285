"""Bodies that are too large, too slow, or never whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.serving.bodies import GONE, Room, Share
from icl_vision.serving.bodies import read_body as read_into
from icl_vision.serving.pictures import Limits


def sending(*pieces: bytes, end: str = "whole") -> Any:
    """ASGI's ``receive`` of these pieces; then nothing more comes ("silence"), or the client goes away ("gone")."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if end == "whole":
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if end == "silence":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    return receive


async def read_body(headers: Any, receive: Any, limits: Limits) -> bytes:
    """With room for it."""
    return await read_into(headers, receive, limits, Share(Room(limits.bodies)))


async def test_pieces_are_put_together() -> None:
    assert await read_body([], sending(b"a", b"", b"bc"), Limits()) == b"abc"
    assert await read_body([], sending(b""), Limits()) == b""
    assert await read_body([(b"content-length", b"3")], sending(b"abc"), Limits(body=3)) == b"abc"


@pytest.mark.parametrize("length", [b"4", b"9" * 18, b"9" * 400])
async def test_a_length_that_is_too_much_is_refused_unread(length: bytes) -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("read")

    with pytest.raises(RequestRefusedError, match="larger than the 3 bytes") as caught:
        await read_body([(b"Content-Length", length)], never, Limits(body=3))
    assert caught.value.status == 413


async def test_more_than_was_said() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        await read_body([(b"content-length", b"1")], sending(b"ab", b"cd", b"ef", end="silence"), Limits(body=3))
    assert caught.value.status == 413


async def test_slow_and_gone() -> None:
    with pytest.raises(RequestRefusedError, match=r"did not arrive within 0\.05 seconds") as slow:
        await read_body([], sending(b"a", end="silence"), Limits(seconds=0.05))
    with pytest.raises(RequestRefusedError) as gone:
        await read_body([], sending(b"a", end="gone"), Limits())
    assert (slow.value.status, gone.value.status) == (408, GONE)


async def test_all_together() -> None:
    """What has come counts, and only while it is at work."""
    room, limits = Room(10), Limits(body=8)
    with room.share() as first:
        assert await read_into([(b"content-length", b"8")], sending(b"abc", b"def"), limits, first) == b"abcdef"
        with pytest.raises(RequestRefusedError, match="of 10 for all together") as caught, room.share() as second:
            await read_into([], sending(b"abcd", b"e", end="silence"), limits, second)
        assert caught.value.status == 429 and room.taken == 6
        with room.share() as third:
            assert await read_into([], sending(b"abcd"), limits, third) == b"abcd"
        with pytest.raises(RequestRefusedError) as gone, room.share() as fourth:
            await read_into([], sending(b"abcd", end="gone"), limits, fourth)
        assert gone.value.status == GONE and room.taken == 6
    assert room.taken == 0


def test_room_for_less_than_one() -> None:
    with pytest.raises(UsageError, match="the first must be at least the second"):
        Limits(body=11, bodies=10)
