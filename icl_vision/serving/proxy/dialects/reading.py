"""What dialects have in common: turns of a conversation, pictures in them, parts that are refused.

Knows: lists of parts with a type. Refuses to know: any one API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.proxy.spans import Edit, Extend, Path, Suffix

Role = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a request.

    path: of the value that a text is put in place of. reference: a URL, or base64 where ``plain``. wrap: from the text
    to the value that stands there then.
    """

    path: Path
    reference: object
    wrap: Callable[[str], Any]
    plain: bool = False

    @property
    def where(self) -> str:
        """What it is called in a message: ``messages[0].content[1]``."""
        return named(self.path)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says.

    asks: the text of a user's turn, "" for none and for the other sides. add: how more text is put at its end; None
    where there is no place for it.
    """

    role: Role
    asks: str = ""
    pictures: tuple[Picture, ...] = ()
    add: Callable[[str], Edit] | None = None


class Dialect(Protocol):
    """A module of this folder."""

    def turns(self, document: Mapping[str, Any]) -> list[Turn]:
        """The conversation in a request.

        Raises:
            RequestRefusedError: a part that can neither go on as it is nor become words.
        """
        ...

    def answered(self, document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> dict[str, Any]:
        """An answer to the request. tokens: of the question and of the answer."""
        ...

    def streamed(self, document: Mapping[str, Any], text: str, tokens: tuple[int, int]) -> Iterator[tuple[str, Any]]:
        """The same as events: (name or "", data)."""
        ...


def named(path: Path) -> str:
    """A path as programs write it: ``messages[0].content[1]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def objects(value: object, path: Path) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """The objects in a list, with their paths; whatever else it is, nothing: that is the LLM's to refuse."""
    if isinstance(value, list):
        for place, entry in enumerate(value):
            if isinstance(entry, dict):
                yield entry, (*path, place)


def hidden(value: object, path: Path) -> None:
    """Look through a value of a kind that is not known here, at any depth.

    Raises:
        RequestRefusedError: there is a part in it that says of itself that it is a picture or a document.
    """
    left: list[tuple[object, Path]] = [(value, path)]  # (a list, since a body may be deeper than calls can be)
    while left:
        inner, at = left.pop()
        if isinstance(inner, dict):
            if inner is not value and is_visual(inner.get("type")):
                raise refused(at, f"a part of the type {inner['type'][:40]!r}", SEND_IT)
            left += [(entry, (*at, name)) for name, entry in inner.items() if isinstance(entry, (dict, list))]
        elif isinstance(inner, list):
            left += [(entry, (*at, place)) for place, entry in enumerate(inner) if isinstance(entry, (dict, list))]


def is_visual(kind: object) -> bool:
    """Whether a part's type is one of pictures, or of documents that may hold some."""
    return isinstance(kind, str) and _VISUAL.search(kind) is not None


_VISUAL = re.compile(r"image|picture|photo|screenshot|document|pdf|(?:^|_)file$", re.IGNORECASE)


def text_of(part: Mapping[str, Any], *kinds: str) -> str:
    """The text of a part of one of these types, or ""."""
    text = part.get("text")
    return text if part.get("type") in kinds and isinstance(text, str) else ""


def suffix(path: Path) -> Callable[[str], Edit]:
    """More text at the end of the string at ``path``, as a paragraph of its own."""
    return lambda text: Suffix(path, f"\n\n{text}")


def extend(path: Path, wrap: Callable[[str], Any]) -> Callable[[str], Edit]:
    """More text as another part of the list at ``path``."""
    return lambda text: Extend(path, wrap(text))


def refused(path: Path, what: str, instead: str) -> RequestRefusedError:
    """The error that names a part."""
    return RequestRefusedError(f"{named(path)} is {what}, which cannot become words here; {instead}", 400)


SEND_IT = "send the picture itself, as data:image/...;base64,..."
NO_FILES = "send its text, or its pages as pictures"


def refuse_in_system(path: Path) -> RequestRefusedError:
    """Of a picture where instructions stand."""
    return refused(
        path,
        "a picture in a system message",
        "text that stands in it would stand where instructions do: put it into a user message",
    )


def is_data_picture(value: object) -> bool:
    """Whether a file that a client sends along says of itself that it is a picture."""
    return isinstance(value, str) and value[:11].lower() == "data:image/"
