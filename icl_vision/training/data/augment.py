"""Flips, crops and shifts of a whole batch at once, drawn from the step's number alone.

Knows: uint8 batches. Refuses to know: files, epochs, networks.

Letters in shapes: B images, C channels, L side as loaded, S side of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icl_vision.training.seeds import AUGMENT, generator


@dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch. flip: bool [B]. top, left: int64 [B], where the S x S part begins."""

    flip: Tensor
    top: Tensor
    left: Tensor

    def __getitem__(self, part: slice) -> Draws:
        return Draws(self.flip[part], self.top[part], self.left[part])


@dataclass(frozen=True)
class Augmenter:
    """Cuts the model's square out of what was loaded.

    size: S. load: L, at least S. flip: mirror every second image, on average. shift: move by up to this many pixels
    each way, the border repeating the outermost pixels. seed: of the run.
    """

    size: int
    load: int
    flip: bool
    shift: int
    seed: int

    @property
    def idle(self) -> bool:
        """Whether images leave as they came."""
        return not self.flip and not self.shift and self.load == self.size

    def draw(self, step: int, batch: int) -> Draws:
        """The draws of a step's whole batch; each process then takes its own part of them."""
        source = generator(self.seed, AUGMENT, step)
        room = self.load + 2 * self.shift - self.size
        flip = torch.rand(batch, generator=source) < (0.5 if self.flip else 0.0)
        top, left = torch.randint(0, room + 1, (2, batch), generator=source)
        return Draws(flip, top, left)

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        """uint8 [B, C, L, L] -> uint8 [B, C, S, S], on the device of ``pixels``."""
        if self.idle:
            return pixels
        top, left, flip = (value.to(pixels.device) for value in (draws.top, draws.left, draws.flip))
        span = torch.arange(self.size, device=pixels.device)
        columns = left[:, None] + torch.where(flip[:, None], span.flip(0), span)
        return self._cut(pixels, top[:, None] + span, columns)

    def centre(self, pixels: Tensor) -> Tensor:
        """The middle of each image, for validation: uint8 [B, C, L, L] -> uint8 [B, C, S, S]."""
        start = (self.load - self.size) // 2
        return pixels[..., start : start + self.size, start : start + self.size]

    def _cut(self, pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # Positions in the shifted frame; clamping repeats the outermost pixels without making a padded copy.
        rows = (rows - self.shift).clamp(0, self.load - 1)
        columns = (columns - self.shift).clamp(0, self.load - 1)
        batch, channels = pixels.shape[:2]
        tall = pixels.gather(2, rows[:, None, :, None].expand(batch, channels, self.size, self.load))
        return tall.gather(3, columns[:, None, None, :].expand(batch, channels, self.size, self.size))
