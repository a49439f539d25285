"""The vision transformer of LQAE, as encoder and as decoder: ViT-base with the block details of its published code.

Knows: patches, learned two-dimensional positions, the block. Refuses to know: words and quantization, losses.

Source: Liu et al. 2023 (arXiv:2302.00902), section 2, and its repository for what the paper does not say: a layer norm
before attention and one behind it (NormFormer, Shleifer et al. 2021, arXiv:2110.09456), a gated MLP (GLU, Shazeer 2020,
arXiv:2002.05202) with a 3x3 depthwise convolution on the grid, linear maps without bias, and pictures out of patches by
one transposed convolution. Where in the MLP the convolution stands we do not know: ours is behind the gate.

Letters in shapes: B batch, ch channels, S side, p patch, g x g = S/p x S/p the grid, P = g g, D width, I inner width, d
width of the vectors outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.models.interface import Decoder, Encoder


class Attention(nn.Module):
    """Every place looks at all. [B, P, D] -> [B, P, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, places, width = x.shape
        parts = self.into(x).reshape(batch, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, places, width))
        return y


class GatedMlp(nn.Module):
    """One half gates the other, then neighbours on the grid are mixed, channel by channel. [B, P, D] -> [B, P, D]."""

    def __init__(self, width: int, inner: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.into = nn.Linear(width, 2 * inner, bias=False)
        self.near = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.into(x).chunk(2, dim=-1)
        mixed = F.gelu(gate) * value  # [B, P, I]
        on_grid = mixed.transpose(1, 2).reshape(x.shape[0], -1, self.grid, self.grid)
        y: Tensor = self.out(self.near(on_grid).flatten(2).transpose(1, 2))
        return y


class Block(nn.Module):
    """Attention with a norm on either side, then the MLP, each with the input added. [B, P, D] -> [B, P, D]."""

    def __init__(self, width: int, heads: int, inner: int, grid: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.behind = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.mlp = GatedMlp(width, inner, grid)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.behind(self.attention(self.before(x)))
        y: Tensor = x + self.mlp(self.norm(x))
        return y


class Transformer(nn.Module):
    """Learned positions, the blocks and a last norm. [B, P, D] -> [B, P, D]."""

    def __init__(self, width: int, layers: int, heads: int, inner: int, grid: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.02 * torch.randn(1, grid * grid, width))
        self.blocks = nn.Sequential(*(Block(width, heads, inner, grid) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.blocks(x + self.positions))
        return y


class VitEncoder(Encoder):
    """Images [B, ch, S, S] -> vectors [B, d, g, g].

    Args:
        side: S. channels: ch. patch: p. dim: d. width: D. layers: blocks. heads: a divisor of D. inner: I.
    """

    def __init__(
        self, side: int, channels: int, patch: int, dim: int, width: int, layers: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.grid = side // patch
        self.patches = nn.Conv2d(channels, width, patch, stride=patch, bias=False)
        self.transformer = Transformer(width, layers, heads, inner, self.grid)
        self.out = nn.Linear(width, dim, bias=False)

    def vectors(self, features: Tensor) -> Tensor:
        """features: the images themselves."""
        places = self.patches(features).flatten(2).transpose(1, 2)
        vectors: Tensor = self.out(self.transformer(places))
        return vectors.transpose(1, 2).reshape(features.shape[0], -1, self.grid, self.grid)


class VitDecoder(Decoder):
    """Vectors [B, d, g, g] -> images [B, ch, S, S], not clamped. Arguments: see ``VitEncoder``."""

    def __init__(
        self, side: int, channels: int, patch: int, dim: int, width: int, layers: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.grid = side // patch
        self.into = nn.Linear(dim, width, bias=False)
        self.transformer = Transformer(width, layers, heads, inner, self.grid)
        self.pixels = nn.ConvTranspose2d(width, channels, patch, stride=patch)

    def forward(self, vectors: Tensor) -> Tensor:
        places = self.transformer(self.into(vectors.flatten(2).transpose(1, 2)))
        images: Tensor = self.pixels(places.transpose(1, 2).reshape(vectors.shape[0], -1, self.grid, self.grid))
        return images
