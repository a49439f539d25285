"""LQAE as an artefact folder: what its two graphs compute.

The encoder is that of every family (``pyramid.py``); the words are looked for along the model's own directions of the
codebook that is its input. The decoder holds the frozen text encoder, of which nothing is hidden. Its input ``layers``
is that of all families, and always 1.

Knows: the graphs, what an LQAE's card says beside. Refuses to know: training, checkpoints, how folders are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icl_vision.models.lqae import LQAE
from icl_vision.wording import counted

from . import validate_pyramids
from .checkpoint import Export
from .pyramid import Pieces, PixelsToWords, WordsToPixels, export_pyramid


class EncoderGraph(PixelsToWords):
    """uint8 pixels [B,S,S,3] -> ids int32 [B,K] and features fp32 [B,d], the mean of the vectors before the lookup."""

    def __init__(self, lqae: LQAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(lqae.layout, grey=lqae.config.channels == 1, dtype=dtype)
        self.lqae = lqae

    def forward(self, pixels: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        z = self.lqae.encode(self.images(pixels)).to(torch.float32)
        return self.lqae.lookup(z, codebook).flatten(1).to(torch.int32), z.flatten(2).mean(2)

    def spelled(self, pixels: Tensor, codebook: Tensor) -> LqaeSpelling:
        """The words of images, and how near others are; no gradients."""
        with torch.inference_mode():
            z = self.lqae.encode(self.images(pixels)).to(torch.float32)
            return LqaeSpelling(self.lqae, codebook, z, (self.lqae.lookup(z, codebook),))


@dataclass(frozen=True)
class LqaeSpelling:
    """What the module says of a batch. z: the vectors before the lookup [B,d,H,W]."""

    lqae: LQAE
    codebook: Tensor
    z: Tensor
    ids: tuple[Tensor, ...]

    def waits(self, layer: int) -> bool:
        return False  # every word is looked up alone

    def equally_good(self, image: int, layer: int, index: int, pair: list[int]) -> bool:
        lookup = self.lqae.lookup
        words = lookup.seen(self.codebook[pair]).double()
        return validate_pyramids.equally_near(self.z[image].flatten(1)[:, index].double(), words, lookup.normalise)


class DecoderGraph(WordsToPixels):
    """ids int32 [B,K] -> uint8 pixels [B,S,S,3]."""

    def __init__(self, lqae: LQAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(lqae.layout)
        self.lqae = lqae
        self.dtype = dtype

    def images(self, grids: Sequence[Tensor], layers: Tensor, codebook: Tensor) -> Tensor:
        return self.lqae.decode(grids[0], codebook.to(self.dtype))


class _Pieces(Pieces):
    def __init__(self, lqae: LQAE) -> None:
        self._lqae = lqae

    def encoder(self, dtype: torch.dtype) -> EncoderGraph:
        return EncoderGraph(self._lqae, dtype)

    def decoder(self, dtype: torch.dtype) -> DecoderGraph:
        return DecoderGraph(self._lqae, dtype)

    def card(self) -> dict[str, Any]:
        config = self._lqae.config
        return {
            "description": f"Images as {counted(config.layout.cumulative[-1], 'word')} on one grid, and back.",
            "draws_from": 1,
            "model": config.to_dict(),
        }


def export_lqae(lqae: LQAE, out: Path, export: Export) -> dict[str, Any]:
    """One artefact folder of a trained LQAE; see ``export_pyramid`` for what is done, returned and raised.

    Args:
        lqae: trained; its weights are rounded in place.
        out: the folder.
        export: what to say about it.
    """
    return export_pyramid(lqae, lqae.config, _Pieces(lqae), lqae.config.dim, out, export)
