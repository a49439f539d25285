"""clips/saving.py: what is written is read again, whatever the format, and what cannot be written is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.clips import SAVED_SUFFIXES, load_clip, save_clip
from icl_vision.errors import (
    ClipError,
    ImageArrayError,
    ImageEmptyError,
    ImageTooLargeError,
    UnwritableError,
    UsageError,
)


def clip(frames: int = 8) -> np.ndarray[Any, Any]:
    made = np.zeros((frames, 10, 14, 3), np.uint8)
    for index in range(frames):
        made[index, :, index] = (255, 30 * index, 0)
    return made


@pytest.mark.parametrize("suffix", SAVED_SUFFIXES)
def test_what_is_written_is_read_again(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / f"clip{suffix.upper()}"
    for frames in (clip(), [Image.fromarray(frame) for frame in clip()]):
        assert save_clip(frames, path, ms=62.5) == path
        assert np.array_equal(load_clip(path, frames=8), clip())
    with Image.open(path) as image:
        assert image.n_frames == 8 and image.info["loop"] == 0  # type: ignore[attr-defined]  # of animations


@pytest.mark.parametrize("suffix", SAVED_SUFFIXES)
def test_frames_that_are_alike_stand_longer_and_come_back_as_many(suffix: str, tmp_path: Path) -> None:
    frames = clip()[[0, 0, 1, 2, 2, 2, 3, 3]]
    save_clip(frames, tmp_path / f"clip{suffix}", ms=67)
    assert np.array_equal(load_clip(tmp_path / f"clip{suffix}", frames=8), frames)


@pytest.mark.parametrize("suffix", SAVED_SUFFIXES)
def test_each_frame_has_its_time(suffix: str, tmp_path: Path) -> None:
    path = save_clip(clip(3), tmp_path / f"clip{suffix}", ms=[100, 300, 200])
    first = load_clip(path, rate=10, frames=None)
    assert np.array_equal(first, clip(3)[[0, 1, 1, 1, 2, 2]])


def test_a_webp_may_be_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    exact = save_clip(noise, tmp_path / "exact.webp").stat().st_size
    assert save_clip(noise, tmp_path / "small.webp", quality=30).stat().st_size < exact / 2


def test_refusals(tmp_path: Path) -> None:
    target = tmp_path / "a.gif"
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ([], {}, ImageEmptyError, "no frames to write"),
        (clip()[0], {}, ImageArrayError, r"is no clip: pass frames \[T, H, W, 3\]"),
        ([clip()[0], clip()[0, :4]], {}, ClipError, r"several sizes: 14x10 \(frame 0\) and 14x4 \(frame 1\)"),
        (clip(), {"ms": 0}, UsageError, "ms"),
        (clip(), {"ms": "100"}, UsageError, "ms must be"),
        (clip(), {"ms": [100]}, UsageError, "got 1 for 8 frames"),
        (clip(), {"quality": 101}, UsageError, "quality"),
    ]
    for frames, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            save_clip(frames, target, **options)
    wide = np.zeros((2, 1, 16_384, 3), dtype=np.uint8)
    with pytest.raises(ImageTooLargeError, match="16384x1, and a WEBP has sides of at most 16,383"):
        save_clip(wide, tmp_path / "a.webp")
    with pytest.raises(UsageError, match="a clip is written as .gif, .webp, .png, .apng; got .*a.mp4"):
        save_clip(clip(), tmp_path / "a.mp4")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnwritableError, match="cannot be written"):
        save_clip(clip(), tmp_path / "file" / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
