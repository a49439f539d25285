"""What training, validation and exporters ask of a model, whatever family it is of, and what a model asks of its nets.

Knows: names and shapes. Refuses to know: any one family, losses, files.

Letters in shapes: B batch, ch image channels, S side, d width of vectors, H x W a grid, h_l x w_l the grid of layer l.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout


class ModelConfig(Protocol):
    """What every model's configuration says: side and channels of its images, and the layout of its words."""

    @property
    def side(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def layout(self) -> PyramidLayout: ...


class WordAutoencoder(nn.Module):
    """Images [B, ch, S, S] in [0, 1] -> ids of words, one grid a layer -> images.

    A family subclasses it and gives ``layout``, ``words``, ``encode_ids`` and ``decode_ids``; a grid without a pyramid
    is a layout of one layer.
    """

    layout: PyramidLayout

    @property
    def words(self) -> int:
        """How many words the codebook has."""
        raise NotImplementedError

    @property
    def learned_codebook(self) -> Tensor | None:
        """The words' vectors [T, c] where training makes them; None for a model of frozen words."""
        return None

    def encode_ids(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images -> their words: int64 [B, h_l, w_l], one tensor per layer. No gradients."""
        raise NotImplementedError

    def decode_ids(self, ids: Sequence[Tensor], layers: int | Tensor | None = None) -> Tensor:
        """Words, coarse first -> images, clamped to [0, 1]. layers: how many of them count; None is all."""
        raise NotImplementedError

    def frozen(self, images: Tensor) -> tuple[Tensor, ...]:
        """What frozen nets say of images, which no training changes and a run may remember; nothing where none do."""
        return ()

    def warm_start(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights of an earlier run (``init``), by name. A family whose models grow may take a part of them.

        Raises RuntimeError, as ``load_state_dict``, where they do not fit.
        """
        self.load_state_dict(tensors)


class Encoder(nn.Module):
    """Images [B, ch, S, S] -> vectors [B, d, H, W], in two parts: what frozen nets say, and what is learned from it.

    A net without frozen parts gives ``vectors`` alone, of the images themselves.
    """

    remembers: ClassVar[bool] = False
    """Whether ``features`` come of frozen nets, so that a run may keep them."""

    def features(self, images: Tensor) -> Tensor:
        """What the learned part looks at; without gradient where frozen nets say it."""
        return images

    def vectors(self, features: Tensor) -> Tensor:
        """The learned part."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.vectors(self.features(images))

    def load_pretrained(self, taef2_folder: str | os.PathLike[str], trunk_file: Path | None = None) -> None:
        """Put published weights into frozen parts, in place; nothing to do where there are none."""


class Decoder(nn.Module):
    """Vectors [B, d, H, W] -> images [B, ch, S, S], not clamped."""

    def compared(self, vectors: Tensor) -> Tensor:
        """What training on latents compares instead of images: the net's own latents.

        Raises UsageError where it has none.
        """
        raise UsageError(f"{type(self).__name__} has no latents to be trained on: set model.train_on to pixels")

    def target(self, features: Tensor) -> Tensor:
        """What ``compared`` should give, from the encoder's features of the same images."""
        raise UsageError(f"{type(self).__name__} has no latents to be trained on: set model.train_on to pixels")

    def measure(self, features: Tensor, even: float = 0.0) -> None:
        """Set, from features of some images, how much each latent matters; nothing to do where there are none.

        even: 0 counts latents for what they matter to pixels; the larger, the more alike all of them count."""

    def load_pretrained(self, taef2_folder: str | os.PathLike[str]) -> None:
        """Put published weights into frozen parts, in place; nothing to do where there are none."""


def check_images(images: Tensor, config: ModelConfig) -> None:
    """Raises UsageError unless images are floating [B, ch, S, S]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (config.channels, config.side, config.side):
        raise UsageError(
            f"images must be [B, {config.channels}, {config.side}, {config.side}]; got {list(images.shape)}"
        )
    if not images.is_floating_point():
        raise UsageError(f"images must be floating point in [0, 1]; got {images.dtype}: divide bytes by 255")
