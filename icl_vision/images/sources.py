"""The bytes of whatever a user names: a path, a buffer, a binary file object; read with suspicion, never fetched.

Knows: kinds of sources, sizes, URLs, and how each is called in a message. Refuses to know: what the bytes are.

Only ``ImageError`` and its subclasses leave this module.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from icl_vision.errors import ImageEmptyError, ImageError, ImageFormatError, ImageNotFoundError, ImageTooLargeError

_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/|(data):", re.IGNORECASE)


def holds_bytes(source: object) -> bool:
    """Whether ``read_source`` takes it: a path, a buffer, or something with a ``read``."""
    named = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)
    return named or callable(getattr(source, "read", None))


def read_source(source: Any, max_bytes: int, what: str = "image") -> tuple[bytes, str]:
    """The bytes, and what to call their source in a message.

    Args:
        source: a path; bytes; a binary file object (read from its start where it can seek, its position restored,
            never closed).
        max_bytes: refuse more; checked before a file is read.
        what: "image" or "clip", for messages.

    Raises:
        ImageNotFoundError: no such file, a folder, not readable, or a URL.
        ImageEmptyError: zero bytes.
        ImageTooLargeError: more bytes than allowed.
        ImageFormatError: a file object that reads text.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        label = f"the {what} buffer"
        check_bytes(label, source.nbytes if isinstance(source, memoryview) else len(source), max_bytes)
        return bytes(source), label
    if isinstance(source, str | os.PathLike):
        return _from_path(source, max_bytes, what)
    return _from_file(source, max_bytes)


def checked_path(source: str | os.PathLike[str], what: str = "image") -> str:
    """A path as text.

    Raises:
        ImageNotFoundError: it is empty, or a URL.
    """
    path = os.fsdecode(source)
    if not path:
        raise ImageNotFoundError(f"the {what} path is an empty string; pass the path of {_a(what)} file")
    if scheme := _SCHEME.match(path):
        shown = repr(path) if len(path) <= 80 else repr(path[:77] + "...")
        advice = f"download the {what} first and pass its path or bytes"
        if scheme[1] == "file":
            advice = "pass the path without the scheme"
        raise ImageNotFoundError(f"{shown} is a URL and no URL is ever fetched; {advice}")
    return path


def check_bytes(label: str, size: int, max_bytes: int) -> None:
    """Refuse none, and more than the cap.

    Raises:
        ImageEmptyError, ImageTooLargeError.
    """
    if size == 0:
        raise ImageEmptyError(f"{label} is empty (0 bytes)")
    if size > max_bytes:
        raise ImageTooLargeError(
            f"{label} has more bytes than the cap of {max_bytes:,}; make it smaller or pass a larger max_bytes"
        )


def _a(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def _from_path(source: str | os.PathLike[str], max_bytes: int, what: str) -> tuple[bytes, str]:
    path = checked_path(source, what)
    label = repr(path)
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            raise ImageNotFoundError(
                f"{label} is a folder, not {_a(what)} file; {what}s.list_{what}s finds those in it"
            )
        if not stat.S_ISREG(kind):  # opening a pipe or a device may never return
            raise ImageNotFoundError(f"{label} is not a regular file (a pipe, socket or device); pass {_a(what)} file")
        with Path(path).open("rb") as handle:
            check_bytes(label, os.fstat(handle.fileno()).st_size, max_bytes)
            data = handle.read(max_bytes + 1)
    except ImageError:  # some are FileNotFoundErrors and all are ValueErrors
        raise
    except FileNotFoundError:
        place = "" if Path(path).is_absolute() else f" (relative to {str(Path.cwd())!r})"
        raise ImageNotFoundError(f"there is no file {label}{place}; check the path") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a null character in it ...
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageNotFoundError(f"the file {label} cannot be read: {reason}") from error
    check_bytes(label, len(data), max_bytes)
    return data, label


def _from_file(source: Any, max_bytes: int) -> tuple[bytes, str]:
    name = getattr(source, "name", None)
    label = f"the file object {name!r}" if isinstance(name, str) else f"the {type(source).__name__}"
    position: int | None = None
    chunks: list[bytes] = []
    size = 0
    try:
        seekable = getattr(source, "seekable", None)
        if callable(seekable) and seekable():
            position = source.tell()
            source.seek(0)
        try:
            # A raw file may give less than it is asked for, so it is read to its end.
            while size <= max_bytes and (chunk := source.read(max_bytes + 1 - size)):
                if not isinstance(chunk, bytes | bytearray | memoryview):
                    got = type(chunk).__name__
                    raise ImageFormatError(f"{label} reads {got}, not bytes; open it in binary mode ('rb')")
                chunks.append(bytes(chunk))
                size += len(chunks[-1])
        finally:
            if position is not None:
                source.seek(position)
    except ImageError:
        raise
    except Exception as error:  # a user's object may raise anything
        raise ImageNotFoundError(f"{label} cannot be read: {str(error) or type(error).__name__}") from error
    check_bytes(label, size, max_bytes)
    return b"".join(chunks), label
