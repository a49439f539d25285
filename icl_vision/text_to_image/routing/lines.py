"""Instructions to learn from: a JSON object a line.

    {"language": "en", "route": "draw", "text": "draw {x}"}
    {"language": "en", "route": "text", "text": "Who are you?"}
    {"language": "en", "fill": {"x": "a cat"}}

A text whose {names} are filled by lines of the same language is a template: it becomes as many as ``MOST_FILLED``
lines, which count together as one. What fills several names at once ({"x": ..., "g": ...}: cases of one noun) goes into
a text together.

Knows: the form of such files, their caps, how templates are filled. Refuses to know: features and counts.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.files.reading import loads, read_text
from icl_vision.tasks.routing import ROUTES, RouteName

MOST_BYTES = 64 * 2**20
MOST_LINES = 200_000
MOST_CHARACTERS = 10_000
"""Of one text."""
MOST_FILLED = 4
"""Lines that one template becomes."""
_APART = 5
"""So far apart in the list are the things that fill one name at its first and second place in a text."""
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One text to learn from: what it wants, its language ("" where none is said), and what it was written as.

    texts: the lines that it becomes, one where it has nothing to fill. things: the place, in the list of what fills its
    names, of what fills each; -1 where nothing is filled.
    """

    route: RouteName
    template: str
    language: str
    texts: tuple[str, ...]
    things: tuple[int, ...]


def read_instructions(path: str | os.PathLike[str]) -> tuple[Instruction, ...]:
    """The instructions of a file.

    Raises:
        UsageError: it cannot be read, or a line is not as the module says; the message has its number.
    """
    source = os.fspath(path)
    try:
        text = read_text(path, most=MOST_BYTES)
    except OSError as error:
        raise UsageError(f"the file of lines {source!r} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the file of lines {source!r} is not UTF-8 text ({error.reason})") from error
    rows = [(number, row) for number, row in enumerate(text.split("\n"), start=1) if row.strip()]
    if len(rows) > MOST_LINES:
        raise UsageError(f"{source!r} has {len(rows):,} lines; at most {MOST_LINES:,} are read")
    documents = []
    for number, row in rows:
        try:
            documents.append((f"{source}, line {number}", loads(row)))
        except ValueError as error:
            raise UsageError(f"{source}, line {number}: no JSON ({error})") from error
    return _filled(documents)


def _filled(documents: list[tuple[str, Any]]) -> tuple[Instruction, ...]:
    """Instructions of the documents, each with where it stands."""
    fills: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    written: list[tuple[RouteName, str, str]] = []
    for where, document in documents:
        if not isinstance(document, dict) or set(document) - {"language", "route", "text", "fill"}:
            raise UsageError(
                f"{where}: a line is an object with route and text, or with fill, and perhaps language; got "
                f"{checks.shown(document)}"
            )
        language = _text(where, "language", document.get("language", ""), least=0)
        if "fill" in document:
            fill = document["fill"]
            if not isinstance(fill, dict) or not fill or "text" in document or "route" in document:
                raise UsageError(f"{where}: fill must be an object of names and texts, alone; got {checks.shown(fill)}")
            for name, value in fill.items():
                fills[language][name].append(_text(where, f"fill {name!r}", value))
        else:
            route = checks.choice(f"{where}: route", document.get("route"), ROUTES)
            written.append((route, _text(where, "text", document.get("text")), language))
    return tuple(
        Instruction(route, text, language, *_texts(text, fills[language], number))
        for number, (route, text, language) in enumerate(written)
    )


def _texts(template: str, fills: dict[str, list[str]], number: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    names = {name for name in _NAME.findall(template) if name in fills}
    if not names:
        return (template,), (-1,)
    most = min(len(fills[name]) for name in names)
    texts, things = [], []
    for turn in range(min(MOST_FILLED, most)):
        # Each template begins elsewhere in the list, so that no thing is met on one route more than on the other.
        first = number * MOST_FILLED + turn
        met = 0

        def fill(match: re.Match[str], first: int = first) -> str:
            nonlocal met
            if match[1] not in names:
                return match[0]
            some = fills[match[1]]
            met += 1
            return some[(first + (met - 1) * _APART) % len(some)]

        texts.append(_NAME.sub(fill, template))
        things.append(first % most)
    return tuple(texts), tuple(things)


def _text(where: str, name: str, value: object, *, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value.strip() if least else value) <= MOST_CHARACTERS:
        raise UsageError(
            f"{where}: {name} must be a text of at most {MOST_CHARACTERS:,} characters"
            f"{', and not empty' if least else ''}; got {checks.shown(value)}"
        )
    return value
