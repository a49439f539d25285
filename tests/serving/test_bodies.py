"""Bodies that are too large, too slow, or never whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.bodies import GONE, read_body
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
