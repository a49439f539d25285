"""What decides how somebody else's object behaves, as JSON: for the identity under which its answers are cached.

Knows: Python's kinds of objects, names of secrets (which are left out). Refuses to know: LLMs, where the JSON goes.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import json
import os
import re
import types
import urllib.parse
from collections.abc import Mapping
from typing import Any

from icl_vision.llms.redaction import without_secrets

# Names of what is a secret, or of what is made of one, by their words: "api_key" and "authToken", not "key_points".
_SECRET_NAME = re.compile(
    r"(?:key|secret|headers?|password|passwd|auth|authorization|credentials?|callbacks?|callback_manager|jwt)s?$|token$"
    r"|api_?key|access_?key|secret|password|(?:^|_)client(?!_name)",
    re.IGNORECASE,
)


def hides(name: str, value: object) -> bool:
    """Whether a field is left out: a secret, or a client that holds one."""
    if callable(getattr(value, "get_secret_value", None)):
        return True
    return _SECRET_NAME.search(name) is not None


_SECRET_QUERY = re.compile(r"key|token|secret|sig|auth|pass|cred|user", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s\"'<>]+@")


class Description:
    """What decides how an object behaves, as JSON: fields, attributes, what functions do; the same in every process.

    So deep and so many values; an object within itself is named where it comes again.

    ``opaque``: whether something among what was described shows nothing of itself but its kind (an iterator, an object
    that keeps all its state in private, whatever lies too deep): another that behaves differently would look the same.
    """

    DEPTH, MOST = 16, 20_000

    def __init__(self) -> None:
        self.opaque = False
        self._left = self.MOST
        self._open: set[int] = set()

    def of(self, value: Any, depth: int = DEPTH) -> Any:
        if value is None or (isinstance(value, int | float) and type(value).__module__ == "builtins"):
            return value
        if isinstance(value, str):
            return _without_secrets(value)
        self._left -= 1
        if id(value) in self._open or callable(getattr(value, "get_secret_value", None)):
            return type(value).__name__
        if not depth or self._left < 0:
            self.opaque = True
            return type(value).__name__
        self._open.add(id(value))
        try:
            return self._of_object(value, depth - 1)
        finally:
            self._open.discard(id(value))

    def _of_object(self, value: Any, depth: int) -> Any:
        if hasattr(type(value), "__next__"):
            self.opaque = True  # what it gives next depends on what it gave
            return type(value).__name__
        if isinstance(value, Mapping):
            return {str(name): self.of(part, depth) for name, part in value.items() if not hides(str(name), part)}
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.of(part, depth), sort_keys=True) for part in value)
        if isinstance(value, list | tuple):
            return [self.of(part, depth) for part in value]
        if isinstance(value, bytes | bytearray):
            return hashlib.sha256(value).hexdigest()
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, types.MethodType):
            return [self.of(value.__func__, depth), self.of(value.__self__, depth)]
        if isinstance(value, types.FunctionType):
            return self._of_function(value, depth)
        if isinstance(value, functools.partial):
            return [self.of(value.func, depth), self.of(value.args, depth), self.of(value.keywords, depth)]
        if hasattr(value, "__qualname__"):
            if not isinstance(getattr(value, "__self__", None), types.ModuleType | type | None):
                self.opaque = True  # a built-in method of some object: of which, it does not say
            return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
        if isinstance(value, types.CodeType):
            return self._of_code(value, depth)
        return self._of_attributes(value, depth)

    def _of_function(self, value: types.FunctionType, depth: int) -> Any:
        cells = []
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                cells.append(self.of(cell.cell_contents, depth))
        defaults = self.of([value.__defaults__, value.__kwdefaults__], depth)
        return [f"{value.__module__}.{value.__qualname__}", self._of_code(value.__code__, depth), defaults, cells]

    def _of_code(self, code: types.CodeType, depth: int) -> Any:
        return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), self.of(list(code.co_consts), depth)]

    def _of_attributes(self, value: Any, depth: int) -> Any:
        kind = type(value).__name__
        of_class = getattr(type(value), "model_fields", None) or getattr(type(value), "__dataclass_fields__", None)
        names = list(of_class or ())
        names += [name for name in getattr(value, "__dict__", ()) if not name.startswith("_")]
        for base in type(value).__mro__:
            slots = base.__dict__.get("__slots__", ())
            names += [field for field in ([slots] if isinstance(slots, str) else slots) if not field.startswith("_")]
        fields = {}
        for name in dict.fromkeys(names):
            field = getattr(value, name, None)
            if not hides(name, field):
                fields[name] = self.of(field, depth)
        if fields:
            return {kind: fields}
        data = getattr(value, "tobytes", None)  # arrays, whose repr leaves most of them out
        with contextlib.suppress(Exception):
            if callable(data):
                return [kind, hashlib.sha256(data()).hexdigest(), str(getattr(value, "dtype", ""))]
            shown = repr(value)  # dates, patterns, numbers of other kinds
            if not re.search(r"\bat 0x|\bobject at\b", shown):
                return [kind, _without_secrets(shown)]
        self.opaque = self.opaque or not _is_empty(value)
        return kind


def _is_empty(value: object) -> bool:
    """Whether an object holds nothing at all, so that its class says everything."""
    if any(base.__dict__.get("__slots__") for base in type(value).__mro__):
        return False
    room = object.__basicsize__ + 2 * tuple.__itemsize__  # for attributes and weak references, which most classes have
    return not getattr(value, "__dict__", None) and type(value).__basicsize__ <= room


def _without_secrets(text: str) -> str:
    """A text without users and passwords of addresses in it, and without what an address's query calls a key."""
    if "://" not in text:
        return text
    if any(character.isspace() for character in text):
        return _USER.sub("", text)
    try:
        parts = urllib.parse.urlsplit(text)
        pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return without_secrets(text)
    kept = [[name, argument] for name, argument in pairs if not _SECRET_QUERY.search(name)]
    plain = without_secrets(text)
    return json.dumps([plain, kept, parts.fragment]) if kept or parts.fragment else plain
