"""Encoders and decoders of clips: the paper's image CNN inflated to 3-D, and light 3-D nets around TAEF2.

Knows: how T frames become a grid of vectors (frames, rows, columns) and back; how weights of an image net start a net
of clips. Refuses to know: words and quantization, losses, where weights lie.

``cnn3d`` is SPAE's video model (Yu et al. 2023, arXiv:2306.17842): MaskGIT's CNN with 3x3x3 kernels for 3x3, time
halved with some of the down-samplings, as MAGVIT has it (Yu et al. 2023, arXiv:2212.05199). A 2-D kernel becomes the
middle of a 3-D one, zeros before and behind (central inflation, ibid.): the net then sees each frame as the image net
did.

``photo3d`` is ours. TAEF2 makes latents of every frame; a 3-D convolution of T/t x 3 x 3 takes T/t frames together, t
times in a clip (averaging latents over time blurs what moves: a mean of four frames' latents costs 5 dB). Then residual
blocks, each 3 x 3 in space and then all t in time: a clip repeats itself, and what one part of it has said the others
need not say again. Frames lie in front of channels, so that every 3-D convolution is a 2-D one, of frames one by one or
of all frames' channels at once.

Letters in shapes: B batch, T frames, ch channels, S side, c width of the vectors, t x h x w the finest grid, D hidden
width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.models.interface import Decoder, Encoder
from icl_vision.models.nets.blocks import Head, ResBlock, Upsample, conv3, group_norm
from icl_vision.models.nets.spae import CnnDecoder, CnnEncoder
from icl_vision.models.nets.spae_photo import LatentsDecoder, latents_metric
from icl_vision.models.nets.taef2 import ENCODER_FILE, LATENT_CHANNELS, Taef2Decoder, Taef2Encoder

_FRAMES_AT_ONCE = 64
_MEASURED = 16  # frames that the latents' metric is measured at: each is decoded 33 times


class ClipCnnEncoder(Encoder):
    """Clips [B,T,ch,S,S] -> vectors [B,c,t,h,w].

    Args: see ``CnnEncoder``. halvings: whether time is halved too, for each down-sampling, finest first.
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        filters: int,
        multipliers: tuple[int, ...],
        blocks: int,
        halvings: tuple[bool, ...],
    ) -> None:
        super().__init__()
        self.layers = _inflated(CnnEncoder(channels, dim, filters, multipliers, blocks).layers, iter(halvings))

    def vectors(self, features: Tensor) -> Tensor:
        vectors: Tensor = self.layers(features.transpose(1, 2) * 2 - 1)
        return vectors


class ClipCnnDecoder(Decoder):
    """Vectors [B,c,t,h,w] -> clips [B,T,ch,S,S], not clamped. Arguments: see ``ClipCnnEncoder``."""

    def __init__(
        self,
        channels: int,
        dim: int,
        filters: int,
        multipliers: tuple[int, ...],
        blocks: int,
        halvings: tuple[bool, ...],
    ) -> None:
        super().__init__()
        layers = CnnDecoder(channels, dim, filters, multipliers, blocks).layers
        self.layers = _inflated(layers, iter(reversed(halvings)))

    def forward(self, vectors: Tensor) -> Tensor:
        clips: Tensor = self.layers(vectors)
        return (clips.transpose(1, 2) + 1) / 2


class UpsampleClip(nn.Module):
    """Nearest neighbour, twice the size and perhaps twice as long, then a convolution."""

    def __init__(self, conv: nn.Module, doubles: bool) -> None:
        super().__init__()
        self.conv = conv
        self.scale = (2.0 if doubles else 1.0, 2.0, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=self.scale, mode="nearest"))
        return y


