"""The files of a data set: a folder, or a tar archive that is read where it lies and never unpacked to disk.

Knows: names inside and caps. Refuses to know: what a file means.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from icl_vision.errors import UsageError
from icl_vision.files.reading import MOST_DOCUMENT, loads, opened, read_bytes
from icl_vision.images import MAX_BYTES

MOST_ARCHIVE: Final = 2**30
"""Bytes of an archive, and of all its files together once unpacked."""
MOST_FILES: Final = 200_000
"""Files of an archive."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The files of a data set by their names, with forward slashes.

    path: the folder or archive. packed: name -> bytes of an archive's files; None for a folder.
    """

    path: Path
    packed: Mapping[str, bytes] | None = field(default=None, repr=False)

    def has(self, name: str) -> bool:
        """Whether it holds such a file."""
        return name in self.packed if self.packed is not None else os.path.isfile(self.path / name)

    def read(self, name: str, *, most: int = MOST_DOCUMENT) -> bytes:
        """A file's bytes.

        Raises:
            UsageError: no such file, not readable, or larger than ``most``.
        """
        if self.packed is None:
            try:
                return read_bytes(self.path / name, most=most)
            except OSError as error:
                raise UsageError(f"{name!r} of {str(self.path)!r} cannot be read: {error.strerror}") from error
        if name not in self.packed:
            raise UsageError(f"{str(self.path)!r} holds no {name!r}")
        if len(self.packed[name]) > most:
            raise UsageError(f"{name!r} in {str(self.path)!r} has more than the {most:,} bytes it may have")
        return self.packed[name]

    def json(self, name: str, *, most: int = MOST_DOCUMENT) -> Any:
        """A file's JSON document. Raises UsageError: as ``read``, or no JSON."""
        try:
            return loads(self.read(name, most=most).decode("utf-8"))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{name!r} of {str(self.path)!r} is no usable JSON: {error}") from error

    def lines(self, name: str) -> list[tuple[int, Any]]:
        """A file of JSON lines: (number from 1, document). Raises UsageError: as ``read``, or a line is no JSON."""
        rows = []
        try:
            text = self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{name!r} of {str(self.path)!r} is no UTF-8 text: {error}") from error
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    rows.append((number, loads(line)))
                except ValueError as error:
                    raise UsageError(
                        f"{name!r} of {str(self.path)!r}, line {number}: no usable JSON: {error}"
                    ) from error
        return rows

    def picture(self, name: str) -> Path | bytes:
        """What ``images.load_image`` takes for a file of that name.

        Raises:
            UsageError: a name that leads outside, or no such file.
        """
        clean = clean_name(name, self.path)
        if self.packed is not None:
            return self.read(clean, most=MAX_BYTES)
        place = self.path / clean
        if not place.resolve().is_relative_to(self.path.resolve()):
            raise UsageError(f"the picture {name!r} of {str(self.path)!r} is a link that leads outside of it")
        if not os.path.isfile(place):
            raise UsageError(f"{str(self.path)!r} names the picture {name!r}, which is no file there")
        return place


def holding(source: str | Path) -> Holding:
    """A folder, or a tar archive (also one packed with gzip, bzip2 or xz).

    Raises:
        UsageError: neither; or an archive with too many or too large files, links, or names that lead outside of it.
    """
    path = Path(source)
    if os.path.isdir(path):
        return Holding(path)
    packed: dict[str, bytes] = {}
    total = 0
    try:
        with opened(path, most=MOST_ARCHIVE) as file, tarfile.open(fileobj=file, mode="r:*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = clean_name(member.name, path)
                total += member.size
                if len(packed) >= MOST_FILES or total > MOST_ARCHIVE:
                    raise UsageError(
                        f"{str(path)!r} holds more than {MOST_FILES:,} files or {MOST_ARCHIVE:,} bytes: unpack what "
                        "you need of it and give the folder"
                    )
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    raise UsageError(f"{str(path)!r} holds {name!r}, which is a link or a device and no file")
                packed[name] = content.read()
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{str(path)!r} is neither a folder nor a tar archive that can be read: {why}") from error
    return Holding(path, packed)


def clean_name(name: str, inside: Path) -> str:
    """A name inside a data set, with forward slashes.

    Raises:
        UsageError: it is absolute, climbs with "..", or has a colon, a backslash or a null character.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or any(sign in name for sign in ":\\\0"):
        raise UsageError(f"{str(inside)!r} names {name!r:.200}, which leads outside of it")
    return str(parts)
