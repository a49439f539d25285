"""SPAE around pretrained nets: EfficientNet-Lite0 says what is to be seen, TAEF2 what it looks like.

Knows: which of their features are taken, how light trainable nets turn them into vectors, and quantized vectors into
TAEF2 latents.
Refuses to know: words and quantization, losses, where weights lie (a caller gives the folder).

The pretrained nets stay frozen, in evaluation mode whatever ``train()`` says, and belong to ``state_dict()``: a
checkpoint needs no other file. A fresh model has random ones until ``load_pretrained`` is called.

At 128 px the TAEF2 latents are 16 x 16, SPAE's finest grid. The trunk sees the image at twice its size, so that its
stride-16 features lie on the same grid and its stride-32 features on half of it.

Letters in shapes: B batch, S side, H x W = S/8 x S/8 the finest grid, c width of the vectors, D hidden width.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.models.interface import Decoder, Encoder
from icl_vision.models.nets.blocks import Downsample, Head, ResBlock, Upsample, group_norm
from icl_vision.models.nets.efficientnet import FEATURES, MEAN, STD, EfficientNetLite0, load_published
from icl_vision.models.nets.taef2 import DECODER_FILE, ENCODER_FILE, LATENT_CHANNELS, Taef2Decoder, Taef2Encoder

MIDDLE_BLOCKS = 11  # of the trunk: the last with stride 16
MIDDLE_CHANNELS = 112
LAST_CHANNELS = 320  # of its last block, stride 32
FROZEN_CHANNELS = LATENT_CHANNELS + MIDDLE_CHANNELS + LAST_CHANNELS + FEATURES
"""Channels of ``PhotoEncoder.features``: latents, both maps of the trunk, and its pooled features at every cell."""


class FrozenTrunk(nn.Module):
    """Images [B,3,S,S] in [0,1] -> maps of EfficientNet-Lite0 on one grid, [B,112+320+1280,S/8,S/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite0()

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2] * 2, images.shape[3] * 2)
        pixels = F.interpolate(images, size=size, mode="bilinear", align_corners=False) * 255.0
        middle = self.net.blocks[:MIDDLE_BLOCKS](self.net.stem((pixels - MEAN) / STD))
        last = self.net.blocks[MIDDLE_BLOCKS:](middle)
        pooled = self.net.head(last).mean((2, 3), keepdim=True)
        wide = F.interpolate(last, scale_factor=2.0, mode="nearest")
        return torch.cat([middle, wide, pooled.expand(-1, -1, *middle.shape[2:])], dim=1)


class PhotoEncoder(Encoder):
    """Images [B,3,S,S] -> vectors [B,c,S/8,S/8].

    Args:
        side: S, a multiple of 16. dim: c. width: D. blocks: residual blocks.
        semantics: look at the trunk's features too. Without, all that is not latents is spared.
        coarse: give vectors [B,c,S/16,S/16] instead, by ``blocks`` further blocks there.
    """

    remembers = True

    def __init__(
        self, side: int, dim: int, width: int, blocks: int, *, semantics: bool = True, coarse: bool = False
    ) -> None:
        super().__init__()
        self.trunk = FrozenTrunk() if semantics else None
        self.latents = Taef2Encoder()
        grid = side // 8
        self.into_appearance = nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1)
        if semantics:
            self.norm = group_norm(FROZEN_CHANNELS - LATENT_CHANNELS)
            self.into_semantics = nn.Conv2d(FROZEN_CHANNELS - LATENT_CHANNELS, width, 1)
        # Which layers own a cell depends on its place, and what they ask for differs.
        self.places = nn.Parameter(0.02 * torch.randn(1, width, grid, grid))
        further = (Downsample(width), *(ResBlock(width) for _ in range(blocks))) if coarse else ()
        self.blocks = nn.Sequential(*(ResBlock(width) for _ in range(blocks)), *further, Head(width, dim, 1))
        _freeze(self.latents)
        if self.trunk is not None:
            _freeze(self.trunk)

    def features(self, images: Tensor) -> Tensor:
        """What the frozen nets say, [B,FROZEN_CHANNELS,H,W] (without semantics [B,32,H,W]), without gradient; the
        latents come first.

        It depends on the image alone, so a training loop without augmentation may compute it once.
        """
        with torch.no_grad():
            latents: Tensor = self.latents(images)
            return latents if self.trunk is None else torch.cat([latents, self.trunk(images)], dim=1)

    def vectors(self, features: Tensor) -> Tensor:
        """The trainable part: ``features`` [B,FROZEN_CHANNELS,H,W] -> [B,c,H,W], where coarse [B,c,H/2,W/2]."""
        x = self.into_appearance(features[:, :LATENT_CHANNELS]) + self.places
        if self.trunk is not None:
            x = x + self.into_semantics(self.norm(features[:, LATENT_CHANNELS:]))
        vectors: Tensor = self.blocks(x)
        return vectors

    def load_pretrained(self, taef2_folder: str | os.PathLike[str], trunk_file: Path | None = None) -> None:
        """Put the published weights into the frozen parts, in place.

        Args:
            taef2_folder: holds ``taef2-encoder.safetensors``.
            trunk_file: EfficientNet-Lite0's file; None takes the installed package's.

        Raises:
            ArtefactNotFoundError, ArtefactDamagedError, MissingExtraError: see ``Taef2Encoder.load`` and
                ``load_published``.
        """
        self.latents.load_state_dict(Taef2Encoder.load(Path(taef2_folder) / ENCODER_FILE).state_dict())
        if self.trunk is not None:
            self.trunk.net.load_state_dict(load_published(trunk_file).state_dict())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.trunk is not None:
            self.trunk.eval()  # batch norms keep the published statistics
        self.latents.eval()
        return self


