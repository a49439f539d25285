"""Where our files live and how they are written so that a kill never leaves half a file.

Knows: the user cache folder, atomic writes, hashes. Refuses to know: what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icl_vision.errors import IclVisionError, StorageError, UnwritableError
from icl_vision.files.reading import checked_path, opened


def cache_dir() -> Path:
    """The user's cache folder for icl_vision, made if missing, readable by the user alone.

    ``ICL_VISION_CACHE`` overrides the platform's default place.
    """
    override = os.environ.get("ICL_VISION_CACHE")
    if override:
        path = Path(override).expanduser()
    else:
        import platformdirs

        path = Path(platformdirs.user_cache_dir("icl-vision", appauthor=False))
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"the cache folder {str(path)!r} cannot be made ({error.strerror}); set ICL_VISION_CACHE to a folder you "
            "can write"
        ) from error
    return path


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` to write to; moved over it when the block ends well, removed otherwise.

    A kill leaves at most a ``.tmp-`` file that no reader looks at. Raises UnwritableError (an OSError too) where it
    cannot be written.
    """
    with writing(target):
        checked_path(target)
        _refuse_devices(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".tmp-{target.name}-", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes 0600; a file the user asked for gets the ordinary mode.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Around writes to ``target``: where the system refuses one, an UnwritableError names the target and why.

    What goes wrong with another file meanwhile (one that is read from, say) is raised as it is.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, IclVisionError) or not _concerns(error.filename, target):
            raise
        raise unwritable(target, error) from error


def unwritable(target: Path, error: OSError) -> UnwritableError:
    """The error for a place that the system does not let us write to."""
    unwritable = UnwritableError(f"{str(target)!r} cannot be written: {error.strerror or error}")
    unwritable.errno, unwritable.strerror = error.errno, error.strerror
    return unwritable


def try_writing(target: Path, *, folder: bool) -> None:
    """Find out, before anything is paid for, whether a file (or files in a folder) can be written; leaves nothing.

    Args:
        target: the file, or the folder. What it lies in need not be there yet.
        folder: which of the two it is.

    Raises:
        UnwritableError: it cannot; the message says why.
    """
    below = target if folder else target.parent
    new: list[Path] = []
    with writing(target):
        checked_path(target)
        if not folder:
            _refuse_devices(target)
        try:
            for parent in reversed([below, *below.parents]):
                if not parent.is_dir():
                    if parent.exists():
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
                    parent.mkdir()
                    new.append(parent)
            with tempfile.TemporaryFile(prefix=".tmp-", dir=below, buffering=0) as handle:
                # A full disk still makes empty files.
                handle.write(bytes(_TRIED))
                os.fsync(handle.fileno())
        finally:
            for parent in reversed(new):
                with contextlib.suppress(OSError):  # somebody else put something there meanwhile
                    parent.rmdir()


_TRIED = 64 * 1024
"""Bytes that are written to find out whether a disk is full."""


def _refuse_devices(target: Path) -> None:
    """Moving a file over a pipe or a device would put it out of the world."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(target))


def _concerns(name: object, target: Path) -> bool:
    """Whether an error's file is the target, lies beside it or above it, or is none in particular."""
    if not isinstance(name, str | bytes):
        return True
    path, own = Path(os.path.abspath(os.fsdecode(name))), Path(os.path.abspath(target))
    return path.is_relative_to(own) or path.parent == own.parent or path in own.parents


@contextlib.contextmanager
def written(place: str | os.PathLike[str]) -> Iterator[None]:
    """Around writes that concern nothing but ``place``: whatever the system refuses is an UnwritableError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, IclVisionError):
            raise
        raise unwritable(Path(place), error) from error


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, document: Any) -> None:
    """Write a JSON file atomically, keys in the order given, two-space indent; see ``json_text`` for odd names."""
    write_text(target, json_text(document, indent=2) + "\n")


def readable(name: str | os.PathLike[str]) -> str:
    """A file's name as text: a name need not be valid Unicode, but JSON, pages and columns must be.

    Bytes that are no UTF-8 are written as ``\\xff``, so that different names stay different.
    """
    text = os.fspath(name)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters, which no file system gives
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(document: Any, **options: Any) -> str:
    """``json.dumps`` as text that can be written: characters as they are, names that are no Unicode as ``readable``."""
    text = json.dumps(document, ensure_ascii=False, **options)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(_readable_within(document), ensure_ascii=False, **options)
    return text


def _readable_within(document: Any) -> Any:
    if isinstance(document, str):
        return readable(document)
    if isinstance(document, dict):
        return {_readable_within(key): _readable_within(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_readable_within(value) for value in document]
    return document


def sha256_file(path: Path, *, most: int = 2**63) -> str:
    """Hex sha256 of a regular file's bytes, read in chunks. Raises OSError where it is none, or has more than ``most``
    bytes."""
    with opened(path, most=most) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
