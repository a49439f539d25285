"""Moving digits: clips made of still ones, in the form the field calls Moving MNIST, with what moved and how.

    digits = MovingDigits.from_npz("mnist.npz", part="test", digits=1)
    moving = digits.clip(17)        # the same clip for the same number and seed, everywhere
    moving.frames                   # uint8 [16, 64, 64, 3]
    moving.motions[0].direction     # "left"

Knows: how digits start, move, bounce and lie over each other. Refuses to know: models, words, files of clips.

Two ways to move. ``"bounce"`` is the field's (Srivastava et al. 2015, arXiv 1502.04681): any place, any angle, a speed,
and a digit that meets the border is reflected. ``"straight"`` is made for classification: one of four directions, no
border is met, and **the middle frame says nothing of the direction**: the middle place is drawn first, on both axes
from the same range, the direction after it, and the clip is run backwards and forwards from there. So whatever looks at
the middle frame alone is at chance by construction. What it cannot balance is how often a digit bounces: a digit that
is to meet the border starts near it.

Places are rounded to whole pixels, as the field's are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.files.reading import read_arrays

Frames = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3]."""

FRAMES: Final = 16
SIZE: Final = 64

DIRECTIONS: Final = {"right": (0.0, 1.0), "down": (1.0, 0.0), "left": (0.0, -1.0), "up": (-1.0, 0.0)}
"""Each with its (rows, columns) a step."""

WAYS: Final = ("bounce", "straight")
SPEEDS: Final = {"bounce": (1.0, 5.0), "straight": (1.5, 2.0)}
"""Pixels a frame. The field has 3.6, a tenth of the free way; a digit of 28 pixels that runs straight through 16
frames of 64 has 36 pixels to go, 2.25 a frame at most."""


@dataclass(frozen=True, slots=True)
class Motion:
    """One digit's way.

    label: the digit. source: its number among the images. start: of its upper left corner, (row, column), in the first
    frame. velocity: (rows, columns) a frame there. direction: the nearest of the four to that velocity. bounces: how
    often it met the border. middle: of the same corner, in the middle frame.
    """

    label: int
    source: int
    start: tuple[float, float]
    velocity: tuple[float, float]
    direction: str
    bounces: int
    middle: tuple[float, float]

    @property
    def speed(self) -> float:
        """Pixels a frame."""
        return math.hypot(*self.velocity)

    @property
    def bounced(self) -> bool:
        """Whether it met the border at all."""
        return self.bounces > 0


@dataclass(frozen=True, eq=False, slots=True)
class MovingClip:
    """A clip and what moved in it. frames: uint8 [T, size, size, 3], white on black. motions: one a digit."""

    frames: Frames
    motions: tuple[Motion, ...]


