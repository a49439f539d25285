"""What is true of any tokenizer from outside: which words it makes, and a wrapper that changes nothing.

Knows: the Tokenizer contract. Refuses to know: how words are made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import PyramidLayout, TokenPyramid
    from icl_vision.vocabulary import Vocabulary


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hex sha256 of what decides a tokenizer's words: name, layout, vocabulary, what is withheld, its card's files."""
    card = tokenizer.card
    parts = {
        "name": tokenizer.name,
        "layout": tokenizer.layout.to_dict(),
        "vocabulary": None if tokenizer.vocabulary is None else tokenizer.vocabulary.hash,
        **{key: card[key] for key in ("files", "codebook", "withheld") if key in card},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class WrappedTokenizer:
    """A tokenizer that hands everything on to another one; a subclass changes what it wants to.

    What the contract names is handed on here; whatever else the inner tokenizer has (how it takes pictures, the width
    of its vectors, what a later version adds) is found there when it is asked for. ``batch_size`` is the inner one's,
    whichever of the two it is set on.

    inner: any tokenizer of the contract.
    """

    inner: Tokenizer

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.name = inner.name
        self.can_decode = inner.can_decode
        self.can_embed = inner.can_embed

    @property
    def layout(self) -> PyramidLayout:
        return self.inner.layout

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self.inner.vocabulary

    @property
    def codebook(self) -> npt.NDArray[np.float32] | None:
        return self.inner.codebook

    @property
    def card(self) -> Mapping[str, Any]:
        return self.inner.card

    def encode(self, images: Any, k: int | None = None) -> list[TokenPyramid]:
        return self.inner.encode(images, k)

    def embed(self, images: Any) -> npt.NDArray[np.float32]:
        return self.inner.embed(images)

    def decode(self, pyramids: Sequence[TokenPyramid]) -> list[Image.Image]:
        return self.inner.decode(pyramids)

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        return self.inner.to_text(pyramid, k)

    def from_text(self, text: str) -> TokenPyramid:
        return self.inner.from_text(text)

    def layout_for(self, k: int) -> PyramidLayout:
        """The layout of an image given in ``k`` words, where the wrapped tokenizer says; else from its layout."""
        layout_for = getattr(self.inner, "layout_for", None)
        layout: PyramidLayout = layout_for(k) if layout_for else self.layout.truncate(self.layout.layers_for(k))
        return layout

    @property
    def batch_size(self) -> int:
        """Images that are held in memory at once."""
        return int(getattr(self.inner, "batch_size", 32))

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.inner.batch_size = size  # type: ignore[attr-defined]  # no part of the protocol, but of every one of ours

    def __getattr__(self, name: str) -> Any:
        # Only for what is not found here. A copy or a pickle asks before there is an inner one.
        if name.startswith("_") or name == "inner":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


def unwrapped(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer inside any number of wrappers."""
    while isinstance(tokenizer, WrappedTokenizer):
        tokenizer = tokenizer.inner
    return tokenizer
