"""The Semantic Pyramid AutoEncoder of clips: frames -> vectors -> words on a pyramid of 3-D grids -> frames.

Knows: how encoder, quantizer and decoder of clips are put together, and what a training step wants of them.
Refuses to know: losses, optimisers, files; what the words are called (ids here, names in the tokenizer).

Source: Yu et al. 2023, "SPAE" (arXiv:2306.17842), of whose video model there is no published code. The quantizers are
those of images, on grids of frames, rows and columns; eq. (1) gives each layer its positions along all three axes.

Letters in shapes: B batch, T frames, ch channels, S side, d width of the vectors, t x h x w the finest grid, t_l x h_l
x w_l that of layer l.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.clips_config import ClipsConfig
from icl_vision.models.interface import Decoder, Encoder
from icl_vision.models.nets.clips import (
    ClipCnnDecoder,
    ClipCnnEncoder,
    ClipPhotoDecoder,
    ClipPhotoEncoder,
    centrally_inflated,
)
from icl_vision.models.pyramid_model import SemanticPyramid
from icl_vision.models.quantizers.base import Quantized, Quantizer
from icl_vision.models.quantizers.frame_words import FrameWords
from icl_vision.models.quantizers.motion_words import MotionWords
from icl_vision.models.quantizers.projected import ProjectedQuantizer
from icl_vision.models.quantizers.streaming import StreamingAverageQuantizer
from icl_vision.models.spae import SpaeOutput

__all__ = ["ClipSPAE", "ClipsConfig", "build_clip_nets"]

_NOT_OF_CLIPS = ("mean", "spread")
"""Tensors of an image model that a model of clips has no use for."""


class ClipSPAE(SemanticPyramid):
    """Encoder, quantizer, decoder.

    Args:
        config: what to build.
        codebook: floating [T, c], the frozen words' vectors.

    Raises:
        UsageError: a codebook that does not fit the config.
    """

    config: ClipsConfig

    def __init__(self, config: ClipsConfig, codebook: Tensor) -> None:
        super().__init__()
        if codebook.ndim != 2 or codebook.shape[1] != config.dim:
            raise UsageError(
                f"the codebook must be [T, {config.dim}] as the config's dim says; got {list(codebook.shape)}"
            )
        self.config = config
        self.layout = config.layout
        self.quantizer = _build_quantizer(config, codebook.detach().float())
        self.encoder, self.decoder = build_clip_nets(config)
        self.regions = None
        if config.named_layers:
            named = list(config.grids[: config.named_layers])
            if config.motion_layer:
                del named[config.motion_layer - 1]
            self.regions = FrameWords([rows for _, rows, _ in named], config.side, config.dim, frames=config.frames)
        self.motion = MotionWords(config.side) if config.motion_layer else None

    def encode(self, clips: Tensor) -> Tensor:
        """Clips, floating [B, T, ch, S, S] in [0, 1] -> vectors z [B, d, t, h, w], not quantized."""
        check_clips(clips, self.config)
        z: Tensor = self.encoder(clips)
        return z

    def forward(self, clips: Tensor, depth: int | None = None, frozen: Sequence[Tensor] | None = None) -> SpaeOutput:
        """A training step's pass: encode, quantize, decode the first ``depth`` layers (None: all).

        frozen: what ``self.frozen(clips)`` gave, where it is known already. Words of motion are not among it: they
        depend on where a clip begins and which way it is played.

        Raises:
            UsageError: clips of another shape or type. PyramidError: depth out of range.
        """
        check_clips(clips, self.config)
        known = self.frozen(clips) if frozen is None else frozen
        features, words = (known[0], self._with_motion(clips, known[1:])) if known else (clips, ())
        z = self.encoder.vectors(features)
        target = self.decoder.target(features) if self.on_latents else None
        quantized: Quantized = self.quantizer(z, depth, words)
        return SpaeOutput(self.reconstruct(quantized.quantized), z, quantized, target)

    def named(
        self, pixels: Tensor, codebook: Tensor, class_bias: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        words, vector = super().named(pixels, codebook, class_bias)
        return self._with_motion(pixels, words), vector

    def named_scores(self, pixels: Tensor, codebook: Tensor) -> Tensor:
        scores = super().named_scores(pixels, codebook)
        if self.motion is None:
            return scores
        cells = [0, *self.layout.cumulative][self.config.motion_layer - 1]
        ways = self.motion.scores(pixels).clamp(min=1e-30)
        row = torch.zeros_like(scores[:, :1]).index_copy(2, self.motion.ids, ways.unsqueeze(1))
        return torch.cat([scores[:, :cells], row, scores[:, cells:]], 1)

    def _with_motion(self, clips: Tensor, words: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The words of named layers with those of motion at their place."""
        if self.motion is None:
            return tuple(words)
        before = self.config.motion_layer - 1
        return (*words[:before], self.motion(clips), *words[before:])

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Quantized vectors [B, d, t, h, w] -> what a loss compares: clips, or in training on latents TAEF2's."""
        return self.decoder.compared(latent) if self.on_latents else self.decode(latent)

    def decode(self, latent: Tensor) -> Tensor:
        """Quantized vectors [B, d, t, h, w] -> clips [B, T, ch, S, S], not clamped."""
        clips: Tensor = self.decoder(latent)
        return clips

    # -- for training

    @property
    def on_latents(self) -> bool:
        return self.training and self.config.train_on == "latents"

    def warm_start(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights of an earlier run: of clips, or of an image model with the same filters, whose kernels
        become the middle of ours (central inflation)."""
        own = self.state_dict()
        kept = {name: value for name, value in tensors.items() if name in own or name not in _NOT_OF_CLIPS}
        self.load_state_dict(centrally_inflated(kept, own))


def build_clip_nets(config: ClipsConfig) -> tuple[Encoder, Decoder]:
    """The encoder and decoder of a config, with fresh weights (within ``torch.device("meta")``, without memory)."""
    if config.net == "cnn3d":
        cnn = (config.channels, config.channels_of_z, config.filters, config.multipliers, config.blocks)
        return ClipCnnEncoder(*cnn, config.halvings), ClipCnnDecoder(*cnn, config.halvings)
    photo = (config.frames, config.side, config.layout.finest[0], config.channels_of_z, config.width)
    return (
        ClipPhotoEncoder(*photo, config.blocks),
        ClipPhotoDecoder(*photo, config.decoder_blocks or config.blocks),
    )


def check_clips(clips: Tensor, config: ClipsConfig) -> None:
    """Raises UsageError unless clips are floating [B, T, ch, S, S]."""
    wanted = (config.frames, config.channels, config.side, config.side)
    if clips.ndim != 5 or tuple(clips.shape[1:]) != wanted:
        raise UsageError(f"clips must be [B, {', '.join(map(str, wanted))}]; got {list(clips.shape)}")
    if not clips.is_floating_point():
        raise UsageError(f"clips must be floating point in [0, 1]; got {clips.dtype}: divide bytes by 255")


def _build_quantizer(config: ClipsConfig, codebook: Tensor) -> Quantizer:
    if config.quantizer == "saq":
        return StreamingAverageQuantizer(codebook, config.layout, fill=config.fill)
    return ProjectedQuantizer(
        codebook,
        config.layout,
        config.projection,
        given=config.named_layers,
        fill=config.fill,
        candidates=config.candidates,
    )
