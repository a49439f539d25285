"""What is to be drawn in an evaluation, and from which examples.

Knows: texts with the digit they mean, draws of context digits. Refuses to know: LLMs, drawings, measures.

A context is drawn by seed and number alone: so many digits of each class, whatever is asked for. Only training digits
(``x_train``) are ever used, or the packaged ones, which are training digits too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.files.reading import read_arrays
from icl_vision.images import load_image
from icl_vision.tasks.draw.examples import DIGITS, TEXT, read_examples

CLASSES = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text and the digit that it means, "0" to "9"."""

    text: str
    digit: str


TEXTS: dict[str, tuple[Wanted, ...]] = {
    "digits": tuple(Wanted(TEXT.replace("{}", str(digit)), str(digit)) for digit in range(CLASSES)),
    "arithmetic": tuple(
        Wanted(TEXT.replace("{}", sum_), digit)
        for sum_, digit in (
            ("0+0", "0"), ("1+0", "1"), ("1+1", "2"), ("1+2", "3"), ("2+2", "4"),
            ("2+3", "5"), ("3+3", "6"), ("4+3", "7"), ("4+4", "8"), ("5+4", "9"),
        )
    ),
    "common-sense": tuple(
        Wanted(TEXT.replace("{}", name), digit)
        for name, digit in (
            ("the number of moons of Venus", "0"), ("the number of suns in the sky", "1"),
            ("the number of wheels of a bicycle", "2"), ("the number of sides of a triangle", "3"),
            ("the number of legs of a dog", "4"), ("the number of fingers of one hand", "5"),
            ("the number of legs of an ant", "6"), ("the number of days in a week", "7"),
            ("the number of legs of a spider", "8"), ("the number of planets with Pluto", "9"),
        )
    ),
}  # fmt: skip
"""Sets of ten texts to draw, one for each digit. The examples' texts are always those of "digits"."""


@dataclass(frozen=True, slots=True)
class Context:
    """Examples of one context and fresh digits beside them.

    number: from 0. images: uint8 [N, H, W], in the order of ``digits``. fresh: one image of each digit, in no example.
    """

    number: int
    images: list[npt.NDArray[np.uint8]]
    digits: list[str]
    fresh: list[npt.NDArray[np.uint8]]

    @property
    def texts(self) -> list[str]:
        """The examples' texts."""
        return [TEXT.replace("{}", digit) for digit in self.digits]


@dataclass(frozen=True, slots=True)
class DigitPool:
    """Digits to draw contexts from. name: for reports. images: uint8 [N, H, W]. labels: [N]."""

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @classmethod
    def packaged(cls) -> DigitPool:
        """The 100 packaged digits."""
        examples = read_examples(DIGITS)
        images = np.stack([np.asarray(load_image(example.path))[..., 0] for example in examples])
        return cls("packaged digits", images, np.asarray([int(example.text[-1]) for example in examples]))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> DigitPool:
        """``x_train`` and ``y_train`` of an .npz file, as MNIST has them. Its test digits are not looked at.

        Raises:
            UsageError: no such arrays, or not digits.
        """
        try:
            arrays, _ = read_arrays(path, "x_train", "y_train")
            images, labels = arrays["x_train"], arrays["y_train"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{os.fspath(path)!r} must be an .npz file with x_train and y_train ({error})") from error
        if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise UsageError(
                f"x_train must be uint8 [N, H, W] and y_train [N]; got {images.dtype} {images.shape}, {labels.shape}"
            )
        return cls(Path(path).name, images, labels.astype(np.int64))

    def context(self, number: int, shots: int, seed: int) -> Context:
        """Context ``number`` of a run.

        Args:
            shots: examples of each digit; the pool has at least one more of each.

        Raises:
            UsageError: the pool is too small.
        """
        generator = np.random.default_rng([seed, number, 11])
        images, digits, fresh = [], [], []
        for digit in range(CLASSES):
            indices = np.flatnonzero(self.labels == digit)
            if len(indices) <= shots:
                raise UsageError(
                    f"{self.name} has {len(indices)} digits {digit}; {shots} examples and a fresh one need {shots + 1}"
                )
            drawn = generator.choice(indices, shots + 1, replace=False)
            images += [self.images[index] for index in drawn[:shots]]
            digits += [str(digit)] * shots
            fresh.append(self.images[drawn[shots]])
        return Context(number, images, digits, fresh)


def contexts_for(n: int, texts: Sequence[Any]) -> int:
    """How many contexts give ``n`` drawings, one of each text from each.

    Raises:
        UsageError: ``n`` is no multiple of the number of texts.
    """
    if n < len(texts) or n % len(texts):
        raise UsageError(f"n must be a multiple of the {len(texts)} questions, one drawing of each a context; got {n}")
    return n // len(texts)
