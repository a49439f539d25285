"""Which files of a folder are clips, and which are the frames of one.

Knows: suffixes, and that frame 10 comes after frame 9. Refuses to know: pixels, how frames are decoded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image as PilImage

from icl_vision.clips.animated import has_frames
from icl_vision.errors import ClipError, ImageEmptyError, ImageError, ImageTruncatedError
from icl_vision.images.folders import Survey, is_picture, survey, walked
from icl_vision.images.opening import format_of, guarded
from icl_vision.spelling import by_name, composed

CLIP_SUFFIXES: Final = frozenset(".gif .webp .png .apng .mp4 .m4v .mov .webm .mkv .avi .ogv .ogg".split())
"""Suffixes (lower case) of the files that are taken for clips."""

_HEAD = 2**16  # bytes in which a PNG that moves says so
_MOVES = 2  # the flag of a WebP that does
_DIGITS: Final = re.compile(r"(\d+)")


def list_clips(folder: str | os.PathLike[str]) -> list[Path]:
    """The clips in a folder and its subfolders, sorted by path: files that move, and folders of frames.

    A folder that directly holds two still pictures or more, and no clip, is one clip: its frames. Still pictures beside
    clips, or alone, are counted and named in one ``DataLeftOutWarning``; hidden files and linked folders are left out.

    Raises:
        ImageNotFoundError: not a folder, or not readable.
    """
    root = Path(folder)
    result = Survey(root)
    for top, folders, files in walked(root, "clips"):
        folders[:] = [name for name in folders if not name.startswith(".") and not os.path.islink(top / name)]
        seen = [top / name for name in files if not name.startswith(".")]
        clips = [path for path in seen if is_clip(path.name) and _may_move(path)]
        stills = [path for path in seen if is_picture(path.name) and path not in clips]
        if len(stills) > 1 and not clips:
            result.images.append(top)
            continue
        result.images += clips
        for path in stills:
            result.leave_out("pictures that do not move", path.relative_to(root))
    result.images.sort(key=by_name)
    result.tell(stacklevel=2)
    return result.images


def is_clip(name: str) -> bool:
    """Whether a file of this name may be a clip."""
    return os.path.splitext(name)[1].lower() in CLIP_SUFFIXES


def _may_move(path: Path, *, unread: bool = True) -> bool:
    """Whether the beginning of a file says that it moves; ``unread`` for one that cannot be read: whoever opens it says
    more."""
    from icl_vision.files.reading import opened

    if path.suffix.lower() not in (".gif", ".webp", ".png", ".apng"):
        return True
    try:
        with opened(path, most=2**63) as handle:
            head = handle.read(_HEAD) or b""
            if format_of(head) == "GIF":  # says so only by its second frame, wherever that is
                handle.seek(0)
                return _gif_moves(handle, unread)
    except OSError:
        return unread
    if head[:4] == b"RIFF":
        return head[12:16] == b"VP8X" and bool(head[20:21]) and bool(head[20] & _MOVES)
    if head[:4] == b"\x89PNG":
        return b"acTL" in head
    # Whatever it is else, it is no still picture of these kinds.
    return unread and (not head or format_of(head) != "JPEG")


def _gif_moves(handle: BinaryIO, unread: bool) -> bool:
    try:
        with guarded("the file", "is damaged", ImageTruncatedError):
            return has_frames(PilImage.open(handle, formats=["GIF"]))
    except ImageError:
        return unread


def frames_of_folder(folder: Path) -> list[Path]:
    """The pictures right inside a folder, as the frames of one clip: by name, numbers by their value.

    Raises:
        ImageNotFoundError: it cannot be read.
        ImageEmptyError: it holds no pictures.
        ClipError: one of them moves itself: a folder of clips.
    """
    frames = sorted(survey(folder, deep=False).images, key=_by_number)
    if not frames:
        raise ImageEmptyError(
            f"the folder {str(folder)!r} holds no pictures to be the frames of a clip; if it holds clips, "
            "name them one by one"
        )
    for frame in frames:
        if is_clip(frame.name) and _may_move(frame, unread=False):
            raise ClipError(
                f"the folder {str(folder)!r} holds clips ({frame.name!r} moves) and is none itself; pass one of "
                "them, or clips.list_clips(folder)"
            )
    return frames


def _by_number(path: Path) -> tuple[list[tuple[int, str]], Path]:
    """A key: digits count by their value, so that frame 10 comes after frame 9."""
    parts = _DIGITS.split(composed(path.name))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path
