"""Which files of a folder are pictures, and what of it is left out, so that nothing is left out silently.

    photos = survey("photos")
    photos.images                   # sorted by path
    photos.tell()                   # one DataLeftOutWarning that counts and names what was passed over, if anything was

Knows: suffixes, signatures, hidden files, links. Refuses to know: pixels, labels, what the pictures are for.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from icl_vision.errors import DataLeftOutWarning, ImageNotFoundError
from icl_vision.spelling import by_name

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .jfi .mpo .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .pfm".split()
)
"""Suffixes (lower case) of the files that are taken for images."""

_OTHER_PICTURES: Final = frozenset(
    ".heic .heif .avif .jxl .jp2 .j2k .jpx .ico .cur .tga .icb .vda .psd .psb .svg .dng .cr2 .cr3 .nef .arw .orf .raf "
    ".rw2 .exr .hdr .pcx .sgi .dds .xbm .xpm .eps .dib .dcm".split()
)
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")
_SIGNATURES: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\0\0|II[*+]\0|MM\0[*+]", re.DOTALL
)
_NAMED: Final = 3

HIDDEN, LINKED, OTHERS = "hidden pictures", "linked folders", "pictures of other formats"
BARE, ARCHIVES = "pictures without a suffix", "archives"
LOOSE, DEEPER, EMPTY = "pictures beside the class folders", "pictures in deeper folders", "class folders without images"


@dataclass
class Survey:
    """What is in a place. images: the picture files, sorted by path. left_out: why -> the names passed over."""

    place: Path
    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, why: str, name: str | Path) -> None:
        """Count something that is passed over."""
        self.left_out.setdefault(why, []).append(os.fspath(name))

    def add(self, other: Survey) -> None:
        """Take another place's images and what was left out there."""
        self.images += other.images
        for why, names in other.left_out.items():
            self.left_out.setdefault(why, []).extend(names)

    def summary(self) -> str:
        """What was left out, counted and named: ``linked folders: 2 ('a', 'b')``; "" for nothing."""
        parts = []
        for why, names in self.left_out.items():
            shown = ", ".join(repr(name) for name in sorted(names)[:_NAMED])
            parts.append(f"{why}: {len(names):,} ({shown}{', ...' if len(names) > _NAMED else ''})")
        return "; ".join(parts)

    def tell(self, *, stacklevel: int = 2) -> None:
        """Warn once of what was left out. Hidden files are left out on purpose: alone they are only logged."""
        if not self.left_out:
            return
        message = f"left out of {str(self.place)!r}: {self.summary()}"
        if set(self.left_out) == {HIDDEN}:
            logger.warning("%s", message)
        else:
            warnings.warn(DataLeftOutWarning(message), stacklevel=stacklevel + 1)


def walked(root: Path, of: str) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and its subfolders, as ``os.walk`` gives them: names may be taken out of the second list.

    Raises:
        ImageNotFoundError: not a folder (of: what it should hold, for the message), or not readable.
    """
    if not os.path.isdir(root):
        raise ImageNotFoundError(f"{str(root)!r} is not a folder; pass a folder of {of}")

    def refuse(error: OSError) -> None:
        raise ImageNotFoundError(f"the folder {str(error.filename)!r} cannot be read: {error.strerror}") from error

    for place, folders, files in os.walk(root, onerror=refuse):
        yield Path(place), folders, files


def survey(folder: str | os.PathLike[str], *, deep: bool = True) -> Survey:
    """The picture files of a folder, by suffix, and what else in it may have been meant.

    Args:
        folder: hidden files and folders in it are left out, links to files are taken, links to folders are not.
        deep: search its subfolders too; else pictures there count as left out.

    Raises:
        ImageNotFoundError: not a folder, or not readable.
    """
    root = Path(folder)
    result = Survey(root)
    for top, folders, files in walked(root, "images"):
        linked = [name for name in folders if not name.startswith(".") and os.path.islink(top / name)]
        for name in linked:
            result.leave_out(LINKED, (top / name).relative_to(root))
        folders[:] = [name for name in folders if not name.startswith(".") and name not in linked]
        for name in files:
            path = top / name
            why = _why_left_out(path)
            if why is None and not deep and top != root:
                why = DEEPER
            if why is None:
                result.images.append(path)
            elif why:
                result.leave_out(why, path.relative_to(root))
    result.images.sort(key=by_name)
    return result


def loose(folder: Path) -> Survey:
    """What lies beside the class folders of a folder and is a picture: left out, since it has no class."""
    result = Survey(folder)
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_picture(path.name) and not path.name.startswith("."):
            result.leave_out(LOOSE, path.name)
    return result


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder and its subfolders, by suffix, sorted by path; hidden files and folders left out.

    What may have been meant too (linked folders, archives, pictures of other formats or without a suffix) is counted
    and named in one ``DataLeftOutWarning``.

    Raises:
        ImageNotFoundError: not a folder, or not readable.
    """
    result = survey(folder)
    result.tell(stacklevel=2)
    return result.images


def is_picture(name: str) -> bool:
    """Whether a file of this name, hidden or not, is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def named_otherwise(name: str) -> str:
    """Why a file whose name is not that of an image may have been meant all the same; "" where it may not."""
    if os.path.splitext(name)[1].lower() in _OTHER_PICTURES:
        return OTHERS
    return ARCHIVES if name.lower().endswith(_ARCHIVES) else ""


def _why_left_out(path: Path) -> str | None:
    """Why a file is passed over, "" where nobody would have meant it; None for one that is taken."""
    name = path.name
    if name.startswith("."):
        # "._NAME" is what macOS keeps beside NAME on foreign disks: no picture.
        return HIDDEN if is_picture(name) and not name.startswith("._") else ""
    if is_picture(name):
        return None
    return named_otherwise(name) or (BARE if not path.suffix and _begins_like_one(path) else "")


def _begins_like_one(path: Path) -> bool:
    from icl_vision.files.reading import opened

    try:
        with opened(path, most=2**63) as handle:
            return _SIGNATURES.match(handle.read(16) or b"") is not None
    except OSError:
        return False
