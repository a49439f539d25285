"""Anything a user calls a clip becomes frames, uint8 [T, H, W, 3]: the one way from untrusted clips to pixels.

Knows: sources (array, list of images, folder of frames, animated GIF, WebP or PNG, video), what is a clip and what is
several, how frames become one array. Refuses to know: what a clip is used for, how pictures are read (``images``).

Each frame is read as any image is: upright, transparency over white, 8 bits, without metadata. Nothing is fetched, and
no playlist or other file that names further files is followed. Only ``ImageError`` and its subclasses (``ClipError``
among them) leave this module, whatever the bytes hold; and UsageError and MissingExtraError for what is not the clip's
fault.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from icl_vision import checks
from icl_vision.clips.animated import ANIMATED, Animation, has_frames
from icl_vision.clips.folders import frames_of_folder
from icl_vision.clips.reels import ClipLimits, Listed, Reel, check_sampling, chosen, of_clips
from icl_vision.clips.video import CONTAINERS, Video, container_of
from icl_vision.errors import (
    ClipError,
    ImageArrayError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    MissingExtraError,
    UsageError,
)
from icl_vision.images import ImageSource
from icl_vision.images.opening import format_of, guess_of
from icl_vision.images.sources import checked_path, holds_bytes, read_source

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3]."""

ClipSource = ImageSource | Iterable[ImageSource]
"""What ``load_clip`` takes."""

LIMITS: Final = ClipLimits()
FRAMES: Final = 16
KEY_FRAMES: Final = 4
_BOM: Final = rb"(\xef\xbb\xbf)?\s*"
_LISTS: Final = tuple(
    (re.compile(_BOM + pattern, re.IGNORECASE), what)
    for pattern, what in (
        (rb"#EXTM3U", "an M3U or HLS playlist"),
        (rb"(<\?xml[^>]*>\s*)?<(MPD|SmoothStreamingMedia|smil|asx)\b", "a playlist"),
        (rb"(ffconcat version|\[playlist\]|\[Reference\]|rtsp:|v=0\r?\no=)", "a playlist"),
    )
)
_WHAT: Final = (
    f"a clip is an animated {', '.join(ANIMATED[:-1])} or {ANIMATED[-1]}, a video ({', '.join(CONTAINERS)}), a folder "
    "or list of frames, or an array [T, H, W, 3]"
)


def load_clip(
    source: ClipSource, *, frames: int | None = FRAMES, rate: float | None = None, limits: ClipLimits | None = None
) -> Frames:
    """One clip as frames, uint8 [T, H, W, 3].

    Args:
        source: an array [T, H, W, 3] (or of 1 or 4 channels, or grey [T, H, W]; uint8, or float in [0, 1]); a list of
            images, each as ``load_image`` takes it; a folder of frames, in the order of their numbers; the path, bytes
            or file object of an animated GIF, WebP or PNG, or of a video (MP4 or MOV, WebM or Matroska, AVI, Ogg: needs
            the extra ``video``); an animated PIL image.
        frames: how many frames; evenly over the clip's time, or the first ones at ``rate``. None for all.
        rate: frames a second; None for as many as there are in ``frames``.
        limits: what is refused as too large or too long; None for ``ClipLimits()``.

    Raises:
        ImageNotFoundError: no such file, not readable, or a URL.
        ImageEmptyError: zero bytes, no frames, or frames without pixels.
        ImageTruncatedError: cut off or damaged.
        ImageFormatError: no clip: of another format, a playlist, a video without pictures.
        ImageTooLargeError: more pixels or bytes than allowed.
        ImageArrayError: an array of another dtype, shape or range, or with NaN.
        ClipError: a still picture, or frames of several sizes.
        ClipTooLongError: more frames or seconds than allowed.
        MissingExtraError: a video, without the extra ``video``.
        UsageError: ``frames``, ``rate`` or ``limits`` that cannot be.
    """
    return read_clip(source, frames=frames, rate=rate, limits=limits)


