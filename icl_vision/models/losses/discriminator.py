"""The discriminator of the adversarial loss, its objective and its regularisers.

Knows: a StyleGAN-like convolutional discriminator, the non-saturating loss, R1 and LeCAM.
Refuses to know: where images come from, and how often it is trained.

Sources: architecture after Karras et al. 2020 (StyleGAN2, arXiv:1912.04958: residual blocks, blurred downsampling,
leaky ReLU 0.2), with the widths that MaskGIT (arXiv:2202.04200) and MAGVIT (arXiv:2212.05199) give; no statistic over
the minibatch, so a verdict depends on its own image only. Loss: Goodfellow et al. 2014 (non-saturating). R1: Mescheder
et al. 2018 (arXiv:1801.04406). LeCAM: Tseng et al. 2021 (arXiv:2104.03310), eq. 4.

Letters in shapes: B images, ch channels of an image, S its side.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.checks import count
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields

_SLOPE = 0.2
_SMALLEST = 4
"""Side of the last feature map, at least: below it a 3x3 convolution sees mostly padding."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Size of the discriminator.

    filters: channels of the first convolution (MAGVIT: 128; 32 do for digits). multipliers: one block that halves the
    image per entry, its channels ``filters * multiplier``; (2, 4, 4, 4, 4) fits 128 px and more, (2, 4, 4) 32 px.
    lecam_decay: how slowly the averages of LeCAM follow the verdicts.
    """

    filters: int = 128
    multipliers: tuple[int, ...] = (2, 4, 4, 4, 4)
    lecam_decay: float = 0.999

    def __post_init__(self) -> None:
        check_fields(self)
        count("filters of the discriminator", self.filters)
        if not self.multipliers or min(self.multipliers) < 1:
            raise UsageError(f"multipliers of the discriminator must be whole numbers of 1 or more; got "
                             f"{self.multipliers}")  # fmt: skip
        if not 0.0 <= self.lecam_decay < 1.0:
            raise UsageError(f"lecam_decay must be in [0, 1); got {self.lecam_decay}")

    def check_side(self, side: int) -> None:
        """UsageError unless images of ``side`` pixels can be halved once per multiplier down to 4 pixels or more."""
        halvings = len(self.multipliers)
        if side % 2**halvings or side // 2**halvings < _SMALLEST:
            most = max(0, int(math.log2(max(side, 1) / _SMALLEST))) if side >= _SMALLEST else 0
            raise UsageError(
                f"a discriminator with {halvings} multipliers halves {side} px {halvings} times, and must end at whole "
                f"{_SMALLEST} px or more: give at most {most} multipliers for this side"
            )


class Blur(nn.Module):
    """[1, 3, 3, 1] low-pass filter and stride 2: [B,C,H,W] -> [B,C,H/2,W/2], without aliasing."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", (taps[:, None] * taps).expand(channels, 1, 4, 4).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.to(x.dtype), stride=2, padding=1, groups=x.shape[1])


class DownBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 shortcut, halved: [B,C,H,W] -> [B,C',H/2,W/2]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_in, 3, padding=1)
        self.second = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.blur = Blur(c_in)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), _SLOPE)
        y = F.leaky_relu(self.second(self.blur(y)), _SLOPE)
        result: Tensor = (y + self.shortcut(self.blur(x))) / math.sqrt(2)  # keeps the variance
        return result


class LeCam(nn.Module):
    """LeCAM's moving averages of the verdicts, kept in buffers so that a checkpoint holds them.

    decay: of the averages. The first update sets them; before it the regulariser is 0, for there is nothing to hold to.
    """

    real: Tensor
    fake: Tensor
    updates: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """mean relu(real - average fake)^2 + mean relu(average real - fake)^2 for logits [B], a scalar."""
        loss = F.relu(real - self.fake).square().mean() + F.relu(self.real - fake).square().mean()
        return loss * (self.updates > 0)

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Let the averages follow the logits [B] of one batch. A batch with NaN or infinity is left out."""
        for average, logits in ((self.real, real), (self.fake, fake)):
            mean = logits.float().mean()
            followed = torch.where(self.updates > 0, average * self.decay + mean * (1 - self.decay), mean)
            average.copy_(torch.where(torch.isfinite(mean), followed, average))
        self.updates += 1


class Discriminator(nn.Module):
    """Images [B, ch, S, S] in [0, 1] -> logits [B]; high for real ones.

    Args:
        config: its size.
        channels: of the images, 1 or 3.
        side: of the images, S.

    Raises:
        UsageError: images of this side cannot be halved as often as the config says.
    """

    def __init__(self, config: DiscriminatorConfig, *, channels: int = 3, side: int = 128) -> None:
        super().__init__()
        config.check_side(side)
        self.config = config
        widths = [config.filters, *(config.filters * multiplier for multiplier in config.multipliers)]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in itertools.pairwise(widths)))
        last = side // 2 ** len(config.multipliers)
        self.mix = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.hidden = nn.Linear(widths[-1] * last * last, widths[-1])
        self.verdict = nn.Linear(widths[-1], 1)
        self.lecam = LeCam(config.lecam_decay)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(images * 2 - 1), _SLOPE)
        x = F.leaky_relu(self.mix(self.blocks(x)), _SLOPE)
        x = F.leaky_relu(self.hidden(x.flatten(1)), _SLOPE)
        logits: Tensor = self.verdict(x).squeeze(1)
        return logits


def generator_gan_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of the generator, mean of -log sigmoid(D(fake)), for logits [B]; never negative."""
    return F.softplus(-fake).mean()


def discriminator_gan_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Non-saturating loss of the discriminator for logits [B] of real images and of reconstructions."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """R1: mean over images of the squared gradient of D(real) with respect to the real images.

    logits: [B], computed from ``images``, which need ``requires_grad``.
    """
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
