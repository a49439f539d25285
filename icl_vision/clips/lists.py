"""The list of a set of clips, ``clips.jsonl``: which files there are, of which part each is, and what it is called.

    for entry in read_list(data, "'emoji.tar'"):
        entry.file, entry.split, entry.name     # "clips/1f493.webp", "train", "beating heart"

A JSON object a line: ``file``, as it lies beside the list; ``split``, "train", "test" or another; ``name``. Whoever
learns and whoever measures read it here, by one rule: a clip that the list gives no split is of the training part.

Knows: lines, and where a set's list lies in a tar. Refuses to know: which parts there are, pixels, what a name is for.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from icl_vision.errors import UsageError
from icl_vision.files.reading import loads
from icl_vision.spelling import composed

LIST: Final = "clips.jsonl"
MOST_LIST: Final = 64 * 2**20
"""Bytes."""
TRAIN: Final = "train"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list. line: its number, from 1. file: a path inside the set, with "/". split: its part. name: what
    it is called, in composed characters and on one line; None where the list does not say."""

    line: int
    file: str
    split: str
    name: str | None


def read_list(data: bytes, where: str) -> list[Entry]:
    """The entries of a list, in its order; lines of blanks are none.

    where: the set, for messages.

    Raises:
        UsageError: a line that is none, a path that leads out of the set, a file that is of two parts.
    """
    entries: list[Entry] = []
    parts: dict[str, str] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        said = f"line {number} of {LIST} in {where}"
        try:
            values: Any = loads(line.decode("utf-8"))
        except ValueError as error:
            raise UsageError(f"{said} is not JSON: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get("file"), str):
            raise UsageError(f"{said} must be an object with a text 'file'; got {values!r:.200}")
        split, name = values.get("split", TRAIN), values.get("name")
        if not isinstance(split, str) or not isinstance(name, str | None):
            raise UsageError(f"{said}: 'split' and 'name' must be texts; got {values!r:.200}")
        path = PurePosixPath(values["file"])
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise UsageError(f"{said}: {values['file']!r} is no path inside the set")
        file = path.as_posix()
        if parts.setdefault(composed(file), split) != split:
            raise UsageError(f"{said}: {file!r} is of {split!r} here and of {parts[composed(file)]!r} before")
        entries.append(Entry(number, file, split, None if name is None else composed(" ".join(name.split()))))
    return entries


def member_of(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo | None:
    """The regular file of that name in a tar, which may have been packed as ``./NAME``; None where there is none."""
    for spelled in (name, f"./{name}"):
        try:
            member = archive.getmember(spelled)
        except KeyError:
            continue
        return member if member.isreg() and not member.issparse() else None
    return None
