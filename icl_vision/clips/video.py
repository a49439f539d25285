"""Frames of a video file, by PyAV (the extra ``video``): its bytes alone, of a few containers and codecs.

Knows: which containers and codecs are read, how PyAV is kept from opening anything else, how packets say when a frame
is shown. Refuses to know: which frames are wanted, sound, transparency.

A container is told by its first bytes, and PyAV is given them as bytes with the name of that container: nothing is
probed, so no playlist is ever taken for a video, and no protocol is allowed by which a file could name another one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from PIL import Image as PilImage

from icl_vision.clips.reels import ClipLimits
from icl_vision.errors import ImageError, ImageFormatError, ImageTooLargeError, ImageTruncatedError, MissingExtraError
from icl_vision.images.opening import check_pixels

# What a person calls it -> (signature, the demuxer's name)
_CONTAINERS: Final[dict[str, tuple[re.Pattern[bytes], str]]] = {
    "MP4 or MOV": (re.compile(rb"....(ftyp(?!hei|hev|mif1|msf1|avi[fs])|moov|mdat|wide|free|skip)", re.DOTALL), "mov"),
    "WebM or Matroska": (re.compile(rb"\x1aE\xdf\xa3"), "matroska"),
    "AVI": (re.compile(rb"RIFF....AVI ", re.DOTALL), "avi"),
    "Ogg": (re.compile(rb"OggS"), "ogg"),
}
CONTAINERS: Final = tuple(_CONTAINERS)
"""The containers that are read."""

CODECS: Final = frozenset(
    "h264 hevc vp8 vp9 av1 libdav1d mpeg1video mpeg2video mpeg4 msmpeg4v3 mjpeg theora prores h263 ffv1 rawvideo "
    "huffyuv png gif".split()
)
"""The codecs that are decoded."""

_QUARTERS: Final = {
    90: PilImage.Transpose.ROTATE_90,
    180: PilImage.Transpose.ROTATE_180,
    270: PilImage.Transpose.ROTATE_270,
}
# Demuxers that could open further files ask these; "none" is no protocol.
_OPTIONS: Final = {"protocol_whitelist": "none", "enable_drefs": "0", "use_absolute_path": "0"}


def container_of(data: bytes) -> str | None:
    """Which of ``CONTAINERS`` bytes begin as."""
    return next((name for name, (signature, _) in _CONTAINERS.items() if signature.match(data)), None)


class Video:
    """The frames of a video. Its packets are looked through first, without decoding, for when each frame is shown.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, container: str, data: bytes, label: str, limits: ClipLimits) -> None:
        self.label = label
        self._container = container
        self._data = data
        self._limits = limits
        self._times: list[float] | None = None
        _av()

    def seconds(self) -> list[float]:
        if self._times is None:
            with self._opened() as (container, stream):
                self._times = self._shown(container, stream)
        return self._times

    def __len__(self) -> int:
        return len(self.seconds())

    def frames(self, wanted: Sequence[int]) -> Iterator[PilImage.Image]:
        left = list(reversed(wanted))
        frame = None
        with self._opened() as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                check_pixels(self.label, (frame.width, frame.height), self._limits.pixels)
                self._limits.check_decoded(self.label, number + 1, (frame.width, frame.height))
                if number == left[-1]:
                    left.pop()
                    yield _upright(frame)
                    if not left:
                        return
            if frame is None:
                raise ImageTruncatedError(f"{self.label} is cut off or damaged: none of its frames can be decoded")
            for _ in left:  # its last packets gave no frames: the last frame there is stands for them
                yield _upright(frame)

    def _shown(self, container: Any, stream: Any) -> list[float]:
        """How long each frame stands, by the packets' times."""
        shown: list[int] = []
        longest = 0
        for packet in container.demux(stream):
            at = packet.pts if packet.pts is not None else packet.dts
            if at is None or not packet.size or packet.is_discard:  # what ends a stream, and what an edit cuts away
                continue
            shown.append(at)
            longest = packet.duration or longest
            self._limits.check_frames(self.label, len(shown))
        if not shown:
            raise ImageTruncatedError(f"{self.label} is cut off or damaged: it holds no frame")
        shown.sort()
        unit = float(stream.time_base)
        steps = [after - before for before, after in itertools.pairwise(shown)]
        steps.append(longest or (sorted(steps)[len(steps) // 2] if steps else 1))
        seconds = [max(step, 0) * unit for step in steps]
        self._limits.check_seconds(self.label, sum(seconds))
        return seconds

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = _av()
        try:
            with av.open(
                io.BytesIO(self._data), format=_CONTAINERS[self._container][1], options=dict(_OPTIONS)
            ) as container:
                if not container.streams.video:
                    raise ImageFormatError(f"{self.label} has no pictures, only other streams; pass a video")
                stream = container.streams.video[0]
                codec = "unknown" if stream.codec_context is None else stream.codec_context.name
                if codec not in CODECS:
                    raise ImageFormatError(
                        f"{self.label} is coded with {codec!r}, which is not read here; convert it, to H.264 or VP9 say"
                    )
                if stream.width and stream.height:
                    check_pixels(self.label, (stream.width, stream.height), self._limits.pixels)
                yield container, stream
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageTooLargeError(f"{self.label} does not fit into memory; scale it down first") from error
        except (av.FFmpegError, ValueError, ArithmeticError, LookupError, TypeError, OSError) as error:
            raise ImageTruncatedError(
                f"{self.label} begins as a video ({self._container}) but is cut off or damaged "
                f"({type(error).__name__}: {error})"
            ) from error


def _upright(frame: Any) -> PilImage.Image:
    picture: PilImage.Image = PilImage.fromarray(frame.to_ndarray(format="rgb24"))
    method = _QUARTERS.get(int(getattr(frame, "rotation", 0)) % 360)
    return picture if method is None else picture.transpose(method)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading video files (PyAV)", "video") from error
    return av
