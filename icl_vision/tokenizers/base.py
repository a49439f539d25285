"""The contract of every image tokenizer, and the checks they all share.

A tokenizer of clips is one whose images move (``modality`` "clip"): what is said of images here holds for its clips.

Knows: how images come in (one or many, loaded a batch at a time), which ``k`` are allowed, how words read as text.
Refuses to know: how pixels become words; that is a subclass's ``_encode``.

A new tokenizer subclasses ``ImageTokenizer``, sets ``name``, gives ``layout`` and ``vocabulary`` and implements
``_encode``; where it can, ``_decode`` and ``_embed``. ``icl_vision.testing.check_tokenizer`` proves that it keeps
the contract.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import PyramidError, UsageError, VocabularyError
from icl_vision.image_words import ImageWords
from icl_vision.images import ImageSource
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.taking import IMAGE, Taking, taken_by

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.tokenizers.pixels import Preprocessing
    from icl_vision.vocabulary import Vocabulary

Images = ImageSource | Iterable[ImageSource]
"""One image, or any iterable of images (a 4-D array [N, H, W, C] is one), each as ``images.load_image`` takes it.

For a tokenizer of clips, one clip or any iterable of clips, each as ``clips.load_clip`` takes it (a 4-D array is one
clip, a 5-D one several); ``clips.is_clip_source`` says which is which."""


class ImageTokenizer(ABC):
    """Turns images into words and, where ``can_decode``, words into images.

    Class attributes a subclass sets: ``name``; ``can_decode`` (has ``_decode``); ``can_embed`` (has ``_embed``);
    ``embedding_width``, the D of ``embed``. ``preprocessing`` is the rule by which a picture becomes the pixels it
    sees; None where it does not say, and pictures cannot be degraded as it would see them. ``modality``: "image", or
    "clip" for one that takes clips of ``frames`` frames (``rate``, ``reads``: which of a clip's, see ``taking``;
    None for evenly over its time): ``_encode`` and ``_embed`` then get uint8 [frames, H, W, 3],
    ``_shrink`` gets each frame, and ``_decode`` gives a list of frames a pyramid. ``can_focus``: its
    ``encode`` takes ``about=``, a text (or one an image) that says what the words are wanted for, and has ``_focus``;
    ``focus_from`` words are then chosen from (None: as many as by default). ``parts``: the names of the parts its words
    have; where there are any, ``_encode`` gives ``ImageWords`` with these, ``k`` is the most words a part, and
    ``layout`` the flat layer of all words there can be. ``batch_size`` may be changed on any instance: it bounds how
    many images are held in memory at once and never changes a result.
    """

    name: str = "custom"
    modality: str = IMAGE
    frames: int = 1
    rate: float | None = None
    reads: int | None = None
    can_decode: bool = False
    can_embed: bool = False
    can_focus: bool = False
    focus_from: int | None = None
    parts: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    embedding_width: int = 0
    batch_size: int = 32
    separator: ClassVar[str] = " "

    @classmethod
    def from_pretrained(cls, name: str, *, strict: bool = False, **options: Any) -> Self:
        """Load a tokenizer by name.

        Args:
            name: a packaged name or one that an installed package offers (``icl-vision models list``), an artefact
                folder, or a hub id.
            strict: refuse to run on another execution provider than the one asked for, instead of one warning.
            **options: passed to that tokenizer.

        Raises:
            ArtefactNotFoundError: nothing of that name.
            ArtefactDamagedError: a file is not the one its card describes.
            ProviderError: ``strict`` and another provider in use.
            PluginError: another package's tokenizer cannot be loaded.
            UsageError: called on a subclass that is not the kind of tokenizer found.
        """
        from icl_vision.tokenizers import zoo

        tokenizer = zoo.load(name, strict=strict, **options)
        if not isinstance(tokenizer, cls):
            raise UsageError(f"{name!r} is a {type(tokenizer).__name__}, not a {cls.__name__}; use ImageTokenizer")
        return tokenizer

    # What a subclass gives.

    @property
    @abstractmethod
    def layout(self) -> PyramidLayout:
        """The grids of an ``encode`` with ``k=None``."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary | None:
        """The words the ids name; None for character art."""

    @property
    def codebook(self) -> npt.NDArray[np.float32] | None:
        """One vector per word, float32 [T, c], for nearest-word repair; None where there is none."""
        return None

    @property
    def card(self) -> Mapping[str, Any]:
        """What is known about this tokenizer: at least name, layout and vocabulary hash."""
        return {
            "name": self.name,
            "layout": self.layout.to_dict(),
            "vocabulary": None if self.vocabulary is None else self.vocabulary.hash,
        }

    @property
    def takes(self) -> Taking:
        """How images (or clips) come in: told from several, loaded, found in a folder."""
        return taken_by(self)

    @property
    def identity(self) -> str:
        """Hex sha256 of what decides its words: another one, other words. For caches, saved tasks and run folders."""
        return digest_of_words(self)

    def layout_for(self, k: int) -> PyramidLayout:
        """The layout of an image given in ``k`` words; which ``k`` exist is decided here.

        By default the cumulative counts of ``layout``; a flat tokenizer overrides it to allow any k.

        Raises:
            PyramidError: this tokenizer has no such k; the message says which it has.
        """
        return self.layout.truncate(self.layout.layers_for(k))

    @abstractmethod
    def _encode(self, images: list[Any], k: int | None) -> list[TokenPyramid]:
        """Encode a batch: 1 to ``batch_size`` RGB images (or clips), after ``_shrink``; ``k`` already checked."""

    def _shrink(self, image: Image.Image) -> Image.Image:
        """Called on each image as soon as it is loaded: a place to resize, so that a batch stays small in memory."""
        return image

    def _decode(self, pyramids: list[TokenPyramid]) -> list[Image.Image]:
        """Decode a batch of pyramids already checked; implemented where ``can_decode``. A clip: a list of frames."""
        raise NotImplementedError

    def _embed(self, images: list[Any]) -> npt.NDArray[np.float32]:
        """Embed a batch, float32 [n, D]; implemented where ``can_embed``."""
        raise NotImplementedError

    def _focus(self, words: TokenPyramid, about: str, k: int | None) -> TokenPyramid:
        """Those of an image's words that bear on a text, the closest first; implemented where ``can_focus``."""
        raise NotImplementedError

    def _cut(self, words: ImageWords, k: int) -> ImageWords:
        """The words that ``_encode`` with this ``k`` gives, of those of a greater one; called where there are parts."""
        return words.at_most(k)

    # What every tokenizer does.

    def encode(
        self, images: Images, k: int | None = None, *, about: str | Iterable[str] | None = None
    ) -> list[TokenPyramid]:
        """The words of each image.

        Args:
            images: one image or an iterable of images (path, bytes, file object, PIL image, array).
            k: words per image (per part, where the words have ``parts``); None for the tokenizer's default (every
                layer of a pyramid).
            about: what the words are wanted for (a question), one text for all images or one an image: see ``focus``.

        Returns:
            One TokenPyramid per image, in order (``ImageWords`` where there are ``parts``); an empty list for none.

        Raises:
            PyramidError: this tokenizer has no such ``k``.
            UsageError: ``about`` where ``can_focus`` is False, or not one text an image.
            ImageError: an image cannot be used; in a batch the message begins with its index, ``images[3]: ...``.
        """
        if about is None:
            return self._encode_batches(self._batches(images), k)
        check_can_focus(self.name, self.can_focus)
        if k is not None:
            self.layout_for(self._checked_k(k))
        texts = about if isinstance(about, str) else list(about)
        return focus_each(self, self._encode_batches(self._batches(images), self.focus_from), texts, k)

    def focus(self, words: TokenPyramid, about: str, k: int | None = None) -> TokenPyramid:
        """Those of an image's words that bear on a text, the closest first; the rest is dropped.

        No image is needed: a picture that was encoded once can be asked many questions. ``encode(images, k, about=)``
        is ``focus`` of the words that ``encode(images, focus_from)`` gives.

        Args:
            words: an image's words, of this tokenizer.
            about: what they are wanted for (a question), as it will stand in the prompt.
            k: most words (a part); None for the tokenizer's default.

        Raises:
            UsageError: ``can_focus`` is False, or ``about`` is no text.
            PyramidError, VocabularyError: words of another tokenizer; this tokenizer has no such ``k``.
        """
        check_can_focus(self.name, self.can_focus)
        check_wanted(about)
        self._check_pyramid(words)
        wanted = None if k is None else self._checked_k(k)
        if wanted is not None:
            self.layout_for(wanted)
        return self._focus(words, about, wanted)

    def _encode_batches(self, batches: Iterable[list[Any]], k: int | None) -> list[TokenPyramid]:
        """``encode`` for batches of RGB images that went through ``_shrink`` already, 1 to ``batch_size`` in each."""
        wanted = None if k is None else self._checked_k(k)
        layout = self.layout if wanted is None else self.layout_for(wanted)
        pyramids: list[TokenPyramid] = []
        for batch in batches:
            encoded = self._encode(batch, wanted)
            if len(encoded) != len(batch) or not all(self._is_own(pyramid, layout) for pyramid in encoded):
                what = f"ImageWords of the parts {', '.join(self.parts)}" if self.parts else f"pyramids on {layout}"
                raise PyramidError(f"{type(self).__name__}._encode must give {len(batch)} {what}")
            pyramids.extend(encoded)
        return pyramids

    def decode(self, pyramids: TokenPyramid | Sequence[TokenPyramid]) -> list[Image.Image]:
        """An RGB image for each pyramid; a truncated pyramid (fewer layers) gives a coarser image.

        A tokenizer of clips gives a list of RGB images for each: the clip's frames. (Its type is that of images, which
        is what nearly all tokenizers give.)

        Raises:
            UsageError: this tokenizer cannot decode (``can_decode`` is False).
            PyramidError, VocabularyError: a pyramid of another layout or vocabulary.
        """
        if not self.can_decode:
            raise UsageError(f"the tokenizer {self.name!r} cannot decode, only encode (can_decode=False)")
        batch = [pyramids] if isinstance(pyramids, TokenPyramid) else list(pyramids)
        for pyramid in batch:
            self._check_pyramid(pyramid)
        images: list[Image.Image] = []
        for start in range(0, len(batch), self._checked_batch_size()):
            images.extend(self._decode(batch[start : start + self.batch_size]))
        return images

    def embed(self, images: Images) -> npt.NDArray[np.float32]:
        """One vector per image, float32 [N, D]: what the words are chosen by (for baselines).

        Raises:
            UsageError: this tokenizer has no image vectors (``can_embed`` is False).
            ImageError: as in ``encode``.
        """
        if not self.can_embed:
            raise UsageError(f"the tokenizer {self.name!r} has no image vectors; it cannot embed (can_embed=False)")
        parts = [np.asarray(self._embed(batch), dtype=np.float32) for batch in self._batches(images)]
        return np.concatenate(parts) if parts else np.zeros((0, self.embedding_width), dtype=np.float32)

    def to_text(self, pyramid: TokenPyramid, k: int | None = None) -> str:
        """The first ``k`` words (None = all) as one string, joined by one space; with their parts' names, where there
        are parts (``ImageWords.to_text``).

        Raises:
            PyramidError: no such ``k``, or more words than the pyramid has.
            VocabularyError: a pyramid of another vocabulary.
        """
        self._check_pyramid(pyramid)
        words = pyramid.words()
        wanted = None if k is None else self._checked_k(k)
        if wanted is not None:
            self.layout_for(wanted)
        if isinstance(pyramid, ImageWords):
            return (pyramid if wanted is None else self._cut(pyramid, wanted)).to_text()
        if wanted is not None:
            if wanted > len(words):
                raise PyramidError(f"k={wanted} words were asked of a pyramid that holds {len(words)}")
            words = words[:wanted]
        return self.separator.join(words)

    def from_text(self, text: str) -> TokenPyramid:
        """The pyramid whose ``to_text`` is ``text``; surrounding and repeated white space is ignored.

        Raises:
            UnknownWordError: a word outside the vocabulary.
            PyramidError: a number of words that this tokenizer has no layout for.
        """
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise UsageError(f"the tokenizer {self.name!r} has no vocabulary and must define from_text itself")
        words = self._text(text).split()
        if not words:
            raise PyramidError("the text holds no words")
        if self.parts:
            return ImageWords.from_text(text, vocabulary, self.parts)
        layout = self.layout_for(len(words))
        ids = np.asarray(vocabulary.ids(words), dtype=np.int32)
        return TokenPyramid(on_grids(ids, layout), layout, vocabulary)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.layout})"

    # Checks, for subclasses too.

    @staticmethod
    def _text(text: object) -> str:
        if not isinstance(text, str):
            raise UsageError(f"text must be a str; got {type(text).__name__}")
        return text

    @staticmethod
    def _checked_k(k: object) -> int:
        number = checks.as_whole(k)
        if number is None:
            raise UsageError(f"k counts words per image and must be a whole number or None; got {k!r}")
        if number < 1:
            raise PyramidError(f"k counts words per image and must be 1 or more; got {number}")
        return number

    def _checked_batch_size(self) -> int:
        return checks.count("batch_size", self.batch_size)

    def _check_pyramid(self, pyramid: object) -> None:
        """Refuse a pyramid that this tokenizer could not have made."""
        if not isinstance(pyramid, TokenPyramid):
            raise UsageError(f"expected a TokenPyramid; got {type(pyramid).__name__}")
        own, its = self.vocabulary, pyramid.vocabulary
        if own is not its and (own is None or its is None or own.hash != its.hash):
            theirs, ours = ("characters" if words is None else repr(words.name) for words in (its, own))
            raise VocabularyError(f"this pyramid's words are {theirs}; the tokenizer {self.name!r} uses {ours}")
        if self.parts:
            if not self._is_own(pyramid, self.layout):
                its_parts = ", ".join(pyramid.names) if isinstance(pyramid, ImageWords) else "none"
                raise PyramidError(
                    f"this picture's words have the parts {its_parts}; the tokenizer {self.name!r} has "
                    f"{', '.join(self.parts)}"
                )
            return
        expected = self.layout_for(pyramid.k)
        if pyramid.layout != expected:
            raise PyramidError(f"this pyramid's layout is {pyramid.layout}; the tokenizer {self.name!r} has {expected}")

    def _is_own(self, pyramid: TokenPyramid, layout: PyramidLayout) -> bool:
        """Whether words have this tokenizer's parts, or lie on this layout where it has none."""
        if self.parts:
            return isinstance(pyramid, ImageWords) and set(pyramid.names) <= set(self.parts)
        return pyramid.layout == layout

    def _batches(self, images: Images) -> Iterator[list[Any]]:
        """Images loaded ``batch_size`` at a time, so that a list of thousands of paths never is in memory at once."""
        size = self._checked_batch_size()
        takes = self.takes
        if takes.is_source(images):
            yield [takes.load(images, self._shrink)]
            return
        check_several(images, takes)
        loaded: Iterator[Any] = takes.loaded(cast(Iterable[Any], images), self._shrink)
        while batch := list(itertools.islice(loaded, size)):
            yield batch


