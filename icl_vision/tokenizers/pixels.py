"""From an RGB image to the square of pixels a graph takes: the same code at build time and at run time.

Knows: the two resize rules a card can name. Refuses to know: normalisation (it lies in the graph), files, words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from icl_vision import checks
from icl_vision.errors import ArtefactDamagedError

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LARGEST = 1024
"""Longer side, in pixels, of a picture that is given back in its own shape."""
_MAX_SIDE = 4096  # a card that asks for more is damaged, or means harm


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes ``size`` x ``size`` pixels.

    resize: "squash" scales both sides (nothing at the borders is lost, shapes are distorted); "crop" scales the
    short side to ``short`` and cuts the centre. margin: a squashed image is put inside a black border of so many pixels
    (hand-written digits of 28 x 28 lie on 32 x 32 so). filter: Pillow's name of the resampling filter; Pillow widens it
    when it shrinks, so nothing is aliased.
    """

    size: int
    resize: Literal["squash", "crop"] = "squash"
    filter: str = "bilinear"
    short: int = 0
    margin: int = 0

    def __post_init__(self) -> None:
        damaged = ArtefactDamagedError
        checks.count("preprocessing: size", self.size, most=_MAX_SIDE, error=damaged)
        checks.count("preprocessing: short", self.short, least=0, error=damaged)
        checks.count("preprocessing: margin", self.margin, least=0, error=damaged)
        checks.choice("preprocessing: resize", self.resize, ("squash", "crop"), error=damaged)
        checks.choice("preprocessing: filter", self.filter, tuple(FILTERS), error=damaged)
        if self.resize == "crop" and not self.size <= self.short <= _MAX_SIDE:
            raise ArtefactDamagedError(
                f"preprocessing: a crop of {self.size} needs short, the scaled short side, of {self.size} "
                f"to {_MAX_SIDE}; got {self.short!r}"
            )
        if self.margin and (self.resize != "squash" or not 0 < 2 * self.margin < self.size):
            raise ArtefactDamagedError(
                f"preprocessing: a margin goes with 'squash' and leaves room inside {self.size}; got {self.margin!r}"
            )

    @classmethod
    def from_card(cls, entry: object) -> Preprocessing:
        """Read a card's "preprocessing"; raises ArtefactDamagedError where it cannot be meant."""
        if not isinstance(entry, Mapping) or "size" not in entry:
            raise ArtefactDamagedError(f"the card's preprocessing must be an object with a size; got {entry!r}")
        known = {key: entry[key] for key in ("size", "resize", "filter", "short", "margin") if key in entry}
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The card's entry."""
        entry: dict[str, Any] = {"size": self.size, "resize": self.resize, "filter": self.filter}
        entry |= {"short": self.short} if self.resize == "crop" else {}
        return entry | ({"margin": self.margin} if self.margin else {})

    def apply(self, image: Image.Image) -> Image.Image:
        """RGB image of any size -> RGB image of ``size`` x ``size``; one that has that size already is unchanged."""
        if image.size == (self.size, self.size):
            return image
        filter = FILTERS[self.filter]
        if self.margin:
            inner = self.size - 2 * self.margin
            framed = Image.new("RGB", (self.size, self.size))
            framed.paste(
                image if image.size == (inner, inner) else image.resize((inner, inner), filter), (self.margin,) * 2
            )
            return framed
        if self.resize == "squash":
            return image.resize((self.size, self.size), filter)
        # The part that ends up in the crop is scaled directly: a strip of 50000 x 1 pixels is never blown up.
        scale = min(image.size) / self.short
        side = self.size * scale
        left, top = ((length - side) / 2 for length in image.size)
        return image.resize((self.size, self.size), filter, box=(left, top, left + side, top + side))

    def restore(self, made: Image.Image, size: tuple[int, int]) -> Image.Image:
        """A picture that came back from words in the shape of the one that went in, (width, height).

        A picture that was squashed has its own width and height again (at most ``LARGEST`` pixels a side, in its own
        shape), and the border around it is cut off. A square one, or the middle that was cropped from one, stays as it
        was decoded.
        """
        width, height = size
        if self.resize != "squash" or width == height:
            return made
        if self.margin:
            left, top = (round(self.margin * side / self.size) for side in made.size)
            made = made.crop((left, top, made.width - left, made.height - top))
        scale = min(1.0, LARGEST / max(size))
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        return made.resize(shape, Image.Resampling.BICUBIC)

    def clip(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Frames [T, H, W, 3] of any size -> [T, size, size, 3]."""
        if frames.shape[1:3] == (self.size, self.size):
            return frames
        return np.stack([np.asarray(self.apply(Image.fromarray(frame)), dtype=np.uint8) for frame in frames])

    def batch(self, images: list[Image.Image]) -> npt.NDArray[np.uint8]:
        """uint8 [B, size, size, 3]."""
        return np.stack([np.asarray(self.apply(image), dtype=np.uint8) for image in images])
