"""What stands for a picture in each row: words of a tokenizer, what a person wrote, words of another picture, nothing.

Every picture is encoded once for each tokenizer, however many questions and rows there are.

Knows: rows' words, tokenizers by name, seeded shuffles. Refuses to know: examples, prompts, LLMs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icl_vision.contracts import Tokenizer
from icl_vision.errors import CapabilityError
from icl_vision.evaluation.answering import rows
from icl_vision.evaluation.answering.readers import Picture, Question
from icl_vision.evaluation.answering.rows import Words
from icl_vision.forks import ForkLock
from icl_vision.image_words import ImageWords
from icl_vision.tasks.answer.pictures import Described, Reader, Seen, evidence

CLASS_WORDS = 10
"""Words of words-photo that stand in for what nobody wrote of a picture."""

SEED_SHUFFLE, SEED_DEAL = 47, 53


@dataclass(slots=True)
class PicturesInWords:
    """What each row is given in the place of each picture.

    Args:
        items: everything there is; each picture of it is encoded once.
        load: a tokenizer by its name.
        k: most words that a prompt shows of a picture, where the row does not say; None for the tokenizer's default.
        seed: of shuffles.
        questions: whether something is asked that words may be chosen for; nothing is where captions are written.
    """

    items: Iterable[Question]
    load: Callable[[str], Tokenizer]
    k: int | None = None
    seed: int = 0
    questions: bool = True
    _tokenizers: dict[str, Tokenizer] = field(default_factory=dict, repr=False)
    _seen: dict[tuple[str, int | None, bool, str], Seen] = field(default_factory=dict, repr=False)
    _pictures: dict[str, Picture] = field(default_factory=dict, repr=False)
    _dealt: dict[str, str] = field(default_factory=dict, repr=False)
    _lock: ForkLock = field(default_factory=ForkLock, repr=False)

    def __post_init__(self) -> None:
        for item in self.items:
            for one in (item, *item.examples):
                self._pictures.update({picture.name: picture for picture in one.pictures})
        names = sorted(self._pictures)
        order = np.random.default_rng([self.seed, SEED_DEAL]).permutation(len(names))
        # One round of all pictures: none is dealt itself, where there are two or more.
        self._dealt = {names[here]: names[there] for here, there in zip(order, np.roll(order, 1), strict=True)}

    def tokenizer(self, words: Words) -> Tokenizer:
        """What a row's task is made with: its tokenizer; words-photo where nothing is encoded."""
        name = words.tokenizer or rows.PHOTO
        with self._lock:
            if name not in self._tokenizers:
                self._tokenizers[name] = self.load(name)
            return self._tokenizers[name]

    def k_of(self, words: Words) -> int | None:
        """Most words that a prompt shows of a picture."""
        return words.k if words.k is not None or words.name == rows.ASCII else self.k

    def of(self, words: Words, item: Question) -> tuple[Seen, ...]:
        """The item's pictures in a row's words; () where the row shows none.

        Raises:
            CapabilityError: the row needs what the set does not have.
            ImageError: a picture cannot be used.
        """
        if words.name in (rows.BLIND, rows.PRIOR, rows.CONSTANT, rows.COPIED, rows.HUMAN):
            return ()
        return tuple(self._of(words, picture, item) for picture in item.pictures)

    def chances(self, words: Words, item: Question) -> dict[str, float]:
        """How probable each of the picture's words is, see ``tasks.answer.pictures.evidence``."""
        return evidence(self.of(words, item))

    def reader(self, words: Words) -> Reader:
        """What turns pictures into words for a row, as the row's task would."""
        return Reader(self.tokenizer(words), self.k_of(words), focus=words.focus and self.questions)

    def _of(self, words: Words, picture: Picture, item: Question) -> Seen:
        if words.name == rows.GIVEN:
            if not picture.text:
                raise CapabilityError("not available: the set has pictures, and no words that came with it")
            return Described(picture.text)
        if words.name in (rows.CAPTION, rows.SHUFFLED):
            return Described(self._written(picture, item, shuffled=words.name == rows.SHUFFLED))
        if words.name == rows.OTHER:
            return self._encoded(words, self._pictures[self._dealt[picture.name]])
        return self._encoded(words, picture)

    def _encoded(self, words: Words, picture: Picture) -> Seen:
        if picture.source is None:
            raise CapabilityError("not available: the set has words and no pictures")
        key = (words.tokenizer or rows.PHOTO, self.k_of(words), words.focus, picture.name)
        reader = self.reader(words)
        with self._lock:
            if key not in self._seen:
                (seen,) = reader.read([[picture.source]], batch_size=1, keep_errors=False, done=_ignore)
                assert not isinstance(seen, Exception)  # errors were not kept
                self._seen[key] = seen[0]
            return self._seen[key]

    def _written(self, picture: Picture, item: Question, *, shuffled: bool) -> str:
        """What a person wrote of the picture, or class words where nobody did."""
        if picture.captions:
            text = " ".join(picture.captions[0].split())
        elif item.question is None:
            raise CapabilityError("not available: nobody wrote of this picture")
        else:
            seen = self._encoded(rows.WORDS[rows.PHOTO], picture)
            assert not isinstance(seen, Described)  # it was encoded
            text = " ".join(seen.words()[:CLASS_WORDS])
        if not shuffled:
            return text
        pieces = text.rstrip(".").split()
        order = np.random.default_rng([self.seed, SEED_SHUFFLE, *picture.name.encode()]).permutation(len(pieces))
        return " ".join(pieces[place] for place in order)


def likeliest(seen: Iterable[Seen], count: int) -> list[str]:
    """The likeliest words of a picture, each once: of what people would say of it, where its words have such a part."""
    found: dict[str, float] = {}
    for one in seen:
        if isinstance(one, ImageWords) and one.probabilities is not None and "said" in one.names and one.words("said"):
            pairs: Iterable[tuple[str, float]] = zip(one.words("said"), one.chances("said"), strict=True)
        else:
            pairs = evidence([one]).items()
        for word, chance in pairs:
            found[word] = max(chance, found.get(word, 0.0))
    return sorted(found, key=lambda word: -found[word])[:count]


def _ignore(count: int) -> Any:
    return None
