"""Which way something moves: episodes of moving digits, controls that take time away, and what needs no LLM.

Knows: clips that run straight, their directions, words at their places. Refuses to know: LLMs, prompts, tables.

The clips are ``MovingDigits(way="straight")``: their middle frame says nothing of the direction, so words that know
more than chance know of time. Two controls take it away from the queries alone. Played backwards every direction turns
into its opposite, so whatever reads motion is now wrong more often than chance. With the frames in random order there
is no direction any more, but still an axis: up or down, left or right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from icl_vision.clips.moving_digits import DIRECTIONS, MovingDigits
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.baselines import nearest_prototype
from icl_vision.pyramid import TokenPyramid

Frames = npt.NDArray[np.uint8]
"""uint8 [T, S, S, 3]."""

OPPOSITE: Final = {"right": "left", "left": "right", "up": "down", "down": "up"}
MOST_DRAWN: Final = 10_000


@dataclass(frozen=True, eq=False, slots=True)
class MotionEpisode:
    """Clips of every direction. support, queries: (clip, direction), as many of each direction; no digit in both."""

    support: tuple[tuple[Frames, str], ...]
    queries: tuple[tuple[Frames, str], ...]


def motion_episode(row: MovingDigits, shots: int, each: int, first: int = 0) -> MotionEpisode:
    """An episode from a row of straight clips.

    Args:
        shots, each: support clips and queries of every direction.
        first: the number of the clip to begin with; the clips that follow are taken where they are wanted.

    Raises:
        UsageError: clips that do not run straight, or too few digits for support and queries to have their own.
    """
    if row.way != "straight":
        raise UsageError(f"directions are told of clips that run straight; got way={row.way!r}")
    support: dict[str, list[Frames]] = {name: [] for name in DIRECTIONS}
    queries: dict[str, list[Frames]] = {name: [] for name in DIRECTIONS}
    shown: set[int] = set()
    asked: set[int] = set()
    for number in range(first, first + MOST_DRAWN):
        clip = row.clip(number)
        (motion,) = clip.motions
        if len(support[motion.direction]) < shots and motion.source not in asked:
            support[motion.direction].append(clip.frames)
            shown.add(motion.source)
        elif len(queries[motion.direction]) < each and motion.source not in shown:
            queries[motion.direction].append(clip.frames)
            asked.add(motion.source)
        if all(len(clips) == shots for clips in support.values()) and all(len(c) == each for c in queries.values()):
            return MotionEpisode(_in_turn(support), _in_turn(queries))
    raise UsageError(
        f"{len(row.images)} digits are too few for {shots} support clips and {each} queries of each direction with "
        "digits of their own; pass more"
    )


def _in_turn(clips: dict[str, list[Frames]]) -> tuple[tuple[Frames, str], ...]:
    return tuple(
        (clip, name) for turn in zip(*clips.values(), strict=True) for clip, name in zip(turn, clips, strict=True)
    )


def backwards(clip: Frames, number: int = 0) -> Frames:
    """The clip from its end to its beginning."""
    return np.ascontiguousarray(clip[::-1])


def out_of_order(clip: Frames, number: int = 0) -> Frames:
    """The clip's frames in an order drawn by ``number``."""
    return np.ascontiguousarray(clip[np.random.default_rng([16, number]).permutation(len(clip))])


CONTROLS: Final[dict[str, Callable[[Frames, int], Frames]]] = {
    "as they are": lambda clip, number: clip,
    "played backwards": backwards,
    "frames in random order": out_of_order,
}


def placed_vectors(pyramids: Sequence[TokenPyramid], codebook: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The vectors of each image's words one after the other, each at its place: float64 [N, k c]. The mean over places,
    which few-shot baselines take, cannot tell a digit that comes from one that goes."""
    table = codebook / np.maximum(np.linalg.norm(codebook, axis=1, keepdims=True), 1e-12)
    rows = [np.concatenate([table[layer.ravel()].ravel() for layer in pyramid.ids]) for pyramid in pyramids]
    return np.asarray(np.stack(rows), dtype=np.float64)


def by_places(
    support: Sequence[TokenPyramid],
    labels: Sequence[str],
    queries: Sequence[TokenPyramid],
    codebook: npt.NDArray[np.float32],
) -> list[str]:
    """The direction whose support's words are nearest, place by place: without an LLM, and with order. What all of the
    support shares is taken off first, so that the digits' background does not count."""
    known, asked = placed_vectors(support, codebook), placed_vectors(queries, codebook)
    mean = known.mean(0)
    return nearest_prototype(known - mean, labels, asked - mean)
