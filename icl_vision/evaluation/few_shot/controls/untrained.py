"""A randomly initialised encoder that speaks the words of another tokenizer: the papers' "untrained" row.

Knows: a small convolution net with random weights, in numpy. Refuses to know: training, files, LLMs.

What is left of the accuracy with it is what a random projection of the picture (its colours, its coarse shapes) and the
choice among the given labels are worth; the rest was learned. LQAE (arXiv 2302.00902) and De-Diffusion (arXiv
2311.00618) print such rows for encoders of their own; this one is for any tokenizer with a codebook.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import ImageTokenizer
from icl_vision.tokenizers.wrapping import whole

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.vocabulary import Vocabulary

Array = npt.NDArray[np.float32]

SIDE = 64
"""Pixels of a side of the net's input."""

CHANNELS = (3, 32, 64, 128)
"""Channels before and after each 3x3 convolution of stride 2; the last map is 8x8."""


class UntrainedTokenizer(ImageTokenizer):
    """Words of ``like``'s codebook, chosen by a random net.

    Three 3x3 convolutions of stride 2 with He-normal weights and ReLU, then a random linear map into the codebook's
    space. What the net answers to a mid-grey picture is subtracted, so that ReLU's common offset does not send every
    picture to the same words; nothing is fitted to any picture. On a flat layout the words are those nearest (by
    cosine) to the mean over the picture, best first; on a pyramid each position of a layer gets the word nearest to
    the mean over its cell.

    Args:
        like: a tokenizer with a codebook; its layouts, vocabulary and codebook are taken over.
        seed: of the weights; the same seed gives the same words on every machine up to ties of rounding.

    Raises:
        UsageError: ``like`` has no codebook, or a seed that numpy cannot take.
    """

    name = "untrained"
    can_embed = True

    def __init__(self, like: Tokenizer, *, seed: int = 0) -> None:
        if like.codebook is None or like.vocabulary is None:
            raise UsageError(f"the tokenizer {like.name!r} has no codebook, so an untrained encoder has no words")
        seed = checks.count("seed", seed, least=0, most=2**32 - 1)
        self._like = like
        self.seed = seed
        self._vocabulary = like.vocabulary
        table = np.asarray(like.codebook, dtype=np.float32)
        self._table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        self.embedding_width = table.shape[1]
        # RandomState's stream is frozen, unlike that of numpy's newer generators (NEP 19).
        random = np.random.RandomState(seed)
        self._kernels = [
            (random.standard_normal((9 * inputs, outputs)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
            for inputs, outputs in itertools.pairwise(CHANNELS)
        ]
        self._head = (random.standard_normal((CHANNELS[-1], table.shape[1])) / np.sqrt(CHANNELS[-1])).astype(np.float32)
        self._grey = self._convolved(np.full((1, SIDE, SIDE, 3), 127.5, dtype=np.float32))

    @property
    def layout(self) -> PyramidLayout:
        return self._like.layout

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def codebook(self) -> npt.NDArray[np.float32] | None:
        return self._like.codebook

    @property
    def card(self) -> Mapping[str, Any]:
        return {**super().card, "like": self._like.name, "seed": self.seed}

    def layout_for(self, k: int) -> PyramidLayout:
        return whole(self._like).layout_for(k)

    def _shrink(self, image: Image.Image) -> Image.Image:
        return image.resize((SIDE, SIDE), Resampling.BOX)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = self.layout if k is None else self.layout_for(k)
        maps = self._maps(images)
        if layout == PyramidLayout.flat(layout.cumulative[-1]):
            scores = self._into_codebook(maps.mean(axis=(1, 2))) @ self._table.T
            best = np.argsort(-scores, axis=1, kind="stable")[:, : layout.cumulative[-1]].astype(np.int32)
            return [TokenPyramid((row[None],), layout, self._vocabulary) for row in best]
        layers = []
        for height, width in layout.grids:
            cells = self._into_codebook(_pooled(maps, height, width).reshape(-1, maps.shape[-1]))
            nearest = np.argmax(cells @ self._table.T, axis=1).astype(np.int32)
            layers.append(nearest.reshape(len(images), height, width))
        return [
            TokenPyramid(tuple(layer[index] for layer in layers), layout, self._vocabulary)
            for index in range(len(images))
        ]

    def _embed(self, images: list[Image.Image]) -> Array:
        return self._into_codebook(self._maps(images).mean(axis=(1, 2)))

    def _into_codebook(self, features: Array) -> Array:
        """[N, F] -> [N, c]; every row by itself, so that no word depends on the batch it came in."""
        return np.stack([row @ self._head for row in features])

    def _maps(self, images: list[Image.Image]) -> Array:
        """float32 [N, 8, 8, F], what the net makes of each picture beyond what it makes of mid-grey."""
        return np.concatenate(
            [self._convolved(np.asarray(image, dtype=np.float32)[None]) - self._grey for image in images]
        )

    def _convolved(self, pixels: Array) -> Array:
        """Pixels 0 to 255 [1, S, S, 3] -> [1, S/8, S/8, F]."""
        features = (pixels - 127.5) / 127.5 + 1  # 0 to 2: a bias-free net would map mid-grey to nothing otherwise
        for kernel in self._kernels:
            padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
            count, height, width = windows.shape[:3]
            features = np.maximum(windows.reshape(count, height, width, -1) @ kernel, 0)
        return np.asarray(features, dtype=np.float32)


def _pooled(maps: Array, height: int, width: int) -> Array:
    """[N, H, W, F] -> [N, height, width, F]: the mean over each cell; a cell smaller than a pixel takes that pixel."""
    rows = [_span(index, height, maps.shape[1]) for index in range(height)]
    columns = [_span(index, width, maps.shape[2]) for index in range(width)]
    return np.stack(
        [np.stack([maps[:, top:bottom, left:right].mean(axis=(1, 2)) for left, right in columns], axis=1)
         for top, bottom in rows],
        axis=1,
    )  # fmt: skip


def _span(index: int, cells: int, pixels: int) -> tuple[int, int]:
    start = index * pixels // cells
    return start, max(start + 1, -(-(index + 1) * pixels // cells))