@dataclass(frozen=True, eq=False)
class MovingDigits:
    """An endless numbered row of clips: ``clip(number)`` depends on its number, the seed and the settings alone.

    Args:
        images: still digits, uint8 [N, h, w], light on dark.
        labels: which digit each is, whole numbers [N].
        digits: in each clip, 1 or more.
        way: "bounce" or "straight", see above.
        frames: of each clip. size: of a frame's side in pixels.
        speeds: least and most pixels a frame, drawn evenly between; None for the way's own.
        seed: names the row.

    Raises:
        UsageError: arrays of another kind, or a way, a size or speeds that cannot be.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]
    digits: int = 1
    way: str = "bounce"
    frames: int = FRAMES
    size: int = SIZE
    speeds: tuple[float, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
            raise UsageError(f"images must be uint8 [N, h, w], one or more; got {images.dtype} {list(images.shape)}")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise UsageError(
                f"labels must be one whole number for each of {len(images)} images; got {labels.dtype} "
                f"{list(labels.shape)}"
            )
        checks.count("digits", self.digits, most=10)
        checks.choice("way", self.way, WAYS)
        checks.count("frames", self.frames, least=2, most=1000)
        checks.count("size", self.size, least=max(images.shape[1:]), most=1024, of="pixels")
        checks.count("seed", self.seed, least=0)
        least, most = self._speeds
        if not 0 < least <= most:
            raise UsageError(f"speeds must be least and most pixels a frame, above 0; got {self.speeds!r}")
        if self.way == "straight" and any(low > high for low, high in self._middles):
            raise UsageError(
                f"at {most:g} pixels a frame a digit of {images.shape[1]} x {images.shape[2]} meets the border of "
                f"{self.size} within {self.frames} frames, so it cannot run straight: take a lower speed or a larger "
                "size"
            )

    @classmethod
    def from_npz(
        cls,
        path: str | os.PathLike[str],
        *,
        part: str = "train",
        digits: int = 1,
        way: str = "bounce",
        frames: int = FRAMES,
        size: int = SIZE,
        speeds: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> Self:
        """Of a file as MNIST has it: ``x_train`` and ``y_train``, or ``x_test`` and ``y_test``; nothing is unpickled.

        Raises:
            UsageError: no such part, arrays of another kind, a file that cannot be read.
        """
        checks.choice("part", part, ("train", "test"))
        names = (f"x_{part}", f"y_{part}")
        try:
            arrays, inside = read_arrays(path, *names)
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(path)!r} cannot be read as an .npz file of digits: {error}") from error
        if missing := [name for name in names if name not in arrays]:
            raise UsageError(
                f"{str(path)!r} holds {', '.join(inside) or 'nothing'}; {' and '.join(missing)} are missing"
            )
        return cls(arrays[names[0]], arrays[names[1]], digits, way, frames, size, speeds, seed)

    def clip(self, number: int) -> MovingClip:
        """Clip ``number`` of the row, from 0."""
        canvas = np.zeros((self.frames, self.size, self.size), dtype=np.uint8)
        moved = self._all_moved(number)
        for motion, places in moved:
            digit = self.images[motion.source]
            for frame, (row, column) in zip(canvas, np.rint(places).astype(int).tolist(), strict=True):
                region = frame[row : row + digit.shape[0], column : column + digit.shape[1]]
                np.maximum(region, digit, out=region)
        return MovingClip(np.repeat(canvas[..., None], 3, axis=3), tuple(motion for motion, _ in moved))

    def motions(self, number: int) -> tuple[Motion, ...]:
        """What moves in clip ``number``, and how, without drawing it."""
        return tuple(motion for motion, _ in self._all_moved(number))

    def clips(self, numbers: Iterable[int]) -> list[MovingClip]:
        """Several, in that order."""
        return [self.clip(number) for number in numbers]

    # What moves.

    def _all_moved(self, number: int) -> list[tuple[Motion, npt.NDArray[np.float64]]]:
        """Each digit's way in clip ``number``."""
        draw = np.random.default_rng([self.seed, checks.count("number", number, least=0)])
        return [self._moved(draw) for _ in range(self.digits)]

    def _moved(self, draw: np.random.Generator) -> tuple[Motion, npt.NDArray[np.float64]]:
        """A digit's way, and its upper left corner in each frame, float64 [T, 2]."""
        # The order matters: which digit, and where it is in the middle, are drawn before anything of its motion.
        source = int(draw.integers(len(self.images)))
        if self.way == "straight":
            middle = np.array([draw.uniform(low, high) for low, high in self._middles])
            speed = draw.uniform(*self._speeds)
            direction = list(DIRECTIONS)[int(draw.integers(len(DIRECTIONS)))]
            velocity = speed * np.array(DIRECTIONS[direction])
            start = middle - velocity * self.middle
        else:
            start = draw.uniform(0, self._room)
            speed, angle = draw.uniform(*self._speeds), draw.uniform(0, 2 * math.pi)
            velocity = speed * np.array([math.sin(angle), math.cos(angle)])
            direction = max(DIRECTIONS, key=lambda name: float(velocity @ np.array(DIRECTIONS[name])))
        free = start + velocity * np.arange(self.frames)[:, None]
        places, crossed = _reflected(free, self._room)
        motion = Motion(
            int(self.labels[source]),
            source,
            (float(start[0]), float(start[1])),
            (float(velocity[0]), float(velocity[1])),
            direction,
            crossed,
            (float(places[self.middle][0]), float(places[self.middle][1])),
        )
        return motion, places

    @property
    def middle(self) -> int:
        """The middle frame's number, from 0: the later of two."""
        return self.frames // 2

    @property
    def _speeds(self) -> tuple[float, float]:
        least, most = SPEEDS[self.way] if self.speeds is None else self.speeds
        return checks.number("speeds", least), checks.number("speeds", most)

    @property
    def _room(self) -> npt.NDArray[np.float64]:
        """Rows and columns that an upper left corner may take."""
        return np.array([self.size - side for side in np.asarray(self.images).shape[1:]], dtype=np.float64)

    @property
    def _middles(self) -> list[tuple[float, float]]:
        """For each axis, from where to where every direction at every speed meets no border."""
        # The longer half of the way, on either side: the same range whatever the direction and the speed.
        half = max(self.middle, self.frames - 1 - self.middle) * self._speeds[1]
        return [(half, float(room) - half) for room in self._room]


def _reflected(free: npt.NDArray[np.float64], room: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    """A way through open space folded into a room with mirrors, and how often it met one.

    free: [T, 2]. room: [2], the last place on each axis.
    """
    # A mirrored room unrolled is a row of rooms: how many of their walls lie between the first place and the last one.
    wide = np.maximum(room, 1e-9)
    walls = np.floor(free[-1] / wide) - np.floor(free[0] / wide)
    folded = np.mod(free, 2 * wide)
    return np.minimum(folded, 2 * wide - folded).clip(0, room), int(np.abs(walls).sum())
