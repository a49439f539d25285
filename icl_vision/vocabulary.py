"""Words and their ids: the alphabet in which images are spelled.

Knows: which words there are, in which order, how they are joined into text and
read back, and a hash that says whether two vocabularies are the same. Refuses to
know: what the words mean (``codebook.py`` holds vectors) and how any LLM's
tokenizer cuts them (``portable.py`` proves that).

Words are case-sensitive and hold no whitespace and no control or invisible
characters, so text joined by spaces can always be read back exactly.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import operator
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UnknownWordError, VocabularyError
from icl_vision.files.reading import MOST_CARD, member, read_json, read_text
from icl_vision.files.storage import write_json, write_text, written

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

WORDS_FILE = "words.txt"
CARD_FILE = "card.json"
FORMAT_VERSION = 1

MOST_WORDS = 64 * 2**20
"""Bytes of a list of words."""

_MAX_WORD_LENGTH = 128


def hash_words(words: Iterable[str]) -> str:
    """The sha256, in hex, of the words joined by newlines (UTF-8): a vocabulary's identity."""
    return hashlib.sha256("\n".join(words).encode("utf-8")).hexdigest()


@dataclass(frozen=True, init=False, repr=False, eq=False, slots=True)
class Vocabulary:
    """An ordered set of words; a word's id is its place, counted from 0.

    Frozen and hashable; two vocabularies are equal when their words are, in the same order
    (the name is a label only).

    Args:
        words: the words, in id order. Upper and lower case are different words.
        name: a label for messages and cards.

    Raises:
        VocabularyError: no words at all, an empty or repeated word, a word that is not a
            string, is longer than 128 characters, or holds whitespace, control or
            invisible characters.
    """

    words: tuple[str, ...]
    """The words, in id order."""
    name: str
    """A label for messages and cards."""
    hash: str
    """sha256, in hex, of the words joined by newlines."""
    _index: dict[str, int]

    def __init__(self, words: Sequence[str], *, name: str = "custom") -> None:
        if isinstance(words, str):
            raise VocabularyError(f"a vocabulary is made of a sequence of words, not of one string: {words[:40]!r}")
        words = tuple(words)
        if not words:
            raise VocabularyError(f"the vocabulary {name!r} has no words")
        index: dict[str, int] = {}
        for place, word in enumerate(words):
            problem = _problem(word)
            if problem:
                raise VocabularyError(f"word {place} of the vocabulary {name!r} {problem}: {word!r}")
            if word in index:
                raise VocabularyError(f"the vocabulary {name!r} holds {word!r} twice (ids {index[word]} and {place})")
            index[word] = place
        for field, value in (("words", words), ("name", name), ("hash", hash_words(words)), ("_index", index)):
            object.__setattr__(self, field, value)

    # -- looking up

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._index or self._spelled(word) >= 0

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, Vocabulary) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"Vocabulary(name={self.name!r}, words={len(self.words)}, hash={self.hash[:12]!r})"

    def word(self, id: int) -> str:
        """The word with this id (0 to ``len(self) - 1``, any integer type).

        Raises:
            UnknownWordError: no word has this id.
        """
        try:
            place = operator.index(id)
        except TypeError:
            raise UnknownWordError(f"a word id is an integer; got {id!r}") from None
        if not 0 <= place < len(self.words):
            raise UnknownWordError(
                f"no word has id {place}: the vocabulary {self.name!r} has ids 0 to {len(self.words) - 1}"
            )
        return self.words[place]

    def id(self, word: str) -> int:
        """The id of this word.

        Raises:
            UnknownWordError: the vocabulary does not hold it; the message names the nearest word.
        """
        try:
            return self._index[word]
        except (KeyError, TypeError):
            place = self._spelled(word)
            if place < 0:
                raise UnknownWordError(self._unknown(word)) from None
            return place

    def ids(self, words: Iterable[str]) -> npt.NDArray[np.int32]:
        """The ids of these words, int32 [N].

        Raises:
            UnknownWordError: names the first word the vocabulary does not hold, and its position.
        """
        if isinstance(words, str):
            raise UnknownWordError(f"ids() takes a sequence of words; for one text use from_text({words[:40]!r})")
        words = list(words)
        ids = [self._index.get(word, -1) for word in words]
        ids = [self._spelled(words[place]) if id_ < 0 else id_ for place, id_ in enumerate(ids)]
        if -1 in ids:
            place = ids.index(-1)
            raise UnknownWordError(self._unknown(words[place], f" (word {place + 1} of {len(words)})"))
        return np.array(ids, dtype=np.int32)

    def nearest_spelling(self, word: str) -> str | None:
        """The word spelled most like ``word``; None when nothing comes close. Slow (tens of ms): for messages."""
        folded = word.strip().casefold()
        if folded in self._index:
            return folded
        near = difflib.get_close_matches(folded[:_MAX_WORD_LENGTH], self.words, n=1, cutoff=0.6)
        return near[0] if near else None

    # -- text

    def to_text(self, ids: Iterable[int], *, separator: str = " ") -> str:
        """The words of these ids, joined: "w1 w2 w3".

        Args:
            ids: word ids, any integer type, any number of them.
            separator: what stands between two words; must not occur inside one.

        Raises:
            UnknownWordError: an id outside the vocabulary.
            VocabularyError: an empty separator, or one that occurs inside a word used here.
        """
        if not separator:
            raise VocabularyError("the separator must not be empty: words could not be told apart")
        words = [self.word(id) for id in ids]
        # Whitespace cannot occur inside a word, so only what is left of the separator matters.
        core = separator.strip()
        for word in words:
            if core and core in word:
                raise VocabularyError(f"the separator {separator!r} occurs inside the word {word!r}; choose another")
        return separator.join(words)

    def from_text(self, text: str, *, separator: str = " ") -> npt.NDArray[np.int32]:
        """Read words back into ids, int32 [N]; strict: every piece must be a word of the vocabulary.

        Whitespace around words carries nothing and is ignored (so " w1 w2" and "w1 w2\\n" read
        alike); an empty text has no words. Repairing what an LLM wrote is the business of ``drawing``.

        Args:
            text: words joined by ``separator``.
            separator: as given to :meth:`to_text`.

        Raises:
            UnknownWordError: names the first unknown word, its position (from 1), and the nearest word.
        """
        if not separator:
            raise VocabularyError("the separator must not be empty: words could not be told apart")
        if not separator.strip():
            return self.ids(text.split())
        if not text.strip():
            return np.zeros(0, dtype=np.int32)
        return self.ids([piece.strip() for piece in text.split(separator.strip())])

    # -- files

    def save(self, folder: str | os.PathLike[str], *, card: Mapping[str, Any] | None = None) -> Path:
        """Write ``words.txt`` (one word a line) and ``card.json`` into a folder, made if missing.

        Args:
            folder: where to write; files of the same names are replaced, atomically each.
            card: further entries for the card (licence, provenance ...); they cannot replace ours.

        Returns:
            The folder.

        Raises:
            VocabularyError: the folder holds the card of something else, such as a codebook.
        """
        path = Path(folder)
        if os.path.exists(path / CARD_FILE) and read_card(path).get("kind", "vocabulary") != "vocabulary":
            raise VocabularyError(f"{str(path)!r} holds something else than a vocabulary; choose another folder")
        with written(folder):
            write_text(path / WORDS_FILE, "\n".join(self.words) + "\n")
        own = {
            "format_version": FORMAT_VERSION,
            "kind": "vocabulary",
            "name": self.name,
            "size": len(self.words),
            "vocabulary_hash": self.hash,
        }
        with written(folder):
            write_json(path / CARD_FILE, own | {key: value for key, value in (card or {}).items() if key not in own})
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Vocabulary:
        """Read a folder with ``words.txt`` and ``card.json``; the words must have the hash the card states.

        A codebook folder works too: it holds the same two files.

        Raises:
            ArtefactNotFoundError: no such folder.
            ArtefactDamagedError: a file is missing or unreadable, or the words are not the card's.
        """
        path = Path(folder)
        card = read_card(path)
        expected = card.get("vocabulary_hash")
        try:
            # Line ends do not count: a checkout that turned them into CRLF still holds the same words.
            words = read_text(member(path, WORDS_FILE), most=MOST_WORDS).splitlines()
        except FileNotFoundError:
            raise ArtefactDamagedError(f"{str(path)!r} has no {WORDS_FILE}; fetch or build the folder again") from None
        except UnicodeDecodeError as error:
            raise ArtefactDamagedError(f"{WORDS_FILE} in {str(path)!r} is not UTF-8 text ({error.reason})") from error
        except OSError as error:
            raise ArtefactDamagedError(f"{WORDS_FILE} in {str(path)!r} cannot be read ({error.strerror})") from error
        digest = hash_words(words)
        if digest != expected:
            raise ArtefactDamagedError(
                f"{WORDS_FILE} in {str(path)!r} is not the list its card describes: its hash is {digest[:12]}..., "
                f"the card says {str(expected)[:12]}...; fetch or build the folder again"
            )
        name = card.get("vocabulary_name", card.get("name", path.name))
        try:
            return cls(words, name=str(name))
        except VocabularyError as error:  # its card has the hash of words that cannot be
            raise ArtefactDamagedError(f"{WORDS_FILE} in {str(path)!r} is no list of words: {error}") from error

    def _spelled(self, word: object) -> int:
        """The id of a word that is spelled in other characters here (an accent apart, or with its letter), or -1."""
        if not isinstance(word, str) or word.isascii():
            return -1
        forms = (unicodedata.normalize(form, word) for form in ("NFC", "NFD"))
        return next((self._index[form] for form in forms if form in self._index), -1)

    def _unknown(self, word: object, where: str = "") -> str:
        if not isinstance(word, str):
            return f"a word is a string; got {word!r}{where}"
        near = self.nearest_spelling(word)
        hint = f"; the nearest word is {near!r}" if near else ""
        return f"the vocabulary {self.name!r} does not hold {_short(word)!r}{where}{hint}"


