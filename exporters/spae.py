"""SPAE as an artefact folder: what the two graphs of a SPAE, RQ or VQ model compute.

Knows: the graphs (whose signatures and comparison are those of ``pyramid.py``), what a SPAE's card says beside.
Refuses to know: training, checkpoints (checkpoint.py), how folders are written (artefact.py).

Where the model names regions by classes, the encoder has a further input, class_bias float32 [C], and its features are
the image's unit vector among the words; else they are the mean of the vectors before they become words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icl_vision.models.clips import ClipSPAE
from icl_vision.models.quantizers.base import Quantized
from icl_vision.models.spae import SPAE
from icl_vision.tokenizers.artefact import CLASSES_FILE
from icl_vision.tokenizers.zoo import find

from . import validate_pyramids
from .checkpoint import Export
from .pyramid import Pieces, PixelsToWords, WordsToPixels, export_pyramid


class EncoderGraph(PixelsToWords):
    """uint8 pixels [B,S,S,3] -> ids int32 [B,K] and features fp32 [B,c or d]."""

    def __init__(self, spae: SPAE | ClipSPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(spae.layout, grey=spae.config.channels == 1, dtype=dtype)
        self.spae = spae

    def forward(self, pixels: Tensor, codebook: Tensor, class_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = self.images(pixels)
        ids, features = self.spae.spell(images, self.latent(images), codebook, class_bias)
        return torch.cat([layer.flatten(1) for layer in ids], 1).to(torch.int32), features

    def latent(self, images: Tensor) -> Tensor:
        """z, fp32 [B,c or d,H,W]."""
        return self.spae.encode(images).to(torch.float32)

    def spelled(self, pixels: Tensor, codebook: Tensor) -> SpaeSpelling:
        """The words of images, and how near others are; no gradients."""
        with torch.inference_mode():
            images = self.images(pixels)
            given: tuple[Tensor, ...] = ()
            scores = torch.empty(0)
            if self.spae.regions is not None:
                given, _ = self.spae.named(images, codebook)
                scores = self.spae.named_scores(images, codebook)
            quantized = self.spae.quantizer(self.latent(images), None, given)
        return SpaeSpelling(self.spae, codebook, quantized, scores)


@dataclass(frozen=True)
class SpaeSpelling:
    """What the module says of a batch. scores: of every word in each cell that is named [B,R,T]; empty without."""

    spae: SPAE | ClipSPAE
    codebook: Tensor
    quantized: Quantized
    scores: Tensor

    @property
    def ids(self) -> tuple[Tensor, ...]:
        return self.quantized.ids

    def waits(self, layer: int) -> bool:
        return layer <= self.spae.quantizer.given  # a region's word is free for the next only if it was not taken

    def equally_good(self, image: int, layer: int, index: int, pair: list[int]) -> bool:
        if self.waits(layer):
            start = [0, *self.spae.layout.cumulative][layer - 1]
            return validate_pyramids.equally_likely(self.scores[image, start + index], pair)
        target = self.quantized.targets[layer - 1][image].flatten(1)[:, index].double()
        words = self.spae.quantizer.nearness(layer, pair, self.codebook).double()
        return validate_pyramids.equally_near(target, words, self.spae.quantizer.normalise)


class DecoderGraph(WordsToPixels):
    """ids int32 [B,K] and how many layers of them count -> uint8 pixels [B,S,S,3]."""

    def __init__(self, spae: SPAE | ClipSPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(spae.layout)
        self.spae = spae
        self.dtype = dtype

    def images(self, grids: Sequence[Tensor], layers: Tensor, codebook: Tensor) -> Tensor:
        latent = self.spae.quantizer.decode_ids(grids, layers.reshape(()), codebook)
        return self.spae.decode(latent.to(self.dtype))


class SpaePieces(Pieces):
    """What a SPAE gives an export."""

    def __init__(self, spae: SPAE | ClipSPAE) -> None:
        self._spae = spae

    def encoder(self, dtype: torch.dtype) -> EncoderGraph:
        return EncoderGraph(self._spae, dtype)

    def decoder(self, dtype: torch.dtype) -> DecoderGraph:
        return DecoderGraph(self._spae, dtype)

    def constants(self) -> dict[str, Tensor]:
        regions = self._spae.regions
        return {} if regions is None else {"class_bias": torch.zeros(len(regions.class_vectors))}

    def files(self) -> dict[str, Path]:
        # The classes are those of words-photo, whose trunk and vectors these are.
        return {} if self._spae.regions is None else {CLASSES_FILE: find("words-photo") / CLASSES_FILE}

    def card(self) -> dict[str, Any]:
        config = self._spae.config
        return {
            "description": f"Images as pyramids of words, {config.layout.cumulative[-1]} at most, and back.",
            "draws_from": self._spae.quantizer.given + 1,
            "model": config.to_dict(),
        }


def export_spae(spae: SPAE, out: Path, export: Export) -> dict[str, Any]:
    """One artefact folder of a trained SPAE; see ``export_pyramid`` for what is done, returned and raised.

    Args:
        spae: trained; its weights are rounded in place.
        out: the folder.
        export: what to say about it.
    """
    return export_pyramid(spae, spae.config, SpaePieces(spae), spae.config.dim, out, export)
