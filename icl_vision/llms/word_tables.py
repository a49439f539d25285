"""What an LLM on this machine gives to words after a prompt, kept on disk: a prompt that never changes is read once.

A classifier's examples stay the same from image to image, and so does what their prompts say of every word. A table
holds it: log P(" " + word | prompt), the next-word distribution at the words that were asked for, without a terminator.

    usage = run_sync(llm.learn_words(prompts, words))      # asks what is not kept yet, three requests a prompt
    llm.score_sync([(prompts[0], " cat")], terminator="")  # 0 requests for a learnt word; another word is asked

How to have the next-word distribution without keeping anything: ``llm.score`` of (prompt, " " + word) for every word,
with ``terminator=""``, is two requests for each prompt however many words there are (``Profile.scores_bags``).

The key of a table is the sha256 of what decides it: the model file's own hash, llama.cpp's version, the server's
options, the prompt's text. Rows are JSON in one SQLite file, ``word-tables.sqlite`` in the user's cache folder, of
``MOST_BYTES`` at most (the oldest quarter goes first), safe to delete at any time. A file that cannot be read or
written costs its advantage and nothing else: tables then live in memory, and one warning says so.

``with word_tables("off")`` neither reads nor writes nor learns, as does ``cache_mode("off")`` of the response cache.

Knows: keys, rows, which words a table has. Refuses to know: images, labels, how an LLM is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Prompt, TextLLM, Usage
from icl_vision.errors import StorageError, UsageError
from icl_vision.files.rows import JsonRows
from icl_vision.files.storage import cache_dir
from icl_vision.llms.modes import current_mode

logger = logging.getLogger(__name__)

FORMAT = 1
FILE = "word-tables.sqlite"

MOST_BYTES = 256 * 2**20
"""Of the file: some five thousand prompts of 1,700 words."""

IN_MEMORY = 2048
"""Tables held in memory, some 30 kB each."""

LEARNING = 3
"""Requests that learning a prompt takes (``llama_scoring.next_tokens``)."""

LOWEST = -103.0
"""As ``llama_scoring.LOWEST``: no lower log-probability is told."""

DIGITS = 4
"""Decimals of a log-probability: far below what equal calls differ by."""

_mode: contextvars.ContextVar[Literal["on", "off"]] = contextvars.ContextVar("icl_vision_word_tables", default="on")


@contextlib.contextmanager
def word_tables(mode: Literal["on", "off"]) -> Iterator[None]:
    """Whether calls inside the block use and make tables. Off, every word is asked of the LLM, as in an evaluation."""
    if mode not in ("on", "off"):
        raise UsageError(f"word_tables must be 'on' or 'off'; got {mode!r}")
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def in_use() -> bool:
    """Whether tables are used here."""
    return _mode.get() == "on" and current_mode() == "on"


def learns(llm: TextLLM) -> bool:
    """Whether an LLM keeps tables, here and now: see ``BaseLLM.learns_words``."""
    return in_use() and bool(getattr(llm, "learns_words", False))


def table_of(llm: TextLLM, prompt: Prompt) -> WordTable | None:
    """What an LLM keeps of a prompt, without asking it; None where there is nothing."""
    find = getattr(llm, "word_table", None)
    table = find(prompt) if find is not None and learns(llm) else None
    return table if isinstance(table, WordTable) else None


class _Words:
    """A list of words and the place of each; equal lists are one object."""

    _all: ClassVar[dict[str, _Words]] = {}

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.places = {word: place for place, word in enumerate(words)}

    @classmethod
    def of(cls, words: Iterable[str]) -> _Words:
        whole = tuple(words)
        key = hashlib.sha256("\n".join(whole).encode("utf-8", "surrogatepass")).hexdigest()
        if len(cls._all) > 64:
            cls._all.clear()
        return cls._all.setdefault(key, cls(whole))


@dataclass(frozen=True, slots=True)
class WordTable:
    """What a prompt says of words as the next one: numbers from which ``score`` answers as if it had asked.

    listed: the words learnt together. shares, levels: float64 [words], see ``llama_scoring.NextTokens``. more:
    log-probabilities of words that were asked for later.
    """

    listed: _Words
    shares: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]
    more: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Sequence[str], shares: Sequence[float], levels: Sequence[float]) -> WordTable:
        """A table of these words; rounded as it is kept, so that a later process finds the same numbers."""
        return cls(_Words.of(words), _rounded(shares), _rounded(levels))

    def __contains__(self, word: object) -> bool:
        return word in self.listed.places or word in self.more

    def logprobs(self, words: Iterable[str]) -> dict[str, float]:
        """Natural-log probabilities of those of these words that are known, as they would be if asked for together."""
        wanted = list(dict.fromkeys(words))
        known = {word: self.more[word] for word in wanted if word in self.more}
        listed = [word for word in wanted if word in self.listed.places]
        if listed:
            places = np.array([self.listed.places[word] for word in listed])
            shares = self.shares[places]
            best = int(np.argmax(shares))
            values = np.clip(shares + (self.levels[places[best]] - shares[best]), LOWEST, 0.0)
            known |= dict(zip(listed, values.tolist(), strict=True))
        return known

    def with_more(self, logprobs: Mapping[str, float]) -> WordTable:
        """The table with further words."""
        added = {word: round(value, DIGITS) for word, value in logprobs.items() if math.isfinite(value) and value <= 0}
        return WordTable(self.listed, self.shares, self.levels, {**self.more, **added})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "words": list(self.listed.words),
            "shares": self.shares.tolist(),
            "levels": self.levels.tolist(),
            "more": dict(self.more),
        }

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> WordTable:
        """The table of ``to_dict``. Raises KeyError, TypeError or ValueError on anything else."""
        words, more = form["words"], form["more"]
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words) and isinstance(more, dict)):
            raise ValueError("its words are no list of texts")
        if len(set(words)) != len(words):
            raise ValueError("a word stands in it twice")
        later = np.asarray([float(value) for value in more.values()], dtype=np.float64)
        columns = [np.asarray(form[name], dtype=np.float64) for name in ("shares", "levels")]
        for column in columns:
            if column.shape != (len(words),):
                raise ValueError(f"{len(words)} words with {column.size} numbers")
        # A share or level may be rounded, or exceed what it is measured by, to a hair above nothing.
        if not all(np.isfinite(some).all() and (some <= 0.5).all() for some in (*columns, later)):
            raise ValueError("a log-probability is not a number of 0 or less")
        shares, levels = columns
        return cls(_Words.of(words), shares, levels, {str(word): float(value) for word, value in more.items()})


def _rounded(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(np.round(np.asarray(values, dtype=np.float64), DIGITS))


class WordTables:
    """The tables of one file, and those in memory. Thread-safe, survives a fork and a pickle; processes may share it.

    path: default ``word-tables.sqlite`` in the user's cache folder. most_bytes: of the file.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._rows: JsonRows | None = None
        self._most_bytes = most_bytes
        # Without a lock, which a fork could leave held: each step on a dict is whole by itself.
        self._memory: dict[str, WordTable] = {}
        self._warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_anew, (self._path, self._most_bytes)

    def load(self, keys: Iterable[str]) -> dict[str, WordTable]:
        """The tables of those of these keys that have one. Reads a file: not for an event loop's own thread."""
        tables: dict[str, WordTable] = {}
        for key in dict.fromkeys(keys):
            table = self._memory.get(key)
            if table is None:
                table = self._read(key)
                if table is not None:
                    self._remember({key: table})
            if table is not None:
                tables[key] = table
        return tables

    def keep(self, tables: Mapping[str, WordTable]) -> None:
        """Store tables by key, newest wins. Where the file cannot be written they stay in memory alone."""
        if not tables:
            return
        self._remember(tables)
        try:
            rows = self._open(make=True)
            assert rows is not None
            rows.put_all({key: table.to_dict() for key, table in tables.items()})
            rows.prune(self._most_bytes)
        except StorageError as error:
            self._warn(error)

    def close(self) -> None:
        """Close the file and forget what is in memory; the next use opens it again."""
        self._memory.clear()
        if self._rows is not None:
            self._rows.close()

    def _remember(self, tables: Mapping[str, WordTable]) -> None:
        self._memory.update(tables)
        for key in list(self._memory)[: max(0, len(self._memory) - IN_MEMORY)]:
            self._memory.pop(key, None)

    def _read(self, key: str) -> WordTable | None:
        try:
            rows = self._open(make=False)
            body = None if rows is None else rows.get(key)
            if rows is None or body is None:
                return None
            try:
                return WordTable.from_dict(body)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                rows.damaged(key, error)
        except StorageError as error:
            self._warn(error)
        return None

    def _open(self, *, make: bool) -> JsonRows | None:
        if self._rows is None:
            path = cache_dir() / FILE if self._path is None else self._path
            if not make and not os.path.exists(path):
                return None
            self._rows = _rows_of(path)
        return self._rows

    def _warn(self, error: StorageError) -> None:
        if not self._warned:
            logger.warning("what the LLM says of words is kept in memory only: %s", error)
        self._warned = True


