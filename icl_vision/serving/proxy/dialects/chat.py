"""Chat Completions: ``messages`` with ``content`` of a text or parts; pictures are ``image_url`` parts.

Knows: that dialect. Refuses to know: the others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from icl_vision.serving.proxy.dialects.reading import (
    NO_FILES,
    SEND_IT,
    Picture,
    Role,
    Turn,
    extend,
    is_data_picture,
    is_visual,
    objects,
    refuse_in_system,
    refused,
    suffix,
    text_of,
)
from icl_vision.serving.proxy.spans import Path

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"}


def turns(document: Mapping[str, Any]) -> list[Turn]:
    """See ``reading.Dialect``."""
    return [_turn(message, path) for message, path in objects(document.get("messages"), ("messages",))]


def _turn(message: Mapping[str, Any], path: Path) -> Turn:
    role = _ROLES.get(str(message.get("role")))
    content, place = message.get("content"), (*path, "content")
    for _, at in objects(message.get("images"), (*path, "images")):  # as some servers send pictures that a model made
        raise refused(at, "a picture beside the message's content", "put it there, as an image_url part")
    if isinstance(content, str):
        return Turn(role or "tool", content if role == "user" else "", (), suffix(place))
    pictures, texts = [], []
    for part, at in objects(content, place):
        found = _picture(part, at)
        if found is not None and role is None:
            raise refuse_in_system(at)
        pictures += [found] if found else []
        texts.append(text_of(part, "text"))
    asks = "\n".join(filter(None, texts)) if role == "user" else ""
    return Turn(role or "tool", asks, tuple(pictures), extend(place, _text) if isinstance(content, list) else None)


def _picture(part: Mapping[str, Any], path: Path) -> Picture | None:
    kind = part.get("type")
    if kind == "image_url":
        url = part.get("image_url")
        return Picture(path, url.get("url") if isinstance(url, dict) else url, _text)
    if kind == "file":
        file = part.get("file")
        data = file.get("file_data") if isinstance(file, dict) else None
        if is_data_picture(data):
            return Picture(path, data, _text)
        raise refused(path, "a file", NO_FILES)
    if is_visual(kind):  # of another API, or newer than this
        raise refused(path, f"a part of the type {str(kind)[:40]!r}", SEND_IT)
    return None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def answered(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> dict[str, Any]:
    """See ``reading.Dialect``."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return {**_head(document, "chat.completion"), "choices": [choice], "usage": _usage(tokens)}


def streamed(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """See ``reading.Dialect``."""
    head = _head(document, "chat.completion.chunk")
    for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": text}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        yield "", {**head, "choices": [choice]}
    options = document.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield "", {**head, "choices": [], "usage": _usage(tokens)}
    yield "", "[DONE]"


def _head(document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    model = str(document.get("model"))
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