def read_card(folder: Path) -> dict[str, Any]:
    """The ``card.json`` of an artefact folder.

    Raises:
        ArtefactNotFoundError: no such folder.
        ArtefactDamagedError: no card in it, or one that is not a JSON object or of a later format; or in its place a
            pipe, a device, a link that leads out of the folder, or a file too large for a card.
    """
    if not os.path.isdir(folder):
        raise ArtefactNotFoundError(f"there is no folder {str(folder)!r}")
    try:
        card = read_json(member(folder, CARD_FILE), most=MOST_CARD)
    except FileNotFoundError:
        raise ArtefactDamagedError(f"{str(folder)!r} has no {CARD_FILE}; fetch or build the folder again") from None
    except OSError as error:
        raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} is not valid JSON ({error})") from error
    if not isinstance(card, dict):
        raise ArtefactDamagedError(f"{CARD_FILE} in {str(folder)!r} must hold a JSON object; got {type(card).__name__}")
    version = card.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ArtefactDamagedError(
            f"{CARD_FILE} in {str(folder)!r} has format {version!r}; this icl-vision reads format {FORMAT_VERSION}"
        )
    return card


def _problem(word: object) -> str | None:
    """What is wrong with a word, or None."""
    if not isinstance(word, str):
        return "is not a string"
    if not word:
        return "is empty"
    if len(word) > _MAX_WORD_LENGTH:
        return f"is longer than {_MAX_WORD_LENGTH} characters"
    if word.isascii() and word.isalnum():  # nearly every word: skip the per-character look-up
        return None
    for character in word:
        if unicodedata.category(character)[0] == "Z" or character.isspace():
            return "holds whitespace"
        if unicodedata.category(character)[0] == "C":
            return f"holds a control or invisible character (U+{ord(character):04X})"
    return None


def _short(word: str) -> str:
    return word if len(word) <= 40 else word[:37] + "..."
