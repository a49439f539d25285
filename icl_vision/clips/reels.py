"""What every kind of clip comes down to: frames in order, how long each stands, and how much of it is read at most.

    reel.seconds()                  # how long each frame stands, or None where nothing says so
    reel.frames([0, 4, 8])          # those frames, upright RGB, one after the other

Knows: limits, frames given one by one (a list, an array), which frames stand for a clip.
Refuses to know: files of animations (``animated.py``) and of video (``video.py``).
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from icl_vision import checks
from icl_vision.errors import ClipTooLongError, ImageError, ImageTooLargeError, UsageError
from icl_vision.images import ImageSource, load_image

FASTEST: Final = 1000.0
"""Frames a second that may be asked for."""


@dataclass(frozen=True)
class ClipLimits:
    """How much of a clip is read at most; whatever is longer or larger is refused, before it is decoded.

    Args:
        pixels: of one frame (4096 x 4096).
        frames: decoded, wanted or not.
        seconds: from the first frame to the end of the last.
        decoded: pixels of all decoded frames together: what bounds the time that a file can take (two thousand frames
            of 1920 x 1080).
        max_bytes: of a file or buffer.
    """

    pixels: int = 4096 * 4096
    frames: int = 10_000
    seconds: float = 600.0
    decoded: int = 4_200_000_000
    max_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "seconds":
                checks.number("limits: seconds", value, above=0)
            else:
                checks.count(f"limits: {field.name}", value)

    def check_frames(self, label: str, number: int) -> None:
        """Raises ClipTooLongError for more frames than the cap."""
        if number > self.frames:
            raise ClipTooLongError(
                f"{label} has more frames than the cap of {self.frames:,}; cut it, or {larger('frames')}"
            )

    def check_seconds(self, label: str, seconds: float) -> None:
        """Raises ClipTooLongError for more seconds than the cap."""
        if seconds > self.seconds:
            raise ClipTooLongError(
                f"{label} is longer than the cap of {self.seconds:g} seconds; cut it, or {larger('seconds')}"
            )

    def check_decoded(self, label: str, number: int, size: tuple[int, int]) -> None:
        """Raises ClipTooLongError where so many frames of a size are more pixels than the cap."""
        pixels = number * size[0] * size[1]
        if pixels > self.decoded:
            raise ClipTooLongError(
                f"{label} has more than {self.decoded:,} pixels in its frames of {size[0]}x{size[1]} together; cut it "
                f"or scale it down, or {larger('decoded')}"
            )


def larger(cap: str) -> str:
    """What to do where a cap is in the way and the clip is to stay as it is."""
    return f"load it with load_clip(..., limits=ClipLimits({cap}=...))"


@contextlib.contextmanager
def of_clips() -> Iterator[None]:
    """What refuses pictures names arguments of ``load_image``; of a clip the caps are in its limits."""
    try:
        yield
    except ImageTooLargeError as error:
        said = _OF_IMAGES.sub(lambda match: f", or {larger(_CAPS[match[1]])}", str(error))
        raise type(error)(said) from error


_CAPS: Final = {"pixels": "pixels", "bytes": "max_bytes"}
_OF_IMAGES: Final = re.compile(r" or pass a larger max_(pixels|bytes)")


class Reel(Protocol):
    """A clip whose frames can be asked for. label: what to call it in a message."""

    label: str

    def seconds(self) -> list[float] | None:
        """How long each frame stands; None where nothing says how long. Always as many as ``len`` where given."""
        ...

    def __len__(self) -> int:
        """How many frames there are."""
        ...

    def frames(self, wanted: Sequence[int]) -> Iterator[PilImage.Image]:
        """The frames of these numbers (from 0, rising, each once), upright RGB."""
        ...


class Listed:
    """Frames that are given one by one: a list of images, the files of a folder, an array."""

    def __init__(self, sources: Sequence[ImageSource] | np.ndarray[Any, Any], label: str, limits: ClipLimits) -> None:
        self.label = label
        self._sources = sources
        self._limits = limits
        limits.check_frames(label, len(sources))

    def seconds(self) -> list[float] | None:
        return None

    def __len__(self) -> int:
        return len(self._sources)

    def frames(self, wanted: Sequence[int]) -> Iterator[PilImage.Image]:
        for number, index in enumerate(wanted, start=1):
            try:
                picture = load_image(
                    self._sources[index], max_pixels=self._limits.pixels, max_bytes=self._limits.max_bytes
                )
            except ImageError as error:
                raise type(error)(f"frame {index} of {self.label}: {error}") from error
            self._limits.check_decoded(self.label, number, picture.size)
            yield picture


def check_sampling(frames: object, rate: object, limits: ClipLimits) -> tuple[int | None, float | None]:
    """What was asked for: how many frames, how many a second.

    Raises:
        UsageError: values that cannot be.
    """
    number = None if frames is None else checks.count("frames", frames, most=limits.frames)
    a_second = None if rate is None else checks.number("rate", rate, above=0, most=FASTEST)
    return number, a_second


def chosen(reel: Reel, frames: int | None, rate: float | None, limits: ClipLimits) -> list[int]:
    """The numbers of the frames that stand for a clip, in order; one may stand twice.

    By count, the clip is cut into as many spans of the same length, and the frame that stands in the middle of each is
    taken; by rate the spans are ``1 / rate`` seconds long, from the clip's beginning, and where more are asked for than
    it has, the last frame is held. Neither: every frame.

    Raises:
        UsageError: a rate, of a clip that does not say how long its frames stand.
        ClipTooLongError: it would be more frames than the cap.
    """
    times = reel.seconds()
    if times is None:
        if rate is not None:
            raise UsageError(
                f"rate={rate:g} takes so many frames a second, but nothing says how long the frames of {reel.label} "
                "stand; say how many with frames= instead"
            )
        times = [1.0] * len(reel)
    if rate is None and frames is None:
        return list(range(len(times)))
    # In whole microseconds, so that a middle that lies where one frame follows another takes the later one everywhere.
    ends = np.rint(1e6 * np.array(list(itertools.accumulate(times)))).astype(np.int64)
    if rate is None:
        assert frames is not None
        middles: npt.NDArray[np.floating[Any]] = (np.arange(frames) + 0.5) / frames * int(ends[-1])
    else:
        number = max(1, round(int(ends[-1]) / 1e6 * rate)) if frames is None else frames
        limits.check_frames(f"{reel.label} at {rate:g} frames a second", number)
        middles = (np.arange(number) + 0.5) / rate * 1e6
    places = np.searchsorted(ends, np.rint(middles).astype(np.int64), side="right")
    return [min(int(place), len(times) - 1) for place in places]
