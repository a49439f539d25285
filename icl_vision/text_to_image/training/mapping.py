"""Stages 1 and 2: a mapper from a frozen LLM to a denoiser's states, then adapters in both.

Stage 1 trains the mapper on cached states. Stage 2 freezes it and trains adapters in the LLM's uppermost blocks and in
the mapper, on cached states from below those blocks, by the caption loss and a tenth of the diffusion loss.

How differences of states count (``Metric``): alike, as in the report, or by how much the denoiser's prediction moves
with them. A mapped state is never the very state of the text encoder, and what the denoiser does not look at need not
be right.

Knows: the two losses. Refuses to know: where the states and the parts are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icl_vision.text_to_image.captions import ENGLISH, WORDS, Caption
from icl_vision.text_to_image.denoiser import Blur, Noise
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.parts import put_adapters
from icl_vision.text_to_image.repadapter import Adapters
from icl_vision.text_to_image.states import FrozenLLM, TextStates
from icl_vision.text_to_image.training.config import TextToImageConfig
from icl_vision.text_to_image.training.denoising import CaptionTable, Digits
from icl_vision.text_to_image.training.stage import TOTAL, Losses, Where, train_stage
from icl_vision.training.seeds import ORDER, WEIGHTS, generator, seed_globally

_PROBES = 8
_PROBED = 48


class Metric:
    """The squared length of a difference of states. matrices: [N, e, e], one for each place; None counts all alike."""

    def __init__(self, matrices: Tensor | None = None) -> None:
        self.matrices = matrices

    def __call__(self, mapped: Tensor, target: Tensor) -> Tensor:
        """float [B], of states [B, N, e]; for differences without a direction the mean square."""
        difference = mapped - target
        if self.matrices is None:
            return difference.square().mean((1, 2))
        moved = torch.einsum("bne,nef->bnf", difference, self.matrices)
        return (moved * difference).mean((1, 2))


def sensitivity(unet: Any, table: CaptionTable, digits: Digits, config: TextToImageConfig) -> Metric:
    """The metric of what the denoiser looks at: E[J^T J] of its prediction by each place's state, mixed with the even
    one. Estimated from gradients of random projections of the prediction, at blurred states of training captions.
    """
    length, width = table.states.shape[1:]
    total = torch.zeros(length, width, width)
    blur = Blur(config.blur, table.states[:-1])
    noise = Noise()
    for number, (latents, shown) in enumerate(digits.batches(0, _PROBES, _PROBED, config.seed)):
        random = generator(config.seed, ORDER, 1, number)
        states = blur(table.states[table.draw(shown, random)], random).requires_grad_(True)
        predicted = noise.predict(unet, latents, states, random)
        (gradient,) = torch.autograd.grad((predicted * torch.randn(predicted.shape, generator=random)).sum(), states)
        total += torch.einsum("bne,bnf->nef", gradient, gradient)
    trace = torch.diagonal(total, dim1=1, dim2=2).sum() / (length * width)
    return Metric(config.loss.even * torch.eye(width) + (1 - config.loss.even) * total / trace)


@dataclass(frozen=True)
class Taught:
    """What a mapper is taught. states: an LLM's, of every caption. rows: int64, the row in the table of what each is to
    become. digits: int64, what each caption is of."""

    states: TextStates
    rows: Tensor
    digits: Tensor

    def batches(self, first: int, last: int, batch: int, seed: int, stage: int) -> Iterator[Tensor]:
        """Which captions a step sees, int64 [B]."""
        for step in range(first, last):
            yield torch.randint(0, len(self.states), (batch,), generator=generator(seed, ORDER, 2, stage, step))


def target_text(caption: Caption, config: TextToImageConfig) -> str:
    """The text whose states a caption's are to become."""
    return WORDS[ENGLISH][caption.digit] if config.loss.target == "plain" else caption.english


def taught(states: TextStates, captions: Sequence[Caption], table: CaptionTable, config: TextToImageConfig) -> Taught:
    """The captions' states with what they are to become."""
    rows = torch.tensor([table.rows[target_text(caption, config)] for caption in captions])
    return Taught(states, rows, torch.tensor([caption.digit for caption in captions]))


