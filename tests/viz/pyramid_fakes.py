"""Small tokenizers that the tests of pages and pictures of pyramids share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.vocabulary import Vocabulary

SIDES = (1, 2, 4, 8, 16, 16)
LAYOUT = PyramidLayout(tuple((side, side) for side in SIDES))
HOSTILE = "<img/src=x>"
WORDS = Vocabulary([HOSTILE, *(f"word{number:03}" for number in range(254)), "incomprehensible"], name="fake-words")
VECTORS = np.random.default_rng(3).normal(size=(len(WORDS), 8)).astype(np.float32)


class SixLayers(ImageTokenizer):
    """597 words of greys on grids 1, 2, 4, 8, 16, 16; decodes to the finest greys; embeds into the words' space."""

    name = "six-layers"
    can_decode = True
    can_embed = True
    embedding_width = 8
    preprocessing = Preprocessing(16)

    @property
    def layout(self) -> PyramidLayout:
        return LAYOUT

    @property
    def vocabulary(self) -> Vocabulary | None:
        return WORDS

    @property
    def codebook(self) -> npt.NDArray[np.float32] | None:
        return VECTORS

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = LAYOUT if k is None else self.layout_for(k)
        greys = [self.preprocessing.apply(image).convert("L") for image in images]
        return [
            TokenPyramid(
                tuple(
                    np.asarray(grey.resize(grid[::-1], Image.Resampling.BOX), dtype=np.int32) for grid in layout.grids
                ),
                layout,
                WORDS,
            )
            for grey in greys
        ]

    def _decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        greys = [Image.fromarray(pyramid.ids[-1].astype(np.uint8)) for pyramid in pyramids]
        return [grey.convert("RGB").resize((16, 16)) for grey in greys]

    def _embed(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        return np.stack([VECTORS[pyramid.ids[1].ravel()].mean(axis=0) for pyramid in self._encode(images, None)])


class Elsewhere(SixLayers):
    """Its image vectors live in a space of their own."""

    embedding_width = 3

    def _embed(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        return np.ones((len(images), 3), dtype=np.float32)


class Flat(SixLayers):
    """Any number of words in a row."""

    name = "flat"
    can_decode = False
    can_embed = False

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(6)

    def layout_for(self, k: int) -> PyramidLayout:
        return PyramidLayout.flat(k)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        ids = np.arange(k or 6, dtype=np.int32)[None]
        return [TokenPyramid((ids,), PyramidLayout.flat(ids.size), WORDS) for _ in images]


class OneGrid(SixLayers):
    """64 words at their places, in one layer, and the way back; no vector of the image."""

    name = "one-grid"
    can_embed = False

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout(((8, 8),))

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        return [TokenPyramid((pyramid.ids[3],), self.layout, WORDS) for pyramid in super()._encode(images, None)]


class NoVectors(SixLayers):
    """Words without vectors, and no way back."""

    can_decode = False
    can_embed = False

    @property
    def codebook(self) -> None:
        return None


class Video(NoVectors):
    """Grids with frames."""

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout(((1, 1, 1), (2, 2, 2)))


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Dark on the left to light on the right, with a black corner (the hostile word)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, :] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    pixels[: height // 4, : width // 4] = 0
    return Image.fromarray(pixels)
