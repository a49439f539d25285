"""Frames as a file that moves: animated GIF, WebP or PNG, by the suffix of its name.

Knows: how Pillow writes animations, and which times a format can say. Refuses to know: how frames were made.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from icl_vision import checks
from icl_vision.errors import ClipError, ImageArrayError, ImageEmptyError, ImageTooLargeError, UsageError
from icl_vision.files.storage import atomic_path
from icl_vision.images import ImageSource, load_image

_FORMATS: Final = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
SAVED_SUFFIXES: Final = tuple(_FORMATS)
"""Suffixes (lower case) of the files that ``save_clip`` writes."""

_SIDES: Final = {"GIF": 65_535, "WEBP": 16_383, "PNG": 2**31 - 1}
"""The longest side that a format can say."""

MS: Final = 100.0
"""Milliseconds that a frame stands, unless something else is said."""


def save_clip(
    frames: npt.NDArray[np.uint8] | Iterable[ImageSource],
    path: str | os.PathLike[str],
    *,
    ms: float | Sequence[float] = MS,
    quality: int | None = None,
) -> Path:
    """Write frames as an animation that runs for ever; whole or not at all.

    Args:
        frames: an array [T, H, W, 3], or images as ``load_image`` takes them, all of one size.
        path: its suffix decides: .gif (256 colours a frame), .webp, .png or .apng (every colour).
        ms: milliseconds that each frame stands, one number or one a frame; a GIF counts in tens, of 20 at least.
        quality: of a WebP, 0 to 100; None for every pixel as it is.

    Returns:
        The path.

    Frames that are alike are written once and stand longer. (All alike, they are a still picture.)

    Raises:
        UsageError: another suffix, ``ms`` or ``quality`` that cannot be.
        ImageError: frames that cannot be used; ClipError where they have several sizes, ImageTooLargeError where they
            are larger than the format can say.
        UnwritableError: the file cannot be written.
    """
    target = Path(path)
    form = format_of_suffix(target)
    data = clip_bytes(frames, form, ms=ms, quality=quality)
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
    return target


def format_of_suffix(path: str | os.PathLike[str]) -> str:
    """GIF, WEBP or PNG, by a file's name.

    Raises:
        UsageError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"a clip is written as {', '.join(SAVED_SUFFIXES)}; got {os.fspath(path)!r}")
    return _FORMATS[suffix]


def clip_bytes(
    frames: npt.NDArray[np.uint8] | Iterable[ImageSource],
    form: str = "WEBP",
    *,
    ms: float | Sequence[float] = MS,
    quality: int | None = None,
) -> bytes:
    """The bytes that ``save_clip`` writes. form: GIF, WEBP or PNG."""
    pictures = _pictures(frames)
    times = _times(ms, len(pictures), form)
    if quality is not None:
        checks.count("quality", quality, least=0, most=100)
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
    if form == "WEBP":
        options |= {"lossless": True, "method": 4} if quality is None else {"quality": quality, "method": 4}
    elif form == "GIF":
        # Each frame with colours of its own, dithered by nothing: alike pixels stay alike from frame to frame.
        pictures = [picture.quantize(256, dither=PilImage.Dither.NONE) for picture in pictures]
        options |= {"append_images": pictures[1:], "optimize": False}
    most = _SIDES[form]
    if max(pictures[0].size) > most:
        width, height = pictures[0].size
        raise ImageTooLargeError(
            f"the frames are {width}x{height}, and a {form} has sides of at most {most:,}; scale them down first"
        )
    buffer = io.BytesIO()
    pictures[0].save(buffer, form, **options)
    return buffer.getvalue()


def _pictures(frames: Any) -> list[PilImage.Image]:
    if isinstance(frames, np.ndarray) and frames.dtype.kind not in "OU" and frames.ndim != 4:
        raise ImageArrayError(
            f"the array (dtype {frames.dtype}, shape {frames.shape}) is no clip: pass frames [T, H, W, 3]"
        )
    pictures: list[PilImage.Image] = []
    for index, frame in enumerate(frames):
        picture = load_image(frame)
        if pictures and picture.size != pictures[0].size:
            first = pictures[0]
            raise ClipError(
                f"the frames have several sizes: {first.width}x{first.height} (frame 0) and "
                f"{picture.width}x{picture.height} (frame {index}); scale them to one size first"
            )
        pictures.append(picture)
    if not pictures:
        raise ImageEmptyError("there are no frames to write")
    return pictures


def _times(ms: Any, number: int, form: str) -> list[int]:
    values = [ms] * number if checks.as_real(ms) is not None else list(ms) if isinstance(ms, Iterable) else None
    if values is None or isinstance(ms, str):
        raise UsageError(f"ms must be a number of milliseconds or one a frame; got {checks.shown(ms)}")
    if len(values) != number:
        raise UsageError(f"ms must be one number, or one a frame; got {len(values)} for {number} frames")
    times = [checks.number("ms", value, least=1, most=60_000) for value in values]
    # Pillow cuts what a GIF cannot say; rounded here, frames that stand equally long do so in the file too.
    return [max(20, round(time / 10) * 10) if form == "GIF" else round(time) for time in times]
