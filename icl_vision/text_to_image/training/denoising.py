"""Stage 0: a denoiser of digits that reads a text encoder's states of their captions.

Knows: batches of digits, captions that fit them, dropped and blurred states. Refuses to know: LLMs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.text_to_image.captions import Caption
from icl_vision.text_to_image.denoisers.unet import SIDE, Blur, Noise, build_denoiser, to_latents
from icl_vision.text_to_image.text_encoder import TextEncoder
from icl_vision.text_to_image.training.config import TextToImageConfig
from icl_vision.text_to_image.training.stage import TOTAL, Losses, Where, train_stage
from icl_vision.training.data.batches import Batch, Data, Share, open_data
from icl_vision.training.seeds import WEIGHTS, seed_globally

LEAST = 1000
"""Digits that a denoiser needs at least."""


@dataclass(frozen=True)
class Digits:
    """Pictures of digits by what they show. data: the pictures. digit: int64, the digit of each class of the data."""

    data: Data
    digit: Tensor

    def batches(self, first: int, last: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents [B, 4, 16, 16] and digits int64 [B] of the steps ``first`` to ``last - 1``."""
        part: Batch
        for part in self.data.batches(first, last, Share(batch, seed)):
            assert part.labels is not None  # open_digits has seen to it
            yield to_latents(part.images), self.digit[part.labels]


def open_digits(config: TextToImageConfig, progress: bool | None) -> Digits:
    """The digits that ``data.path`` leads to. Raises UsageError where they are no labelled digits."""
    data = open_data(config.data, size=SIDE, channels=1, seed=config.seed, progress=progress)
    names = list(data.classes)
    if not names or any(name not in set("0123456789") for name in names):
        raise UsageError(
            f"the pictures of {config.data.path!r} must be digits in classes named 0 to 9 (an npz with x_train and "
            f"y_train, or ten folders); the classes found are {', '.join(names[:12]) or 'none'}"
        )
    return Digits(data, torch.tensor([int(name) for name in names]))


class CaptionTable:
    """The text encoder's states of captions, each computed once.

    states: [C + 1, N, e], the empty caption last. rows: the place of a text in it.
    shown: those that a denoiser is shown, of which there is one at least of every digit. further: texts that are wanted
    beside them.
    """

    def __init__(self, encoder: TextEncoder, shown: Sequence[Caption], further: Sequence[str] = ()) -> None:
        texts = list(dict.fromkeys([*(caption.text for caption in shown), *further]))
        self.rows = {text: row for row, text in enumerate(texts)}
        self.states = encoder.encode([*texts, ""])
        self._by_digit = [
            torch.tensor(sorted({self.rows[c.text] for c in shown if c.digit == digit}), dtype=torch.int64)
            for digit in range(10)
        ]

    @property
    def null(self) -> Tensor:
        """The states of the empty caption, [N, e]."""
        return self.states[-1]

    @property
    def mean(self) -> Tensor:
        """The mean state over captions, [N, e]."""
        return self.states[:-1].mean(0)

    def draw(self, digits: Tensor, generator: torch.Generator) -> Tensor:
        """The row of a caption for each digit, int64 [B], evenly among those that are shown."""
        chosen = torch.rand(len(digits), generator=generator)
        rows = [self._by_digit[int(digit)] for digit in digits]
        return torch.stack([own[int(share * len(own))] for share, own in zip(chosen, rows, strict=True)])


def train_denoiser(
    where: Where,
    config: TextToImageConfig,
    digits: Digits,
    table: CaptionTable,
    encoder: TextEncoder,
    begun: Any = None,
) -> Any:
    """Train a U-Net, a fresh one or ``begun``, and give its averaged weights.

    Raises UsageError where there are too few digits, or the states are not of the shape the configuration says.
    """
    if len(digits.data.train) < LEAST:
        raise UsageError(
            f"a denoiser is trained on at least {LEAST} digits; there are {len(digits.data.train)} (--data MNIST.npz)"
        )
    own = (config.denoiser.length, config.denoiser.width)
    if own != (encoder.length, encoder.width):
        raise UsageError(
            f"denoiser.length and denoiser.width must be those of {encoder.name}, {encoder.length} and "
            f"{encoder.width}; got {own}"
        )
    seed_globally(config.seed, WEIGHTS, where.number)
    unet = build_denoiser(config.denoiser) if begun is None else begun.requires_grad_(True)
    noise, blur = Noise(), Blur(config.blur, table.states[:-1])

    def loss(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Losses:
        latents, shown = batch
        states = blur(table.states[table.draw(shown, generator)], generator)
        dropped = torch.rand((len(latents), 1, 1), generator=generator) < config.drop
        states = torch.where(dropped, table.null, states)
        return {TOTAL: noise.loss(unet, latents, states, generator).mean()}

    stage = config.stage0
    return train_stage(
        where, stage, unet, lambda first, last: digits.batches(first, last, stage.batch, config.seed), loss
    ).module