def _rows_of(path: str | os.PathLike[str]) -> JsonRows:
    return JsonRows(path, table="tables", what="the file of word tables")


def count(path: str | os.PathLike[str]) -> int:
    """How many tables an existing file holds.

    Raises:
        StorageError: it cannot be read.
    """
    rows = _rows_of(path)
    try:
        return len(rows)
    finally:
        rows.close()


def _made_anew(path: str | os.PathLike[str] | None, most_bytes: int) -> WordTables:
    return WordTables(path, most_bytes=most_bytes)


def key_of(identity: Sequence[object], prompt: Prompt) -> str:
    """The key of a prompt's table. identity: everything beside the prompt that decides its numbers."""
    document = [FORMAT, *map(str, identity), prompt.text]
    return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


async def unknown(llm: TextLLM, pairs: Sequence[tuple[Prompt, str]]) -> list[tuple[Prompt, str]]:
    """The pairs (of a score without terminator) that no table answers; all of them where an LLM keeps none."""
    if not learns(llm):
        return list(pairs)

    def look() -> list[tuple[Prompt, str]]:
        tables = {prompt.text: table_of(llm, prompt) for prompt in dict.fromkeys(prompt for prompt, _ in pairs)}
        return [pair for pair in pairs if pair[1][:1] != " " or pair[1][1:] not in (tables[pair[0].text] or ())]

    return await asyncio.to_thread(look)


async def learn(
    llm: TextLLM, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None] | None = None
) -> Usage:
    """Have an LLM learn words after prompts, as ``BaseLLM.learn_words``; nothing where it keeps no tables."""
    if not learns(llm) or not prompts or not words:
        return Usage()
    spent: Usage = await llm.learn_words(prompts, words, done=done)  # type: ignore[attr-defined]  # learns() saw to it
    return spent
