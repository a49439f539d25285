"""One tool of the MCP server: what a client reads of it, how its arguments are read, what one call may use and gives.

Knows: names, schemas, refusals in words for a model. Refuses to know: the SDK, pictures, and what any tool does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from icl_vision import checks
from icl_vision.errors import RequestRefusedError
from icl_vision.tasks.tools import shortened

if TYPE_CHECKING:
    from icl_vision.serving.pictures import Pictures

T = TypeVar("T")

_SHOWN = 80
"""Most characters of a refused value in a message: a model may have sent a megabyte."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a tool.

    name: what it is called. text: what it is, for the model. kind: its type in JSON. required: whether it must be
    given. choices: the texts that it may be; () for any. longest: most characters of a text. least, most: the range of
    a number. lines: whether a text may have more than one line (base64 often does).
    """

    name: str
    text: str
    kind: Literal["string", "integer"] = "string"
    required: bool = False
    choices: tuple[str, ...] = ()
    longest: int = 1000
    least: int = 1
    most: int = 2**31 - 1
    lines: bool = False

    def schema(self) -> dict[str, Any]:
        """As JSON Schema says it."""
        document: dict[str, Any] = {"type": self.kind, "description": self.text}
        if self.choices:
            document["enum"] = list(self.choices)
        elif self.kind == "string":
            document["maxLength"] = self.longest
        else:
            document |= {"minimum": self.least, "maximum": self.most}
        return document

    def read(self, value: Any) -> Any:
        """The value, checked. Raises RequestRefusedError."""
        if self.kind == "integer":
            # A model's JSON may say 5.0 where it means 5.
            whole = checks.as_whole(int(value) if isinstance(value, float) and value.is_integer() else value)
            if whole is None or not self.least <= whole <= self.most:
                raise RequestRefusedError(
                    f"{self.name} must be a whole number from {self.least:,} to {self.most:,}; got {shown(value)}"
                )
            return whole
        if not isinstance(value, str):
            raise RequestRefusedError(f"{self.name} must be a text; got {shown(value)}")
        if self.choices and value not in self.choices:
            raise RequestRefusedError(f"{self.name} must be one of {shortened(self.choices, 30)}; got {shown(value)}")
        if len(value) > self.longest:
            raise RequestRefusedError(f"{self.name} has {len(value):,} characters; at most {self.longest:,} are taken")
        if not value.strip() or (not self.lines and not value.isprintable()):
            raise RequestRefusedError(f"{self.name} must be one line of printable characters; got {shown(value)}")
        return value


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a call gives. text: for the model. data: the same for a program, as the tool's ``output`` says. picture:
    the bytes of a PNG file, where one was made."""

    text: str
    data: dict[str, Any]
    picture: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one call may use.

    pictures: what it may name as a picture, and the folders it may read. progress: told how far it is: (done, in all,
    in words); a coroutine function, cheap where the client did not ask for it.
    """

    pictures: Pictures
    progress: Callable[[float, float | None, str], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class McpTool:
    """One tool.

    name, title, description: for the client and its model. arguments: what it takes. output: the JSON Schema of its
    result's properties, all of them required. run: does it; what it raises of this library's errors becomes a tool
    error, a ``RequestRefusedError`` with its own text. writes: whether it writes files. names: the arguments that name
    a file or folder.
    """

    name: str
    title: str
    description: str
    arguments: tuple[Argument, ...]
    output: Mapping[str, Any]
    run: Callable[[Call, Mapping[str, Any]], Awaitable[Told]]
    writes: bool = False
    names: frozenset[str] = field(default=frozenset())

    def input_schema(self) -> dict[str, Any]:
        """What it takes, as JSON Schema."""
        return {
            "type": "object",
            "properties": {argument.name: argument.schema() for argument in self.arguments},
            "required": [argument.name for argument in self.arguments if argument.required],
            "additionalProperties": False,
        }

    def output_schema(self) -> dict[str, Any]:
        """What its result holds, as JSON Schema."""
        return {"type": "object", "properties": dict(self.output), "required": list(self.output)}

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, checked; those that were not given, or given as null, are left out.

        Raises:
            RequestRefusedError: one that is unknown, missing, or cannot be.
        """
        known = {argument.name: argument for argument in self.arguments}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise RequestRefusedError(f"{self.name} has no argument {shown(unknown[0])}; it takes {', '.join(known)}")
        missing = [name for name, one in known.items() if one.required and given.get(name) is None]
        if missing:
            raise RequestRefusedError(f"{self.name} needs the argument {missing[0]!r}: {known[missing[0]].text}")
        return {name: known[name].read(value) for name, value in given.items() if value is not None}


def shown(value: object) -> str:
    """A refused value as one short printable piece of a message."""
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str) else checks.shown(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
