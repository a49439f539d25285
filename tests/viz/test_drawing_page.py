"""Animated previews and the page of drawings."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.viz.drawing_page import DrawingPage, DrawingTile, enlarged, gif_bytes, render_page, write_gif


def frames(count: int = 3) -> list[Image.Image]:
    return [Image.new("RGB", (32, 32), (40 * number, 0, 0)) for number in range(count)]


def test_an_animation_holds_every_frame_enlarged(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", frames())
    with Image.open(tmp_path / "a.gif") as moving:
        assert (moving.format, moving.n_frames, moving.size) == ("GIF", 3, (192, 192))
    with Image.open(io.BytesIO(gif_bytes(frames(1)))) as one:
        assert one.size == (192, 192)


def test_pictures_that_are_large_stay_as_they_are() -> None:
    assert enlarged(Image.new("RGB", (300, 200))).size == (300, 200)
    assert enlarged(Image.new("RGB", (100, 50))).size == (200, 100)


def test_frames_that_make_no_animation() -> None:
    with pytest.raises(UsageError, match="at least one frame"):
        gif_bytes([])
    with pytest.raises(UsageError, match="must be of one size"):
        gif_bytes([*frames(), Image.new("RGB", (8, 8))])


def test_a_page_loads_nothing_and_escapes_everything() -> None:
    tile = DrawingTile("<b>an image</b>", frames()[0], frames(), [["stroke"], ["<i>"]], "note & more", wrong=True)
    page = render_page(DrawingPage("Drawn <here>", [tile, DrawingTile("still", frames()[0])], {"s": 3}, "whose"))
    assert "<b>an image" not in page and "&lt;b&gt;an image" in page and "<i>" not in page
    assert page.count("data:image/gif;base64,") == 1 and page.count("data:image/png;base64,") == 1
    assert "http" not in page.replace("http-equiv", "") and 'class="card drawing wrong"' in page
