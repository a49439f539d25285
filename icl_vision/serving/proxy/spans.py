"""Changes inside a JSON text that leave every other character of it as it was.

    edited('{"a": [1,  2.00]}', [Replace(("a", 0), "one")])     # '{"a": ["one",  2.00]}'

Parsing a body and writing it anew would change how numbers, escapes and spaces are written, and with them what a
provider's cache knows a prompt by. So a value is found by its path in the text itself, and only it is cut out.

Knows: JSON's grammar, as far as finding needs. Refuses to know: what a document means; that the text is JSON was seen
to by whoever parsed it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from icl_vision.errors import RequestRefusedError

Path = tuple[str | int, ...]
"""Keys and places, from the whole document inwards."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Another value in place of the one at ``path``."""

    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class Extend:
    """One more value at the end of the list at ``path``."""

    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class Suffix:
    """More text at the end of the string at ``path``."""

    path: Path
    value: str


Edit = Replace | Extend | Suffix

_SPACE = re.compile(r"[ \t\n\r]*")
# Possessive: of a text of millions of escapes every one would else be kept, to be tried otherwise.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_PIECE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(r"[^ \t\n\r,\]}]+")


@dataclass(slots=True)
class _Wanted:
    """What is to be found inside a value: edits of itself, and of what it holds."""

    edits: list[Edit] = field(default_factory=list)
    inside: dict[str | int, _Wanted] = field(default_factory=dict)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The JSON text with these changes; their places must not lie in one another.

    Raises:
        RequestRefusedError: a key on the way is said twice, so that readers may differ in which of the two counts.
        KeyError: a path that leads nowhere.
    """
    whole = _Wanted()
    count = 0
    for edit in edits:
        wanted = whole
        for step in edit.path:
            wanted = wanted.inside.setdefault(step, _Wanted())
        wanted.edits.append(edit)
        count += 1
    cuts = sorted(_cuts(text, _SPACE.match(text).end(), whole, []))  # type: ignore[union-attr]  # it matches anything
    if len(cuts) != count:
        raise KeyError(f"{count - len(cuts)} of {count} paths lead nowhere")
    pieces, at = [], 0
    for start, end, new in cuts:
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


def _cuts(text: str, at: int, wanted: _Wanted, ends: list[int]) -> Iterator[tuple[int, int, str]]:
    """(from, to, what stands there then) of every edit in the value that begins at ``at``; its end goes to ``ends``."""
    if wanted.inside and text[at] in "{[":
        own: list[int] = []
        yield from (_members if text[at] == "{" else _items)(text, at, wanted, own)
        end = own[0]
    else:
        end = _end(text, at)
    for edit in wanted.edits:
        new = json.dumps(edit.value)
        if isinstance(edit, Replace):
            yield at, end, new
        elif isinstance(edit, Extend) and text[at] == "[":
            empty = _SPACE.match(text, at + 1).end() == end - 1  # type: ignore[union-attr]  # as above
            yield end - 1, end - 1, new if empty else f",{new}"
        elif isinstance(edit, Suffix) and text[at] == '"':
            yield end - 1, end - 1, new[1:-1]
    ends.append(end)


def _members(text: str, at: int, wanted: _Wanted, ends: list[int]) -> Iterator[tuple[int, int, str]]:
    seen: set[str] = set()
    at = _skip(text, at + 1)
    while text[at] != "}":
        end = _end(text, at)
        key = json.loads(text[at:end])
        at = _skip(text, _skip(text, end) + 1)  # past the colon
        inner = wanted.inside.get(key)
        if inner is None:
            at = _end(text, at)
        else:
            if key in seen:
                raise RequestRefusedError(f"the body says the key {key[:80]!r} twice in one object", 400)
            seen.add(key)
            own: list[int] = []
            yield from _cuts(text, at, inner, own)
            at = own[0]
        at = _next(text, at)
    ends.append(at + 1)


def _items(text: str, at: int, wanted: _Wanted, ends: list[int]) -> Iterator[tuple[int, int, str]]:
    at = _skip(text, at + 1)
    place = 0
    while text[at] != "]":
        inner = wanted.inside.get(place)
        if inner is None:
            at = _end(text, at)
        else:
            own: list[int] = []
            yield from _cuts(text, at, inner, own)
            at = own[0]
        place += 1
        at = _next(text, at)
    ends.append(at + 1)


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches anything


def _next(text: str, at: int) -> int:
    """Where the next member begins, or what closes the list or object stands."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _end(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends."""
    first = text[at]
    if first == '"':
        return _STRING.match(text, at).end()  # type: ignore[union-attr]  # the text is JSON
    if first not in "[{":
        return _SCALAR.match(text, at).end()  # type: ignore[union-attr]  # as above
    depth = 0
    for piece in _PIECE.finditer(text, at):
        mark = text[piece.start()]
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
            if not depth:
                return piece.end()
    raise KeyError("the text is no whole JSON document")
