"""TAEF2: a tiny image autoencoder, 8 times down to 32 channels, for cheap appearance features and a cheap decoder.

Knows: the architecture behind the published weights (MIT, by madebyollin) and how to read them.
Refuses to know: words, pyramids, where the files came from.

Both nets are plain sequences; a tensor's name is ``<index in the sequence>.<part>``, so the published files load
without renaming. They are stored fp16 and run here in fp32. At 128 px the latent grid is SPAE's 16 x 16.

Letters in shapes: B images, S side (a multiple of 8), C channels, H/W height and width.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError

logger = logging.getLogger(__name__)

LATENT_CHANNELS = 32
REDUCTION = 8
"""Pixels per latent cell along each axis."""

ENCODER_FILE = "taef2-encoder.safetensors"
DECODER_FILE = "taef2-decoder.safetensors"

_WIDTH = 64
_RANGE = 3.0  # latents are squeezed to (-3, 3) before they are decoded


class TaefBlock(nn.Module):
    """Three 3x3 convolutions and the identity: [B,64,H,W] -> the same shape.

    pooled: add a branch to the input first (1x1 up to 256, group norm over the whole map, 1x1 down): the one part that
    sees further than a few cells.
    """

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        )
        self.pool: nn.Sequential | None = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, 4 * _WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * _WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * _WIDTH, _WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        result: Tensor = torch.relu(self.conv(x) + x)
        return result


class _Squeeze(nn.Module):
    """3 tanh(x / 3): latents far outside the usual range do no harm."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _RANGE) * _RANGE


class _Taef2(nn.Sequential):
    """What both nets share: reading a weights file."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The net with the weights of a safetensors file, in evaluation mode, fp32.

        Raises:
            ArtefactNotFoundError: no such file.
            ArtefactDamagedError: not a safetensors file, or not of this net.
        """
        file = Path(path)
        if not file.is_file():
            raise ArtefactNotFoundError(f"no TAEF2 weights at {str(file)!r}: give the path of {ENCODER_FILE} or "
                                        f"{DECODER_FILE} (MIT, by madebyollin)")  # fmt: skip
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise ArtefactDamagedError(f"{str(file)!r} is not a safetensors file ({error}); fetch it again") from error
        net = cls()
        wanted = {name: value.shape for name, value in net.state_dict().items()}
        wrong = [name for name in sorted(wanted.keys() | tensors.keys())
                 if name not in tensors or tensors[name].shape != wanted.get(name)]  # fmt: skip
        if wrong:
            raise ArtefactDamagedError(
                f"{str(file)!r} does not hold the weights of {cls.__name__}: {len(wrong)} tensors are missing, left "
                f"over or of another shape, the first is {wrong[0]}"
            )
        net.load_state_dict({name: value.float() for name, value in tensors.items()})
        logger.debug("loaded %s from %s", cls.__name__, file)
        return net.eval()


class Taef2Encoder(_Taef2):
    """Images [B,3,S,S] in [0, 1] -> latents [B,32,S/8,S/8]. Random weights; ``load`` reads the published ones."""

    def __init__(self) -> None:
        def down(pooled: bool) -> list[nn.Module]:
            return [
                nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False),
                *(TaefBlock(pooled) for _ in range(3)),
            ]

        super().__init__(
            nn.Conv2d(3, _WIDTH, 3, padding=1),
            TaefBlock(),
            *down(False),
            *down(False),
            *down(True),
            nn.Conv2d(_WIDTH, LATENT_CHANNELS, 3, padding=1),
        )


class Taef2Decoder(_Taef2):
    """Latents [B,32,H,W] -> images [B,3,8H,8W], not clamped. Random weights; ``load`` reads the published ones."""

    def __init__(self) -> None:
        def up(blocks: int) -> list[nn.Module]:
            return [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
                *(TaefBlock() for _ in range(blocks)),
            ]

        super().__init__(
            _Squeeze(),
            nn.Conv2d(LATENT_CHANNELS, _WIDTH, 3, padding=1),
            nn.ReLU(),
            *(TaefBlock(pooled=True) for _ in range(3)),
            *up(3),
            *up(3),
            *up(1),
            nn.Conv2d(_WIDTH, 3, 3, padding=1),
        )


def load_taef2(folder: str | os.PathLike[str]) -> tuple[Taef2Encoder, Taef2Decoder]:
    """Both nets from a folder that holds ``taef2-encoder.safetensors`` and ``taef2-decoder.safetensors``.

    Raises:
        ArtefactNotFoundError: a file is missing.
        ArtefactDamagedError: a file is not the one its name says.
    """
    path = Path(folder)
    return Taef2Encoder.load(path / ENCODER_FILE), Taef2Decoder.load(path / DECODER_FILE)
