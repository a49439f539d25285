"""The demonstration's diffusion model: pictures of 32 x 32 pixels in the layout of Stable Diffusion's latents.

A digit's 2 x 2 neighbours become four channels of 16 x 16 (no autoencoder is needed), a conditional U-Net of
diffusers predicts the velocity (Salimans and Ho, 2022) along a cosine schedule (Nichol and Dhariwal, 2021), and reads
a caption's states by cross-attention, as Stable Diffusion reads CLIP's.

Knows: the net, the layout, the noise. Refuses to know: where states come from.

Letters in shapes: B pictures, N states of a caption, e their width, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from icl_vision.checks import choice, count, number
from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.files.typed import check_fields
from icl_vision.text_to_image.denoisers.draft import DraftedDenoiser

SIDE: Final = 32
FACTOR: Final = 2
TRAIN_STEPS: Final = 1000
GROUPS: Final = 16

SCHEDULE: Final[dict[str, Any]] = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}


@dataclass(frozen=True)
class DenoiserConfig:
    """The U-Net. channels: of its three levels, multiples of 16; the first level has no attention. layers: residual
    blocks a level. head: width of an attention head. width: e, of the states it reads. length: N. colours: of a
    picture, 1 for grey or 3. factor: a picture's factor x factor neighbours are channels of one place, 2 or 4. draft:
    above 0, begin with a picture that is linear in the states (``draft.py``), of least squares with this ridge."""

    channels: tuple[int, int, int] = (32, 64, 80)
    layers: int = 1
    head: int = 16
    width: int = 384
    length: int = 16
    colours: int = 1
    factor: int = FACTOR
    draft: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        choice("denoiser.colours", self.colours, (1, 3))
        choice("denoiser.factor", self.factor, (2, 4))
        number("denoiser.draft", self.draft, least=0)
        for name in ("layers", "head", "width", "length"):
            count(f"denoiser.{name}", getattr(self, name))
        for channels in self.channels:
            if channels < 1 or channels % GROUPS or channels % self.head:
                raise UsageError(
                    f"denoiser.channels must be multiples of {GROUPS} and of denoiser.head; got {self.channels} and "
                    f"{self.head}"
                )


def build_denoiser(config: DenoiserConfig) -> Any:
    """A fresh U-Net (diffusers' UNet2DConditionModel), with a draft of nothing yet where the configuration has one.

    Raises MissingExtraError without diffusers.
    """
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        raise MissingExtraError("diffusion models (diffusers)", "t2i") from error
    attention = len(config.channels) - 1
    channels, side = config.colours * config.factor**2, SIDE // config.factor
    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=channels * (2 if config.draft else 1),
        out_channels=channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attention),
        up_block_types=(*["CrossAttnUpBlock2D"] * attention, "UpBlock2D"),
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=GROUPS,
        attention_head_dim=config.head,
        cross_attention_dim=config.width,
    )
    if not config.draft:
        return unet
    signal, noise = _schedule()
    return DraftedDenoiser(
        unet, states=(config.length, config.width), latents=(channels, side), signal=signal, noise=noise
    )


def _schedule() -> tuple[Tensor, Tensor]:
    """Of each time the share of the picture, and of the noise, float [T] each."""
    from diffusers import DDPMScheduler

    kept: Tensor = DDPMScheduler(**SCHEDULE).alphas_cumprod
    return kept.sqrt(), (1 - kept).sqrt()


def to_latents(pixels: Tensor, factor: int = FACTOR) -> Tensor:
    """uint8 [B, C, S, S] -> float [B, C * f * f, S/f, S/f], -1 black to 1 white; f is the ``factor``."""
    return nn.functional.pixel_unshuffle(pixels.float() / 127.5 - 1, factor)


def to_pixels(latents: Tensor) -> Tensor:
    """float [B, C * f * f, S/f, S/f] -> uint8 [B, C, S, S], S being 32."""
    colours = nn.functional.pixel_shuffle(latents.float(), SIDE // latents.shape[-1]).clamp(-1, 1)
    return ((colours + 1) * 127.5).round().to(torch.uint8)


class Noise:
    """The cosine schedule as training sees it: noised latents, and the velocity that is to be predicted.

    late: share of the times that are drawn from the noisiest fifth alone, where it is decided what is drawn; the others
    are drawn from all.
    """

    def __init__(self, late: float = 0.0) -> None:
        self._signal, self._noise = _schedule()
        self._late = late

    def loss(self, unet: Any, latents: Tensor, states: Tensor, generator: torch.Generator) -> Tensor:
        """The squared error of the predicted velocity, float [B], at a time drawn for each picture; of a denoiser with
        a draft, weighed as its ``weight`` has it.

        latents: [B, C, S, S]. states: [B, N, e]. Times and noise come from ``generator`` (of the CPU).
        """
        predicted, velocity, times = self._predicted(unet, latents, states, generator)
        error: Tensor = (predicted - velocity).square().mean((1, 2, 3))
        return error * unet.weight(times) if isinstance(unet, DraftedDenoiser) else error

    def predict(self, unet: Any, latents: Tensor, states: Tensor, generator: torch.Generator) -> Tensor:
        """The velocity that is predicted, as ``latents``; arguments as ``loss`` has them."""
        return self._predicted(unet, latents, states, generator)[0]

    def _predicted(
        self, unet: Any, latents: Tensor, states: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The velocity as predicted, and as it is, and the times, int64 [B], where the latents are."""
        times = torch.randint(0, TRAIN_STEPS, (len(latents),), generator=generator)
        if self._late:
            noisiest = torch.randint(TRAIN_STEPS * 4 // 5, TRAIN_STEPS, (len(latents),), generator=generator)
            times = torch.where(torch.rand(len(latents), generator=generator) < self._late, noisiest, times)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        signal = self._signal[times].view(-1, 1, 1, 1).to(latents.device)
        scale = self._noise[times].view(-1, 1, 1, 1).to(latents.device)
        noised, times = signal * latents + scale * noise, times.to(latents.device)
        predicted: Tensor = unet(noised, times, states, return_dict=False)[0]
        return predicted, signal * noise - scale * latents, times


@dataclass(frozen=True)
class BlurConfig:
    """What is done to captions' states while the U-Net is trained, so that it reads blurred ones too.

    share: of the captions that are blurred. noise: most noise, in standard deviations of a state over captions. shrink:
    least factor by which a state's distance to the mean state is shortened.
    """

    share: float = 0.5
    noise: float = 0.6
    shrink: float = 0.4

    def __post_init__(self) -> None:
        check_fields(self)
        for name, most in (("share", 1.0), ("noise", 10.0), ("shrink", 1.0)):
            number(f"blur.{name}", getattr(self, name), least=0, most=most)


class Blur:
    """Blurs states [B, N, e] as mapped ones are blurred: drawn towards the mean of all captions, and noisy.

    table: states of all captions, [C, N, e].
    """

    def __init__(self, config: BlurConfig, table: Tensor) -> None:
        self.config = config
        self.mean = table.mean(0)
        self.spread = table.std(0)

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        config, size = self.config, (len(states), 1, 1)
        blurred = (torch.rand(size, generator=generator) < config.share).float()
        factor = 1 - blurred * (1 - config.shrink) * torch.rand(size, generator=generator)
        scale = blurred * config.noise * torch.rand(size, generator=generator)
        noise = torch.randn(states.shape, generator=generator)
        return self.mean + factor * (states - self.mean) + scale * self.spread * noise
