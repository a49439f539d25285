"""Messages: ``messages`` with ``content`` of a text or blocks; pictures are ``image`` blocks, in tools' results too.

Knows: that dialect. Refuses to know: the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from icl_vision.serving.proxy.dialects.reading import (
    NO_FILES,
    SEND_IT,
    Picture,
    Turn,
    extend,
    hidden,
    is_visual,
    objects,
    refuse_in_system,
    refused,
    suffix,
    text_of,
)
from icl_vision.serving.proxy.spans import Path

_OF_THE_MODEL = frozenset(["text", "tool_use", "server_tool_use", "mcp_tool_use", "thinking", "redacted_thinking"])
"""Blocks that hold a text, or data of any form that a tool is called with."""


def turns(document: Mapping[str, Any]) -> list[Turn]:
    """See ``reading.Dialect``."""
    for picture in _pictures(document.get("system"), ("system",)):
        raise refuse_in_system(picture.path)
    return [_turn(message, path) for message, path in objects(document.get("messages"), ("messages",))]


def _turn(message: Mapping[str, Any], path: Path) -> Turn:
    role = message.get("role")
    content, place = message.get("content"), (*path, "content")
    if isinstance(content, str):
        return Turn("user" if role == "user" else "assistant", content if role == "user" else "", (), suffix(place))
    pictures = tuple(_of_block(content, place) if isinstance(content, dict) else _pictures(content, place))
    if role == "system" and pictures:
        raise refuse_in_system(pictures[0].path)
    if role != "user":
        return Turn("assistant", "", pictures)
    texts = [text_of(block, "text") for block, _ in objects(content, place)]
    asks = "\n".join(filter(None, texts))
    return Turn("user" if asks else "tool", asks, pictures, extend(place, _text) if isinstance(content, list) else None)


def _pictures(content: object, path: Path) -> Iterator[Picture]:
    for block, at in objects(content, path):
        yield from _of_block(block, at)


def _of_block(block: Mapping[str, Any], path: Path) -> Iterator[Picture]:
    kind, source = block.get("type"), block.get("source")
    if kind == "image":
        yield _picture(block, source if isinstance(source, dict) else {}, path)
    elif kind == "document":
        of = source.get("type") if isinstance(source, dict) else None
        if of == "content" and isinstance(source, dict):
            yield from _pictures(source.get("content"), (*path, "source", "content"))
        elif of != "text":
            raise refused(path, "a document that is no plain text", NO_FILES)
    elif isinstance(kind, str) and kind.endswith("_result"):
        # Of a tool of the client's, or of one of the server's: web_fetch_tool_result, in it a web_fetch_result ...
        if block.get("file_type") in ("image", "pdf"):
            raise refused(path, f"a file of the type {block['file_type']!r}", NO_FILES)
        inner, at = block.get("content"), (*path, "content")
        if isinstance(inner, dict):
            yield from _of_block(inner, at)
        else:
            yield from _pictures(inner, at)
    elif not isinstance(kind, str) or kind not in _OF_THE_MODEL:
        if is_visual(kind):
            raise refused(path, f"a part of the type {str(kind)[:40]!r}", SEND_IT)
        hidden(block, path)


def _picture(block: Mapping[str, Any], source: Mapping[str, Any], path: Path) -> Picture:
    wrap = _keeping(block.get("cache_control"))
    if source.get("type") == "base64":
        return Picture(path, source.get("data"), wrap, plain=True)
    if source.get("type") == "url":
        return Picture(path, source.get("url"), wrap)
    raise refused(path, "a picture kept elsewhere", SEND_IT)


def _keeping(control: object) -> Callable[[str], dict[str, Any]]:
    """A text block that ends a cached prefix where the picture did."""
    return _text if control is None else lambda text: {**_text(text), "cache_control": control}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def answered(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> dict[str, Any]:
    """See ``reading.Dialect``."""
    return {
        **_head(document, tokens),
        "content": [_text(text)],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }


def streamed(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """See ``reading.Dialect``."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": _head(document, (tokens[0], 0))}),
        ("content_block_start", {"index": 0, "content_block": _text("")}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}}),
        ("content_block_stop", {"index": 0}),
        (
            "message_delta",
            {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": tokens[1]}},
        ),
        ("message_stop", {}),
    ]
    for name, data in events:
        yield name, {"type": name, **data}


def _head(document: Mapping[str, Any], tokens: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": str(document.get("model")),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }
