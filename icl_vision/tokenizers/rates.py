"""How probable a tokenizer holds each of its words on average, over many photographs: what is usual, and what is news.

A word says something of a picture by being more probable there than elsewhere. Rates were measured on photographs that
are not packaged (``benchmarks/word_rates.py``) and hold for one encoder, by its hash: another build of a tokenizer has
none until they are measured again.

Knows: the packaged lists. Refuses to know: what rates are used for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from icl_vision.contracts import Tokenizer
from icl_vision.tokenizers.likely import packaged_list

NOTHING: Mapping[str, float] = MappingProxyType({})


def word_rates(tokenizer: Tokenizer) -> Mapping[str, float]:
    """The mean probability of each word that has one above ``LEAST``; empty where none were measured."""
    known = packaged_list("word_rates", tokenizer.name)
    if known is None or dict(tokenizer.card.get("files") or {}).get("encoder.onnx") != known[0]:
        return NOTHING
    return known[1]


LEAST = 0.002
"""Lower rates are not listed."""
