"""ROUGE-L: the longest sequence of words that a caption and a reference share, in order, gaps allowed.

Knows: Lin 2004 (ACL workshop, 74-81) as captioning uses it: beta = 1.2, and the best precision and the best recall over
the references, which may come from different ones (pycocoevalcap, rouge.py). Refuses to know: tokenizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics.caption_tokens import caption_tokens

BETA: Final = 1.2
"""How much recall counts against precision."""


def rouge_l(caption: str, references: Sequence[str]) -> float:
    """From 0 to 1; 0 for an empty caption. The figure of a set is the mean over its pictures.

    Raises:
        UsageError: no references.
    """
    if isinstance(references, str) or not references:
        raise UsageError("ROUGE-L needs a list of one or more reference captions")
    words = caption_tokens(caption)
    precision = recall = 0.0
    for reference in map(caption_tokens, references):
        shared = _shared(words, reference)
        if shared:
            precision, recall = max(precision, shared / len(words)), max(recall, shared / len(reference))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
