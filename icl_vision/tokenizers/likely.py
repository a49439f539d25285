"""Words that a tokenizer is likely to give, so that an LLM can be asked about them before any image is seen.

A hint and nothing more: a word that is not among them is asked for when it comes.

Knows: the packaged lists, small vocabularies. Refuses to know: LLMs, what the words are used for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from importlib.resources import files

from icl_vision.contracts import Tokenizer

logger = logging.getLogger(__name__)

SMALL = 2048
"""A vocabulary of so many words at most is taken whole."""


def likely_words(tokenizer: Tokenizer, k: int | None, texts: Iterable[str]) -> list[str]:
    """Words to expect of a tokenizer: those of ``texts`` (images' words), and those known of it beforehand.

    k: words per image, None for the tokenizer's default. Empty for a tokenizer without a vocabulary (ASCII art): its
    next text has other words than its last.
    """
    vocabulary = tokenizer.vocabulary
    if vocabulary is None:
        return []
    if len(vocabulary) <= SMALL:
        return list(vocabulary)
    own = [word for text in texts for word in text.split()]
    known = _packaged(tokenizer.name)
    listed: list[str] = []
    card = tokenizer.card
    graphs = {**(card.get("files") or {}), **(card.get("whole") or {})}
    if known is not None and graphs.get("encoder.onnx") == known[0]:
        most = k or int(tokenizer.card.get("default_k") or 0) or max(known[1].values())
        listed = [word for word, rank in known[1].items() if rank <= most]
    return list(dict.fromkeys([*listed, *own]))


@functools.cache
def _packaged(name: str) -> tuple[str, dict[str, int]] | None:
    """The hash of the encoder that a list was made for, and the rank of each of its words."""
    if not name.replace("-", "").isalnum():
        return None
    listed = files("icl_vision") / "artefacts" / "likely_words" / f"{name}.txt"
    if not listed.is_file():
        return None
    encoder, ranks = "", dict[str, int]()
    for line in listed.read_text(encoding="utf-8").splitlines():
        if line.startswith("# encoder.onnx "):
            encoder = line.split()[-1]
        elif not line.startswith("#") and line:
            rank, _, word = line.partition(" ")
            ranks[word] = int(rank)
    return encoder, ranks
