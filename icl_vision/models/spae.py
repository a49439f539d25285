"""The Semantic Pyramid AutoEncoder: image -> vectors -> words on a pyramid of grids -> image.

Knows: how encoder, quantizer and decoder are put together, and what a training step wants of them.
Refuses to know: losses, optimisers, files; what the words are called (ids here, names in the tokenizer).

Source: Yu et al. 2023, "SPAE" (arXiv:2306.17842), section 3.1, of which there is no published code. Three nets (see
``SpaeConfig.net``), three quantizers. Ours, not the paper's, each a switch of the config: holes filled from the finest
owner, standardised vectors, names for layer 1, word noise; and the decoding depth that a training loop may draw at
random.

Letters in shapes: B batch, ch image channels, S side, c width of the words' vectors, T words, H x W the finest grid,
h_l x w_l the grid of layer l, D layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.models.interface import Decoder, Encoder, check_images
from icl_vision.models.nets.spae import CnnDecoder, CnnEncoder, PatchDecoder, PatchEncoder
from icl_vision.models.nets.spae_photo import PhotoDecoder, PhotoEncoder
from icl_vision.models.pyramid_model import SemanticPyramid
from icl_vision.models.quantizers.layer_words import NamedAverageQuantizer
from icl_vision.models.quantizers.projected import ProjectedQuantizer
from icl_vision.models.quantizers.region_words import RegionWords
from icl_vision.models.quantizers.streaming import (
    Quantized,
    Quantizer,
    ResidualQuantizer,
    StreamingAverageQuantizer,
    VectorQuantizer,
)
from icl_vision.models.spae_config import SpaeConfig

__all__ = ["SPAE", "SpaeConfig", "SpaeOutput", "build_nets"]


@dataclass(frozen=True)
class SpaeOutput:
    """What a forward pass gives a loss. reconstruction: [B, ch, S, S], not clamped. z: [B, c, H, W], the encoder's
    vectors in the codebook's units. quantized: see ``Quantized``. target: what the reconstruction is compared with,
    None for the images themselves. In training on latents both are TAEF2's, [B, 32, H, W]."""

    reconstruction: Tensor
    z: Tensor
    quantized: Quantized
    target: Tensor | None = None


