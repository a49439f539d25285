"""Which files of a folder are clips, and which are the frames of one.

Knows: suffixes, and that frame 10 comes after frame 9. Refuses to know: pixels, how files are read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Final

from icl_vision.errors import ClipError, ImageEmptyError, ImageNotFoundError
from icl_vision.images.folders import survey
from icl_vision.spelling import by_name, composed

logger = logging.getLogger(__name__)

CLIP_SUFFIXES: Final = frozenset(".gif .webp .png .apng .mp4 .m4v .mov .webm .mkv .avi .ogv .ogg".split())
"""Suffixes (lower case) of the files that are taken for clips."""

_DIGITS: Final = re.compile(r"(\d+)")


def list_clips(folder: str | os.PathLike[str]) -> list[Path]:
    """The clips of a folder and its subfolders by suffix, sorted by path; hidden ones and linked folders are left out.

    A picture that does not move has such a suffix too (.png, .webp): what a file holds only ``load_clip`` finds out.

    Raises:
        ImageNotFoundError: not a folder, or not readable.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise ImageNotFoundError(f"{str(root)!r} is not a folder; pass a folder of clips")

    def refuse(error: OSError) -> None:
        raise ImageNotFoundError(f"the folder {str(error.filename)!r} cannot be read: {error.strerror}") from error

    found = []
    for place, folders, files in os.walk(root, onerror=refuse):
        top = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and not os.path.islink(top / name)]
        found += [top / name for name in files if not name.startswith(".") and is_clip(name)]
    return sorted(found, key=by_name)


def is_clip(name: str) -> bool:
    """Whether a file of this name is taken for a clip."""
    return os.path.splitext(name)[1].lower() in CLIP_SUFFIXES


def frames_of_folder(folder: Path) -> list[Path]:
    """The pictures right inside a folder, as the frames of one clip: by name, numbers by their value.

    Raises:
        ImageNotFoundError: it cannot be read.
        ImageEmptyError: it holds no pictures.
        ClipError: one of them moves itself: a folder of clips.
    """
    frames = sorted(survey(folder, deep=False).images, key=_by_number)
    if not frames:
        raise ImageEmptyError(f"the folder {str(folder)!r} holds no pictures to be the frames of a clip")
    for frame in frames:
        if is_clip(frame.name) and _moves(frame):
            raise ClipError(
                f"the folder {str(folder)!r} holds clips ({frame.name!r} moves) and is none itself; pass one of "
                "them, or clips.list_clips(folder)"
            )
    return frames


def _moves(path: Path) -> bool:
    from icl_vision.clips.animated import moves
    from icl_vision.files.reading import MOST_DOCUMENT, read_bytes
    from icl_vision.images.opening import format_of, opened

    try:
        data = read_bytes(path, most=MOST_DOCUMENT)
        kind = format_of(data)
        if kind is None:
            return False
        with contextlib.closing(opened(kind, data)) as image:
            return moves(image)
    except Exception as error:  # whatever is wrong with a frame is said where it is loaded
        logger.debug("%s cannot be looked into: %s", path, error)
        return False


def _by_number(path: Path) -> tuple[list[tuple[int, str]], Path]:
    """A key: digits count by their value, so that frame 10 comes after frame 9."""
    parts = _DIGITS.split(composed(path.name))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path
