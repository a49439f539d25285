"""The training losses of SPAE, each with its weight, each switchable (eq. 8 and 9).

Knows: how the parts are weighted and added, the dynamic weight of the semantic loss, and which net each is for.
Refuses to know: optimisers, data, logging; how a guide, LPIPS or a discriminator works inside.

Source: Yu et al. 2023, "SPAE" (arXiv:2306.17842):

    L_appearance = pixel + beta * sum over layers of ||Z - sg(Z_hat_<=l)||^2 + lambda * GAN + eta * perceptual   eq. (8)
    L            = L_appearance + alpha * w * L_semantic,     w = sg(L_appearance / L_semantic)                  eq. (9)

Squares are means over their elements, not sums, as in the code of MaskGIT and MAGVIT whose weights these are. Eq. (8)
also lists phi * LeCAM; that regulariser (Tseng et al. 2021) speaks about the discriminator's verdicts and belongs to
the discriminator's loss, where MAGVIT's code has it. So has ours. w is one number a batch (the GAN's and commitment
terms are batch means), averaged over processes, so that two processes do what one with the whole batch does.

Ours, not the paper's: ``shallow``, the pixel and perceptual loss of further reconstructions from fewer layers.

Letters in shapes: B images, ch channels, S side, T words, c codebook width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.checks import count, number
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields
from icl_vision.models.losses.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    discriminator_gan_loss,
    generator_gan_loss,
    r1_penalty,
)
from icl_vision.models.losses.semantic import SemanticLoss, SemanticOptions, Targets, semantic_loss

if TYPE_CHECKING:
    from icl_vision.models.losses.guides import Guide
    from icl_vision.models.spae import SpaeOutput

_TINY = 1e-8
_WEIGHTS = ("pixel", "commitment", "codebook", "gan", "perceptual", "lecam", "r1", "semantic", "shallow")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts; 0 switches a part off. The defaults are the paper's.

    pixel: squared error of pixels in [0, 1]. commitment: beta. codebook: pulls a learned codebook's words to the
    encoder's vectors (a frozen one has no such loss). gan: lambda, from step ``gan_start`` on. perceptual: eta.
    lecam: phi, r1: both regularise the discriminator. semantic: alpha. shallow: pixel and perceptual loss of
    reconstructions from fewer layers, where the loop passes any.

    dynamic_weight: w of eq. (9); off, w is 1. dynamic_weight_max: w is cut there (a vanishing semantic loss would
    make it infinite). thresholds, targets, temperature, positions: see ``SemanticOptions``. seed: of the words drawn.
    discriminator: its size.
    """

    pixel: float = 1.0
    commitment: float = 0.33
    codebook: float = 1.0
    gan: float = 0.1
    gan_start: int = 0
    perceptual: float = 0.1
    lecam: float = 1e-4
    r1: float = 0.0
    semantic: float = 1.0
    shallow: float = 1.0
    dynamic_weight: bool = True
    dynamic_weight_max: float = 1e4
    thresholds: tuple[float, ...] = SemanticOptions.thresholds
    targets: Targets = "sampled"
    temperature: float = 1.0
    positions: int = 0
    seed: int = 0
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in (*_WEIGHTS, "dynamic_weight_max"):
            number(f"the loss weight {name}", getattr(self, name), least=0)
        for name in ("gan_start", "seed"):
            count(name, getattr(self, name), least=0)
        _ = self.semantic_options  # checks the rest

    @property
    def semantic_options(self) -> SemanticOptions:
        """The options of the semantic loss alone."""
        return SemanticOptions(self.thresholds, self.targets, self.temperature, self.positions)

    @property
    def needs_guide(self) -> bool:
        """A guide must be given: the semantic loss is on."""
        return self.semantic > 0

    @property
    def needs_perceptual(self) -> bool:
        """LPIPS must be given."""
        return self.perceptual > 0

    @property
    def needs_discriminator(self) -> bool:
        """A discriminator must be given: the GAN is on."""
        return self.gan > 0


