"""Where our files live and how they are written so that a kill never leaves half a file.

Knows: the user cache folder, atomic writes, hashes. Refuses to know: what the files mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icl_vision.errors import StorageError
from icl_vision.reading import checked_path, opened


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

    A kill leaves at most a ``.tmp-`` file that no reader looks at. Raises OSError where it cannot be written.
    """
    checked_path(target)
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


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, document: Any) -> None:
    """Write a JSON file atomically, keys in the order given, two-space indent."""
    write_text(target, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def sha256_file(path: Path, *, most: int = 2**63) -> str:
    """Hex sha256 of a regular file's bytes, read in chunks. Raises OSError where it is none, or has more than ``most``
    bytes."""
    with opened(path, most=most) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
