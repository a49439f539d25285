"""Images that are numbers, and a tokenizer that spells them: a classifier for measurements of everything but vision.

Knows: four digits in four pixels. Refuses to know: any model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def numbered(number: int) -> npt.NDArray[np.uint8]:
    """The image of a number from 0 to 9999: uint8 [1, 4, 3], a grey for each digit."""
    digits = [int(digit) for digit in f"{number:04d}"]
    return np.repeat(np.asarray(digits, dtype=np.uint8)[None, :, None] * 20, 3, axis=2)


class NumberTokenizer(ImageTokenizer):
    """Four words for an image made by ``numbered``."""

    name = "numbers"

    def __init__(self) -> None:
        self._vocabulary = Vocabulary(WORDS, name="digits")

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(4)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        ids = [np.asarray(image, dtype=np.int32)[:1, :, 0] // 20 for image in images]
        return [TokenPyramid((layer,), self.layout, self.vocabulary) for layer in ids]
