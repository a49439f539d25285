"""A tokenizer that encodes each image file once, however many episodes it appears in.

Knows: paths and what was encoded for them. Refuses to know: how. Everything but ``encode`` and ``embed`` is the
wrapped tokenizer's own; images that are not paths go straight through.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icl_vision.tokenizers.wrapping import WrappedTokenizer

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import TokenPyramid


class RememberingTokenizer(WrappedTokenizer):
    """Wraps a tokenizer and keeps words and vectors by path, in memory, for as long as it lives.

    Args:
        inner: any tokenizer of the contract. Its results must not depend on the batch, which the contract demands.

    Files are taken not to change while it lives.
    """

    def __init__(self, inner: Tokenizer) -> None:
        super().__init__(inner)
        self._words: dict[tuple[str, int | None], TokenPyramid] = {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def encode(self, images: Any, k: int | None = None) -> list[TokenPyramid]:
        """As the wrapped tokenizer's, without encoding a path twice for the same ``k``."""
        images, paths = _paths(images)
        if paths is None:
            return self.inner.encode(images, k)
        new = [path for path in dict.fromkeys(paths) if (path, k) not in self._words]
        if new:
            for path, pyramid in zip(new, self.inner.encode(new, k), strict=True):
                self._words[path, k] = pyramid
        return [self._words[path, k] for path in paths]

    def embed(self, images: Any) -> npt.NDArray[np.float32]:
        """As the wrapped tokenizer's, without embedding a path twice."""
        images, paths = _paths(images)
        if not paths:
            return self.inner.embed(images)
        new = [path for path in dict.fromkeys(paths) if path not in self._vectors]
        if new:
            for path, vector in zip(new, self.inner.embed(new), strict=True):
                self._vectors[path] = vector
        return np.stack([self._vectors[path] for path in paths])


def _paths(images: Any) -> tuple[Any, list[str] | None]:
    """The images (an iterator read into a list), and their paths or None when any of them is something else."""
    if isinstance(images, str | os.PathLike):
        return images, [os.fspath(images)]
    if isinstance(images, Iterator):
        images = list(images)
    if not isinstance(images, list | tuple) or not all(isinstance(image, str | os.PathLike) for image in images):
        return images, None
    return images, [os.fspath(image) for image in images]