class SPAE(SemanticPyramid):
    """Encoder, quantizer, decoder.

    Args:
        config: what to build.
        codebook: floating [T, c], the words' vectors. None only with ``config.words``, for a learned codebook that is
            drawn at random, uniform in -1/T to 1/T.

    Raises:
        UsageError: a codebook that does not fit the config.
    """

    config: SpaeConfig
    mean: Tensor
    spread: Tensor

    def __init__(self, config: SpaeConfig, codebook: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.layout = config.layout
        codebook = _checked_codebook(config, codebook)
        self.quantizer = _build_quantizer(config, codebook)
        self.encoder, self.decoder = build_nets(config)
        self.regions = None
        if config.region_layers:
            self.regions = RegionWords(config.grids[: config.region_layers], config.side, config.dim)
        # Of the words as they are at the start: a fixed scale, also where the codebook is learned.
        mean, spread = torch.zeros(config.channels_of_z), torch.ones(config.channels_of_z)
        if config.standardise and len(codebook) > 1:
            mean, spread = codebook.mean(0), codebook.std(0).clamp(min=1e-6)
        self.register_buffer("mean", mean.float())
        self.register_buffer("spread", spread.float())

    # -- the line an image walks

    def encode(self, images: Tensor) -> Tensor:
        """Images, floating [B, ch, S, S] in [0, 1] -> vectors z [B, c, H, W], not quantized."""
        check_images(images, self.config)
        return self.standard_to_words(self.encoder(images))

    def forward(self, images: Tensor, depth: int | None = None, frozen: Sequence[Tensor] | None = None) -> SpaeOutput:
        """A training step's pass: encode, quantize, decode the first ``depth`` layers (None: all).

        frozen: what ``self.frozen(images)`` gave, where it is known already.

        With ``word_noise``, in training mode, the decoder sees words of which some were swapped; ids, targets and
        commitment in the output are of the encoder's own words, and the encoder's gradient is as without noise.

        Raises:
            UsageError: images of another shape or type. PyramidError: depth out of range.
        """
        check_images(images, self.config)
        known = self.frozen(images) if frozen is None else frozen
        features, words = (known[0], known[1:]) if known else (images, ())
        z = self.standard_to_words(self.encoder.vectors(features))
        target = self.decoder.target(features) if self.on_latents else None
        quantized: Quantized = self.quantizer(z, depth, words)
        latent: Tensor = quantized.quantized
        if self.training and self.config.word_noise > 0:
            noisy = self.quantizer.decode_ids(self.swapped(quantized.ids), depth).detach()
            latent = latent + (noisy - latent).detach()
        return SpaeOutput(self.reconstruct(latent), z, quantized, target)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Quantized vectors [B, c, H, W] -> what a loss compares: images, or in training on latents TAEF2's latents
        (see ``PhotoDecoder.in_pixels``)."""
        return self.decoder.compared(self._standard(latent)) if self.on_latents else self.decode(latent)

    def decode(self, latent: Tensor) -> Tensor:
        """Quantized vectors [B, c, H, W] -> images [B, ch, S, S], not clamped."""
        images: Tensor = self.decoder(self._standard(latent))
        return images

    # -- words

    @property
    def learned_codebook(self) -> Tensor | None:
        return self.quantizer.codebook if self.config.learned else None

    def swapped(self, ids: Sequence[Tensor]) -> list[Tensor]:
        """``ids`` with some words below layer 1 replaced by those of other images at the same place (``word_noise``).

        A replacement is drawn from the batch, so it follows the words' own frequencies at that place.
        """
        batch = ids[0].shape[0]
        rate = 2 * self.config.word_noise * torch.rand(batch, 1, 1, device=ids[0].device)
        noisy = [ids[0]]
        for layer in ids[1:]:
            other = layer.gather(0, torch.randint(batch, layer.shape, device=layer.device))
            noisy.append(torch.where(torch.rand(layer.shape, device=layer.device) < rate, other, layer))
        return noisy

    def standard_to_words(self, vectors: Tensor) -> Tensor:
        """From the encoder's own units to the codebook's: ``mean + spread * vectors``, [B, c, H, W]."""
        return _cells(self.mean) + _cells(self.spread) * vectors

    def _standard(self, latent: Tensor) -> Tensor:
        return (latent - _cells(self.mean)) / _cells(self.spread)

    # -- for training

    @property
    def on_latents(self) -> bool:
        return self.training and self.config.train_on == "latents"

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of the encoder and, where it is learned, the codebook."""
        return _trainable(self.encoder, self.quantizer)

    def decoder_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of the decoder."""
        return _trainable(self.decoder)


def build_nets(config: SpaeConfig) -> tuple[Encoder, Decoder]:
    """The encoder and decoder of a config, with fresh weights (within ``torch.device("meta")``, without memory)."""
    grid = config.grids[-1]
    if config.net == "cnn":
        cnn = (config.channels, config.channels_of_z, config.filters, config.multipliers, config.blocks)
        return CnnEncoder(*cnn), CnnDecoder(*cnn)
    if config.net == "photo":
        photo = (config.side, config.channels_of_z, config.width)
        return (
            PhotoEncoder(*photo, config.blocks, semantics=not config.region_layers),
            PhotoDecoder(*photo, config.decoder_blocks or config.blocks, thaw=config.thaw),
        )
    patches = (config.channels, config.side, grid, config.channels_of_z, config.width, config.blocks)
    return PatchEncoder(*patches), PatchDecoder(*patches)


def _checked_codebook(config: SpaeConfig, codebook: Tensor | None) -> Tensor:
    """The codebook to start from, fp32 on the CPU or wherever it is."""
    if codebook is None:
        if config.words is None:
            raise UsageError("SPAE needs a codebook [T, c]; only a learned one can be drawn (learned: true, words: T)")
        return torch.empty(config.words, config.dim).uniform_(-1 / config.words, 1 / config.words)
    if config.words is not None:
        raise UsageError(f"the config draws a codebook of {config.words} words, and one was given: drop either")
    if codebook.ndim != 2 or codebook.shape[1] != config.dim:
        raise UsageError(f"the codebook must be [T, {config.dim}] as the config's dim says; got {list(codebook.shape)}")
    return codebook.detach().float()


def _build_quantizer(config: SpaeConfig, codebook: Tensor) -> Quantizer:
    grid = config.layout.finest
    if config.names:
        return NamedAverageQuantizer(
            codebook, config.layout, config.names, normalise=config.normalise, fill=config.fill, learned=config.learned
        )
    if config.quantizer == "saq":
        return StreamingAverageQuantizer(
            codebook, config.layout, normalise=config.normalise, fill=config.fill, learned=config.learned
        )
    if config.quantizer == "projected":
        return ProjectedQuantizer(
            codebook,
            config.layout,
            config.projection,
            given=config.region_layers,
            fill=config.fill,
            candidates=config.candidates,
        )
    if config.quantizer == "rq":
        return ResidualQuantizer(codebook, grid, len(config.grids), normalise=config.normalise, learned=config.learned)
    return VectorQuantizer(codebook, grid=grid, normalise=config.normalise, learned=config.learned)


def _cells(values: Tensor) -> Tensor:
    return values[:, None, None]


def _trainable(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
