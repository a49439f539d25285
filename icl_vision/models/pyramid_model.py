"""What SPAE of images and SPAE of clips have in common: words on a pyramid, of which the first layers may be named.

Knows: how a quantizer, named layers, an encoder and a decoder work together, whatever the grids are.
Refuses to know: which nets there are, whether pixels are of one picture or of many.

Letters in shapes: B batch, d width of the vectors, T words, grid the axes of the finest grid (rows and columns, or
frames, rows and columns), grid_l those of layer l; pixels what the family takes, [B, ch, S, S] or [B, T, ch, S, S].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.clips_config import ClipsConfig
from icl_vision.models.interface import Decoder, Encoder, WordAutoencoder
from icl_vision.models.quantizers.base import Quantizer
from icl_vision.models.quantizers.frame_words import FrameWords
from icl_vision.models.quantizers.region_words import RegionWords
from icl_vision.models.spae_config import SpaeConfig


class SemanticPyramid(WordAutoencoder):
    """A family subclasses it, sets its parts, and gives ``encode``, ``decode`` and ``on_latents``.

    Its parts: ``config``, ``encoder``, ``quantizer``, ``decoder``, and ``regions``, which names layers (or None).
    """

    config: SpaeConfig | ClipsConfig
    encoder: Encoder
    decoder: Decoder
    quantizer: Quantizer
    regions: RegionWords | FrameWords | None

    @property
    def on_latents(self) -> bool:
        """Whether a training step compares latents instead of pixels."""
        raise NotImplementedError

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels, floating in [0, 1] -> vectors z [B, d, *grid], not quantized."""
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Tensor:
        """Quantized vectors [B, d, *grid] -> pixels, not clamped."""
        raise NotImplementedError

    @property
    def words(self) -> int:
        return self.quantizer.words

    def encode_ids(self, images: Tensor) -> tuple[Tensor, ...]:
        """Pixels -> their words: int64 [B, *grid_l], one tensor per layer. No gradients."""
        with torch.no_grad():
            return self.spell(images, self.encode(images).float(), self.quantizer.codebook)[0]

    def spell(
        self, pixels: Tensor, z: Tensor, codebook: Tensor, class_bias: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The words of pixels whose vectors are known, and one vector for each whole image or clip. No gradients.

        Args:
            pixels: floating in [0, 1]. z: fp32 [B, d, *grid], theirs. codebook: fp32 [T, c].
            class_bias: see ``RegionWords``; only where layers are named.

        Returns:
            int64 [B, *grid_l], one tensor per layer; fp32 [B, c], among the words where layers are named, else the mean
            of z.
        """
        if self.regions is None:
            return self.quantizer.encode_ids(z, codebook), z.flatten(2).mean(2)
        given, vector = self.named(pixels, codebook, class_bias)
        return self.quantizer.encode_ids(z, codebook, given), vector

    def named(
        self, pixels: Tensor, codebook: Tensor, class_bias: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The words of the layers that name, and the unit vector of all of it; see ``RegionWords``."""
        assert self.regions is not None  # asked for only where layers are named
        named: tuple[tuple[Tensor, ...], Tensor] = self.regions(pixels, codebook, class_bias)
        return named

    def named_scores(self, pixels: Tensor, codebook: Tensor) -> Tensor:
        """How well each word suits each cell of the layers that name, above 0, [B, R, T]; to tell ties by."""
        assert self.regions is not None  # as above
        return self.regions.word_scores(self.regions.region_logits(pixels), codebook)

    def frozen(self, images: Tensor) -> tuple[Tensor, ...]:
        """What frozen nets say of pixels, which no training changes: what ``encoder.features`` gives, then the words of
        each layer that frozen nets name, int64 [B, *grid_l]. Nothing for nets without frozen parts."""
        if not self.encoder.remembers:
            return ()
        words = () if self.regions is None else self.regions(images, self.quantizer.codebook)[0]
        return (self.encoder.features(images), *words)

    def decode_ids(self, ids: Sequence[Tensor], layers: int | Tensor | None = None) -> Tensor:
        """Words -> pixels, clamped to [0, 1].

        Args:
            ids: integer [B, *grid_l], coarse first; fewer layers than the layout's are fine.
            layers: how many of them count; None is all. An int64 scalar tensor makes it an input of an exported graph.

        Raises:
            PyramidError: see ``Quantizer.decode_ids``.
        """
        return self.decode(self.quantizer.decode_ids(ids, layers)).clamp(0.0, 1.0)

    def load_pretrained(self, taef2_folder: str | os.PathLike[str], trunk_file: Path | None = None) -> None:
        """Put the published weights into the frozen parts of a fresh model (a checkpoint has them already).

        Args: see ``PhotoEncoder.load_pretrained``, which names what is raised too.

        Raises:
            UsageError: the model has no pretrained parts.
        """
        if not self.encoder.remembers:
            raise UsageError(f"net {self.config.net} has no pretrained parts; only the nets photo and photo3d have")
        self.encoder.load_pretrained(taef2_folder, trunk_file)
        self.decoder.load_pretrained(taef2_folder)
        if self.regions is not None:
            self.regions.load_packaged()
