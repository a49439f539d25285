"""One layer of a pyramid as the words of an image: those that see what the question is about.

    word_of_motion = OneLayer(ImageTokenizer.from_pretrained("spae-clips-64"), 2)      # how a clip moves

Of a clip the coarsest layer stands for all frames at once and cannot know their order; a layer of two or more frames
has words of the beginning and words of the end, in this order.

Knows: how a layer is taken out. Refuses to know: which layer is good for what.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import on_grids
from icl_vision.tokenizers.wrapping import WrappedTokenizer

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer


class OneLayer(WrappedTokenizer):
    """A tokenizer whose words are those of one layer of another's; it cannot decode.

    Args:
        inner: a tokenizer of pyramids. layer: from 1.

    Raises:
        UsageError: no such layer.
    """

    def __init__(self, inner: Tokenizer, layer: int) -> None:
        super().__init__(inner)
        self.layer = checks.count("layer", layer, most=len(inner.layout))
        self.can_decode = False
        self.name = f"{inner.name}, layer {self.layer}"

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout((self.inner.layout.grids[self.layer - 1],))

    def layout_for(self, k: int) -> PyramidLayout:
        """The layer; ``k`` must be the number of its words. Raises PyramidError."""
        return self.layout.truncate(self.layout.layers_for(k))

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        if k is not None:
            self.layout_for(k)
        layout = self.layout
        needed = self.inner.layout.cumulative[self.layer - 1]
        return [
            TokenPyramid((pyramid.ids[self.layer - 1],), layout, pyramid.vocabulary)
            for pyramid in self.inner.encode(images, needed)
        ]

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        """The layer's words, joined by a space."""
        if k is not None:
            self.layout_for(k)
        return " ".join(pyramid.words())

    def from_text(self, text: str) -> TokenPyramid:
        """The layer whose ``to_text`` is ``text``.

        Raises:
            UnknownWordError: a word outside the vocabulary.
            PyramidError: not as many words as the layer has.
            UsageError: no text, or a tokenizer without a vocabulary.
        """
        if not isinstance(text, str):
            raise UsageError(f"text must be a str; got {type(text).__name__}")
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise UsageError(f"the tokenizer {self.name!r} has no vocabulary to read words by")
        words = text.split()
        layout = self.layout_for(len(words))
        return TokenPyramid(on_grids(np.asarray(vocabulary.ids(words), dtype=np.int32), layout), layout, vocabulary)

    @property
    def identity(self) -> str:
        """The inner tokenizer's and the layer's number."""
        return hashlib.sha256(f"layer {self.layer} of {super().identity}".encode()).hexdigest()