def read_clip(
    source: ClipSource,
    *,
    frames: int | None = FRAMES,
    rate: float | None = None,
    limits: ClipLimits | None = None,
    shrink: Callable[[PilImage.Image], PilImage.Image] | None = None,
) -> Frames:
    """``load_clip`` with a place to resize each frame as soon as it is there, so that many stay small in memory.

    shrink: an RGB image to an RGB image; all of one size for frames of one size.
    """
    with of_clips():
        return _read(source, frames, rate, _checked(limits), shrink)


def _read(
    source: ClipSource,
    frames: int | None,
    rate: float | None,
    limits: ClipLimits,
    shrink: Callable[[PilImage.Image], PilImage.Image] | None,
) -> Frames:
    wanted, a_second = check_sampling(frames, rate, limits)
    reel = _reel(source, limits)
    if not len(reel):
        raise ImageEmptyError(f"{reel.label} has no frames")
    numbers = chosen(reel, wanted, a_second, limits)
    once = sorted(set(numbers))
    clip: Frames | None = None
    size: tuple[int, int] | None = None
    places: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        places.setdefault(number, []).append(place)
    for number, picture in zip(once, reel.frames(once), strict=True):
        if size is None:
            size = picture.size
        elif picture.size != size:
            raise ClipError(
                f"the frames of {reel.label} have several sizes: {size[0]}x{size[1]} (frame {once[0]}) and "
                f"{picture.width}x{picture.height} (frame {number}); scale them to one size first"
            )
        pixels = np.asarray(picture if shrink is None else shrink(picture))
        if clip is None:
            limits.check_decoded(reel.label, len(numbers), (pixels.shape[1], pixels.shape[0]))
            clip = np.empty((len(numbers), *pixels.shape), dtype=np.uint8)
        clip[places[number]] = pixels
    assert clip is not None
    return clip


def key_frames(
    source: ClipSource, count: int = KEY_FRAMES, *, rate: float | None = None, limits: ClipLimits | None = None
) -> list[PilImage.Image]:
    """Some of a clip's frames as RGB pictures, in their order: for what takes pictures.

    source, rate, limits: as for ``load_clip``. count: how many, evenly over the clip's time, or the first at ``rate``.

    Raises:
        As ``load_clip``.
    """
    number = checks.count("count", count, most=(limits or LIMITS).frames, of="frames")
    return [PilImage.fromarray(frame) for frame in load_clip(source, frames=number, rate=rate, limits=limits)]


def seconds_of(source: ClipSource, *, limits: ClipLimits | None = None) -> float | None:
    """How long a clip lasts; None where nothing says so (a list, an array, a folder). Raises as ``load_clip``."""
    if isinstance(source, Iterator):
        return None  # to look would be to use it up
    with of_clips():
        times = _reel(source, _checked(limits)).seconds()
    return None if times is None else sum(times)


