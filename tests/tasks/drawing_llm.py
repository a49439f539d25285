"""For tests of drawing from texts: an LLM that knows what stood behind the same words before, and half the time does
not care."""

from __future__ import annotations

import functools
import math
from collections import Counter
from typing import Any

from icl_vision.contracts import Prompt
from icl_vision.llms.fake import FakeLLM


@functools.lru_cache(maxsize=256)
def behind_arrows(text: str, words: str = "") -> Counter[str]:
    """How often each first word stands behind an arrow, after these words or any."""
    lines = [line.split(" -> ") for line in text.split("\n") if " -> " in line]
    return Counter(answer.split()[0] for shown, answer in lines if shown == words or not words)


def share(prompt: Prompt, continuation: str, care: float = 0.5) -> float:
    """log of: ``care`` times the word's share among the examples with the same text, the rest its share among all."""
    word, query = continuation.strip(), prompt.query.rpartition("->")[0].strip()
    everywhere, same = behind_arrows(prompt.context), behind_arrows(prompt.context, query) if query else Counter()
    parts = [
        weight * counts[word] / max(1, sum(counts.values()))
        for weight, counts in ((care, same), (1 - care, everywhere))
    ]
    return math.log(sum(parts) + 1e-6)


def drawing_llm(**options: Any) -> FakeLLM:
    """A FakeLLM that scores, and answers by its scores where it is restricted."""
    return FakeLLM(**{"score": share, "constraint": "logit_bias", **options})
