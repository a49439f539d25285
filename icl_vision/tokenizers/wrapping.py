"""Any tokenizer from outside: a wrapper that changes nothing, and what a tokenizer of the bare contract lacks.

``ImageTokenizer`` promises more than ``contracts.Tokenizer`` does, which is all that a user's own object need keep:
``whole`` gives any of them the rest, so that nobody else has to ask what is there.

Knows: the Tokenizer contract, defaults for what is beyond it. Refuses to know: how words are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from icl_vision.tokenizers.base import ImageTokenizer, check_can_focus, check_wanted, digest_of_words, focus_each
from icl_vision.tokenizers.taking import Taking, taken_by

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import PyramidLayout, TokenPyramid
    from icl_vision.tokenizers.pixels import Preprocessing
    from icl_vision.vocabulary import Vocabulary


class WrappedTokenizer:
    """A tokenizer that hands everything on to another one; a subclass changes what it wants to.

    What the contract names is handed on here, and so is what ``ImageTokenizer`` adds to it, with that class's defaults
    where the inner tokenizer has none; whatever else that one has (the width of its vectors, say) is found there when
    it is asked for. ``batch_size`` is the inner one's, whichever of the two it is set on.

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

    def encode(
        self, images: Any, k: int | None = None, *, about: str | Iterable[str] | None = None
    ) -> list[TokenPyramid]:
        """As the inner tokenizer's; ``about`` chooses among the words that every question about an image shares."""
        if about is None:
            return self._encode_words(images, k)
        inner = self._focusing()
        texts = about if isinstance(about, str) else list(about)
        return focus_each(inner, self._encode_words(images, inner.focus_from), texts, k)

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        """``encode`` without ``about``: what a subclass changes."""
        return self.inner.encode(images, k)

    def focus(self, words: TokenPyramid, about: str, k: int | None = None) -> TokenPyramid:
        return self._focusing().focus(words, about, k)

    @property
    def can_focus(self) -> bool:
        """Whether the inner tokenizer takes ``about=``."""
        return bool(getattr(self.inner, "can_focus", ImageTokenizer.can_focus))

    @property
    def focus_from(self) -> int | None:
        """Words that are chosen from, where the inner tokenizer says."""
        words: int | None = getattr(self.inner, "focus_from", ImageTokenizer.focus_from)
        return words

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that the words have."""
        return tuple(getattr(self.inner, "parts", ImageTokenizer.parts))

    def _focusing(self) -> ImageTokenizer:
        """The inner tokenizer, which must be one that takes ``about=``.

        Raises:
            UsageError: it is not.
        """
        check_can_focus(self.inner.name, self.can_focus)
        return cast(ImageTokenizer, self.inner)

    def embed(self, images: Any) -> npt.NDArray[np.float32]:
        return self.inner.embed(images)

    def decode(self, pyramids: Sequence[TokenPyramid]) -> list[Image.Image]:
        return self.inner.decode(pyramids)

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        return self.inner.to_text(pyramid, k)

    def from_text(self, text: str) -> TokenPyramid:
        return self.inner.from_text(text)

    @property
    def identity(self) -> str:
        """The inner tokenizer's, for as long as a subclass changes nothing that decides words."""
        own, inner = digest_of_words(self), digest_of_words(self.inner)
        said = str(getattr(self.inner, "identity", inner))
        if own == inner:
            return said
        return own if said == inner else hashlib.sha256(f"{own}/{said}".encode()).hexdigest()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a picture becomes the pixels that the inner tokenizer sees; None where it does not say."""
        rule: Preprocessing | None = getattr(self.inner, "preprocessing", None)
        return rule

    def layout_for(self, k: int) -> PyramidLayout:
        """The layout of an image given in ``k`` words, where the inner tokenizer says; else from its layout."""
        layout_for = getattr(self.inner, "layout_for", None)
        layout: PyramidLayout = layout_for(k) if layout_for else self.layout.truncate(self.layout.layers_for(k))
        return layout

    @property
    def modality(self) -> str:
        """ "image", or "clip" where the inner tokenizer takes clips."""
        return str(getattr(self.inner, "modality", ImageTokenizer.modality))

    @property
    def frames(self) -> int:
        """Frames of a clip that the inner tokenizer takes; 1 of an image."""
        return int(getattr(self.inner, "frames", ImageTokenizer.frames))

    @property
    def takes(self) -> Taking:
        """How images (or clips) come in."""
        return taken_by(self)

    @property
    def batch_size(self) -> int:
        """Images that are held in memory at once."""
        return int(getattr(self.inner, "batch_size", ImageTokenizer.batch_size))

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


def whole(tokenizer: Tokenizer) -> ImageTokenizer | WrappedTokenizer:
    """The tokenizer with everything that ``ImageTokenizer`` promises: itself, or a user's own object in a wrapper."""
    return tokenizer if isinstance(tokenizer, ImageTokenizer | WrappedTokenizer) else WrappedTokenizer(tokenizer)


def check_about(tokenizer: Tokenizer, about: str | None) -> None:
    """Refuse a text that words cannot be chosen by, before any work; None is no text.

    Raises:
        UsageError: ``about`` is empty or no text, or this tokenizer takes none (``can_focus`` is False).
    """
    if about is not None:
        check_wanted(about)
        check_can_focus(tokenizer.name, whole(tokenizer).can_focus)


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hex sha256 of what decides any tokenizer's words; see ``ImageTokenizer.identity``."""
    return whole(tokenizer).identity


def unwrapped(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer inside any number of wrappers."""
    while isinstance(tokenizer, WrappedTokenizer):
        tokenizer = tokenizer.inner
    return tokenizer
