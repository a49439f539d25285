"""Colour names of a picture and of its regions, from its pixels alone.

Knows: which name people give to which colour of a pixel, and how probable it is that somebody who describes the picture
says the name. Refuses to know: what the coloured thing is, words of other kinds, files.

A pixel is compared with samples of each name in OKLab (Ottosson 2020), a space in which equal distances look about
equally far. A shadow takes light from a thing, but hardly changes how red or blue it is for its lightness; so lightness
counts for less, and the two axes of hue are taken relative to it. Which share of a pixel each name has falls off with
the squared distance to the nearest of its samples.

What people say of a picture is another matter than what covers most of it: a red ball is named and the grass it lies on
is not. Three shares of a picture count, each by its logarithm: of the middle, of the whole, and of the patch that has
most of the name. How much each of them counts for each name, and how often a name is said at all, was fitted
(``benchmarks/describe_colours.py``); so a probability here is that of the word being said by one of five people, and of
a region's colour that of its being said of the picture it is in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

REGIONS = ("top", "bottom", "left", "right", "centre")
"""Of 7 x 7 equal cells: 3 rows, 3 rows, 3 columns, 3 columns, and the 3 x 3 in the middle; as the heads' regions."""

_SIDE, _CELLS = 56, 7  # a picture as it is looked at, and the cells of it on a side
_LIGHTNESS, _DEPTH, _WIDTH = 0.4, 0.2, 0.002
_LEVELS = 32  # of each of red, green and blue in the table
_MIDDLE = 0.5  # standard deviation of the middle's bell, in halves of the side
_LEAST = 0.01  # added to a share before its logarithm: 1% of a picture is nearly nothing


class Colour(NamedTuple):
    """A name, sRGB samples of it, and the weights of its probabilities.

    said: bias, and the weights of the logarithms of the shares of the middle, of the whole, of the fullest patch.
    region: bias, and the weight of the logarithm of a region's share.
    """

    name: str
    samples: str
    said: tuple[float, float, float, float]
    region: tuple[float, float]


COLOURS = (
    Colour("red", "c01818 901018 e03030 701010", (0.05, 1.15, -1.29, 0.80), (1.93, 0.91)),
    Colour("orange", "f07818 d06010 ff9a40", (-2.93, 0.12, -0.89, 0.93), (-0.69, 0.55)),
    Colour("yellow", "f0d820 e0c040 fff080 c8a818", (-0.95, 0.87, -1.13, 0.79), (0.29, 0.68)),
    Colour("green", "208030 305818 70a040 103818 90b868 587838 405030", (-0.92, 0.76, -0.60, 0.50), (-0.82, 0.50)),
    Colour(
        "blue", "2040a0 3068c0 70a8e0 102048 98c0e8 5878a8 203860 486090", (-0.62, 0.65, -0.71, 0.70), (-0.22, 0.48)
    ),
    Colour("purple", "602880 8848a8 402050 a070c0", (-1.95, 0.80, -0.92, 0.71), (-0.53, 0.83)),
    Colour("pink", "f078a8 e03080 f8b0c8 d85888", (1.17, 0.65, -0.48, 1.12), (2.56, 1.35)),
    Colour("brown", "603818 805028 402410 8a6040 5a4030 48321e", (-1.27, 0.81, -0.94, 0.69), (-0.97, 0.33)),
    Colour("tan", "c8a878 b09068 d8c098 a08860", (-1.84, 0.78, -0.42, 0.39), (-2.11, 0.44)),
    Colour("gray", "808080 606060 a0a0a0 70787c 908880 505050 b4b4b0", (-2.89, 0.88, -0.79, 0.28), (-2.92, 0.17)),
    Colour("white", "ffffff e8e8e8 f4f0e8 e8f0f4 d0d0d0", (-1.09, 1.11, -1.17, 0.25), (-1.10, 0.08)),
    Colour("black", "000000 181818 241c18 181c24 2c2c2c", (-1.32, 1.18, -1.35, 0.56), (-1.19, 0.11)),
)
"""Names that people use of photographs: others ("silver", "beige", "maroon") stood in the captions of 5 pictures in 961
or fewer. All are words of the portable vocabulary."""

NAMES = tuple(colour.name for colour in COLOURS)


