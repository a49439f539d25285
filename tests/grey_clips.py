"""Clips of grey cells, and a tokenizer that reads and draws them exactly: for tests of what is done with clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import on_grids
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.vocabulary import Vocabulary

SIDE, FRAMES = 16, 4
SHADES = Vocabulary([f"shade{letter}" for letter in "abcdefghijklmnop"], name="shades")
LAYOUT = PyramidLayout(((1, 1, 1), (2, 2, 2), (4, 4, 4)))
Clip = npt.NDArray[np.uint8]


class GreyClips:
    """A word for each cell's mean grey, over frames, rows and columns; decodes to the finest layer's greys."""

    name, modality, frames = "grey-clips", "clip", FRAMES
    can_decode, can_embed = True, False
    layout, vocabulary = LAYOUT, SHADES
    codebook = np.stack([np.cos(np.arange(16) / 5), np.sin(np.arange(16) / 5)], axis=1).astype(np.float32)
    preprocessing = Preprocessing(SIDE)

    def __init__(self) -> None:
        self.card = {"name": self.name, "modality": "clip", "frames": FRAMES, "vocabulary": SHADES.hash}
        self.asked = 0

    def encode(self, clips: Any, k: int | None = None) -> list[TokenPyramid]:
        layout = LAYOUT if k is None else LAYOUT.truncate(LAYOUT.layers_for(k))
        found = []
        for clip in clips:
            self.asked += 1
            grey = np.asarray(clip).mean(3)
            layers = []
            for t, rows, columns in layout.grids:
                cells = grey.reshape(t, FRAMES // t, rows, SIDE // rows, columns, SIDE // columns)
                layers.append(cells.mean((1, 3, 5)).astype(np.int32) // 16)
            found.append(TokenPyramid(tuple(layers), layout, SHADES))
        return found

    def decode(self, pyramids: list[TokenPyramid]) -> list[list[Image.Image]]:
        made = []
        for pyramid in pyramids:
            ids = pyramid.ids[-1]
            scale = [whole // part for whole, part in zip((FRAMES, SIDE, SIDE), ids.shape, strict=True)]
            grey = (np.kron(ids, np.ones(scale)) * 16 + 8).astype(np.uint8)
            made.append([Image.fromarray(np.repeat(frame[..., None], 3, 2)) for frame in grey])
        return made

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        return " ".join(pyramid.words()[:k])

    def from_text(self, text: str) -> TokenPyramid:
        ids = np.asarray(SHADES.ids(text.split()), dtype=np.int32)
        layout = LAYOUT.truncate(LAYOUT.layers_for(len(ids)))
        return TokenPyramid(on_grids(ids, layout), layout, SHADES)

    def embed(self, clips: Any) -> Any:
        raise NotImplementedError


def clips(count: int, seed: int = 0) -> list[Clip]:
    """Clips of 4 x 4 x 4 grey cells in the middle of their shades, all different."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 16, (count, FRAMES, 4, 4)).astype(np.uint8) * 16 + 8
    return [np.repeat(np.kron(one, np.ones((1, 4, 4), np.uint8))[..., None], 3, 3) for one in cells]
