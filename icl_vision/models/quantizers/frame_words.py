"""Words for the upper layers of a clip's pyramid: what is seen in it and in its quarters, by the mean of its frames.

Knows: which frames are looked at, and that their features are averaged (the paper takes the mean of the frames' CLIP
vectors, Yu et al. 2023, arXiv:2306.17842). Refuses to know: how features become words (``region_words.py``), order:
a mean is the same for a clip and its reverse.

Letters in shapes: B batch, T frames, S side, T_w words, R regions, h_l x w_l a layer's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from icl_vision.checks import count
from icl_vision.models.quantizers.region_words import RegionWords

LOOKS = 4
"""Frames that are looked at, at most: neighbours show nearly the same, and each look costs as much as a picture."""


class FrameWords(RegionWords):
    """Clips [B, T, 3, S, S] -> words for each region of the given grids, shared by all frames.

    Args: see ``RegionWords``. frames: T.
    """

    def __init__(self, grids: Sequence[int], side: int, dim: int, classes: int = 1000, *, frames: int) -> None:
        super().__init__(grids, side, dim, classes)
        looks = min(LOOKS, count("frames", frames))
        self.looks = [(2 * look + 1) * frames // (2 * looks) for look in range(looks)]  # the middles of equal parts

    def forward(
        self, images: Tensor, codebook: Tensor, class_bias: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The words of each layer, int64 [B, 1, h_l, w_l], and the clip's unit vector among the words, fp32 [B, c]."""
        words, vector = super().forward(images, codebook, class_bias)
        return tuple(layer.unsqueeze(1) for layer in words), vector

    def features(self, images: Tensor) -> Tensor:
        """The trunk's last map, the mean over frames, [B, 1280, S/16, S/16]."""
        frames = images[:, self.looks]
        maps = super().features(frames.flatten(0, 1))
        return maps.reshape(-1, len(self.looks), *maps.shape[1:]).mean(1)