class LatentsDecoder(Decoder):
    """A decoder that ends in TAEF2's (``pixels``), which is frozen unless a subclass thaws it.

    metric: [32,32], coordinates of latents whose squared differences tell those of pixels; see ``latents_metric``.
    """

    metric: Tensor
    pixels: Taef2Decoder

    def load_pretrained(self, taef2_folder: str | os.PathLike[str]) -> None:
        """Put the published weights of ``taef2-decoder.safetensors`` into the frozen part, in place.

        Raises ArtefactNotFoundError, ArtefactDamagedError: see ``Taef2Decoder.load``.
        """
        self.pixels.load_state_dict(Taef2Decoder.load(Path(taef2_folder) / DECODER_FILE).state_dict())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.pixels.eval()
        return self


class PhotoDecoder(LatentsDecoder):
    """Vectors [B,c,H,W] -> images [B,3,8H,8W], not clamped.

    Args:
        side, dim, width, blocks: see ``PhotoEncoder``.
        thaw: train TAEF2's decoder too, so that it makes the best of latents that are not quite right.
        coarse: take vectors [B,c,S/16,S/16] instead, through ``blocks`` blocks there before those on the finer grid.
    """

    def __init__(
        self, side: int, dim: int, width: int, blocks: int, *, thaw: bool = False, coarse: bool = False
    ) -> None:
        super().__init__()
        grid = side // (16 if coarse else 8)
        self.into = nn.Conv2d(dim, width, 3, padding=1)
        self.places = nn.Parameter(0.02 * torch.randn(1, width, grid, grid))
        before = (*(ResBlock(width) for _ in range(blocks)), Upsample(width)) if coarse else ()
        self.blocks = nn.Sequential(*before, *(ResBlock(width) for _ in range(blocks)), Head(width, LATENT_CHANNELS, 3))
        self.pixels = Taef2Decoder()
        self.register_buffer("metric", torch.eye(LATENT_CHANNELS))
        if not thaw:
            _freeze(self.pixels)

    def latents(self, vectors: Tensor) -> Tensor:
        """TAEF2 latents [B,32,H,W]: the trainable part."""
        latents: Tensor = self.blocks(self.into(vectors) + self.places)
        return latents

    def forward(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.pixels(self.latents(vectors))
        return images

    def compared(self, vectors: Tensor) -> Tensor:
        return self.in_pixels(self.latents(vectors))

    def target(self, features: Tensor) -> Tensor:
        return self.in_pixels(features[:, :LATENT_CHANNELS])

    def in_pixels(self, latents: Tensor) -> Tensor:
        """Latents [B,32,H,W] in coordinates whose squared differences, summed, tell those of pixels.

        TAEF2's latents are far from equal: two directions of 32 make up for most of what a pixel can be wrong by.
        """
        return torch.einsum("bchw,cd->bdhw", latents.float(), self.metric)

    def measure(self, features: Tensor, even: float = 0.0) -> None:
        """Set ``metric`` from the latents in these features [B,32 or more,H,W], in place; see ``latents_metric``."""
        self.metric.copy_(latents_metric(self.pixels, features[:, :LATENT_CHANNELS], even))


@torch.no_grad()
def latents_metric(pixels: Taef2Decoder, latents: Tensor, even: float = 0.0) -> Tensor:
    """The metric [32,32] of TAEF2's decoder D (``pixels``) at latents [B,32,H,W].

    With D's change J e_i when channel i of every position moves a little, up or down at random (so that positions
    do not mix): metric metric^T = E[(J e_i) . (J e_j)], summed over a position's own pixels, times 32 by their
    number, so that a mean square of 32 coordinates is a mean square of pixels. even times the mean of that matrix's
    eigenvalues is added to each, and all are made smaller, so that their sum stays.
    """
    step = 0.1
    source = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, (len(latents), 1, *latents.shape[2:]), generator=source).to(latents) * 2 - 1
    base = pixels(latents)
    changes = []
    for channel in range(LATENT_CHANNELS):
        moved = latents.clone()
        moved[:, channel : channel + 1] += step * sign
        changes.append(((pixels(moved) - base) / step).flatten())
    all_changes = torch.stack(changes)
    gram = all_changes @ all_changes.T * (LATENT_CHANNELS / base.numel())
    values, vectors = torch.linalg.eigh(gram.double())
    values = (values + even * values.mean()) / (1 + even)
    metric: Tensor = (vectors * values.clamp(min=0).sqrt()).float()
    return metric


def _freeze(*nets: nn.Module) -> None:
    for net in nets:
        net.eval().requires_grad_(False)