def check_several(images: object, takes: Taking) -> None:
    """Refuse what cannot be several images (or clips).

    Raises:
        UsageError: it is nothing that can be gone through in order.
    """
    if isinstance(images, Mapping | set | frozenset) or not isinstance(images, Iterable):
        raise UsageError(
            f"{takes.several} must be one {takes.one} or a sequence of {takes.several}; got {type(images).__name__}"
        )


def focus_each(
    tokenizer: ImageTokenizer, words: Sequence[TokenPyramid], about: str | list[str], k: int | None
) -> list[TokenPyramid]:
    """``focus`` of the words of each image. about: one text for all of them, or one an image.

    Raises:
        UsageError: as many texts as images must be given; and as ``focus``.
    """
    texts = [about] * len(words) if isinstance(about, str) else about
    if len(texts) != len(words):
        raise UsageError(f"about must be one text, or one an image; got {len(texts)} for {len(words)} images")
    return [tokenizer.focus(row, text, k) for row, text in zip(words, texts, strict=True)]


def check_can_focus(name: str, can_focus: bool) -> None:
    """Refuse ``about`` for a tokenizer that does not take it.

    Raises:
        UsageError: ``can_focus`` is False.
    """
    if not can_focus:
        raise UsageError(
            f"the tokenizer {name!r} says the same of an image whatever it is asked (can_focus=False); leave about= out"
        )


