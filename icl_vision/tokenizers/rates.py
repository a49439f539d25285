"""How probable a tokenizer holds each of its words on average, over many photographs: what is usual, and what is news.

A word says something of a picture by being more probable there than elsewhere. Rates were measured on photographs that
are not packaged (``benchmarks/word_rates.py``) and hold for one encoder, by its hash: another build of a tokenizer has
none until they are measured again.

Knows: the packaged lists. Refuses to know: what rates are used for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from icl_vision.contracts import Tokenizer

NOTHING: Mapping[str, float] = MappingProxyType({})


def word_rates(tokenizer: Tokenizer) -> Mapping[str, float]:
    """The mean probability of each word that has one above ``LEAST``; empty where none were measured."""
    known = _packaged(tokenizer.name)
    if known is None or dict(tokenizer.card.get("files") or {}).get("encoder.onnx") != known[0]:
        return NOTHING
    return known[1]


LEAST = 0.002
"""Lower rates are not listed."""


@functools.cache
def _packaged(name: str) -> tuple[str, Mapping[str, float]] | None:
    """The hash of the encoder that rates were measured with, and the rates."""
    if not name.replace("-", "").isalnum():
        return None
    listed = files("icl_vision") / "artefacts" / "word_rates" / f"{name}.txt"
    if not listed.is_file():
        return None
    encoder, rates = "", dict[str, float]()
    for line in listed.read_text(encoding="utf-8").splitlines():
        if line.startswith("# encoder.onnx "):
            encoder = line.split()[-1]
        elif not line.startswith("#") and line:
            rate, _, word = line.partition(" ")
            rates[word] = float(rate)
    return encoder, MappingProxyType(rates)
