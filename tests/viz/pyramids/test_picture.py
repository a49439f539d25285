"""The picture of `icl-vision show`: one image, drawn whole, the same every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pyramid_fakes import Flat, NoVectors, OneGrid, SixLayers, picture

from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.viz.pyramids.look import look
from icl_vision.viz.pyramids.marks import SHADES
from icl_vision.viz.pyramids.picture import WIDTH, draw_pyramid


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    packed = np.unique(image.astype(np.int32) @ [65536, 256, 1])
    return {(code >> 16, code >> 8 & 255, code & 255) for code in packed.tolist()}


@pytest.mark.parametrize(
    ("tokenizer", "k"),
    [(SixLayers(), None), (SixLayers(), 1), (OneGrid(), None), (SixLayers(), 21), (Flat(), None), (Flat(), 40),
     (NoVectors(), None), (AsciiTokenizer(16, 16), None), (AsciiTokenizer(1, 80), None)],
)  # fmt: skip
def test_every_kind_is_drawn_within_the_sheet(tokenizer: ImageTokenizer, k: int | None) -> None:
    drawn = draw_pyramid(look(picture(), tokenizer, k=k, name="beach.jpg"))
    assert drawn.mode == "RGB" and drawn.width == WIDTH and 300 < drawn.height < 4500
    pixels = np.asarray(drawn)
    margin = np.concatenate(
        [pixels[:30].ravel(), pixels[-30:].ravel(), pixels[:, :30].ravel(), pixels[:, -30:].ravel()]
    )
    assert (margin == 255).all()
    assert (pixels != 255).mean() > 0.05


def test_shades_and_words_are_in_the_picture_and_it_is_the_same_every_time() -> None:
    shown = look(picture(), SixLayers(), name="beach.jpg")
    one, two = (np.asarray(draw_pyramid(shown)) for _ in range(2))
    assert np.array_equal(one, two)
    legend = {tuple(int(shade[at : at + 2], 16) for at in (1, 3, 5)) for shade in SHADES}
    assert legend <= colours(one)
    other = np.asarray(draw_pyramid(shown, command="icl-vision show beach.jpg --out other.png"))
    assert other.shape == one.shape and not np.array_equal(one, other)


@pytest.mark.parametrize("size", [(600, 30), (30, 600), (1, 1)])
def test_strange_shapes(size: tuple[int, int]) -> None:
    drawn = draw_pyramid(look(picture(*size), SixLayers(), name="a" * 200))
    assert drawn.width == WIDTH


def test_what_was_measured_is_written_and_changes_nothing_else() -> None:
    shown = look(picture(), SixLayers(), name="beach.jpg")
    plain = np.asarray(draw_pyramid(shown))
    measured = np.asarray(draw_pyramid(dataclasses.replace(shown, psnr=(7.0, 8.0, 9.0, 12.0, 20.0, 22.5))))
    assert measured.shape == plain.shape
    rows = np.flatnonzero((measured != plain).any((1, 2)))
    assert 0 < len(rows) < 80 and rows.max() < 800  # the hero's title and the row of reconstructions