def check_wanted(about: object) -> None:
    """Refuse what words cannot be chosen by.

    Raises:
        UsageError: ``about`` is empty or no text.
    """
    if not isinstance(about, str) or not about.strip():
        raise UsageError(f"about must say what the words are wanted for (a question); got {checks.shown(about)}")


def digest_of_words(tokenizer: Tokenizer) -> str:
    """Hex sha256 of what decides a tokenizer's words: name, layout, vocabulary, what is withheld, its card's files.

    Where a graph's file leaves weights out that it shares with others ("whole" on the card), the whole graph counts.
    """
    card = tokenizer.card
    decides = {
        "name": tokenizer.name,
        "layout": tokenizer.layout.to_dict(),
        "vocabulary": None if tokenizer.vocabulary is None else tokenizer.vocabulary.hash,
        **{key: card[key] for key in ("files", "codebook", "withheld") if key in card},
        # (Of images it was never said: their words are still known by what was stored of old.)
        **({key: card.get(key) for key in ("modality", "frames")} if card.get("modality", IMAGE) != IMAGE else {}),
        **{key: told for key in ("rate", "reads") if (told := getattr(tokenizer, key, None)) is not None},
    }
    if isinstance(card.get("files"), Mapping) and isinstance(card.get("whole"), Mapping):
        decides["files"] = {**card["files"], **card["whole"]}
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def on_grids(ids: npt.NDArray[np.int32], layout: PyramidLayout) -> tuple[npt.NDArray[np.int32], ...]:
    """Flat ids [K], coarse first, as one array per layer of the layout."""
    parts = np.split(ids, layout.cumulative[:-1])
    return tuple(part.reshape(grid) for part, grid in zip(parts, layout.grids, strict=True))
