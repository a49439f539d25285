"""A tokenizer that encodes each image file once, however many episodes it appears in.

Knows: paths and what was encoded for them. Refuses to know: how. Everything but ``encode`` and ``embed`` is the
wrapped tokenizer's own; images that are not paths go straight through.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from icl_vision.forks import ForkLock
from icl_vision.tokenizers.wrapping import WrappedTokenizer

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import TokenPyramid

V = TypeVar("V")

WORDS_KEPT = 50_000
"""Images whose words are kept: some tens of megabytes."""

VECTORS_KEPT = 5_000
"""Images whose vectors are kept: 25 MB at 1,280 numbers each."""


class RememberingTokenizer(WrappedTokenizer):
    """Wraps a tokenizer and keeps words and vectors by path, in memory, for as long as it lives.

    Threads may share one: images are encoded one call at a time.

    Args:
        inner: any tokenizer of the contract. Its results must not depend on the batch, which the contract demands.
        words_kept, vectors_kept: so many images, those used last; others are encoded again.

    Files are taken not to change while it lives.
    """

    def __init__(self, inner: Tokenizer, *, words_kept: int = WORDS_KEPT, vectors_kept: int = VECTORS_KEPT) -> None:
        super().__init__(inner)
        self._words: _Recent[TokenPyramid] = _Recent(words_kept)
        self._vectors: _Recent[npt.NDArray[np.float32]] = _Recent(vectors_kept)
        self._lock = ForkLock()

    def __getstate__(self) -> dict[str, Any]:
        # Where it is unpickled it remembers anew: there may be other files, and a lock stays where it is.
        return {"inner": self.inner, "kept": (self._words.size, self._vectors.size)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        words, vectors = state["kept"]
        self.__init__(state["inner"], words_kept=words, vectors_kept=vectors)  # type: ignore[misc]  # begins anew as its own constructor would

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        """As the wrapped tokenizer's, without encoding a path twice for the same ``k``."""
        images, paths = _paths(images)
        with self._lock:
            if paths is None:
                return self.inner.encode(images, k)
            keys = [(path, k) for path in paths]
            return self._words.all(keys, lambda new: self.inner.encode([path for path, _ in new], k))

    def embed(self, images: Any) -> npt.NDArray[np.float32]:
        """As the wrapped tokenizer's, without embedding a path twice."""
        images, paths = _paths(images)
        with self._lock:
            if not paths:
                return self.inner.embed(images)
            return np.stack(self._vectors.all(paths, lambda new: list(self.inner.embed(list(new)))))


class _Recent(OrderedDict[Hashable, V]):
    """The values used last, at most ``size`` of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def all(self, keys: Sequence[Any], make: Callable[[list[Any]], Sequence[V]]) -> list[V]:
        """The value of each key; those not known are made in one call."""
        new = [key for key in dict.fromkeys(keys) if key not in self]
        fresh = dict(zip(new, make(new), strict=True)) if new else {}
        values = [fresh[key] if key in fresh else self[key] for key in keys]
        for key, value in zip(keys, values, strict=True):
            self[key] = value
            self.move_to_end(key)
        while len(self) > self.size:
            self.popitem(last=False)
        return values


def _paths(images: Any) -> tuple[Any, list[str] | None]:
    """The images (an iterator read into a list), and their paths or None when any of them is something else."""
    if isinstance(images, str | os.PathLike):
        return images, [os.fspath(images)]
    if isinstance(images, Iterator):
        images = list(images)
    if not isinstance(images, list | tuple) or not all(isinstance(image, str | os.PathLike) for image in images):
        return images, None
    return images, [os.fspath(image) for image in images]
