"""Files that somebody handed us, read so that none of them can hang, flood or topple the reader.

    card = read_json(folder / "card.json", most=MOST_CARD)     # OSError or ValueError, whatever the file is

A pipe, device, socket or folder is refused instead of opened, a file larger than a cap is refused instead of read, and
JSON is refused where it nests so deep that walking it would end in a RecursionError, says a key twice, or holds numbers
that are none. Everything that can be wrong arrives as OSError (with ``strerror``) or ValueError, which every caller
turns into its own error, naming the file.

Knows: kinds of files, sizes, plain JSON and YAML. Refuses to know: what a file means.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_CARD: Final = 4 * 2**20
"""Bytes of a card, configuration or other file that people write."""
MOST_DOCUMENT: Final = 256 * 2**20
"""Bytes of a file that a task or a run wrote as one document."""
MOST_WEIGHTS: Final = 2**31
"""Bytes of a graph or of vectors: what one protobuf message can hold."""
MOST_ARRAYS: Final = 2**34
"""Bytes of arrays that are read into memory at once."""
MOST_DEPTH: Final = 64
"""Objects and lists inside one another."""
MOST_VALUES: Final = 100_000
"""Lists and mappings of a YAML file, where every alias counts as what it stands for."""

_OWN: Final = Path(__file__).parents[1] / "artefacts"


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, if the system can be asked about it. Raises OSError where a character in it makes that impossible."""
    text = os.fspath(path)
    if "\0" in text:
        raise OSError(errno.EINVAL, "its path holds a null character", text)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, "its path holds a character that no file's name can have", text) from None
    return Path(text)


def member(folder: Path, name: str) -> Path:
    """The path of a file that belongs to an artefact's folder, listed or not.

    Raises:
        OSError: it is a link that leads out of the folder. (Those of a hub's cache lead to its ``blobs`` folder and are
            followed; inside this package whatever the installer put there is.)
    """
    path = checked_path(folder / name)
    if folder.absolute().is_relative_to(_OWN):
        return path
    root, real = (Path(os.path.realpath(name)) for name in (folder, path))  # (Path.resolve raises where links go round)
    homes = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(real.is_relative_to(home) for home in homes):
        raise OSError(errno.EINVAL, "it is a link that leads out of its folder", str(path))
    return path


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], *, most: int) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading bytes.

    Args:
        path: the file; links are followed.
        most: the most bytes it may have.

    Raises:
        OSError: it is not there or cannot be read, is no regular file, or is larger; ``strerror`` says which.
    """
    place = checked_path(path)
    _check_regular(os.stat(place), place)
    # Between the look and the opening a pipe may have taken its place: without O_NONBLOCK opening it would wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(place, flags)
    try:
        status = os.fstat(handle)
        _check_regular(status, place)
        _check_size(status.st_size, most, place)
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    with file:
        yield file


def read_bytes(path: str | os.PathLike[str], *, most: int) -> bytes:
    """A regular file's bytes. Raises as ``opened``."""
    with opened(path, most=most) as file:
        data = file.read(most + 1) or b""
    _check_size(len(data), most, path)  # some files (of /proc, or still growing) hold more than they say
    return data


def read_text(path: str | os.PathLike[str], *, most: int) -> str:
    """A regular file's text, UTF-8, line ends as ``open`` reads them. Raises as ``opened``; UnicodeDecodeError."""
    return read_bytes(path, most=most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike[str], *, most: int = MOST_DOCUMENT, finite: bool = True) -> Any:
    """A regular file's JSON document. Raises as ``opened`` and ``loads``; UnicodeDecodeError."""
    return loads(read_text(path, most=most), finite=finite)


def read_yaml(path: str | os.PathLike[str], *, most: int = MOST_CARD) -> Any:
    """A regular file's YAML document. Raises as ``opened`` and ``load_yaml``; UnicodeDecodeError."""
    return load_yaml(read_text(path, most=most))


def read_arrays(path: str | os.PathLike[str], *names: str) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """The arrays of these names in an .npz file, as many as there are, and the names of all that it holds.

    Raises:
        OSError: as ``opened``.
        ValueError: no .npz file of plain arrays, damaged, or arrays of more than ``MOST_ARRAYS`` bytes together.
    """
    import zipfile
    import zlib

    import numpy as np

    with opened(path, most=MOST_ARRAYS) as handle:
        try:
            with zipfile.ZipFile(handle) as archive:
                sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
                if sum(sizes.get(name, 0) for name in names) > MOST_ARRAYS:
                    raise ValueError(f"its arrays have more than the {MOST_ARRAYS:,} bytes that are read into memory")
                arrays = {}
                for name in names:
                    if name in sizes:
                        with archive.open(f"{name}.npy") as stored:
                            arrays[name] = np.lib.format.read_array(stored, allow_pickle=False)
            return arrays, list(sizes)
        except (zipfile.BadZipFile, zlib.error, LookupError, EOFError, NotImplementedError, RuntimeError, MemoryError,
                struct.error, ArithmeticError, TypeError, SyntaxError) as error:  # fmt: skip
            raise ValueError(str(error) or type(error).__name__) from error


def loads(text: str | bytes, *, finite: bool = True) -> Any:
    """``json.loads`` for text from outside.

    finite: refuse NaN, Infinity and numbers beyond floats, which JSON has not but Python writes.

    Raises:
        ValueError: no JSON; a key said twice; such numbers; more than ``MOST_DEPTH`` levels.
    """
    constants: dict[str, Any] = {"parse_constant": _constant, "parse_float": _float} if finite else {}
    try:
        document = json.loads(text, object_pairs_hook=_object, **constants)
    except RecursionError:
        raise ValueError(_DEEP) from None
    check_depth(document)
    return document


def load_yaml(text: str) -> Any:
    """``yaml.safe_load`` for text from outside.

    Raises:
        ValueError: no YAML; more than ``MOST_DEPTH`` levels, or values that hold themselves; aliases that stand for
            more than ``MOST_VALUES`` values.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(_DEEP) from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:  # tags
        raise ValueError(str(error) or type(error).__name__) from error
    check_depth(document, most=MOST_VALUES)
    return document


def check_depth(document: object, *, most: int | None = None) -> None:
    """Raises ValueError where lists and objects nest deeper than ``MOST_DEPTH``, hold themselves, or are more than
    ``most`` when one that stands at many places (a YAML alias) counts at each."""
    level: dict[int, tuple[Any, int]] = {id(document): (document, 1)}  # by identity: each is walked once a level
    total = 0
    for _ in range(MOST_DEPTH + 1):
        inside: dict[int, tuple[Any, int]] = {}
        for node, times in level.values():
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
                if isinstance(child, dict | list):
                    before = inside[id(child)][1] if id(child) in inside else 0
                    inside[id(child)] = (child, before + times)
                    total += times
        if not inside:
            return
        if most is not None and total > most:
            raise ValueError(f"its aliases stand for more than {most:,} lists and mappings")
        level = inside
    raise ValueError(_DEEP)


_DEEP: Final = f"it nests more than {MOST_DEPTH} levels deep"


def _check_regular(status: os.stat_result, path: Path) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for test, name in _KINDS if test(mode)), "no regular file")
    raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


_KINDS: Final = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_size(size: int, most: int, path: str | os.PathLike[str]) -> None:
    if size > most:
        raise OSError(errno.EFBIG, f"it has more than the {most:,} bytes that such a file may have", os.fspath(path))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add gives None, which is false: the key is kept and looked for on
        raise ValueError(f"it says the key {twice[:80]!r} twice")
    return document


def _constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text[:40]}, which is too large")
    return value
