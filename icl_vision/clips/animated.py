"""Frames of animated GIF, WebP and PNG, by Pillow: as a viewer shows them one after the other.

Knows: how Pillow walks through frames, how long each stands, which of a file's pictures is none of the animation.
Refuses to know: which frames are wanted, video.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from PIL import Image as PilImage

from icl_vision.clips.reels import ClipLimits
from icl_vision.errors import ClipError, ImageTruncatedError
from icl_vision.images.opening import check_pixels, declared_size, guarded, opened, to_rgb

ANIMATED: Final = ("GIF", "WEBP", "PNG")
"""Formats of animations that Pillow reads."""

_SLOWEST_OF_NONE: Final = 0.1
"""Seconds that a frame stands which says 0 (of a GIF: 10 ms or less), as browsers show it."""
_TOO_FAST_OF_GIF: Final = 10


class Animation:
    """The frames of a file or of an animated PIL image; walked through once for the times, once for the pictures."""

    def __init__(
        self,
        image: PilImage.Image | None,
        label: str,
        limits: ClipLimits,
        reopen: Callable[[], PilImage.Image] | None = None,
    ) -> None:
        self.label = label
        self._image = image
        self._reopen = reopen
        self._limits = limits
        self._times: list[float] | None = None

    @classmethod
    def of_bytes(cls, kind: str, data: bytes, label: str, limits: ClipLimits) -> Animation:
        """A file's. kind: one of ``ANIMATED``.

        Raises:
            ClipError: it has one frame.
            ImageError: it cannot be read.
        """
        with guarded(label, f"begins as a {kind} image but is cut off or damaged", ImageTruncatedError):
            declared = declared_size(kind, data)
            if declared is not None:
                check_pixels(label, declared, limits.pixels)
            with contextlib.closing(opened(kind, data)) as image:
                check_pixels(label, image.size, limits.pixels)
                still = not has_frames(image)
        if still:
            raise ClipError(
                f"{label} is a still picture ({kind} with one frame), and a clip has several; a list of one picture is "
                "a clip that stands still"
            )
        return cls(None, label, limits, lambda: opened(kind, data))

    def seconds(self) -> list[float]:
        if self._times is None:
            times: list[float] = []
            total = 0.0
            for image in self._walk():
                milliseconds = float(image.info.get("duration") or 0)
                if milliseconds <= 0 or (image.format == "GIF" and milliseconds <= _TOO_FAST_OF_GIF):
                    milliseconds = 1000 * _SLOWEST_OF_NONE
                times.append(milliseconds / 1000)
                total += times[-1]
                self._limits.check_seconds(self.label, total)
            self._times = times
        return self._times

    def __len__(self) -> int:
        return len(self.seconds())

    def frames(self, wanted: Sequence[int]) -> Iterator[PilImage.Image]:
        left = list(reversed(wanted))
        for number, image in enumerate(self._walk()):
            if number == left[-1]:
                left.pop()
                with guarded(self.label, f"cannot be read at frame {number}", ImageTruncatedError):
                    picture = to_rgb(image, f"frame {number} of {self.label}")
                yield picture
                if not left:
                    return

    def _walk(self) -> Iterator[PilImage.Image]:
        """The image at each of its frames, loaded; the very same object each time."""
        damage = "is cut off or damaged"
        with contextlib.ExitStack() as stack:
            with guarded(self.label, damage, ImageTruncatedError):
                if self._reopen is not None:
                    image: Any = stack.enter_context(contextlib.closing(self._reopen()))
                else:
                    image = self._image
                    stack.callback(image.seek, image.tell())
                # A PNG may begin with a picture for viewers that cannot show the rest.
                at = 1 if getattr(image, "default_image", False) and image.format == "PNG" else 0
            number = 0
            while True:
                with guarded(self.label, f"{damage} at frame {number}", ImageTruncatedError):
                    try:
                        image.seek(at + number)
                    except EOFError:
                        return
                    check_pixels(self.label, image.size, self._limits.pixels)
                    number += 1
                    self._limits.check_frames(self.label, number)
                    self._limits.check_decoded(self.label, number, image.size)
                    image.load()
                yield image


def has_frames(image: Any) -> bool:
    """Whether a PIL image has several frames of an animation (the pages of a TIFF are none)."""
    if image.format not in ANIMATED:
        return False
    if image.format == "PNG":
        own = 1 if getattr(image, "default_image", False) else 0
        return int(getattr(image, "n_frames", 1)) - own > 1
    # How many frames a GIF has is known at its end only, and one can hold millions.
    return bool(getattr(image, "is_animated", False))
