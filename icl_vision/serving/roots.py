"""Files under folders that were named beforehand, and no others.

    roots = Roots(["photos"])
    roots.read("cats/1.jpg", most=10_000_000)      # bytes, or None: not there, or not to be read

A name comes from a client, or from a language model that repeats what a web page told it. It is resolved first, links
and ".." followed, and what comes out must lie under a root; then it is opened part by part from the root on without
following anything, so that a link put there in between leads nowhere.

Knows: folders, names, opening. Refuses to know: what a file holds, and why it was not read: the answer is None.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from icl_vision.errors import UsageError
from icl_vision.files.reading import checked_path

MOST_NAME = 4096
"""Characters of a name; a longer one is refused unread."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HERE = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)


class Roots:
    """Folders under which files may be named; false where there are none.

    Raises:
        UsageError: one that is no folder.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]] = ()) -> None:
        self.folders: tuple[Path, ...] = tuple(_folder(folder) for folder in folders)

    def __bool__(self) -> bool:
        return bool(self.folders)

    def __repr__(self) -> str:
        return f"Roots({', '.join(map(str, self.folders)) or 'none'})"

    def narrowed(self, folders: Iterable[str | os.PathLike[str]]) -> Roots:
        """Those places that lie under these roots and under some of ``folders`` too; never more than these.

        folders: as a client names them; one that is none counts for nothing.
        """
        kept: dict[Path, None] = {}
        for name in folders:
            with contextlib.suppress(UsageError):
                asked = _folder(name)
                for own in self.folders:
                    if asked.is_relative_to(own):
                        kept[asked] = None
                    elif own.is_relative_to(asked):
                        kept[own] = None
        narrow = Roots()
        narrow.folders = tuple(kept)
        return narrow

    def read(self, name: str, most: int) -> bytes | None:
        """The file's bytes; ``most`` + 1 of them where it has more; None where it is not there or may not be read."""
        if not name or len(name) > MOST_NAME or "\0" in name:
            return None
        for root in self.folders:
            try:
                real = Path(os.path.realpath(checked_path(root / name), strict=True))
                if real != root and real.is_relative_to(root):
                    return _read(root, real.relative_to(root).parts, most)
            except (OSError, ValueError):
                continue
        return None


def _folder(name: str | os.PathLike[str]) -> Path:
    try:
        path = Path(os.path.realpath(checked_path(Path(name).expanduser()), strict=True))
        if path.is_dir():
            return path
    except (OSError, ValueError, RuntimeError):
        pass
    raise UsageError(f"a root must be a folder that exists; got {os.fspath(name)!r}")


def _read(root: Path, parts: tuple[str, ...], most: int) -> bytes | None:
    """A regular file's bytes, opened from the root on, one part after the other, no link followed."""
    if os.open not in os.supports_dir_fd:  # Windows: what was resolved is opened in one step
        return _content(os.open(root.joinpath(*parts), _FLAGS), most)
    folder = os.open(root, os.O_RDONLY | _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | _FOLDER | _HERE, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _content(os.open(parts[-1], _FLAGS | _HERE, dir_fd=folder), most)
    finally:
        os.close(folder)


def _content(handle: int, most: int) -> bytes | None:
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # reading a pipe or a device may never end
            return None
        return file.read(most + 1)
