"""The puzzles of denoising: degraded pictures as words, what is known of them, and the examples shown with them.

Knows: how a task, corruption in word space and a window make conditions and examples. Refuses to know: LLMs, prompts,
results.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from icl_vision.clips import is_clip_source
from icl_vision.contracts import Tokenizer
from icl_vision.drawing.corruption import corrupt_words, corruption_rates, shuffle_words
from icl_vision.drawing.drawing import Pair, Query
from icl_vision.drawing.stages import first_place
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.images import ImageSource
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.denoise.plan import DenoisingStages
from icl_vision.tasks.denoise.tasks import Alignment, DenoisingTask, Pixels
from icl_vision.tokenizers.wrapping import whole


@dataclass(frozen=True, slots=True)
class Puzzle:
    """One picture to restore. name: in reports. target: the intact picture [S, S, 3] and its words, None where only the
    degraded picture was given. shown: the condition as a picture. condition: its words. query: what is asked. size: the
    photograph's own (width, height); None where it was given as pixels."""

    name: str
    target: Pixels | None
    target_words: TokenPyramid | None
    shown: Pixels
    condition: TokenPyramid
    query: Query
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a denoiser keeps of its fit. pairs: the leak-free examples as they are shown, in order. pictures: of each
    context picture a digest of its pixels, so that none is asked for. alignment: learned from them."""

    pairs: tuple[Pair, ...] = ()
    pictures: tuple[str, ...] = ()
    alignment: Alignment = field(default_factory=Alignment)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: words and digests, no pixels."""
        examples = []
        for pair in self.pairs:
            assert isinstance(pair.condition, TokenPyramid)
            examples.append({"condition": pair.condition.to_dict(), "words": pair.target.to_dict()})
        return {"examples": examples, "pictures": list(self.pictures), "alignment": asdict(self.alignment)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Context:
        """The way back.

        Raises:
            PyramidError, VocabularyError, KeyError, TypeError, ValueError: a damaged document.
        """

        def words(entry: Mapping[str, Any]) -> TokenPyramid:
            return TokenPyramid.from_dict(entry, tokenizer.vocabulary)

        pairs = tuple(Pair(words(entry["condition"]), words(entry["words"])) for entry in document["examples"])
        pictures = tuple(document["pictures"])
        if len(pictures) != len(pairs) or not all(isinstance(digest, str) for digest in pictures):
            raise ValueError(f"{len(pairs)} examples need as many digests of pictures; got {list(pictures)!r:.80}")
        return cls(pairs, pictures, Alignment.from_dict(document["alignment"]))


@dataclass(frozen=True, slots=True)
class PuzzleMaker:
    """Makes puzzles and their examples; the same for the same values, whatever else is made.

    task, tokenizer, parts: what is done, by which words, decoded how. corruption: rates of the first and the last
    example. alignment: what the degradation moves, undone wherever a condition's words are shown. keep_known, own,
    degrade, seed: as for ``ImageDenoiser``. shuffled: a control, each layer of every example's target in random order.
    """

    task: DenoisingTask
    tokenizer: Tokenizer
    parts: DenoisingStages
    corruption: tuple[float, float]
    alignment: Alignment
    keep_known: bool
    own: bool
    degrade: bool
    shuffled: bool
    seed: int

    def puzzles(
        self,
        pictures: Sequence[Pixels],
        names: Sequence[str] | None,
        context: Sequence[str],
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Puzzle]:
        """One puzzle for each picture.

        Args:
            names: one for each; None numbers them.
            context: digests of the pictures of the prompts, none of which may be asked for.
            sizes: what each photograph measured, (width, height), before the tokenizer took it.

        Raises:
            UsageError: names that do not fit, or a picture of the context.
        """
        names = [str(number) for number in range(1, len(pictures) + 1)] if names is None else list(names)
        if len(names) != len(pictures) or len({composed(str(name)) for name in names}) != len(names):
            raise UsageError(f"give each of the {len(pictures)} images a name of its own; got {len(set(names))} names")
        if not pictures:
            return []
        for name, picture in zip(names, pictures, strict=True):
            if digest_of(picture) in context:
                raise UsageError(
                    f"image {name!r} is also a context image: its answer would stand in the prompt; take it out of the "
                    "context"
                )
        shown = [self.task.degrade(picture) for picture in pictures] if self.degrade else list(pictures)
        conditions = self.tokenizer.encode(list(shown))
        targets: Sequence[TokenPyramid | None] = [None] * len(pictures)
        if self.degrade:
            targets = self.tokenizer.encode(list(pictures))
        if self.task.in_words:
            # Noise of the query is that of its name, not of its place among others.
            conditions = [
                corrupt_words(words, self.corruption[1], seed=self.seed, number=number_of(name))
                for words, name in zip(conditions, names, strict=True)
            ]
            shown = [pixels_of_decoded(image) for image in self.tokenizer.decode(conditions)]
        own: Sequence[tuple[int, int] | None] = [None] * len(pictures) if sizes is None else sizes
        return [
            Puzzle(name, picture if self.degrade else None, target, seen, words, self._query(words, name), size)
            for name, picture, target, seen, words, size in zip(
                names, pictures, targets, shown, conditions, own, strict=True
            )
        ]

    def leak_free_pairs(self, pictures: Sequence[Pixels]) -> list[Pair]:
        """Examples of other pictures: corrupted conditions, intact targets."""
        if not pictures:
            return []
        targets = self.tokenizer.encode(list(pictures))
        conditions = self.tokenizer.encode([self.task.degrade(picture) for picture in pictures])
        rates = corruption_rates(len(conditions), self.corruption)
        return [
            Pair(
                self._condition(corrupt_words(words, rate, seed=self.seed, number=number)), self._shown(target, number)
            )
            for number, (words, rate, target) in enumerate(zip(conditions, rates, targets, strict=True))
        ]

    def leaking_pairs(self, puzzle: Puzzle, count: int) -> list[Pair]:
        """The papers' examples: ``count`` corrupted copies of the puzzle's own target, which it must have."""
        assert puzzle.target_words is not None
        condition, start = self._condition(puzzle.condition), number_of(puzzle.name)
        copies = [
            corrupt_words(puzzle.target_words, rate, seed=self.seed, number=start + number)
            for number, rate in enumerate(corruption_rates(count, self.corruption), start=1)
        ]
        return [Pair(condition, self._shown(target, number)) for number, target in enumerate(copies)]

    def _query(self, condition: TokenPyramid, name: str) -> Query:
        words = self._cut(condition).words()
        # Without a region of its own a task has no place that is known.
        known = {place: words[place] for place in self.task.known_places(self.parts.layout)} if self.keep_known else {}
        also = {}
        for layer in range(1, len(self.parts.layout) + 1):
            start, own = first_place(self.parts.layout, layer), condition.words(layer)
            # Where some words are known, the others stand for what covers the picture: grey, mostly.
            usable = [word for place, word in enumerate(own, start) if place in known] if known else own
            if usable:
                also[layer] = tuple(dict.fromkeys(usable))
        return Query(self._condition(condition), known, name, also if self.own else {})

    def _condition(self, words: TokenPyramid) -> TokenPyramid:
        """What a prompt shows of a condition: as much as its window can name, where it belongs."""
        words = self.alignment.undo(words)
        return words.truncate(self.parts.layers) if self.parts.whole else words

    def _shown(self, target: TokenPyramid, number: int) -> TokenPyramid:
        """An example's target as the prompts show it."""
        words = self._cut(target)
        return shuffle_words(words, seed=self.seed, number=number) if self.shuffled else words

    def _cut(self, words: TokenPyramid) -> TokenPyramid:
        return words.truncate(len(self.parts.layout))


def pixels_of(tokenizer: Tokenizer, sources: Sequence[ImageSource]) -> list[Pixels]:
    """Each picture as the tokenizer sees it, uint8 [S, S, 3], of clips [T, S, S, 3]. Raises as ``pixels_and_sizes``."""
    return [pixels for pixels, _ in pixels_and_sizes(tokenizer, sources)]


def pixels_of_decoded(made: Any) -> Pixels:
    """What a tokenizer decoded, a picture or the frames of a clip, as uint8 [S, S, 3] or [T, S, S, 3]."""
    return np.stack([np.asarray(frame) for frame in made]) if isinstance(made, list) else np.asarray(made)


def pixels_and_sizes(tokenizer: Tokenizer, sources: Sequence[ImageSource]) -> list[tuple[Pixels, tuple[int, int]]]:
    """Each picture as the tokenizer sees it, uint8 [S, S, 3] (of clips [T, S, S, 3]), and its own width and height.

    Raises:
        ImageError: one cannot be used; the message names its place.
        UsageError: the tokenizer does not say how it takes pictures.
    """
    preprocessing = whole(tokenizer).preprocessing
    if preprocessing is None or not hasattr(preprocessing, "batch"):
        raise UsageError(
            f"the tokenizer {tokenizer.name!r} does not say how it takes pictures (no `preprocessing`), so a picture "
            "cannot be degraded as it would see it"
        )
    measured: list[tuple[Pixels, tuple[int, int]]] = []
    takes = whole(tokenizer).takes
    for index, source in enumerate(sources):
        try:
            loaded = takes.load(source)
            if isinstance(loaded, Image.Image):
                measured.append((preprocessing.batch([loaded])[0], loaded.size))
            else:
                pixels = preprocessing.batch([Image.fromarray(frame) for frame in loaded])
                measured.append((pixels, (loaded.shape[2], loaded.shape[1])))
        except IclVisionError as error:
            raise type(error)(f"images[{index}]: {error}") from error
    return measured


def clip_sources(images: object) -> list[Any]:
    """Clips as a list, not opened yet: one clip stands for a list of one."""
    if is_clip_source(images):
        return [images]
    if isinstance(images, str | bytes | Mapping | set | frozenset) or not isinstance(images, Iterable):
        raise UsageError(f"expected a clip or a sequence of clips; got a value of type {type(images).__name__}")
    return list(images)


def digest_of(picture: Pixels) -> str:
    """Hex sha256 of a picture's shape and pixels."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def number_of(name: str) -> int:
    """A number for a name, the same everywhere and in either spelling of its accents."""
    return zlib.crc32(composed(name).encode("utf-8", "backslashreplace"))
