"""A denoiser that begins with a draft; and one without is what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from icl_vision.errors import UsageError
from icl_vision.text_to_image.denoisers.draft import DraftedDenoiser
from icl_vision.text_to_image.denoisers.unet import TRAIN_STEPS, DenoiserConfig, Noise, build_denoiser
from icl_vision.text_to_image.training import load_config

SMALL: dict[str, Any] = {"channels": (16, 16, 16), "width": 8, "length": 1, "colours": 3, "factor": 4}


def drafted(ridge: float) -> tuple[DraftedDenoiser, torch.Tensor, torch.Tensor]:
    """A fresh one, solved for six states and the pictures that a linear map makes of them."""
    torch.manual_seed(0)
    states, latents = torch.randn(6, 1, 8), torch.randn(6, 48, 8, 8) * 0.3 + 0.5
    unet = build_denoiser(DenoiserConfig(**SMALL, draft=1.0)).eval()
    assert isinstance(unet, DraftedDenoiser)
    unet.solve(states, latents, ridge)
    return unet, states, latents


def test_it_knows_its_examples_before_it_is_trained():
    unet, states, latents = drafted(1e-4)
    assert torch.allclose(unet.drafts(states), latents, atol=1e-2)  # six examples, eight directions
    last = torch.full((6,), TRAIN_STEPS - 1)
    with torch.no_grad():
        (velocity,) = unet(torch.randn_like(latents), last, states)
    assert torch.allclose(-velocity, latents, atol=1e-2)  # all is noise there: x = -v
    # A ridge keeps it nearer to the mean, which is all that it says of the mean state.
    firm, _, _ = drafted(50.0)
    mean = latents.mean(0, keepdim=True)
    assert (firm.drafts(states) - mean).norm() < 0.8 * (unet.drafts(states) - mean).norm()
    assert torch.allclose(firm.drafts(states.mean(0, keepdim=True)), mean, atol=1e-4)


def test_it_is_used_as_the_u_net_is_and_only_the_u_net_is_trained():
    unet, states, latents = drafted(1.0)
    assert unet.config.in_channels == 48 and unet.config.sample_size == 8 and unet.config.cross_attention_dim == 8
    assert unet.unet.config.in_channels == 96
    assert torch.equal(  # one time for all, as pipelines have it
        unet(latents, torch.tensor(500), states, return_dict=False)[0], unet(latents, torch.full((6,), 500), states)[0]
    )
    Noise().loss(unet, latents, states, torch.Generator().manual_seed(0)).mean().backward()
    assert unet.draft.weight.grad is None and float(unet.unet.conv_out.weight.grad.abs().sum()) > 0
    assert not {"signal", "noise"} & set(unet.state_dict())


def test_before_it_is_trained_it_takes_away_what_noise_a_number_can():
    unet, states, latents = drafted(50.0)
    rest = latents - unet.drafts(states)
    residue = float(unet.residue)
    assert residue == pytest.approx(float(rest.square().mean()), rel=1e-3)
    for time in (100, 400, 800):
        signal, noise = float(unet.signal[time]), float(unet.noise[time])
        noised = signal * latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(time))
        with torch.no_grad():
            (velocity,) = unet(noised, torch.tensor(time), states)
        estimate = signal * noised - noise * velocity
        spread = signal**2 * residue + noise**2
        gain = signal * residue / spread  # Wiener's
        assert torch.allclose(estimate, unet.drafts(states) + gain * (noised - signal * unet.drafts(states)), atol=1e-4)
        left = residue * noise**2 / spread
        assert float((estimate - latents).square().mean()) == pytest.approx(left, rel=0.15)  # 18,432 numbers
        # In training the U-Net's own errors have one size at all times: that of its targets, which is 1.
        weight = float(unet.weight(torch.tensor([time])))
        true = signal * (noised - signal * latents) / noise - noise * latents
        assert weight * float((velocity - true).square().mean()) == pytest.approx(1, rel=0.15)
    assert float(build_denoiser(DenoiserConfig(**SMALL, draft=1.0)).residue) == 1 and "residue" in unet.state_dict()


class Times:
    """In place of a U-Net: predicts nothing, and keeps the times that it was asked about."""

    def __call__(self, latents: torch.Tensor, times: torch.Tensor, states: object, **_: object) -> tuple[torch.Tensor]:
        self.seen = times
        return (torch.zeros_like(latents),)


def test_without_these_options_digits_are_drawn_and_trained_as_before():
    seen = Times()
    latents, states = torch.zeros(400, 1, 2, 2), torch.zeros(400, 1, 1)
    loss = Noise().loss(seen, latents, states, torch.Generator().manual_seed(3))
    random = torch.Generator().manual_seed(3)  # times, then noise, and nothing else
    assert torch.equal(seen.seen, torch.randint(0, TRAIN_STEPS, (400,), generator=random))
    noise = torch.randn(latents.shape, generator=random)
    assert torch.allclose(loss, (Noise()._signal[seen.seen].view(-1, 1, 1, 1) * noise).square().mean((1, 2, 3)))
    Noise(late=0.5).loss(seen, latents, states, torch.Generator().manual_seed(3))
    assert 0.5 < float((seen.seen >= 800).float().mean()) < 0.7  # half of them, and a fifth of the others
    assert not isinstance(build_denoiser(DenoiserConfig(channels=(16, 16, 16))), DraftedDenoiser)
    plain = load_config("digits").deciding()
    assert "late" not in plain and "draft" not in plain["denoiser"]  # a run begun before goes on
    named = load_config("emoji").deciding()
    assert named["late"] > 0 and named["denoiser"]["draft"] > 0


@pytest.mark.parametrize(("change", "said"), [("late=2", "late"), ("denoiser.draft=-1", "denoiser.draft")])
def test_options_that_cannot_work(change: str, said: str):
    with pytest.raises(UsageError, match=said):
        load_config("emoji", [change])
