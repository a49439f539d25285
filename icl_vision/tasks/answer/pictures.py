"""A picture as an answering task knows it: its words, how they stand in a prompt, what they say as evidence.

Knows: words with and without parts, texts in place of pictures, text that was read in a picture. Refuses to know:
questions, examples, LLMs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.contracts import Tokenizer
from icl_vision.errors import PyramidError, UsageError
from icl_vision.image_words import TEXT, ImageWords
from icl_vision.images import ImageSource, is_image_source
from icl_vision.prompting.labels import check_line
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.inputs import encode
from icl_vision.vocabulary import Vocabulary

MOST_DESCRIPTION = 2000
"""Characters of a text in place of a picture."""

MOST_READ = 120
"""Characters of text read in a picture that a prompt shows: a sign or a title, not a page."""

WIDE = 60
"""Words a picture is taken in, where a tokenizer without parts gives any number: a prompt shows the first few, the
others are what might be answered."""

FIRST_CHANCE = 0.5
"""Without probabilities the first word of a picture is taken to be right of it half the time, the second a quarter of
the time, the n-th 1/2n; every word of a text in place of a picture half the time."""


@dataclass(frozen=True, slots=True)
class Described:
    """A text in place of a picture: an alt text, a caption, tags from elsewhere.

    Args:
        text: one line of up to ``MOST_DESCRIPTION`` characters.

    Raises:
        PromptError: another one.
    """

    text: str

    def __post_init__(self) -> None:
        check_line(self.text, "a text in place of a picture", MOST_DESCRIPTION)


Seen = TokenPyramid | Described
"""A picture in words."""

Source = ImageSource | Seen
"""What a user hands over as one picture."""


def is_picture(value: object) -> bool:
    """Whether a value stands for one picture."""
    return isinstance(value, TokenPyramid | Described) or is_image_source(value)


def as_pictures(value: object, name: str = "a picture") -> tuple[Any, ...]:
    """One picture, or several in a list or tuple, as a tuple; () for an empty one: no picture at all.

    An array [T, H, W, C] is one: a clip, for a tokenizer that takes clips.

    Raises:
        UsageError: something else.
    """
    if is_picture(value) or (isinstance(value, np.ndarray) and value.ndim == 4):
        return (value,)
    if isinstance(value, list | tuple):
        for entry in value:
            if not is_picture(entry):
                raise UsageError(f"{name} must be an image or a list of images; got a list with {_kind(entry)}")
        return tuple(value)
    raise UsageError(f"{name} must be an image or a list of images; got {_kind(value)}")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


class Reader:
    """Pictures into words, each once, and words into a line of a prompt.

    Args:
        tokenizer: what makes words.
        k: most words that a prompt shows (a part), None for the tokenizer's default.
        focus: keep of a picture's words those that bear on the question, where the tokenizer can.
    """

    def __init__(self, tokenizer: Tokenizer, k: int | None, *, focus: bool) -> None:
        self.tokenizer = tokenizer
        self.k = k
        self.focuses = focus and bool(getattr(tokenizer, "can_focus", False))
        card: Mapping[str, Any] = getattr(tokenizer, "card", {})
        self._usual = k or checks.as_whole(card.get("default_k")) or None
        """Words of a part that a prompt shows; None where only the tokenizer knows."""
        self._taken = self._wide()

    def _wide(self) -> int | None:
        """How many words a picture is encoded in: more than a prompt shows, where the others can be left out of it."""
        parts: tuple[str, ...] = getattr(self.tokenizer, "parts", ())
        wide: int | None = getattr(self.tokenizer, "focus_from", None)
        if self.focuses or (parts and wide is not None and self._usual is not None):
            return wide
        layout_for = getattr(self.tokenizer, "layout_for", None)
        if layout_for is None or self.tokenizer.vocabulary is None or parts:
            return self.k
        most = self.k or self.tokenizer.layout.cumulative[-1]
        try:
            wider = max(WIDE, most)
            return wider if len(layout_for(wider)) == 1 and len(layout_for(most)) == 1 else self.k
        except PyramidError:
            return self.k

    def read(
        self,
        sources: Sequence[Sequence[Source]],
        *,
        batch_size: int,
        keep_errors: bool,
        done: Callable[[int], None],
    ) -> list[tuple[Seen, ...] | Exception]:
        """The words of every query's pictures; a picture that is asked about several times is encoded once.

        Args:
            keep_errors: put the exception of a picture in the place of its query; otherwise the first one is raised.
            done: told how many pictures were finished.
        """
        places: dict[object, int] = {}
        images: list[ImageSource] = []
        for pictures in sources:
            for picture in pictures:
                if not isinstance(picture, TokenPyramid | Described) and _key(picture) not in places:
                    places[_key(picture)] = len(images)
                    images.append(picture)
        words = encode(
            self.tokenizer, images, self._taken, batch_size=batch_size, keep_errors=keep_errors, done=done
        )  # fmt: skip
        read: list[tuple[Seen, ...] | Exception] = []
        for pictures in sources:
            seen = [
                picture if isinstance(picture, TokenPyramid | Described) else words[places[_key(picture)]]
                for picture in pictures
            ]
            failed = next((entry for entry in seen if isinstance(entry, Exception)), None)
            read.append(failed or tuple(entry for entry in seen if not isinstance(entry, Exception)))
        return read

    def shown(self, seen: Seen, question: str | None) -> Shown:
        """What a prompt may show of a picture that is asked this question."""
        if isinstance(seen, Described):
            return Shown((tuple(seen.text.split()),), seen.text)
        if isinstance(seen, ImageWords):
            if self.focuses and question:
                focused = self.tokenizer.focus(seen, question, self.k)  # type: ignore[attr-defined]  # can_focus says so
                assert isinstance(focused, ImageWords)
                seen = focused
            else:
                # Their text with this k, read again: which words are cut is the tokenizer's to know.
                again = self.tokenizer.from_text(self.tokenizer.to_text(seen, self._usual))
                assert isinstance(again, ImageWords)
                seen = again
            parts = tuple(tuple(seen.words(name)) for name in seen.names)
            line = "; ".join([*(" ".join(part) for part in parts if part), *read_text(seen.text)])
            return (
                Shown((*parts, seen.text), line, (*seen.names, TEXT)) if seen.text else Shown(parts, line, seen.names)
            )
        if self.focuses and question:
            chosen: TokenPyramid = self.tokenizer.focus(seen, question, self.k)  # type: ignore[attr-defined]  # can_focus
            seen = chosen
        elif seen.layers == 1 and self._taken != self.k:
            most = self.k or self.tokenizer.layout.cumulative[-1]
            line = self.tokenizer.to_text(seen, min(most, seen.k))
            return Shown((tuple(seen.words()[:most]),), line)
        layers = tuple(tuple(seen.words(layer)) for layer in range(1, seen.layers + 1))
        return Shown(layers, self.tokenizer.to_text(seen))


@dataclass(frozen=True, slots=True)
class Shown:
    """What a prompt shows of one picture. words: by part or layer. line: as it stands in the prompt. names: of the
    parts, text that was read among them; () where there are none."""

    words: tuple[tuple[str, ...], ...]
    line: str
    names: tuple[str, ...] = ()


def read_text(strings: Sequence[str]) -> list[str]:
    """Text that was read in a picture, as a prompt names it: [] or one piece, quoted, so that it cannot pass for more.

    The strings are printable and in one line by themselves (``ImageWords`` sees to it).
    """
    kept: list[str] = []
    room = MOST_READ
    for string in strings:
        cut = string[:room].strip()
        if not cut:
            continue
        kept.append('"' + cut.replace("\\", "\\\\").replace('"', '\\"') + '"')
        room -= len(cut)
    return [f"text in the picture: {' '.join(kept)}"] if kept else []


def strings_in(pictures: Sequence[Seen]) -> tuple[str, ...]:
    """What was read in these pictures, each once, as far as a prompt would show it."""
    found: dict[str, None] = {}
    for seen in pictures:
        room = MOST_READ
        for string in seen.text if isinstance(seen, ImageWords) else ():
            cut = string[:room].strip()
            room -= len(cut)
            if cut:
                found[cut] = None
    return tuple(found)


def evidence(pictures: Sequence[Seen]) -> dict[str, float]:
    """How probable each word is of these pictures, from 0 to 1: the highest of several, in order of appearance.

    Where the tokenizer gives probabilities they are these; elsewhere a guess by rank, see ``FIRST_CHANCE``.
    """
    chances: dict[str, float] = {}
    for seen in pictures:
        for word, chance in _chances(seen).items():
            chances[word] = max(chance, chances.get(word, 0.0))
    return chances


def _chances(seen: Seen) -> Mapping[str, float]:
    if isinstance(seen, Described):
        words = (word.strip(".,;:!?\"'()").casefold() for word in seen.text.split())
        return dict.fromkeys(filter(None, words), FIRST_CHANCE)
    if isinstance(seen, ImageWords) and seen.probabilities is not None:
        return seen.weights()
    if seen.vocabulary is None:
        return {}
    return {word: FIRST_CHANCE / rank for rank, word in enumerate(dict.fromkeys(seen.words()), start=1)}


def vector_of(
    pictures: Sequence[Seen], vocabulary: Vocabulary, codebook: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The mean vector of these pictures' words, each as heavy as it is probable, of length 1; zeros without words."""
    chances = {word: chance for word, chance in evidence(pictures).items() if word in vocabulary}
    if not chances:
        return np.zeros(codebook.shape[1], dtype=np.float32)
    weights = np.asarray([*chances.values()], dtype=np.float32)
    mean = weights @ codebook[np.asarray(vocabulary.ids([*chances]))]
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 0 else mean, dtype=np.float32)


def to_dict(seen: Seen) -> dict[str, Any]:
    """JSON-ready form of a picture in words."""
    return {"text": seen.text} if isinstance(seen, Described) else seen.to_dict()


def from_dict(document: Mapping[str, Any], vocabulary: Vocabulary | None) -> Seen:
    """The way back.

    Raises:
        PyramidError, VocabularyError, PromptError, KeyError, TypeError: a damaged document.
    """
    if "ids" not in document and set(document) == {"text"}:
        return Described(document["text"])
    return TokenPyramid.from_dict(document, vocabulary)


def _key(picture: object) -> object:
    """What a picture is known by inside one call: a path by its name, anything else by itself."""
    return ("path", os.fspath(picture)) if isinstance(picture, str | os.PathLike) else ("object", id(picture))
