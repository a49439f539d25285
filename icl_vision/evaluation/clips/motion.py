"""How something moves: episodes of moving digits, controls that take time away, and what needs no LLM.

Knows: which way a digit runs, how fast, whether it met the border; words at their places. Refuses to know: LLMs,
prompts, tables.

Three kinds, each made so that the digit's place in the middle frame says nothing of the answer, so that words that know
more than chance know of time:

- "direction" (right, down, left, up) and "speed" (slow, middling, fast): clips that run straight; the middle place is
  drawn before either.
- "bounce" (straight on, bounced): every clip that met the border has one beside it that did not and has its digit at
  the same place in the middle frame, within ``NEAR`` pixels on either axis; all of nearly one speed.

Two controls take time away from the queries alone. Played backwards every direction turns into its opposite, so
whatever reads motion is now wrong more often than chance; speed and bounce stay what they are. With the frames in
random order there is no direction any more, but still an axis: up or down, left or right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.clips.moving_digits import DIRECTIONS, Motion, MovingDigits
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.baselines import nearest_prototype, unit
from icl_vision.pyramid import TokenPyramid

Frames = npt.NDArray[np.uint8]
"""uint8 [T, S, S, 3]."""

OPPOSITE: Final = {"right": "left", "left": "right", "up": "down", "down": "up"}
MOST_DRAWN: Final = 20_000

SPEEDS: Final = {"slow": (0.4, 0.8), "middling": (1.05, 1.45), "fast": (1.7, 2.1)}
"""Pixels a frame; a clip between two of them is of neither."""
NEAR: Final = 1.5
"""Pixels, on each axis, between the middle places of a clip that bounced and the one beside it that did not."""

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "direction": tuple(DIRECTIONS),
    "speed": tuple(SPEEDS),
    "bounce": ("straight on", "bounced"),
}
"""What is asked of a clip, and what may be answered."""
WAY: Final = {"direction": "straight", "speed": "straight", "bounce": "bounce"}


@dataclass(frozen=True, eq=False, slots=True)
class MotionEpisode:
    """Clips of every answer. support, queries: (clip, answer), as many of each; no digit in both."""

    support: tuple[tuple[Frames, str], ...]
    queries: tuple[tuple[Frames, str], ...]


def row_of(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], kind: str, *, seed: int = 0) -> MovingDigits:
    """The row of clips that a kind of question is asked of: one digit of 28 pixels in 64 x 64.

    images, labels: as ``MovingDigits`` takes them. Raises UsageError for a kind that there is not.
    """
    checks.choice("kind", kind, tuple(KINDS))
    speeds = {"direction": None, "speed": (SPEEDS["slow"][0], SPEEDS["fast"][1]), "bounce": (1.8, 2.2)}[kind]
    return MovingDigits(images, labels, 1, WAY[kind], speeds=speeds, seed=seed)


def motion_episode(
    row: MovingDigits, shots: int, each: int, first: int = 0, *, kind: str = "direction", along: str | None = None
) -> MotionEpisode:
    """An episode from a row of clips of one digit.

    Args:
        shots, each: support clips and queries of every answer.
        first: the number of the clip to begin with; the clips that follow are taken where they are wanted.
        kind: what is asked, one of ``KINDS``.
        along: of "speed": clips of this direction alone; None for all four.

    Raises:
        UsageError: a kind that there is not, clips that move another way than it needs, or too few digits for support
            and queries to have their own.
    """
    checks.choice("kind", kind, tuple(KINDS))
    if along is not None:
        checks.choice("along", along, tuple(DIRECTIONS))
    if row.way != WAY[kind]:
        raise UsageError(f"{kind} is told of clips with way={WAY[kind]!r}; got way={row.way!r}")
    names = KINDS[kind]
    support: dict[str, list[Frames]] = {name: [] for name in names}
    queries: dict[str, list[Frames]] = {name: [] for name in names}
    shown: set[int] = set()
    asked: set[int] = set()
    for group in _groups(row, kind, along, range(first, first + MOST_DRAWN)):
        sources = {motion.source for _, motion, _ in group}
        for into, most, own, others in ((support, shots, shown, asked), (queries, each, asked, shown)):
            if all(len(into[name]) < most for _, _, name in group) and not sources & others:
                for number, _, name in group:
                    into[name].append(row.clip(number).frames)
                own |= sources
                break
        if all(len(clips) == shots for clips in support.values()) and all(len(c) == each for c in queries.values()):
            return MotionEpisode(_in_turn(support), _in_turn(queries))
    raise UsageError(
        f"{len(row.images)} digits are too few for {shots} support clips and {each} queries of each {kind} with "
        "digits of their own; pass more"
    )


Answered = tuple[int, Motion, str]
"""A clip's number, what moved in it, and the answer."""


