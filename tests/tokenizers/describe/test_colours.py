"""Colour names of pictures and of their regions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from icl_vision.codebook import Codebook
from icl_vision.tokenizers.describe import colours

PLAIN = {
    "red": (200, 20, 30),
    "orange": (245, 130, 20),
    "yellow": (250, 225, 40),
    "green": (40, 150, 60),
    "blue": (30, 90, 200),
    "purple": (110, 40, 150),
    "pink": (245, 130, 180),
    "brown": (100, 60, 30),
    "tan": (205, 175, 130),
    "gray": (128, 128, 128),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}


def plain(rgb: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, rgb)


def first(shares: np.ndarray) -> str:
    return colours.NAMES[int(shares.argmax())]


@pytest.mark.parametrize("name", colours.NAMES)
def test_plain_pictures_have_their_names(name: str) -> None:
    shares = colours.region_shares(colours.mean_shares([plain(PLAIN[name])]))[0]
    assert [first(region) for region in shares] == [name] * 5
    assert shares.sum(1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["red", "yellow", "green", "blue", "purple", "pink"])
def test_half_in_the_shade_a_thing_keeps_its_colour(name: str) -> None:
    shade = tuple(int(255 * (value / 255 * 0.75)) for value in PLAIN[name])
    assert first(colours.region_shares(colours.mean_shares([plain((shade[0], shade[1], shade[2]))]))[0, 0]) == name


def test_a_probability_rises_with_how_much_there_is() -> None:
    place = colours.NAMES.index("red")
    chances = []
    for side in (0, 6, 20, 56):
        picture = plain(PLAIN["green"], (56, 56))
        picture.paste(PLAIN["red"], (28 - side // 2, 28 - side // 2, 28 + side // 2, 28 + side // 2))
        chances.append(colours.colour_probabilities(colours.mean_shares([picture]))[0, place])
    assert chances[0] < chances[1] < chances[2]
    assert chances[0] < 0.05 < 0.3 < chances[2] < 1
    assert chances[3] > chances[0]


def test_regions_are_told_apart() -> None:
    picture = plain(PLAIN["white"], (70, 70))
    picture.paste(PLAIN["blue"], (0, 0, 70, 30))  # above
    picture.paste(PLAIN["green"], (0, 40, 70, 70))  # below
    shares, chances = colours.region_colours(colours.mean_shares([picture]))
    by_region = dict(zip(colours.REGIONS, shares[0], strict=True))
    assert first(by_region["top"]) == "blue" and first(by_region["bottom"]) == "green"
    assert by_region["left"] == pytest.approx(by_region["right"], abs=1e-5)
    white = colours.NAMES.index("white")
    assert by_region["centre"][white] > 0.25 > by_region["left"][white] - 1e-3 > 0
    assert shares.shape == chances.shape == (1, 5, 12)
    assert ((0 < chances) & (chances < 1)).all()
    blue = colours.NAMES.index("blue")
    assert chances[0, 0, blue] > chances[0, 1, blue]


def test_a_picture_says_the_same_alone_and_among_others() -> None:
    pictures = [plain(rgb, (30 + place, 50)) for place, rgb in enumerate(PLAIN.values())]
    together = colours.colour_probabilities(colours.mean_shares(pictures))
    alone = np.concatenate([colours.colour_probabilities(colours.mean_shares([picture])) for picture in pictures])
    assert np.array_equal(together, alone)
    assert together.dtype == np.float32 and together.shape == (12, 12)
    assert colours.colour_probabilities(colours.mean_shares([])).shape == (0, 12)


def test_names_are_portable_words_and_known_once() -> None:
    assert len(set(colours.NAMES)) == len(colours.NAMES) == 12
    assert set(colours.NAMES) <= set(Codebook.load().vocabulary.words)


def test_oklab_of_known_colours() -> None:
    """Values of Ottosson's page: white is (1, 0, 0), and the sRGB primaries lie where his code puts them."""
    lab = colours.oklab(np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], dtype=float))
    assert lab[0] == pytest.approx([1, 0, 0], abs=1e-3)
    assert lab[1] == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)
    assert lab[2] == pytest.approx([0.452, -0.032, -0.312], abs=1e-3)
