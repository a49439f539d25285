"""What a tokenizer takes: images, or clips; how one is told from several, found in a folder and loaded.

    takes = taken_by(tokenizer)
    takes.is_source(value), takes.load(value), takes.listed(folder)

Knows: the two modalities, and where each is read. Refuses to know: tokenizers, words.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from icl_vision.clips import is_clip_source, list_clips, seconds_of
from icl_vision.clips.opening import FRAMES, Frames, read_clip
from icl_vision.errors import ImageError
from icl_vision.images import is_image_source, iter_images, list_images, load_image

IMAGE, CLIP = "image", "clip"
MODALITIES = (IMAGE, CLIP)

Shrink = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class TakesImages:
    """Images, each as ``load_image`` takes it; loaded, a PIL image."""

    one: ClassVar[str] = "image"
    several: ClassVar[str] = "images"

    def is_source(self, value: object) -> bool:
        """Whether a value stands for one rather than for several."""
        return is_image_source(value)

    def load(self, source: Any, shrink: Shrink | None = None) -> Image.Image:
        """One image; ``shrink`` is done to it. Raises ImageError."""
        image = load_image(source)
        return image if shrink is None else shrink(image)

    def loaded(self, sources: Iterable[Any], shrink: Shrink | None = None) -> Iterator[Image.Image]:
        """Images one by one, as they are asked for. Raises ImageError, with an index."""
        images = iter_images(sources)
        return images if shrink is None else map(shrink, images)

    def listed(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Those in a folder. Raises ImageNotFoundError."""
        return list_images(folder)

    def digest(self, image: Any) -> str:
        """Hex sha256 of what a loaded image shows."""
        size = f"{image.width}x{image.height}:".encode()
        return hashlib.sha256(size + image.tobytes()).hexdigest()


@dataclass(frozen=True)
class TakesClips:
    """Clips, each as ``load_clip`` takes it; loaded, frames [T, H, W, 3].

    frames: T, how many a tokenizer takes. rate: frames a second that are read, from a clip's beginning; None for evenly
    over its time. reads: how many are read; None for T, and of more or fewer T are taken evenly. An array is frames
    that were chosen already: of it T are taken evenly.
    """

    frames: int = FRAMES
    rate: float | None = None
    reads: int | None = None
    one: ClassVar[str] = "clip"
    several: ClassVar[str] = "clips"

    def is_source(self, value: object) -> bool:
        """Whether a value stands for one rather than for several."""
        return is_clip_source(value)

    def load(self, source: Any, shrink: Shrink | None = None) -> Frames:
        """One clip; ``shrink`` is done to each frame. Raises ImageError; UsageError: a rate, of a clip without time."""
        if isinstance(source, np.ndarray) or (self.rate is None and self.reads is None):
            return read_clip(source, frames=self.frames, shrink=shrink)
        clip = read_clip(source, frames=self.reads or self.frames, rate=self.rate, shrink=shrink)
        return clip if len(clip) == self.frames else read_clip(clip, frames=self.frames)

    def loaded(self, sources: Iterable[Any], shrink: Shrink | None = None) -> Iterator[Frames]:
        """Clips one by one, as they are asked for. Raises ImageError, with an index."""
        for index, source in enumerate(sources):
            try:
                clip = self.load(source, shrink)
            except ImageError as error:
                raise type(error)(f"clips[{index}]: {error}") from error
            yield clip

    def seconds(self, source: Any) -> float | None:
        """How long what is read of a clip lasts; None where nothing says so. Raises ImageError."""
        return seconds_of(source) if self.rate is None else (self.reads or self.frames) / self.rate

    def listed(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Those in a folder. Raises ImageNotFoundError."""
        return list_clips(folder)

    def digest(self, clip: Any) -> str:
        """Hex sha256 of what a loaded clip shows."""
        return hashlib.sha256(f"{clip.shape}:".encode() + clip.tobytes()).hexdigest()


Taking = TakesImages | TakesClips
IMAGES = TakesImages()


def taken_by_card(card: Mapping[str, Any]) -> Taking:
    """What a tokenizer with such a card takes; images where it does not say."""
    return TakesClips(int(card.get("frames") or FRAMES)) if card.get("modality") == CLIP else IMAGES


def taken_by(tokenizer: Any) -> Taking:
    """What a tokenizer takes, by its ``modality`` and ``frames``; images where it does not say."""
    if getattr(tokenizer, "modality", IMAGE) == CLIP:
        sampling = getattr(tokenizer, "rate", None), getattr(tokenizer, "reads", None)
        return TakesClips(int(getattr(tokenizer, "frames", FRAMES)), *sampling)
    return IMAGES


def takes_clips(tokenizer: Any) -> bool:
    """Whether a tokenizer's words are those of clips."""
    return isinstance(taken_by(tokenizer), TakesClips)
