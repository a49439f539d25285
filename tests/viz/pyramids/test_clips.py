"""The page of a clip: it moves, shows words over time and every depth, holds everything, escapes names."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

import tiny_clips

from icl_vision.clips import load_clip, save_clip
from icl_vision.errors import ClipError, UsageError
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.viz.pyramids.clips import ClipLook, frame_ms, look_at_clip, psnr_of, render_clip_page, sheet


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> OnnxTokenizer:
    return OnnxTokenizer(tiny_clips.make(tmp_path_factory.mktemp("tiny") / "tiny"), providers="cpu", threads=1)


@pytest.fixture(scope="module")
def shown(tokenizer: OnnxTokenizer, tmp_path_factory: pytest.TempPathFactory) -> ClipLook:
    path = save_clip(tiny_clips.square(16, step=1), tmp_path_factory.mktemp("clip") / "a <b>.webp", ms=50)
    look = look_at_clip(path, tokenizer, name="a <b>.webp")
    return dataclasses.replace(look, psnr=psnr_of(look.seen, look.decoded))


def moving(page: str) -> list[np.ndarray]:
    """The animations on a page, in order."""
    found = re.findall(r'<img[^>]* src="data:image/webp;base64,([^"]+)"', page)
    files = [base64.b64decode(data) for data in found]
    return [load_clip(data, frames=None) for data in files if getattr(Image.open(io.BytesIO(data)), "n_frames", 1) > 1]


def test_a_look_holds_what_the_tokenizer_saw_and_what_came_back(shown: ClipLook, tokenizer: OnnxTokenizer) -> None:
    assert shown.seen.shape == (8, 16, 16, 3) and shown.size == (32, 32)
    assert shown.ms == 100  # sixteen frames of 50 ms are eight of 100
    assert [frames.shape for frames in shown.decoded] == [shown.seen.shape] * 4
    assert np.array_equal(shown.decoded[-1], np.stack([np.asarray(f) for f in _made(tokenizer, shown)]))
    assert list(shown.psnr) == sorted(shown.psnr)  # the deeper the nearer
    assert shown.similarity is not None and "clip" in shown.similarity.reference


def _made(tokenizer: OnnxTokenizer, shown: ClipLook) -> list[Image.Image]:
    (frames,) = tokenizer.decode(shown.pyramid)
    return frames  # type: ignore[return-value]  # of clips: a list of frames


def test_the_page_moves_at_every_depth(shown: ClipLook) -> None:
    page = render_clip_page([shown])
    clips = moving(page)
    # The original and the clip made again; then what came back of each depth (one word stands still), and the original.
    expected = [shown.seen, shown.decoded[-1], *shown.decoded[2:], shown.seen]
    still = [frames for frames in shown.decoded if (frames == frames[:1]).all()]
    assert len(clips) == 2 + len(shown.decoded) - len(still) + 1
    assert np.array_equal(clips[0], shown.seen) and np.array_equal(clips[-1], expected[-1])
    assert page.count('media="(prefers-reduced-motion: reduce)"') == 2 + len(shown.decoded) + 1


def test_the_page_shows_words_over_time_and_loads_nothing(shown: ClipLook) -> None:
    page = render_clip_page([shown])
    assert "a <b>" not in page and "a &lt;b&gt;" in page
    assert "frames 1 to 8" in page and "frames 1 to 4" in page and "frames 7 to 8" in page
    assert page.count('role="gridcell"') == shown.pyramid.k
    for word in set(shown.pyramid.words()):
        assert word in page
    assert "http:" not in page and "https:" not in page and "url(data:" in page
    assert "8 frames over 0.8 s, 32 x 32 pixels taken as 16 x 16" in page
    assert f"{shown.psnr[-1]:.1f} dB" in page
    assert page == render_clip_page([shown])
    two = render_clip_page([shown, dataclasses.replace(shown, name="other")], command="icl-vision show")
    assert "2 clips in words" in two and '<article id="i2"' in two
    with pytest.raises(UsageError, match="one clip or more"):
        render_clip_page([])


def test_the_sheet_has_a_column_a_frame_and_a_row_a_depth(shown: ClipLook) -> None:
    picture = sheet(shown)
    assert picture.width == 8 * (96 + 4) + 4 and picture.height == 5 * (96 + 22 + 4) + 4
    first = np.asarray(picture.crop((4, 4 + 22, 4 + 96, 4 + 22 + 96)).resize((16, 16), Image.Resampling.NEAREST))
    assert np.array_equal(first, shown.seen[0])


def test_a_layout_cut_short_and_a_tokenizer_without_a_way_back(tokenizer: OnnxTokenizer) -> None:
    short = look_at_clip(tiny_clips.square(), tokenizer, k=5)
    assert len(short.decoded) == 2 and short.ms == 100
    blind = dataclasses.replace(short, decoded=())
    assert "Made again" not in render_clip_page([blind]) and sheet(blind).height == 126
    plain = dataclasses.replace(short, similarity=None)
    assert "no word vectors" in render_clip_page([plain])


def test_refusals(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'ascii' takes images, not clips"):
        look_at_clip(tiny_clips.square(), ImageTokenizer.from_pretrained("ascii"))
    with pytest.raises(ClipError, match="still picture"):
        look_at_clip(Image.new("RGB", (4, 4)), tokenizer)


def test_how_long_a_frame_stands(tmp_path: Path) -> None:
    path = save_clip(tiny_clips.square(16, step=1), tmp_path / "a.gif", ms=200)
    assert frame_ms(path, 8) == 400
    assert frame_ms(path, 1000) == 20 and frame_ms(path, 1) == 2000  # never too fast to see, nor for ever
    assert frame_ms(tiny_clips.square(), 8) == 100


def test_psnr() -> None:
    black, grey = np.zeros((2, 3, 3, 3), np.uint8), np.full((2, 3, 3, 3), 51, np.uint8)
    assert psnr_of(black, [black, grey]) == (float("inf"), pytest.approx(10 * np.log10(25)))


@pytest.mark.parametrize("script", [True, False])
def test_in_a_browser_the_clips_move_and_nothing_runs_over(
    browser: Callable[..., Any], shown: ClipLook, tmp_path: Path, script: bool
) -> None:
    long = dataclasses.replace(shown, name="long_file_name_" * 6)
    (tmp_path / "page.html").write_text(render_clip_page([shown, long]), encoding="utf-8")
    page = browser(width=360, height=740)
    page.call("Emulation.setScriptExecutionDisabled", {"value": not script})
    page.open(tmp_path / "page.html")
    page.wait("[...document.images].every((one) => one.complete && one.naturalWidth > 0 && one.alt)")
    assert page.run("document.documentElement.scrollWidth") == 360
    moving = "[...document.images].filter((one) => one.currentSrc.startsWith('data:image/webp') && one.alt).length"
    assert page.run(moving) == 2 * (2 + len(shown.decoded) + 1 + 1)
    page.show(1280, 900)
    assert page.run("document.documentElement.scrollWidth === document.documentElement.clientWidth")
    assert page.messages == []


def test_a_layer_that_says_how_it_moves_is_not_held_against_what_is_seen(shown: ClipLook) -> None:
    said = "How the clip moves; what it shows, the other layers say"
    assert said not in render_clip_page([shown])
    page = render_clip_page([dataclasses.replace(shown, motion_layer=2)])
    assert page.count(said) == 1
