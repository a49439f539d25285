"""What is where in a picture, as a row of words: each region's name, and after it what is there.

    top blue sky bottom green grass left tree right dog centre dog

Knows: the regions, how a row is taken apart again and shortened. Refuses to know: how it is found out what is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from icl_vision.tokenizers.describe.colours import REGIONS

MOST = 2
"""Words of a region: its colour and what is there, or only this."""

__all__ = ["MOST", "REGIONS", "cut_places", "most_places", "regions_of"]


def most_places(k: int) -> int:
    """The most words of a whole row, where a region has ``k`` at most."""
    return len(REGIONS) * (1 + min(k, MOST))


def regions_of(words: Sequence[str]) -> dict[str, range]:
    """For each region named in a row, the places (from 0) of the words that stand after its name."""
    starts = [place for place, word in enumerate(words) if word in REGIONS]
    ends = [*starts[1:], len(words)][: len(starts)]
    return {words[start]: range(start + 1, end) for start, end in zip(starts, ends, strict=True)}


def cut_places(words: Sequence[str], k: int) -> list[int]:
    """The places that are kept where a region has ``k`` words: a single one is what is there, not its colour."""
    kept: list[int] = []
    for own in regions_of(words).values():
        kept += [own.start - 1, *(own if k >= MOST else own[-k:])]
    return kept
