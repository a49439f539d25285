"""Clips without a clip tokenizer: what stills, an image tokenizer or a file format make of the same words or bytes.

Knows: frames, an image tokenizer, GIF and WebP. Refuses to know: clip tokenizers, metrics, LLMs.

An image tokenizer can spend k words on one frame, which is repeated, or on several key frames, between which pixels are
blended linearly: with m key frames of j words, m j <= k. The three finest pyramids that fit are rows, each with as many
key frames as fit; "the best image use of the same words" is the best of them on the very clips measured, which favours
the image tokenizer.

A word's bytes are what it takes to write one of a vocabulary: log2(V) bits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

if TYPE_CHECKING:
    from icl_vision.pyramid import PyramidLayout, TokenPyramid

Frames = npt.NDArray[np.uint8]
"""uint8 [T, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to make clips again.

    name, what: for tables and people. k: words it spends, None where it spends none. make: clips -> clips.
    """

    name: str
    what: str
    make: Callable[[Sequence[Frames]], list[Frames]]
    k: int | None = None


def middle_frame(clip: Frames) -> Frames:
    """The later of two middle frames, repeated."""
    return np.repeat(clip[len(clip) // 2][None], len(clip), axis=0)


def mean_frame(clip: Frames) -> Frames:
    """The mean of all frames, repeated: of all stills the one nearest to the clip."""
    mean: Frames = np.rint(clip.astype(np.float64).mean(0)).astype(np.uint8)
    return np.repeat(mean[None], len(clip), axis=0)


def key_times(frames: int, keys: int) -> list[int]:
    """Which frames are key frames: the middle one, or evenly from the first to the last."""
    if not 1 <= keys <= frames:
        raise UsageError(f"a clip of {frames} frames has 1 to {frames} key frames; got {keys}")
    return [frames // 2] if keys == 1 else [round(i * (frames - 1) / (keys - 1)) for i in range(keys)]


def blended(keys: Sequence[Frames] | Frames, at: Sequence[int], frames: int) -> Frames:
    """Key frames [m, S, S, 3] at their times, pixels between two of them blended linearly: [frames, S, S, 3]."""
    pixels = np.asarray(keys, dtype=np.float64)
    made = []
    for frame in range(frames):
        after = int(np.searchsorted(at, frame))
        if after == 0 or at[min(after, len(at) - 1)] == frame or after == len(at):
            made.append(pixels[min(after, len(at) - 1)])
            continue
        share = (frame - at[after - 1]) / (at[after] - at[after - 1])
        made.append((1 - share) * pixels[after - 1] + share * pixels[after])
    frames_again: Frames = np.rint(np.stack(made)).clip(0, 255).astype(np.uint8)
    return frames_again


def image_uses(layout: PyramidLayout, k: int, frames: int) -> list[tuple[int, int]]:
    """(key frames, words each) that k words allow: of the three finest pyramids that fit, as many frames as fit."""
    fitting = [words for words in layout.cumulative if words <= k][-3:]
    return [(min(frames, k // words), words) for words in fitting]


class KeyFrames:
    """Clips from key frames that went through an image tokenizer, at the clip's own size.

    tokenizer: one that decodes. The words of frames asked for lately are kept: rows of one clip share most of them.
    """

    KEPT: Final = 1024

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._words: dict[bytes, TokenPyramid] = {}

    def by(self, keys: int, words: int) -> Callable[[Sequence[Frames]], list[Frames]]:
        """What makes clips of so many key frames of so many words each."""
        layers = self.tokenizer.layout.layers_for(words)
        return lambda clips: [self._made(clip, key_times(len(clip), keys), layers) for clip in clips]

    def _made(self, clip: Frames, at: Sequence[int], layers: int) -> Frames:
        from PIL import Image

        size = clip.shape[2], clip.shape[1]
        pyramids = [pyramid.truncate(layers) for pyramid in self._of([clip[time] for time in at])]
        stills = [
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
            for image in self.tokenizer.decode(pyramids)
        ]
        return blended(np.stack(stills), at, len(clip))

    def _of(self, frames: Sequence[Frames]) -> list[TokenPyramid]:
        from PIL import Image

        names = [frame.tobytes() for frame in frames]
        new = {name: frame for name, frame in zip(names, frames, strict=True) if name not in self._words}
        if len(self._words) + len(new) > self.KEPT:
            self._words.clear()
            new = dict(zip(names, frames, strict=True))
        if new:
            encoded = self.tokenizer.encode([Image.fromarray(frame) for frame in new.values()])
            self._words.update(zip(new, encoded, strict=True))
        return [self._words[name] for name in names]


# Files of the same size -----------------------------------------------------------------------------------------------

WEBP: Final = [
    (keys, side, quality) for keys in (1, 4, 16) for side in (1.0, 0.5, 0.25, 0.125) for quality in (0, 30, 80)
]
"""Key frames, side as a share, quality tried; the best that fits is taken, which needs the original."""
GIF: Final = [
    (keys, side, colours) for keys in (1, 4, 16) for side in (1.0, 0.5, 0.25, 0.125) for colours in (4, 16, 64)
]

EACH: Final = 100
"""Milliseconds a frame is shown in the files tried: a whole number of a GIF's hundredths."""


def bytes_of_words(k: int, vocabulary: int) -> int:
    """Bytes that k words of a vocabulary take, written with as many bits as one of it needs."""
    return math.ceil(k * math.log2(vocabulary) / 8)


def by_file(kind: str, most: int) -> Callable[[Sequence[Frames]], list[Frames]]:
    """What makes clips of an animated file of at most ``most`` bytes: of all settings tried the nearest to the original
    by squared error. Where nothing fits, a clip of its own mean colour (which no file was needed for)."""

    def make(clips: Sequence[Frames]) -> list[Frames]:
        return [_best_file(clip, kind, most) for clip in clips]

    return make


def _best_file(clip: Frames, kind: str, most: int) -> Frames:
    flat = np.rint(clip.astype(np.float64).mean((0, 1, 2))).astype(np.uint8)
    best, lowest = np.broadcast_to(flat, clip.shape).astype(np.uint8), math.inf
    for keys, side, setting in WEBP if kind == "webp" else GIF:
        at = key_times(len(clip), min(keys, len(clip)))
        data = _written(clip[at], kind, side, setting)
        if len(data) > most:
            continue
        made = blended(_read(data, len(at), (clip.shape[2], clip.shape[1])), at, len(clip))
        error = float(np.square(made.astype(np.float64) - clip).mean())
        if error < lowest:
            best, lowest = made, error
    return best


def _written(frames: Frames, kind: str, side: float, setting: int) -> bytes:
    from PIL import Image

    size = max(1, round(frames.shape[2] * side)), max(1, round(frames.shape[1] * side))
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    buffer = io.BytesIO()
    if kind == "webp":
        options: dict[str, Any] = {"quality": setting, "method": 4}
    else:
        images = [image.quantize(setting) for image in images]
        options = {"optimize": True}
    more = {"save_all": True, "append_images": images[1:], "duration": EACH} if len(images) > 1 else {}
    images[0].save(buffer, kind.upper(), **options, **more)
    return buffer.getvalue()


def _read(data: bytes, frames: int, size: tuple[int, int]) -> Frames:
    """The frames again. A writer joins equal neighbours into one that is shown longer; they are told apart again."""
    from PIL import Image

    read: list[Frames] = []
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frame = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
            read += [frame] * max(1, round(image.info.get("duration", EACH) / EACH))
    return np.stack([read[min(index, len(read) - 1)] for index in range(frames)])
