"""Encoders and decoders of SPAE: the paper's CNN, and a small mixer for small images.

Knows: how an image becomes a grid of vectors and back.
Refuses to know: words and quantization (vectors in, vectors out), losses, pretrained nets (``spae_photo.py``).

``CnnEncoder`` and ``CnnDecoder`` are the VQGAN of MaskGIT (Chang et al. 2022, arXiv:2202.04200), which SPAE (Yu et al.
2023, arXiv:2306.17842) takes over. With 128 filters, multipliers 1, 2, 2, 4, two residual blocks a scale and vectors of
1536 numbers both together have 59.4M parameters, the size that the paper's image model is reported to have.

``PatchEncoder`` and ``PatchDecoder`` are an MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601) over the cells of the
finest grid, behind a few strided convolutions: nearly all of it is matrix products, so that a model of small images
trains in minutes on one CPU core.

Letters in shapes: B batch, ch image channels, S side, c width of the vectors, H x W the finest grid, D hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.models.interface import Decoder, Encoder
from icl_vision.models.nets.blocks import Head, MixerBlock, ResBlock, Upsample, conv3, group_norm


class CnnEncoder(Encoder):
    """Images [B,ch,S,S] -> vectors [B,c,S/s,S/s], s = 2 to the number of multipliers less one.

    Args:
        channels: ch. dim: c. filters: channels at multiplier 1. multipliers: per scale, finest first.
        blocks: residual blocks per scale, and at the end.
    """

    def __init__(self, channels: int, dim: int, filters: int, multipliers: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3(channels, filters)]
        width = filters
        for scale, multiplier in enumerate(multipliers):
            if scale > 0:
                layers.append(nn.AvgPool2d(2))
            for _ in range(blocks):
                layers.append(ResBlock(width, filters * multiplier))
                width = filters * multiplier
        layers += [ResBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, Head(width, dim, 1))

    def vectors(self, features: Tensor) -> Tensor:
        # Pixels around zero, as the published VQGANs have them; ours come in [0, 1].
        vectors: Tensor = self.layers(features * 2 - 1)
        return vectors


class CnnDecoder(Decoder):
    """Vectors [B,c,H,W] -> images [B,ch,sH,sW], not clamped. Arguments: see ``CnnEncoder``."""

    def __init__(self, channels: int, dim: int, filters: int, multipliers: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        width = filters * multipliers[-1]
        layers: list[nn.Module] = [conv3(dim, width, bias=True)]
        layers += [ResBlock(width) for _ in range(blocks)]
        for scale in reversed(range(len(multipliers))):
            for _ in range(blocks):
                layers.append(ResBlock(width, filters * multipliers[scale]))
                width = filters * multipliers[scale]
            if scale > 0:
                layers.append(Upsample(width))
        self.layers = nn.Sequential(*layers, Head(width, channels, 3))

    def forward(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.layers(vectors)
        return (images + 1) / 2


class PatchEncoder(Encoder):
    """Images [B,ch,S,S] -> vectors [B,c,H,W]: a few strided convolutions, then all cells see each other.

    Args:
        channels: ch. side: S, a power of two times the grid. grid: H = W. dim: c. width: D. blocks: mixer blocks.
    """

    def __init__(self, channels: int, side: int, grid: int, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        halvings = (side // grid).bit_length() - 1
        layers: list[nn.Module] = []
        before = channels
        for left in reversed(range(halvings)):
            after = max(1, width >> left)
            first = left == halvings - 1
            layers.append(nn.Conv2d(before, after, 5, 2, 2) if first else nn.Conv2d(before, after, 3, 2, 1))
            if left:
                layers += [nn.SiLU()] if first else [group_norm(after), nn.SiLU()]
            before = after
        self.patches = nn.Sequential(*layers)
        self.places = nn.Parameter(0.02 * torch.randn(1, grid * grid, width))
        self.blocks = nn.Sequential(*(MixerBlock(width, grid * grid) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)

    def vectors(self, features: Tensor) -> Tensor:
        patches = self.patches(features)
        cells = self.blocks(patches.flatten(2).transpose(1, 2) + self.places)
        vectors: Tensor = self.out(self.norm(cells))
        return vectors.transpose(1, 2).reshape(features.shape[0], -1, *patches.shape[2:])


class PatchDecoder(Decoder):
    """Vectors [B,c,H,W] -> images [B,ch,S,S], not clamped: the encoder's blocks, then one linear map per patch.

    Arguments: see ``PatchEncoder``.
    """

    def __init__(self, channels: int, side: int, grid: int, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.cell = side // grid
        self.into = nn.Linear(dim, width)
        self.places = nn.Parameter(0.02 * torch.randn(1, grid * grid, width))
        self.blocks = nn.Sequential(*(MixerBlock(width, grid * grid) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, channels * self.cell**2)

    def forward(self, vectors: Tensor) -> Tensor:
        cells = self.blocks(self.into(vectors.flatten(2).transpose(1, 2)) + self.places)
        patches: Tensor = self.out(self.norm(cells))
        return F.pixel_shuffle(patches.transpose(1, 2).reshape(vectors.shape[0], -1, *vectors.shape[2:]), self.cell)
