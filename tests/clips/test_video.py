"""clips/video.py: frames of video files by PyAV, which is given bytes of known containers and nothing else."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from icl_vision.clips import ClipLimits, load_clip, video
from icl_vision.errors import (
    ClipTooLongError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    ImageTruncatedError,
    MissingExtraError,
)

av = pytest.importorskip("av")

CONTAINERS = {"mp4": "mpeg4", "mov": "mjpeg", "webm": "libvpx-vp9", "matroska": "ffv1", "avi": "mpeg4"}


def filmed(container: str, codec: str = "", frames: int = 20, rate: int = 10, *, sound: bool = False) -> bytes:
    """Grey frames, each lighter than the one before by ten."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as made:
        if sound:
            stream = made.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            made.mux(stream.encode(frame) + stream.encode(None))
    if sound:
        return buffer.getvalue()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as made:
        stream = made.add_stream(codec or CONTAINERS[container], rate=rate)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
        for index in range(frames):
            pixels = np.full((32, 48, 3), 10 * index, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        made.mux(stream.encode(None))
    return buffer.getvalue()


def greys(clip: np.ndarray[Any, Any]) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in clip]


def can_encode(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except Exception:  # which one, PyAV's versions do not agree on
        return False
    return True


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_by_count_and_by_rate(container: str) -> None:
    if not can_encode(CONTAINERS[container]):
        pytest.skip(f"this PyAV cannot encode {CONTAINERS[container]}")
    data = filmed(container)
    assert greys(load_clip(data, frames=None)) == list(range(20))
    assert greys(load_clip(data, frames=5)) == [2, 6, 10, 14, 18]
    assert greys(load_clip(data, frames=3, rate=5)) == [1, 3, 5]
    assert load_clip(data).shape == (16, 32, 48, 3)


def test_frames_are_taken_as_they_are_shown_not_as_they_are_stored() -> None:
    if not can_encode("libx264"):
        pytest.skip("this PyAV cannot encode H.264")
    assert greys(load_clip(filmed("mp4", "libx264"), frames=None)) == list(range(20))  # with frames coded out of order


def test_caps() -> None:
    data = filmed("mp4")
    limits: list[tuple[dict[str, Any], type[ImageError], str]] = [
        ({"frames": 19}, ClipTooLongError, "more frames than the cap of 19"),
        ({"seconds": 1.9}, ClipTooLongError, "longer than the cap of 1.9 seconds"),
        ({"decoded": 48 * 32 * 10}, ClipTooLongError, "more than 15,360 pixels"),
        ({"pixels": 1000}, ImageTooLargeError, "48x32 = 1,536 pixels"),
        ({"max_bytes": 100}, ImageTooLargeError, "more bytes than the cap of 100"),
    ]
    for options, kind, message in limits:
        with pytest.raises(kind, match=message):
            load_clip(data, frames=16, limits=ClipLimits(**options))


def test_files_that_are_no_video_after_all() -> None:
    with pytest.raises(ImageFormatError, match="has no pictures, only other streams"):
        load_clip(filmed("matroska", sound=True))
    with pytest.raises(ImageTruncatedError, match=r"begins as a video \(MP4 or MOV\) but is cut off or damaged"):
        load_clip(filmed("mp4")[:200])
    with pytest.raises(ImageTruncatedError, match=r"begins as a video \(WebM or Matroska\)"):
        load_clip(b"\x1aE\xdf\xa3" + bytes(100))


def test_a_codec_outside_of_the_list_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "CODECS", frozenset({"h264"}))
    with pytest.raises(ImageFormatError, match="is coded with 'mpeg4', which is not read here; convert it"):
        load_clip(filmed("mp4"))


def test_pyav_is_never_given_a_name_and_no_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, dict[str, Any]]] = []
    opened = av.open

    def spied(file: Any, **options: Any) -> Any:
        given.append((file, options))
        return opened(file, **options)

    data = filmed("matroska")
    monkeypatch.setattr(av, "open", spied)
    load_clip(data)
    assert len(given) == 2
    for file, options in given:
        assert isinstance(file, io.BytesIO)
        assert options["format"] == "matroska" and options["options"]["protocol_whitelist"] == "none"


@pytest.mark.parametrize(("turned", "corner"), [(0, (0, 0)), (-90, (0, 1)), (90, (1, 0)), (180, (1, 1)), (45, (0, 0))])
def test_a_phones_video_stands_upright(turned: int, corner: tuple[int, int]) -> None:
    class Frame:
        """As PyAV gives it: by how much it has to be turned to the left."""

        rotation = turned

        def to_ndarray(self, format: str) -> np.ndarray[Any, Any]:
            pixels = np.zeros((20, 30, 3), np.uint8)
            pixels[:10, :15] = 255
            return pixels

    upright = np.asarray(video._upright(Frame()))
    assert upright.shape[:2] == ((30, 20) if abs(turned) == 90 else (20, 30))
    assert upright[-corner[0], -corner[1], 0] == 255  # row, column: 0 the first, -1 the last
    assert (upright > 0).mean() == 0.25


def test_hostile_bytes_give_frames_or_an_image_error() -> None:
    data = filmed("mp4", frames=6)
    generator = np.random.default_rng(2)
    for trial in range(40):
        broken = bytearray(data)
        for at in generator.integers(8, len(data), 1 + trial % 8):
            broken[at] = int(generator.integers(256))
        try:
            clip = load_clip(bytes(broken), frames=4, limits=ClipLimits(pixels=100_000, decoded=1_000_000, frames=100))
        except ImageError:
            continue
        assert clip.dtype == np.uint8 and clip.shape[0] == 4


def test_without_pyav_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["av"] = None
from icl_vision.clips import load_clip
from icl_vision.errors import MissingExtraError
try:
    load_clip(bytes.fromhex("00000018667479706d703432") + bytes(64))
except MissingExtraError as error:
    print(error.extra, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("video reading video files (PyAV) needs an extra that is not installed")
    assert issubclass(MissingExtraError, ImportError)