@dataclass(frozen=True)
class LossReport:
    """``total``: what to call ``backward`` on. ``parts``: unweighted, detached scalars by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class SpaeLoss:
    """Both losses of a training step. Holds no parameters of its own; follows the images' device.

    Args:
        config: the weights.
        codebook: the words' vectors [T, c] (a frozen buffer or the learned parameter).
        guide: for the semantic loss.
        perceptual: ``LPIPS``, or any module (a, b) -> [B].
        discriminator: for the GAN; may be wrapped for several processes (the generator's loss then goes around the
            wrapper, for it trains nothing inside).

    Raises:
        UsageError: a part is switched on whose module is not given.
    """

    def __init__(
        self,
        config: LossConfig,
        codebook: Tensor,
        guide: Guide | None = None,
        perceptual: nn.Module | None = None,
        discriminator: nn.Module | None = None,
    ) -> None:
        for needed, module, name, weight in (
            (config.needs_guide, guide, "a guide", "semantic"),
            (config.needs_perceptual, perceptual, "LPIPS (load_lpips)", "perceptual"),
            (config.needs_discriminator, discriminator, "a discriminator", "gan"),
        ):
            if needed and module is None:
                raise UsageError(
                    f"the loss weight {weight}={getattr(config, weight)} needs {name}: give one, or set it to 0"
                )
        self.config = config
        self.codebook = codebook
        self.guide = guide
        self.perceptual = perceptual
        self.discriminator = discriminator

    def adversarial(self, step: int) -> bool:
        """Whether the discriminator takes part in this step: the GAN is on and ``gan_start`` is reached."""
        return self.config.needs_discriminator and step >= self.config.gan_start

    def generator(
        self,
        images: Tensor,
        output: SpaeOutput,
        *,
        step: int,
        labels: Tensor | None = None,
        shallow: Sequence[Tensor] = (),
    ) -> LossReport:
        """Eq. (9), for the encoder and decoder (and a learned codebook). No gradient reaches the discriminator.

        Args:
            images: [B, ch, S, S] in [0, 1].
            output: what the model made of them, at whatever decoding depth.
            step: from 0; decides whether the GAN takes part, and seeds the words drawn.
            labels: int64 [B], for guides that need them.
            shallow: further reconstructions of the same images from fewer layers, each shaped as
                ``output.reconstruction``.

        Returns:
            the total, and the parts ``pixel, commitment, codebook, perceptual, gan, shallow`` as far as switched on,
            ``appearance``, ``semantic``, ``semantic_weight`` (w) and ``semantic_1 ...`` (a layer each).
        """
        config, parts = self.config, {}
        target = images if output.target is None else output.target  # a model may be trained on latents
        parts["pixel"] = self._pixel(output.reconstruction, target)
        parts["commitment"] = torch.stack([part.float() for part in output.quantized.commitment]).sum()
        parts["codebook"] = output.quantized.codebook_loss.float()
        if config.needs_perceptual:
            parts["perceptual"] = self._perceptual(images, output.reconstruction)
        if self.adversarial(step):
            parts["gan"] = generator_gan_loss(self._frozen_verdict(output.reconstruction))
        if config.shallow and shallow:
            parts["shallow"] = torch.stack([self._shallow(target, reconstruction) for reconstruction in shallow]).mean()
        parts = {name: part for name, part in parts.items() if getattr(config, name) > 0}
        weighted = [getattr(config, name) * part for name, part in parts.items()]
        total = torch.stack(weighted).sum() if weighted else images.new_zeros(())
        report = parts | {"appearance": total}
        if config.needs_guide:
            semantic = self._semantic(images, output, step, labels)
            weight = self._dynamic_weight(total, semantic.total)
            report |= {"semantic": semantic.total, "semantic_weight": weight}
            report |= {f"semantic_{layer}": part for layer, part in enumerate(semantic.layers, start=1)}
            total = total + config.semantic * weight * semantic.total
        return LossReport(total, {name: part.detach() for name, part in report.items()})

    def discriminator_loss(self, images: Tensor, output: SpaeOutput) -> LossReport:
        """The discriminator's loss: non-saturating GAN, LeCAM and R1. No gradient reaches the model.

        Also moves LeCAM's averages, so call it once a step, where ``adversarial(step)``.

        Args:
            images: [B, ch, S, S] in [0, 1].
            output: the model's; its reconstruction is detached.

        Returns:
            the total, and the parts ``discriminator``, ``real`` and ``fake`` (mean logits), ``lecam``, ``r1``.

        Raises:
            UsageError: no discriminator was given.
        """
        if self.discriminator is None:
            raise UsageError("discriminator_loss needs a discriminator: this loss was made without one")
        config = self.config
        real_images = images.detach().requires_grad_(config.r1 > 0)
        # One pass over both: several processes then exchange gradients once.
        both = torch.cat([real_images, output.reconstruction.detach().to(images.dtype)])
        real, fake = self.discriminator(both).float().chunk(2)
        parts = {"discriminator": discriminator_gan_loss(real, fake)}
        total = parts["discriminator"]
        if config.lecam > 0:
            lecam = self._bare_discriminator().lecam
            parts["lecam"] = lecam(real, fake)
            total = total + config.lecam * parts["lecam"]
            lecam.update(_averaged(real.detach().mean()), _averaged(fake.detach().mean()))
        if config.r1 > 0:
            parts["r1"] = r1_penalty(real, real_images)
            total = total + config.r1 * parts["r1"]
        parts |= {"real": real.mean(), "fake": fake.mean()}
        return LossReport(total, {name: part.detach() for name, part in parts.items()})

    # -- parts

    def _pixel(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(reconstruction.float(), target.float())

    def _perceptual(self, images: Tensor, reconstruction: Tensor) -> Tensor:
        assert self.perceptual is not None  # checked in __init__
        distance: Tensor = self.perceptual(reconstruction, images)
        return distance.float().mean()

    def _shallow(self, images: Tensor, reconstruction: Tensor) -> Tensor:
        loss = self.config.pixel * self._pixel(reconstruction, images)
        if self.config.needs_perceptual:
            loss = loss + self.config.perceptual * self._perceptual(images, reconstruction)
        return loss

    def _frozen_verdict(self, reconstruction: Tensor) -> Tensor:
        """Logits with gradient for the reconstruction but none for the discriminator's own parameters."""
        net = self._bare_discriminator()
        trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            logits: Tensor = net(reconstruction)
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
        return logits.float()

    def _bare_discriminator(self) -> Discriminator:
        net: Any = self.discriminator
        while not isinstance(net, Discriminator):
            inner = getattr(net, "module", None)
            if inner is None:
                raise UsageError(f"the discriminator must be a Discriminator, wrapped or not; got {type(net).__name__}")
            net = inner
        return net

    def _semantic(self, images: Tensor, output: SpaeOutput, step: int, labels: Tensor | None) -> SemanticLoss:
        assert self.guide is not None  # checked in __init__
        with torch.no_grad():
            similarity = self.guide.similarity(images, labels=labels).to(images.device)
        generator = torch.Generator(images.device).manual_seed(self._seed(step))
        return semantic_loss(
            output.quantized.targets,
            similarity,
            self.codebook.to(images.device),
            self.config.semantic_options,
            generator=generator,
        )

    def _seed(self, step: int) -> int:
        """A function of seed, step and process alone: a resumed run draws the words it would have drawn."""
        rank = torch.distributed.get_rank() if _distributed() else 0
        return ((self.config.seed * 1_000_003 + step) * 65_537 + rank) % 2**63

    def _dynamic_weight(self, appearance: Tensor, semantic: Tensor) -> Tensor:
        if not self.config.dynamic_weight:
            return torch.ones_like(semantic)
        ratio = _averaged(appearance.detach()) / _averaged(semantic.detach()).clamp(min=_TINY)
        return ratio.clamp(max=self.config.dynamic_weight_max)  # a NaN stays one: the loop stops on it and says so


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _averaged(value: Tensor) -> Tensor:
    """The mean over all processes of a detached scalar; itself where there is one process."""
    if not _distributed() or torch.distributed.get_world_size() == 1:
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
