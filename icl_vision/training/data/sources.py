"""Where training images come from: a folder, tar shards, or one npz file.

Knows: how each is listed, what an image of it is called, which class it belongs to. Refuses to know: batches, epochs.
Files of a user's folder are untrusted bytes and are read through ``images.load_image`` only.

Labels come from folder names (the folder an image lies in), or from the npz file; a source without classes has none.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.errors import ImageNotFoundError, ImageTooLargeError, UsageError
from icl_vision.files.reading import opened, read_arrays
from icl_vision.images import MAX_BYTES, load_image
from icl_vision.images.folders import ARCHIVES, HIDDEN, Survey, is_picture, named_otherwise, survey

WHOLE = 256 * 2**20
"""Bytes of a set whose images are hashed whole for its fingerprint; of larger sets parts of each."""
PIECE = 4096
"""Bytes of such a part."""


class ImageFiles(Protocol):
    """Images that are decoded when asked for. names: one each. labels: class of each, or None. fingerprint: of
    the names and contents (of large sets, of parts of each). by_size: of names and sizes, as version 0.1.0 had it."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[int] | None: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def by_size(self) -> str: ...

    def load(self, index: int) -> Image.Image:
        """One upright RGB image; raises ImageError where it cannot be used."""
        ...


@dataclass(frozen=True)
class ImageArray:
    """Images that lie in memory. pixels: uint8 [N, H, W] or [N, H, W, C]; labels: int64 [N] or None."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    classes: Sequence[str]
    fingerprint: str
    by_size: str = ""


@dataclass(frozen=True)
class Folder:
    """The images of a folder and its subfolders."""

    root: Path
    names: Sequence[str]
    labels: Sequence[int] | None
    classes: Sequence[str]
    fingerprint: str
    by_size: str = ""

    def load(self, index: int) -> Image.Image:
        """One image file."""
        return load_image(self.root / self.names[index])


@dataclass(frozen=True)
class Shards:
    """The images inside uncompressed tar files, each read where it lies, in any order.

    places: for each image the shard's number, the offset and the length of its bytes.
    """

    shards: Sequence[Path]
    places: Sequence[tuple[int, int, int]]
    names: Sequence[str]
    labels: Sequence[int] | None
    classes: Sequence[str]
    fingerprint: str
    by_size: str = ""

    def load(self, index: int) -> Image.Image:
        """One member."""
        shard, offset, length = self.places[index]
        if length > MAX_BYTES:
            raise ImageTooLargeError(f"{self.names[index]!r} has {length} bytes; the limit is {MAX_BYTES}")
        with self.shards[shard].open("rb") as handle:
            handle.seek(offset)
            return load_image(handle.read(length))


def open_source(path: Path, *, part: str = "train") -> Folder | Shards | ImageArray:
    """A folder of images, a folder of tar shards, one .tar, or one .npz.

    part: which arrays of an npz file: x_train, or x_test.

    Raises UsageError where there is nothing that can be trained on; the message says what was looked for.
    """
    if os.path.isdir(path):
        return _folder_or_shards(path)
    if not os.path.isfile(path):
        raise UsageError(f"there is no training data at {str(path)!r}; give a folder of images, a .tar or an .npz file")
    if path.suffix.lower() == ".npz":
        return _array(path, part)
    if path.suffix.lower() == ".tar":
        return _shards([path])
    raise UsageError(
        f"training data must be a folder of images, an uncompressed .tar or an .npz file; got {str(path)!r}"
    )


def _folder_or_shards(root: Path) -> Folder | Shards:
    """What a folder holds more of, pictures or shards; the others are told."""
    try:
        pictures = survey(root)
    except ImageNotFoundError as error:
        raise UsageError(str(error)) from error
    shards = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() == ".tar" and path.is_file() and not path.name.startswith(".")
    )
    if len(shards) > len(pictures.images):
        left = Survey(root, left_out={why: names for why, names in pictures.left_out.items() if why != ARCHIVES})
        for path in pictures.images:
            left.leave_out("pictures beside the shards", path.relative_to(root))
        for name in pictures.left_out.get(ARCHIVES, []):
            if root / name not in shards:
                left.leave_out(ARCHIVES, name)
        left.tell()
        return _shards(shards)
    if not pictures.images:
        there = f" (left out: {pictures.summary()})" if pictures.left_out else ""
        raise UsageError(f"the folder {str(root)!r} holds no file with an image's suffix and no .tar{there}")
    pictures.tell()
    names = [path.relative_to(root).as_posix() for path in pictures.images]
    labels, classes = _classes(names)
    sizes = [_size(path) for path in pictures.images]
    content = _content(names, sizes, pictures.images, [0] * len(names))
    return Folder(root, names, labels, classes, content, _fingerprint(names, sizes))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere: told, and replaced, when it is read
        return 0


def _shards(shards: list[Path]) -> Shards:
    places: list[tuple[int, int, int]] = []
    names: list[str] = []
    left = Survey(shards[0].parent)
    for number, shard in enumerate(shards):
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    name, shown = PurePosixPath(member.name).name, f"{shard.name}/{member.name}"
                    if not is_picture(name):
                        if member.isfile() and not name.startswith(".") and (why := named_otherwise(name)):
                            left.leave_out(why, shown)
                        continue
                    if name.startswith("."):
                        left.leave_out(HIDDEN, shown)
                    elif not member.isreg():
                        left.leave_out("links and other members that are no files", shown)
                    elif member.issparse():
                        left.leave_out("sparse members", shown)
                    else:
                        places.append((number, member.offset_data, member.size))
                        names.append(shown)
        except (OSError, tarfile.TarError) as error:
            raise UsageError(f"{str(shard)!r} cannot be read as an uncompressed tar: {error}") from error
    if not names:
        there = f" (left out: {left.summary()})" if left.left_out else ""
        raise UsageError(f"{', '.join(map(str, shards))}: no member with an image's suffix{there}")
    left.tell()
    # Without the shard's name: images at the top of a shard have no class.
    labels, classes = _classes([name.partition("/")[2] for name in names])
    sizes = [length for _, _, length in places]
    content = _content(names, sizes, [shards[number] for number, _, _ in places], [start for _, start, _ in places])
    return Shards(shards, places, names, labels, classes, content, _fingerprint(names, sizes))


def _array(path: Path, part: str) -> ImageArray:
    try:
        arrays, names = read_arrays(path, f"x_{part}", f"y_{part}")
        inside = ", ".join(names)
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as an npz file of arrays: {error}") from error
    pixels = arrays.get(f"x_{part}")
    if pixels is None:
        raise UsageError(f"{str(path)!r} must hold x_{part} (uint8 images) and may hold y_{part}; it holds {inside}")
    square = pixels.ndim in (3, 4) and pixels.shape[1] == pixels.shape[2] and pixels.shape[3:] in ((), (1,), (3,))
    if pixels.dtype != np.uint8 or not square or not len(pixels):
        raise UsageError(
            f"x_{part} of {str(path)!r} must be uint8 [N, S, S] or [N, S, S, 1 or 3]; got {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    labels = arrays.get(f"y_{part}")
    if labels is not None and (labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0):
        raise UsageError(
            f"y_{part} of {str(path)!r} must hold one class number, 0 or more, for each of the {len(pixels)} images; "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    classes = [] if labels is None else [str(number) for number in range(int(labels.max()) + 1)]
    fingerprint = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    return ImageArray(pixels, None if labels is None else labels.astype(np.int64), classes, fingerprint)


def _classes(names: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """The class of each image, named by the folder it lies in; none where some lie in no folder, or all in one."""
    folders = [PurePosixPath(name).parent.name for name in names]
    classes = sorted(set(folders))
    if "" in classes or len(classes) < 2:
        return None, []
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[folder] for folder in folders], classes


def _content(names: Sequence[str], sizes: Sequence[int], files: Sequence[Path], starts: Sequence[int]) -> str:
    """Of names, sizes and content: all of it where the set is small, else the ends and the middle of each image."""
    digest = hashlib.sha256()
    whole = sum(sizes) <= WHOLE
    for name, size, file, start in zip(names, sizes, files, starts, strict=True):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        parts = [(0, size)] if whole or size <= 3 * PIECE else [(0, PIECE), (size // 2, PIECE), (size - PIECE, PIECE)]
        try:
            with opened(file, most=2**63) as handle:
                for at, length in parts:
                    handle.seek(start + at)
                    digest.update(hashlib.sha256(handle.read(length) or b"").digest())
        except OSError as error:  # told, and replaced, when it is read
            digest.update(f"{error.errno}\n".encode())
    return digest.hexdigest()


def _fingerprint(names: Sequence[str], sizes: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
