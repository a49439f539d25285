"""Plain values (from YAML or JSON) become typed, frozen dataclasses, and back; nothing is guessed.

    @dataclass(frozen=True)
    class Config:
        steps: int = 1000

        def __post_init__(self):
            check_fields(self)  # the same in Python as out of a file
            count("steps", self.steps)  # ranges, and what must fit together

    from_plain(Config, {"steps": 5})

Knows: the types our configurations are made of. Refuses to know: any one configuration, files and their formats.

An unknown key, a value of another type or a choice outside a list is an error that names the key by its full path, what
would be allowed, and the nearest name.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from icl_vision.checks import as_whole
from icl_vision.errors import UsageError

C = TypeVar("C")


def from_plain(kind: type[C], document: object, where: str = "") -> C:
    """A dataclass of ``kind`` from a mapping; keys left out take their defaults.

    where: the mapping's own path, for messages.

    Raises UsageError naming the key that is wrong and what it may be.
    """
    if not isinstance(document, Mapping):
        raise UsageError(f"{where or 'the configuration'} must be a mapping of keys to values; got {document!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # every kind given is a dataclass
    for key in document:
        if key not in fields:
            raise UsageError(_unknown(f"{where}.{key}" if where else str(key), str(key), list(fields)))
    hints = get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{where}.{key}" if where else key) for key, value in document.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where or 'the configuration'} lacks {', '.join(missing)}")
    try:
        return kind(**values)
    except UsageError:
        raise
    except ValueError as error:  # a value object of another module, such as PyramidLayout
        raise UsageError(f"{where or 'the configuration'}: {error}") from error


def check_fields(config: Any) -> None:
    """Every field of a configuration is of its type, as if it had been read from a file: for its ``__post_init__``.

    Lists become tuples and whole numbers numbers where a field is of these.

    Raises UsageError naming the field that is wrong and what it may be.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        object.__setattr__(config, field.name, _value(hints[field.name], value, field.name, text=False))


def to_plain(value: Any) -> Any:
    """The mapping, list or scalar that ``from_plain`` would read again; JSON-ready."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return value


def _unknown(path: str, key: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown key {path!r}{hint}; allowed are {', '.join(allowed)}"


def _value(hint: Any, value: Any, where: str, *, text: bool = True) -> Any:
    """``value`` as the type that ``hint`` says. text: read numbers out of texts, as YAML needs it."""
    origin, choices = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        # A list is in no tuple of texts, but asking so of an array would not give a truth value.
        if (
            not isinstance(value, str | int | None)
            or value not in choices
            or isinstance(value, bool) not in {isinstance(choice, bool) for choice in choices}
        ):
            near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
            raise UsageError(
                f"{where} must be one of {', '.join(map(str, choices))}; got {value!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
            )
        return value
    if origin in (Union, types.UnionType):
        return _one_of(choices, value, where, text)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a mapping of keys to values; got {value!r}")
        return {
            _value(choices[0], key, where, text=text): _value(choices[1], entry, f"{where}.{key}", text=text)
            for key, entry in value.items()
        }
    if origin is tuple:
        return _tuple(choices, value, where, text)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value, where)  # type: ignore[arg-type]  # is_dataclass is true of an instance too; a hint is none
    if hint is float:
        if text and isinstance(value, str):  # YAML reads 1e-4, without a point, as text
            try:
                value = float(value)
            except ValueError:
                pass
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise UsageError(f"{where} must be a number; got {value!r}")
    if hint is int:
        if (whole := as_whole(value)) is not None:
            return whole
        raise UsageError(f"{where} must be a whole number; got {value!r}")
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise UsageError(f"{where} must be true or false; got {value!r}")
    if hint is str:
        if isinstance(value, str):
            return value
        raise UsageError(f"{where} must be text; got {value!r}")
    if hint is types.NoneType:
        if value is None:
            return None
        raise UsageError(f"{where} must be null; got {value!r}")
    raise TypeError(f"{where}: no rule for values of type {hint!r}")


def _one_of(choices: tuple[Any, ...], value: Any, where: str, text: bool) -> Any:
    """The first type that takes the value; null first, so that an error speaks of the other type."""
    if value is None and types.NoneType in choices:
        return None
    rest = [choice for choice in choices if choice is not types.NoneType]
    for choice in rest[:-1]:
        try:
            return _value(choice, value, where, text=text)
        except UsageError:
            continue
    return _value(rest[-1], value, where, text=text)


def _tuple(choices: tuple[Any, ...], value: Any, where: str, text: bool) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} must be a list; got {value!r}")
    if len(choices) == 2 and choices[1] is Ellipsis:
        return tuple(_value(choices[0], entry, f"{where}[{number}]", text=text) for number, entry in enumerate(value))
    if len(value) != len(choices):
        raise UsageError(f"{where} must be a list of {len(choices)}; got {value!r}")
    pairs = zip(choices, value, strict=True)
    return tuple(_value(hint, entry, f"{where}[{number}]", text=text) for number, (hint, entry) in enumerate(pairs))
