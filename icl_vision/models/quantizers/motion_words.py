"""A word for how a clip moves, by a plain rule that sees the order of frames: nothing here is learned.

Knows: what moves how between neighbouring frames, how that adds up over a clip, which kind of motion it is.
Refuses to know: what is seen (``frame_words.py``), what the words are called in a vocabulary (ids are put in), files.

Grey frames, shrunk to cells of S/16 pixels. Between two frames one motion for the whole is fitted by least squares, a
shift, a turn and a growth about the middle of what has contrast (brightness constancy, Horn & Schunck 1981; one motion
for a window, Lucas & Kanade 1981; g is the mean of both frames, D their difference, p the place from the middle):

    D + g_x u + g_y v = 0      (u, v) = (a, b) + s p + r p turned by a right angle

Four numbers a pair of frames, in pixels (s and r times the radius in which contrast lies). Over the clip each has a sum
N, how far it came, and a sum of sizes P, how far it went; P - |N| was taken back. The largest of these names it:

    right, left          N and -N of a        shaking    half of what was taken back of a
    downward, upward     N and -N of b        jumping    half of what was taken back of b
    growing, shrinking   N and -N of s        beating    half of what was taken back of s
    turning              |N| of r             swinging   half of what was taken back of r
    changing             what no such motion explains, as a way in pixels, times ``_UNEXPLAINED``
    still                ``_STILL`` pixels: what moves less over the whole clip stands still

A clip played backwards has N of the other sign, so right becomes left; to and fro stays to and fro.

Letters in shapes: B batch, T frames, S side, n cells on a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import UsageError
from icl_vision.models.quantizers.nearest import full_precision

MOTIONS: Final = (
    "right", "left", "downward", "upward", "growing", "shrinking", "turning",
    "shaking", "jumping", "beating", "swinging", "changing", "still",
)  # fmt: skip
"""The words, in the order of their scores. ("up" is in no vocabulary of ours: a word of grammar.)"""

_CELLS = 16
_STILL = 2.0
_BACK = 0.5
_UNEXPLAINED = 0.3
_RIDGE = 1e-3
"""Of the mean contrast, added to the squares: where nothing is to be seen nothing moves."""
_FAINT = 1e-4
"""Squared contrast of a cell (of brightness in [0, 1]) below which differences are noise."""


class MotionWords(nn.Module):
    """Clips [B, T, 3, S, S] -> one word each for how they move.

    Args:
        side: S, a multiple of 16.

    Raises:
        UsageError: another side.
    """

    ids: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        if side % _CELLS:
            raise UsageError(f"words of motion need a side of a multiple of {_CELLS} px; got {side}")
        self.cell = side // _CELLS
        self.register_buffer("ids", torch.zeros(len(MOTIONS), dtype=torch.int64))

    def say(self, ids: Sequence[int]) -> None:
        """Which words of the codebook the ``MOTIONS`` are; kept with the weights."""
        self.ids.copy_(torch.tensor(list(ids)))

    def forward(self, clips: Tensor) -> Tensor:
        """int64 [B, 1, 1, 1]; no gradients."""
        best = self.scores(clips).argmax(1)
        return self.ids[best].reshape(-1, 1, 1, 1)

    def scores(self, clips: Tensor) -> Tensor:
        """How far the clip moves in each of the ``MOTIONS``, in pixels: fp32 [B, 13]."""
        with torch.no_grad(), full_precision(clips.device):
            steps, unexplained = self._steps(clips.float().mean(2))
            far, way = steps.sum(1), steps.abs().sum(1)
            back = _BACK * (way - far.abs())
            sideways, down, growth, turn = far.unbind(1)
            shaking, jumping, beating, swinging = back.unbind(1)
            ahead = [sideways, -sideways, down, -down, growth, -growth, turn.abs()]
            others = [shaking, jumping, beating, swinging, _UNEXPLAINED * unexplained, torch.full_like(turn, _STILL)]
            return torch.stack(ahead + others, 1)

    def _steps(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Of brightness [B, T, S, S]: shift sideways and down, growth and turn of each pair of frames in pixels
        [B, T - 1, 4]; the way in pixels that they leave unexplained, summed over the clip [B]."""
        small = F.avg_pool2d(grey, self.cell)
        difference = small[:, 1:] - small[:, :-1]
        both = F.pad((small[:, 1:] + small[:, :-1]) / 2, (1, 1, 1, 1), mode="replicate")
        across = (both[..., 1:-1, 2:] - both[..., 1:-1, :-2]) / 2
        down = (both[..., 2:, 1:-1] - both[..., :-2, 1:-1]) / 2
        contrast = across.square() + down.square()
        whole = contrast.sum((2, 3), keepdim=True)
        share = contrast / (whole + _FAINT)
        at = torch.arange(_CELLS, dtype=grey.dtype, device=grey.device)
        x, y = at.reshape(1, 1, 1, -1), at.reshape(1, 1, -1, 1)
        x = x - (share * x).sum((2, 3), keepdim=True)
        y = y - (share * y).sum((2, 3), keepdim=True)
        radius = (share * (x.square() + y.square())).sum((2, 3), keepdim=True).clamp(min=1.0).sqrt()
        x, y = x / radius, y / radius  # so that all four unknowns are ways in cells
        bases = torch.stack([across, down, across * x + down * y, down * x - across * y], 2).flatten(3)
        against = -difference.flatten(2).unsqueeze(3)  # [B, T - 1, n n, 1]
        squares = bases @ bases.transpose(2, 3)
        ridge = _RIDGE * whole.reshape(*whole.shape[:2], 1, 1) + _FAINT
        squares = squares + ridge * torch.eye(4, dtype=grey.dtype, device=grey.device)
        steps = _solved(torch.cat([squares, bases @ against], 3))
        left = (against - bases.transpose(2, 3) @ steps).square().sum((2, 3))
        unexplained = (left / (whole.flatten(1) + _FAINT)).sqrt()
        return steps.squeeze(3) * self.cell, unexplained.sum(1) * self.cell


def _solved(system: Tensor) -> Tensor:
    """Linear equations [..., n, n + 1], positive definite, right side last -> [..., n, 1], by elimination."""
    n = system.shape[-2]
    unit = torch.eye(n, dtype=system.dtype, device=system.device)
    for row in range(n):
        pivot = system[..., row : row + 1, :] / system[..., row : row + 1, row : row + 1]
        column = system[..., :, row : row + 1] - unit[:, row : row + 1]
        system = system - column * pivot
    return system[..., :, n:]
