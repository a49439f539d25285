"""A configuration's YAML: found by a shipped name or as a file, and changed by ``key=value``.

Knows: where shipped ones lie in a package, dotted keys. Refuses to know: any key's meaning, and which keys there are.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.files.reading import load_yaml, read_yaml


def shipped_in(package: str) -> list[str]:
    """Names of the configurations in a package's ``configs`` folder, sorted."""
    folder = importlib.resources.files(package) / "configs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def find_config(source: str | os.PathLike[str], package: str) -> Path:
    """The file that a shipped name or a path stands for. Raises UsageError: neither."""
    names = shipped_in(package)
    text = os.fspath(source)
    if text in names:
        return Path(str(importlib.resources.files(package) / "configs" / f"{text}.yaml"))
    path = Path(source)
    if os.path.isfile(path):
        return path
    near = difflib.get_close_matches(text, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(f"{text!r} is neither a shipped configuration{hint} nor a file; shipped are {', '.join(names)}")


def read_config(path: Path, *, empty: bool) -> dict[str, Any]:
    """The mapping in a file. empty: whether a file that says nothing is one. Raises UsageError: it holds none."""
    try:
        document = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration {str(path)!r} cannot be read as YAML: {error}") from error
    if document is None and empty:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"the configuration {str(path)!r} must be a mapping of keys to values; got {document!r}")
    return document


def override_config(document: dict[str, Any], override: str, example: str) -> None:
    """Change one key. override: ``KEY=VALUE``, a dotted key and a YAML value. example: one, for the message.

    Raises UsageError: it is none.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"an override must be KEY=VALUE with a dotted key, such as {example}; got {override!r}")
    try:
        value = load_yaml(text)
    except ValueError as error:
        raise UsageError(f"the value of {override!r} is not YAML: {error}") from error
    put(document, parts, value)


def put(document: dict[str, Any], parts: Sequence[str], value: object) -> None:
    """Set a nested key, making mappings on the way. Raises UsageError: a value stands where a mapping would."""
    inner = document
    for depth, part in enumerate(parts[:-1], start=1):
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{'.'.join(parts[:depth])} is a value, so {'.'.join(parts)!r} cannot be set inside it")
    inner[parts[-1]] = value


def named_in(document: object, key: str) -> object:
    """What a dotted key says; None where it says nothing."""
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
