"""Names that mean nothing, for labels that an LLM cannot have read about.

Knows: pronounceable made-up words, seeded. Refuses to know: images, prompts.

In the manner of Frozen's Open-Ended miniImageNet (arXiv 2106.13884, section 4), which calls classes "dax" and
"blicket": with such names nothing but the examples tells what a label stands for.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.screening import is_refused

ONSETS = ("b", "bl", "d", "dr", "f", "fl", "g", "gr", "k", "kl", "m", "p", "pl", "s", "sn", "t", "tr", "v", "w", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("b", "ck", "d", "ff", "g", "lb", "mp", "nt", "p", "rk", "t", "x", "zz")
ENDINGS = ("", "", "et", "o", "a", "ik")


@functools.cache
def _candidates() -> tuple[str, ...]:
    """Every word that the parts make, each once, in a fixed order; nothing that is or begins with an offensive word."""
    stems = [onset + vowel + coda for onset in ONSETS for vowel in VOWELS for coda in CODAS]
    words = {stem + ending for stem in stems if not is_refused(stem) for ending in ENDINGS}
    return tuple(sorted(word for word in words if not is_refused(word)))


def nonsense_names(labels: Sequence[str], *, key: Sequence[object], taken: Collection[str] = ()) -> dict[str, str]:
    """A made-up name for each label: different ones, the same for the same key.

    Args:
        labels: what is to be renamed, in an order that decides who gets which name.
        key: names the draw, for instance (seed, episode number).
        taken: words that must not be used (compared without case): a tokenizer's vocabulary, say. The labels' own
            words never are.

    Raises:
        UsageError: more labels than there are names left.
    """
    used = {word.casefold() for word in taken} | {word.casefold() for label in labels for word in label.split()}
    names = [name for name in Draw("nonsense", *key).shuffled(_candidates()) if name not in used][: len(labels)]
    if len(names) < len(labels):
        raise UsageError(f"{len(labels)} labels need as many made-up names, but only {len(names)} are left")
    return dict(zip(labels, names, strict=True))