def _inflated(net: nn.Module, halvings: Iterator[bool]) -> nn.Module:
    """The same net with 3-D convolutions, its weights fresh; names of tensors stay. Changes it in place."""
    for name, part in list(net.named_children()):
        new: nn.Module
        if isinstance(part, nn.Conv2d):
            (size, _), bias = part.kernel_size, part.bias is not None
            new = nn.Conv3d(part.in_channels, part.out_channels, size, padding=size // 2, bias=bias)
        elif isinstance(part, nn.AvgPool2d):
            new = nn.AvgPool3d((2 if next(halvings) else 1, 2, 2))
        elif isinstance(part, Upsample):
            doubles = next(halvings)
            _inflated(part, halvings)
            new = UpsampleClip(part.conv, doubles)
        else:
            new = _inflated(part, halvings)
        setattr(net, name, new)
    return net


def centrally_inflated(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An image net's tensors as those of a net of clips with the same names: kernels become the middle frame of longer
    ones, all else stays.

    tensors: of the image net, or of a net of clips already. wanted: of the net of clips, for its shapes.
    """
    return {name: _central(value, wanted[name]) if name in wanted else value for name, value in tensors.items()}


def _central(value: Tensor, wanted: Tensor) -> Tensor:
    if value.ndim != 4 or wanted.ndim != 5 or value.shape != (*wanted.shape[:2], *wanted.shape[3:]):
        return value
    inflated = torch.zeros(wanted.shape, dtype=value.dtype)
    inflated[:, :, wanted.shape[2] // 2] = value
    return inflated


class ClipBlock(nn.Module):
    """Norm, swish, 3 x 3 in space; norm, swish, all t in time, cell by cell; plus the input. [B,t,D,h,w], the same."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width)
        self.space = conv3(width, width)
        self.norm2 = group_norm(depth * width)
        self.time = nn.Conv2d(depth * width, depth * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.space(F.silu(self.norm1(x.flatten(0, 1))))
        y = y.reshape(x.shape[0], -1, *x.shape[3:])
        y = self.time(F.silu(self.norm2(y)))
        return x + y.reshape(x.shape)


class ClipPhotoEncoder(Encoder):
    """Clips [B,T,3,S,S] -> vectors [B,c,t,S/8,S/8].

    Args:
        frames: T, a multiple of t. side: S. depth: t. dim: c. width: D. blocks: residual blocks.
    """

    remembers = True

    def __init__(self, frames: int, side: int, depth: int, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.latents = Taef2Encoder()
        grid, self.depth, self.times = side // 8, depth, frames // depth
        self.into = conv3(LATENT_CHANNELS * self.times, width, bias=True)
        # Which layers own a cell depends on its place, and what they ask for differs.
        self.places = nn.Parameter(0.02 * torch.randn(1, depth, width, grid, grid))
        self.blocks = nn.Sequential(*(ClipBlock(depth, width) for _ in range(blocks)))
        self.out = Head(width, dim, 1)
        self.latents.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """TAEF2's latents of every frame, [B,T,32,h,w], without gradient.

        They depend on the clip alone, so a training loop without augmentation may compute them once.
        """
        with torch.no_grad():
            return framewise(self.latents, images)

    def vectors(self, features: Tensor) -> Tensor:
        together = features.reshape(-1, LATENT_CHANNELS * self.times, *features.shape[3:])
        x = self.blocks(_clips(self.into(together), self.depth) + self.places)
        return _clips(self.out(x.flatten(0, 1)), self.depth).transpose(1, 2)

    def load_pretrained(self, taef2_folder: str | os.PathLike[str], trunk_file: Path | None = None) -> None:
        """Put the published weights of ``taef2-encoder.safetensors`` into the frozen part, in place.

        Raises ArtefactNotFoundError, ArtefactDamagedError: see ``Taef2Encoder.load``.
        """
        self.latents.load_state_dict(Taef2Encoder.load(Path(taef2_folder) / ENCODER_FILE).state_dict())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.latents.eval()
        return self


class ClipPhotoDecoder(LatentsDecoder):
    """Vectors [B,c,t,h,w] -> clips [B,T,3,8h,8w], not clamped: latents of every frame, and TAEF2's decoder.

    A grid's frame becomes T/t frames of half the width, each of which goes through one more block.

    Args: see ``ClipPhotoEncoder``.
    """

    def __init__(self, frames: int, side: int, depth: int, dim: int, width: int, blocks: int) -> None:
        super().__init__()
        grid, self.depth, self.times = side // 8, depth, frames // depth
        half = max(4, width // 2)
        self.into = conv3(dim, width, bias=True)
        self.places = nn.Parameter(0.02 * torch.randn(1, depth, width, grid, grid))
        self.blocks = nn.Sequential(*(ClipBlock(depth, width) for _ in range(blocks)))
        self.longer = Head(width, half * self.times, 1)
        self.frames = nn.Sequential(ResBlock(half), Head(half, LATENT_CHANNELS, 3))
        self.pixels = Taef2Decoder()
        self.register_buffer("metric", torch.eye(LATENT_CHANNELS))
        self.pixels.eval().requires_grad_(False)

    def latents(self, vectors: Tensor) -> Tensor:
        """TAEF2 latents of every frame [B,T,32,h,w]: the trainable part."""
        x = _clips(self.into(vectors.transpose(1, 2).flatten(0, 1)), self.depth) + self.places
        x = self.longer(self.blocks(x).flatten(0, 1))
        latents: Tensor = self.frames(x.reshape(-1, x.shape[1] // self.times, *x.shape[2:]))
        return _clips(latents, self.depth * self.times)

    def forward(self, vectors: Tensor) -> Tensor:
        return framewise(self.pixels, self.latents(vectors))

    def compared(self, vectors: Tensor) -> Tensor:
        return self.in_pixels(self.latents(vectors))

    def target(self, features: Tensor) -> Tensor:
        return self.in_pixels(features)

    def in_pixels(self, latents: Tensor) -> Tensor:
        """Latents [B,T,32,h,w] in coordinates whose squared differences, summed, tell those of pixels; see
        ``PhotoDecoder.in_pixels``."""
        return torch.einsum("btchw,cd->btdhw", latents.float(), self.metric)

    def measure(self, features: Tensor, even: float = 0.0) -> None:
        """Set ``metric`` from a few frames of these latents [B,T,32,h,w]; see ``latents_metric``."""
        frames = features.flatten(0, 1)
        self.metric.copy_(latents_metric(self.pixels, frames[:: max(1, -(-len(frames) // _MEASURED))], even))


def framewise(net: nn.Module, clips: Tensor) -> Tensor:
    """What an image net says of every frame: [B,T,...] -> [B,T,...]."""
    frames = clips.flatten(0, 1)
    if torch.compiler.is_compiling():
        seen: Tensor = net(frames)
    else:  # in parts: the maps of a batch of clips at full size are gigabytes
        seen = torch.cat([net(part) for part in torch.split(frames, _FRAMES_AT_ONCE)])
    return _clips(seen, clips.shape[1])


def _clips(frames: Tensor, length: int) -> Tensor:
    """Frames of several clips, [B*t,...] -> [B,t,...]."""
    return frames.reshape(-1, length, *frames.shape[1:])
