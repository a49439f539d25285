"""Runs of words and how often each occurs: what CIDEr-D and BLEU count.

Knows: counting. Refuses to know: what the counts are for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]

LONGEST = 4
"""Words of the longest runs counted."""


def ngrams(words: Sequence[str]) -> list[Counter[Ngram]]:
    """How often each run of 1, 2, 3 and 4 words occurs: one counter for each length."""
    return [
        Counter(tuple(words[start : start + length]) for start in range(len(words) - length + 1))
        for length in range(1, LONGEST + 1)
    ]