def train_mapper(
    where: Where, config: TextToImageConfig, lesson: Taught, table: CaptionTable, metric: Metric
) -> Mapper:
    """Stage 1: a fresh mapper, by the caption loss alone."""
    seed_globally(config.seed, WEIGHTS, where.number)
    length, width = table.states.shape[1:]
    mapper = Mapper(config.mapper, inputs=lesson.states.values.shape[-1], length=length, outputs=width)
    mapper.mean.copy_(table.mean)
    mapper.null.copy_(table.null)
    mapper.solve(lesson.states.values, lesson.states.mask, table.states[lesson.rows], config.loss.ridge)

    def loss(index: Tensor, _: torch.Generator) -> Losses:
        states = lesson.states.take(index)
        return {TOTAL: metric(mapper(states.values, states.mask), table.states[lesson.rows[index]]).mean()}

    stage = config.stage1
    trained = train_stage(
        where,
        stage,
        mapper,
        lambda first, last: lesson.batches(first, last, stage.batch, config.seed, where.number),
        loss,
    )
    assert isinstance(trained, Mapper)
    return trained


def train_adapters(
    where: Where,
    config: TextToImageConfig,
    lesson: Taught,
    table: CaptionTable,
    metric: Metric,
    llm: FrozenLLM,
    mapper: Mapper,
    unet: Any,
    digits: Digits,
) -> list[Adapters]:
    """Stage 2: adapters, put into ``llm`` and ``mapper`` in place, hold their averaged weights afterwards.

    lesson: with states from below the adapted blocks.
    """
    mapper.requires_grad_(False)
    unet.requires_grad_(False)
    seed_globally(config.seed, WEIGHTS, where.number)
    groups = put_adapters(llm, mapper, config.adapters)
    upper = llm.upper(len(llm.blocks) - config.adapters.blocks)
    adapted = nn.ModuleDict()
    for adapters in groups:
        adapted.update(dict(adapters.modules().items()))
    noise = Noise()
    pictures = min(config.loss.pictures, config.stage2.batch)

    def loss(batch: tuple[Tensor, tuple[Tensor, Tensor]], random: torch.Generator) -> Losses:
        index, (latents, shown) = batch
        states = lesson.states.take(index)
        mapped = mapper(upper(states.values, states.mask), states.mask)
        parts = {"caption": metric(mapped, table.states[lesson.rows[index]]).mean()}
        parts[TOTAL] = parts["caption"]
        if config.loss.diffusion:
            # Captions come at random; the pictures beside them are of what they say.
            latents = _pictures_of(lesson.digits[index[:pictures]], latents, shown)
            parts["diffusion"] = noise.loss(unet, latents, mapped[:pictures], random).mean()
            parts[TOTAL] = parts[TOTAL] + config.loss.diffusion * parts["diffusion"]
        return parts

    def batches(first: int, last: int) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
        stage = config.stage2
        # Ten times as many pictures as are looked at: one of every digit is among them, as good as always.
        some = digits.batches(first, last, 10 * pictures, config.seed)
        yield from zip(lesson.batches(first, last, stage.batch, config.seed, where.number), some, strict=True)

    average = train_stage(where, config.stage2, adapted, batches, loss)
    adapted.load_state_dict(average.state_dict())
    adapted.eval()
    adapted.requires_grad_(False)
    return groups


def _pictures_of(wanted: Tensor, latents: Tensor, shown: Tensor) -> Tensor:
    """For each wanted digit a picture of it; any picture where none is there."""
    places = []
    used: dict[int, int] = {}
    for digit in wanted.tolist():
        own = (shown == digit).nonzero().flatten()
        number = used.get(digit, 0)
        used[digit] = number + 1
        places.append(int(own[number % len(own)]) if len(own) else 0)
    return latents[places]


@torch.no_grad()
def fit_of(mapped: Tensor, target: Tensor, mean: Tensor) -> dict[str, float]:
    """How well mapped states [B, N, e] are the target's: R2 against the training mean, and the mean cosine of what
    differs from it."""
    error = (mapped - target).square().sum()
    spread = (target - mean).square().sum()
    cosine = nn.functional.cosine_similarity((mapped - mean).flatten(1), (target - mean).flatten(1), dim=1)
    return {"r2": float(1 - error / spread), "cosine": float(cosine.mean())}