def moves(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a clip: a folder of frames, an animation, a video. False for what cannot be read."""
    try:
        reel = _reel(path, LIMITS)
    except (ImageError, MissingExtraError) as error:
        return isinstance(error, MissingExtraError)  # a video, without what reads it
    return not isinstance(reel, Listed) or len(reel) > 1


def iter_clips(
    sources: Iterable[ClipSource],
    *,
    name: str = "clips",
    frames: int | None = FRAMES,
    rate: float | None = None,
    limits: ClipLimits | None = None,
    shrink: Callable[[PilImage.Image], PilImage.Image] | None = None,
) -> Iterator[Frames]:
    """Load clips one by one, as they are asked for.

    Raises:
        ImageError: of the kind ``load_clip`` raises; the message begins with the index, ``clips[3]: ...``.
    """
    for index, source in enumerate(sources):
        try:
            clip = read_clip(source, frames=frames, rate=rate, limits=limits, shrink=shrink)
        except ImageError as error:
            raise type(error)(f"{name}[{index}]: {error}") from error
        yield clip


def is_clip_source(value: object) -> bool:
    """Whether ``value`` stands for one clip rather than for several.

    A path, bytes, a file object and a PIL image are one clip (perhaps a bad one), and so is an array, but for [N, T, H,
    W, C] and one of paths. A list or tuple is one clip where every item is a frame: an array [H, W] or [H, W, C], or a
    PIL image that does not move; any other is several. (A list of paths is several clips; inside of a list,
    ``[paths]``, it is one.)
    """
    if isinstance(value, np.ndarray):
        return value.ndim != 5 and not (value.ndim == 1 and value.dtype.kind in "OU")
    if isinstance(value, PilImage.Image) or holds_bytes(value):
        return True
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_frame, value))


def _checked(limits: ClipLimits | None) -> ClipLimits:
    """Those given, or what holds where none are. Raises UsageError for anything else."""
    if limits is None:
        return LIMITS
    if not isinstance(limits, ClipLimits):
        raise UsageError(f"limits must be a ClipLimits, or None for ClipLimits(); got {limits!r}")
    return limits


def _is_frame(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    return isinstance(value, PilImage.Image) and not has_frames(value)


def _reel(source: Any, limits: ClipLimits) -> Reel:
    if isinstance(source, np.ndarray) and source.dtype.kind not in "OU":
        return _of_array(source, limits)
    if isinstance(source, PilImage.Image):
        label = f"the PIL image ({source.mode}, {source.size[0]}x{source.size[1]})"
        if not has_frames(source):
            raise ClipError(f"{label} is a still picture; {_WHAT}; [image] is a clip that stands still")
        return Animation(source, label, limits)
    if isinstance(source, str | os.PathLike) and os.path.isdir(path := checked_path(source, "clip")):
        return Listed(frames_of_folder(Path(path)), f"the folder {path!r}", limits)
    if holds_bytes(source):
        return _of_bytes(*read_source(source, limits.max_bytes, "clip"), limits)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | set | frozenset):
        frames = list(itertools.islice(source, limits.frames + 1))
        return Listed(frames, f"the {type(source).__name__} of frames", limits)
    hint = "; pass .cpu().numpy() in [T, H, W, C] order" if hasattr(source, "__array__") else ""
    raise ImageFormatError(f"{_WHAT}; got {type(source).__name__}{hint}")


def _of_array(source: npt.NDArray[Any], limits: ClipLimits) -> Reel:
    label = f"the array (dtype {source.dtype}, shape {source.shape})"
    grey = source.ndim == 3 and source.shape[2] not in (1, 3, 4)
    if not grey and (source.ndim != 4 or source.shape[3] not in (1, 3, 4)):
        hint = ""
        if source.ndim == 5:
            hint = "; pass several clips to a function that takes several"
        elif source.ndim in (2, 3):
            hint = "; this is one picture: [array] is a clip that stands still"
        elif source.ndim == 4 and source.shape[1] in (1, 3, 4):
            hint = "; this looks like channels first: use .transpose(0, 2, 3, 1)"
        raise ImageArrayError(f"{label} must have shape [T, H, W, C] with C of 1, 3 or 4, or [T, H, W]{hint}")
    if source.size == 0:
        raise ImageEmptyError(f"{label} has no frames or no pixels")
    return Listed(source, label, limits)


def _of_bytes(data: bytes, label: str, limits: ClipLimits) -> Reel:
    kind = format_of(data)
    if kind in ANIMATED:
        return Animation.of_bytes(kind, data, label, limits)
    if kind is not None:
        raise ClipError(f"{label} is a still picture ({kind}); {_WHAT}; [picture] is a clip that stands still")
    container = container_of(data)
    if container is not None:
        return Video(container, data, label, limits)
    head = data[:4096]
    for pattern, what in _LISTS:
        if pattern.match(head):
            raise ImageFormatError(f"{label} is {what}, and no file that names other files is followed; {_WHAT}")
    guess = guess_of(data)
    if guess is not None:
        raise ImageFormatError(f"{label} is {guess}; {_WHAT}")
    raise ImageFormatError(f"{label} is not a clip: its first bytes are {data[:8]!r}; {_WHAT}")
