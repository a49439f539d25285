"""Preprocessing.restore: what came back from words in the shape of what went in."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from icl_vision.tokenizers.pixels import LARGEST, Preprocessing


def two_halves(width: int, height: int) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("margin", [0, 4])
@pytest.mark.parametrize("size", [(60, 120), (120, 60), (31, 97), (1, 50)])
def test_squash_and_back(size: tuple[int, int], margin: int) -> None:
    rule = Preprocessing(32, "squash", margin=margin)
    photo = two_halves(*size)
    again = rule.restore(rule.apply(photo), photo.size)
    assert again.size == size
    away = np.abs(np.asarray(again, int) - np.asarray(photo, int)).mean(axis=(1, 2))
    edge = abs(np.arange(size[1]) - size[1] / 2) < size[1] / 8  # but for the blurred edge between the halves
    assert away[~edge].max() < 8


def test_large_photographs_come_back_smaller_in_their_shape() -> None:
    rule = Preprocessing(32)
    assert rule.restore(Image.new("RGB", (32, 32)), (3000, 6000)).size == (LARGEST // 2, LARGEST)
    assert rule.restore(Image.new("RGB", (32, 32)), (50_000, 1)).size == (LARGEST, 1)


def test_squares_and_crops_stay_as_they_were_decoded() -> None:
    made = Image.new("RGB", (32, 32))
    assert Preprocessing(32).restore(made, (500, 500)) is made
    assert Preprocessing(32, margin=2).restore(made, (28, 28)) is made
    assert Preprocessing(32, "crop", short=32).restore(made, (60, 120)) is made
