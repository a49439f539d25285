"""Pictures of grey cells, and a tokenizer that reads and draws them exactly: for tests of denoising."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.vocabulary import Vocabulary

SIDE = 32
SHADES = Vocabulary([f"shade{letter}" for letter in "abcdefghijklmnop"], name="shades")
MANY = Vocabulary([f"shade{number:04d}" for number in range(1024)], name="many shades")
LAYOUT = PyramidLayout(((1, 1), (2, 2), (4, 4)))
Pixels = npt.NDArray[np.uint8]


class GreyTokenizer(ImageTokenizer):
    """A word for each cell's mean grey; decodes to the finest layer's greys."""

    name = "greys"
    can_decode = True

    def __init__(self, layout: PyramidLayout = LAYOUT, *, large: bool = False) -> None:
        """large: a vocabulary of 1,024 words, where a grey has another word at every place of a layer."""
        self._layout = layout
        self._large = large
        self.preprocessing = Preprocessing(SIDE)

    @property
    def layout(self) -> PyramidLayout:
        return self._layout

    @property
    def vocabulary(self) -> Vocabulary:
        return MANY if self._large else SHADES

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = self.layout if k is None else self.layout_for(k)
        found = []
        for pixels in self.preprocessing.batch(images):
            grey = pixels.mean(2)
            layers = [
                grey.reshape(rows, SIDE // rows, columns, SIDE // columns).mean((1, 3)).astype(np.int32) // 16
                for rows, columns in layout.grids
            ]
            if self._large:
                layers = [ids + 16 * np.arange(ids.size, dtype=np.int32).reshape(ids.shape) for ids in layers]
            found.append(TokenPyramid(tuple(layers), layout, self.vocabulary))
        return found

    def _decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        made = []
        for one in pyramids:
            ids = one.ids[-1] % 16
            grey = np.kron(ids, np.ones((SIDE // ids.shape[0], SIDE // ids.shape[1]))) * 16 + 8
            made.append(Image.fromarray(np.repeat(grey[..., None], 3, 2).astype(np.uint8)))
        return made


def pictures(count: int, seed: int = 0) -> list[Pixels]:
    """Pictures of 4 x 4 grey cells, all different."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 256, (count, 4, 4), dtype=np.uint8)
    return [np.repeat(np.kron(one, np.ones((8, 8), np.uint8))[..., None], 3, 2) for one in cells]
