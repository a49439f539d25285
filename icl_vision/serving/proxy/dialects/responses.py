"""Responses: ``input`` of a text or items; pictures are ``input_image`` parts of messages and of tools' outputs.

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
    hidden,
    is_data_picture,
    is_visual,
    objects,
    refuse_in_system,
    refused,
    suffix,
    text_of,
)
from icl_vision.serving.proxy.spans import Path

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_OF_THE_MODEL = frozenset(["action", "actions", "arguments", "input", "operation", "tools"])
"""What calls are made with: data of any form."""


def turns(document: Mapping[str, Any]) -> list[Turn]:
    """See ``reading.Dialect``."""
    prompt = document.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    for name, value in variables.items() if isinstance(variables, dict) else ():
        if isinstance(value, dict) and value.get("type") in ("input_image", "input_file"):
            raise refused(("prompt", "variables", name), "a picture or file for a stored prompt", SEND_IT)
    items = document.get("input")
    if isinstance(items, str):
        return [Turn("user", items, (), suffix(("input",)))]
    return [_turn(item, path) for item, path in objects(items, ("input",))]


def _turn(item: Mapping[str, Any], path: Path) -> Turn:
    kind = item.get("type", "message")
    if kind == "message":
        return _message(item, path)
    if kind in _OUTPUTS:
        pictures, _ = _parts(item.get("output"), (*path, "output"), _text)
        return Turn("tool", "", pictures)
    if kind == "computer_call_output" and isinstance(item.get("output"), dict):
        raise refused((*path, "output"), "a picture of a screen", "these words do not read screens")
    if kind == "image_generation_call" and isinstance(item.get("result"), str):
        return Turn("assistant", "", (Picture(path, item["result"], _said, plain=True),))
    if kind == "code_interpreter_call":
        outputs, place = item.get("outputs"), (*path, "outputs")
        shown = [(output, at) for output, at in objects(outputs, place) if output.get("type") == "image"]
        return Turn("assistant", "", tuple(Picture(at, output.get("url"), _logged) for output, at in shown))
    hidden({name: value for name, value in item.items() if name not in _OF_THE_MODEL}, path)
    # What the model did itself stands between what a user says; a reference (item_reference) is to that as a rule.
    return Turn("assistant")


def _message(item: Mapping[str, Any], path: Path) -> Turn:
    role = _ROLES.get(str(item.get("role")))
    content, place = item.get("content"), (*path, "content")
    if isinstance(content, str):
        return Turn(role or "tool", content if role == "user" else "", (), suffix(place))
    pictures, asks = _parts(content, place, _output if role == "assistant" else _text)
    if role is None and pictures:
        raise refuse_in_system(pictures[0].path)
    added = extend(place, _text) if isinstance(content, list) else None
    return Turn(role or "tool", asks if role == "user" else "", pictures, added)


def _parts(content: object, path: Path, wrap: Any) -> tuple[tuple[Picture, ...], str]:
    pictures, texts = [], []
    for part, at in objects(content, path):
        found = _picture(part, at, wrap)
        pictures += [found] if found else []
        texts.append(text_of(part, "input_text", "text"))
    return tuple(pictures), "\n".join(filter(None, texts))


def _picture(part: Mapping[str, Any], path: Path, wrap: Any) -> Picture | None:
    kind = part.get("type")
    if kind == "input_image":
        if part.get("image_url") is None:
            raise refused(path, "a picture kept elsewhere (file_id)", SEND_IT)
        return Picture(path, part["image_url"], wrap)
    if kind == "input_file":
        if is_data_picture(part.get("file_data")):
            return Picture(path, part["file_data"], wrap)
        raise refused(path, "a file", NO_FILES)
    if is_visual(kind):  # of another API, or newer than this
        raise refused(path, f"a part of the type {str(kind)[:40]!r}", SEND_IT)
    return None


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _output(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _logged(text: str) -> dict[str, Any]:
    return {"type": "logs", "logs": text}


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def answered(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> dict[str, Any]:
    """See ``reading.Dialect``."""
    return _response(document, [_message_item(text)], "completed", tokens)


def streamed(document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """See ``reading.Dialect``."""
    whole = _response(document, [_message_item(text)], "completed", tokens)
    begun = {**whole, "output": [], "status": "in_progress", "usage": None}
    (item,) = whole["output"]
    (part,) = item["content"]
    inside = {"item_id": item["id"], "output_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": {**item, "content": [], "status": "in_progress"}}),
        ("response.content_part.added", {**inside, "content_index": 0, "part": {**part, "text": ""}}),
        ("response.output_text.delta", {**inside, "content_index": 0, "delta": text, "logprobs": []}),
        ("response.output_text.done", {**inside, "content_index": 0, "text": text, "logprobs": []}),
        ("response.content_part.done", {**inside, "content_index": 0, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": whole}),
    ]
    for number, (name, data) in enumerate(events):
        yield name, {"type": name, "sequence_number": number, **data}


def _message_item(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    named = f"msg_{uuid.uuid4().hex}"
    return {"type": "message", "id": named, "status": "completed", "role": "assistant", "content": content}


def _response(document: Mapping[str, Any], output: list[Any], status: str, tokens: tuple[int, int]) -> dict[str, Any]:
    usage = {
        "input_tokens": tokens[0],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(tokens),
    }
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": str(document.get("model")),
        "output": output,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
        "usage": usage,
    }
