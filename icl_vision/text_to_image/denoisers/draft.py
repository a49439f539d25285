"""A denoiser that begins with a draft: what least squares make of a caption's states, before any noise is looked at.

Where a caption all but names its picture, the mean picture of that caption is most of the answer, and a linear map
from states to pixels, solved at once, is most of that mean. The U-Net need not learn it by gradients: it is shown the
draft beside the noised picture, and predicts what the picture is beyond it. As PriorGrad has it (Lee et al., 2022),
noise lies around the draft instead of around grey: with picture x = draft + r, a noised picture z = a x + s n and a
velocity v = a n - s x,

    y = z - a draft = a r + s n    is what the U-Net sees, and    v = beyond - s draft    what is predicted.

How far pictures lie from their drafts is known, q = mean r^2, and with it what is best said of r by a number times y
(a Wiener filter). That too need not be learned, nor pass through a narrow U-Net: as Karras et al. (2022) have it for
pictures around grey, the U-Net F is shown y at variance 1, and says what remains at variance 1:

    beyond = a s (1 - q) / (a^2 q + s^2) y + sqrt(q / (a^2 q + s^2)) F(y / sqrt(a^2 q + s^2), draft)

Knows: the draft and how it enters. Refuses to know: schedules, training, what the states say.

Letters in shapes: B pictures, K examples, N states of a caption, e their width, C channels, S side of the latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class DraftedDenoiser(nn.Module):
    """A U-Net of diffusers with a draft, used as the U-Net alone is.

    unet: takes 2 C channels, the noised picture and the draft, and gives C. states: N and e. latents: C and S.
    signal, noise: float [T], a and s of each time.
    """

    signal: Tensor
    noise: Tensor
    residue: Tensor

    def __init__(
        self, unet: Any, *, states: tuple[int, int], latents: tuple[int, int], signal: Tensor, noise: Tensor
    ) -> None:
        super().__init__()
        channels, side = latents
        self.unet = unet
        self.shape = (channels, side, side)
        self.draft = nn.Linear(states[0] * states[1], channels * side * side).requires_grad_(False)
        nn.init.zeros_(self.draft.weight)
        nn.init.zeros_(self.draft.bias)
        # At its start the U-Net says nothing, and what is drawn is the draft.
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        # q; while it is 1 the U-Net's part is what it says of y as it is.
        self.register_buffer("residue", torch.ones(()))
        self.register_buffer("signal", signal.float(), persistent=False)
        self.register_buffer("noise", noise.float(), persistent=False)

    @property
    def config(self) -> Any:
        """The U-Net's, but for the channels: pipelines make noise of so many."""
        return type(self.unet.config)({**self.unet.config, "in_channels": self.shape[0]})

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.draft.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.draft.weight.device

    @torch.no_grad()
    def solve(self, states: Tensor, latents: Tensor, ridge: float) -> None:
        """Take for the draft the linear map of least squares from states [K, N, e] to latents [K, C, S, S].

        ridge: beside the squared errors count the squared weights so much, times the states' mean variance: the more,
        the less the draft knows single examples by heart.
        """
        inputs, targets = states.flatten(1), latents.flatten(1)
        centre, mean = inputs.mean(0), targets.mean(0)
        inputs, targets = inputs - centre, targets - mean
        gram = inputs @ inputs.T + ridge * inputs.square().mean() * torch.eye(len(inputs))
        found = inputs.T @ torch.linalg.solve(gram, targets)
        self.draft.weight.copy_(found.T)
        self.draft.bias.copy_(mean - centre @ found)
        beyond = (self.drafts(states) - latents).square().mean()
        self.residue.copy_(beyond.clamp(1e-4, 1).half())  # as it will be stored

    def drafts(self, states: Tensor) -> Tensor:
        """Of states [B, N, e], latents [B, C, S, S]."""
        drawn: Tensor = self.draft(states.flatten(1)).unflatten(1, self.shape)
        return drawn

    def weight(self, time: Tensor) -> Tensor:
        """By what squared errors of the velocity count in training, float [B] of times int64 [B]: the U-Net's own
        errors then count alike at all times."""
        signal, noise = self.signal[time], self.noise[time]
        counts: Tensor = signal.square() + noise.square() / self.residue
        return counts

    def forward(
        self, latents: Tensor, time: Any, encoder_hidden_states: Tensor, return_dict: bool = False, **options: Any
    ) -> tuple[Tensor]:
        """The velocity of latents [B, C, S, S], in a tuple. time: of each, int64 [B], or of all."""
        del return_dict  # what pipelines ask for, a tuple, is all there is
        time = torch.as_tensor(time, device=latents.device)
        drawn = self.drafts(encoder_hidden_states)
        signal, noise = (values[time].reshape(-1, 1, 1, 1).to(latents) for values in (self.signal, self.noise))
        around = latents - signal * drawn
        spread = signal.square() * self.residue + noise.square()
        seen = torch.cat([around / spread.sqrt(), drawn], 1)
        said = self.unet(seen, time, encoder_hidden_states, return_dict=False, **options)[0]
        beyond = signal * noise * (1 - self.residue) / spread * around + (self.residue / spread).sqrt() * said
        return (beyond - noise * drawn,)