def _groups(row: MovingDigits, kind: str, along: str | None, numbers: range) -> Iterator[tuple[Answered, ...]]:
    """Clips with their answers, as they come; of "bounce" two of the same middle place, one of each answer."""
    waiting: list[Answered] = []
    for number in numbers:
        (motion,) = row.motions(number)
        if kind == "bounce":
            one = (number, motion, KINDS[kind][motion.bounced])
            other = next((other for other in waiting if other[2] != one[2] and _near(other[1], motion)), None)
            if other is None:
                waiting.append(one)
            else:
                waiting.remove(other)
                yield other, one
        elif kind == "direction":
            yield ((number, motion, motion.direction),)
        elif along in (None, motion.direction):
            yield from (
                ((number, motion, name),) for name, (low, high) in SPEEDS.items() if low <= motion.speed <= high
            )


def _near(one: Motion, other: Motion) -> bool:
    """Whether two digits are at the same place in the middle frame."""
    return max(abs(a - b) for a, b in zip(one.middle, other.middle, strict=True)) <= NEAR


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
    table = unit(codebook)
    rows = [np.concatenate([table[layer.ravel()].ravel() for layer in pyramid.ids]) for pyramid in pyramids]
    return np.asarray(np.stack(rows), dtype=np.float64)


def by_places(
    support: Sequence[TokenPyramid],
    labels: Sequence[str],
    queries: Sequence[TokenPyramid],
    codebook: npt.NDArray[np.float32],
) -> list[str]:
    """The answer whose support's words are nearest, place by place: without an LLM, and with order. What all of the
    support shares is taken off first, so that the digits' background does not count."""
    known, asked = placed_vectors(support, codebook), placed_vectors(queries, codebook)
    mean = known.mean(0)
    return nearest_prototype(known - mean, labels, asked - mean)


def changes(pyramids: Sequence[TokenPyramid], codebook: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """How much each image's words differ from one time to the next, wherever and whichever way: float64 [N, T - 1], the
    mean over the cells of the distance between their vectors, of a layer with several times.

    Raises:
        UsageError: words of one time only.
    """
    layout = pyramids[0].layout
    if len(layout) != 1 or len(layout.finest) != 3 or layout.finest[0] < 2:
        raise UsageError(f"change is told of one layer with two times or more; got {layout}")
    table = unit(codebook)
    vectors = table[np.stack([pyramid.ids[0] for pyramid in pyramids])]
    steps = np.linalg.norm(np.diff(vectors, axis=1), axis=-1)
    return np.asarray(steps.mean((2, 3)), dtype=np.float64)


def by_change(
    support: Sequence[TokenPyramid],
    labels: Sequence[str],
    queries: Sequence[TokenPyramid],
    codebook: npt.NDArray[np.float32],
) -> list[str]:
    """The answer whose support changes as much: ``changes`` alone, nearest mean. It cannot know a direction."""
    known, asked = changes(support, codebook), changes(queries, codebook)
    names = sorted(set(labels))
    means = np.stack([known[[label == name for label in labels]].mean(0) for name in names])
    nearest = np.linalg.norm(asked[:, None] - means[None], axis=-1).argmin(1)
    return [names[index] for index in nearest.tolist()]