def most_colours(k: int) -> int:
    """The most names of a picture, where a part has ``k`` words at most: half as many, for there are only twelve."""
    return min(-(-k // 2), len(NAMES))


def colour_probabilities(means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How probable it is that somebody says each name of each picture.

    Args:
        means: as ``mean_shares`` gives them.

    Returns:
        float32 [N, 12], in the order of ``NAMES``.
    """
    weights = np.array([colour.said for colour in COLOURS], dtype=np.float32)
    return _sigmoid(weights[:, 0] + (weights[:, 1:] * picture_features(means)).sum(2))


def region_colours(means: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How much of each region has each name, and how probable it is that somebody says that name of the picture.

    Args:
        means: as ``mean_shares`` gives them.

    Returns:
        Shares, which add up to 1 in a region, and probabilities; both float32 [N, 5, 12], in the order of ``REGIONS``
        and of ``NAMES``.
    """
    shares = region_shares(means)
    weights = np.array([colour.region for colour in COLOURS], dtype=np.float32)
    return shares, _sigmoid(weights[:, 0] + weights[:, 1] * np.log(shares + _LEAST))


def picture_features(means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The logarithms of three shares of each name, float32 [N, 12, 3]: of the middle, the whole, the fullest patch."""
    cells = _cells(means)
    patches = (cells[:, 1:, 1:] + cells[:, 1:, :-1] + cells[:, :-1, 1:] + cells[:, :-1, :-1]) / 4
    three = (means[:, -1], cells.mean((1, 2)), patches.max((1, 2), initial=0))
    return np.log(np.stack(three, axis=2) + _LEAST).astype(np.float32)


def region_shares(means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How much of each region has each name, float32 [N, 5, 12]."""
    cells = _cells(means)
    part = _CELLS // 2
    inner = slice((_CELLS - part) // 2, (_CELLS - part) // 2 + part)
    whole = slice(None)
    places = ((slice(part), whole), (slice(-part, None), whole), (whole, slice(part)), (whole, slice(-part, None)))
    regions = [cells[:, rows, columns].mean((1, 2)) for rows, columns in (*places, (inner, inner))]
    return np.stack(regions, axis=1)


def mean_shares(images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
    """How much of the 7 x 7 cells of each picture, and of its middle, has each name: all that is looked at in pixels.

    Args:
        images: RGB pictures of any size.

    Returns:
        float32 [N, 50, 12]: the cells row by row, then the middle.
    """
    means = np.empty((len(images), _CELLS**2 + 1, len(COLOURS)), dtype=np.float32)
    side, middle = _SIDE // _CELLS, _middle()
    for place, image in enumerate(images):
        pixels = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX)).reshape(-1, 3)
        levels = (pixels // (256 // _LEVELS)).astype(np.intp)
        colour = (levels[:, 0] * _LEVELS + levels[:, 1]) * _LEVELS + levels[:, 2]
        shares = _table().take(colour.reshape(_CELLS, side, _CELLS, side).swapaxes(1, 2), axis=0)
        cells = shares.reshape(_CELLS**2, side**2, -1)
        # Sums, not products of matrices, for which numpy would wake threads: they are too small for that.
        means[place, :-1] = cells.sum(1) / side**2
        means[place, -1] = (cells * middle).sum((0, 1))
    return means


@functools.cache
def _table() -> npt.NDArray[np.float32]:
    """The shares of names of every colour, [32 * 32 * 32, 12]: looking one up is faster than comparing each pixel."""
    step = 256 // _LEVELS
    levels = np.arange(_LEVELS) * step + (step - 1) / 2
    every = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=3)
    points = _comparable(every.reshape(-1, 3))
    nearest = []
    for colour in COLOURS:
        samples = _comparable(np.array([list(bytes.fromhex(sample)) for sample in colour.samples.split()], dtype=float))
        nearest.append(((points[:, None] - samples) ** 2).sum(2).min(1))
    distances = np.stack(nearest, axis=1)
    fits = np.exp((distances.min(1, keepdims=True) - distances) / _WIDTH)
    table: npt.NDArray[np.float32] = (fits / fits.sum(1, keepdims=True)).astype(np.float32)
    return table


def _comparable(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sRGB from 0 to 255 [..., 3] as points whose distance says how unlike two colours are: see the module."""
    lab = oklab(rgb)
    lightness = lab[..., :1]
    return np.concatenate([_LIGHTNESS * lightness, lab[..., 1:] / (_DEPTH + lightness)], axis=-1)


def oklab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sRGB from 0 to 255 [..., 3] in OKLab: lightness from 0 to 1, green to red, blue to yellow."""
    part = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@functools.cache
def _middle() -> npt.NDArray[np.float32]:
    """How much each pixel counts for the middle of a picture, cell by cell [49, 64, 1], 1 in all."""
    side = _SIDE // _CELLS
    places = np.linspace(-1, 1, _SIDE)
    bell = np.exp(-(places**2) / (2 * _MIDDLE**2))
    weights = (np.outer(bell, bell) / bell.sum() ** 2).astype(np.float32)
    by_cell: npt.NDArray[np.float32] = weights.reshape(_CELLS, side, _CELLS, side).swapaxes(1, 2)
    return by_cell.reshape(_CELLS**2, side**2, 1)


def _cells(means: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The cells in their places, [N, 7, 7, 12]."""
    cells: npt.NDArray[np.float32] = means[:, :-1].reshape(-1, _CELLS, _CELLS, len(COLOURS))
    return cells


def _sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    chances: npt.NDArray[np.float32] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return chances
