"""Words that a tokenizer is likely to give, so that an LLM can be asked about them before any image is seen.

A hint and nothing more: a word that is not among them is asked for when it comes.

Knows: the packaged lists, small vocabularies. Refuses to know: LLMs, what the words are used for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from importlib.resources import files
from types import MappingProxyType

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
    known = packaged_list("likely_words", tokenizer.name)
    listed: list[str] = []
    card = tokenizer.card
    graphs = {**(card.get("files") or {}), **(card.get("whole") or {})}
    if known is not None and graphs.get("encoder.onnx") == known[0]:
        most = k or int(tokenizer.card.get("default_k") or 0) or max(known[1].values())
        listed = [word for word, rank in known[1].items() if rank <= most]
    return list(dict.fromkeys([*listed, *own]))


@functools.cache
def packaged_list(folder: str, name: str) -> tuple[str, Mapping[str, float]] | None:
    """A packaged list of words with a number each ("0.25 dog" a line): the hash of the encoder that it was made for,
    and the numbers; None where there is no such list.

    folder: of the artefacts. name: the tokenizer's.
    """
    if not name.replace("-", "").isalnum():
        return None
    listed = files("icl_vision") / "artefacts" / folder / f"{name}.txt"
    if not listed.is_file():
        return None
    encoder, numbers = "", dict[str, float]()
    for line in listed.read_text(encoding="utf-8").splitlines():
        if line.startswith("# encoder.onnx "):
            encoder = line.split()[-1]
        elif not line.startswith("#") and line:
            number, _, word = line.partition(" ")
            numbers[word] = float(number)
    return encoder, MappingProxyType(numbers)
