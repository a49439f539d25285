"""Stages 1 and 2: a mapper from a frozen LLM to a denoiser's states, then adapters in both.

Stage 1 trains the mapper on cached states. Stage 2 freezes it and trains adapters in the LLM's uppermost blocks and in
the mapper, on cached states from below those blocks, by the caption loss (in units of what the mean state would have)
and a tenth of the diffusion loss; where no adapters are wanted, it goes on with the mapper by those two losses. Both
stages look at held-out captions again and again and keep what did best there (``HeldOut``).

How differences of states count (``Metric``): alike, as in the report, or by how much the denoiser's prediction moves
with them. A mapped state is never the very state of the text encoder, and what the denoiser does not look at need not
be right.

Knows: the two losses. Refuses to know: where the states and the parts are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icl_vision.text_to_image.captions import ENGLISH, WORDS, Caption
from icl_vision.text_to_image.denoisers.unet import Blur, Noise
from icl_vision.text_to_image.mapper import Mapper
from icl_vision.text_to_image.parts import put_adapters
from icl_vision.text_to_image.repadapter import Adapters
from icl_vision.text_to_image.states import FrozenLLM, TextStates
from icl_vision.text_to_image.training.config import TextToImageConfig
from icl_vision.text_to_image.training.denoising import CaptionTable, Digits
from icl_vision.text_to_image.training.stage import TOTAL, WRONG, Losses, Trained, Where, train_stage
from icl_vision.training.seeds import ORDER, WEIGHTS, generator, seed_globally

_PROBES = 8
_PROBED = 48
_CHECKED = 64


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


@dataclass(frozen=True)
class HeldOut:
    """Captions that no stage trains on. states: an LLM's, of every one. wanted: [C, N, e], what they are to become.
    digits: int64 [C], what each is of. english: bool [C]. plain: [10, N, e], the states of the ten
    plainest captions."""

    states: TextStates
    wanted: Tensor
    digits: Tensor
    english: Tensor
    plain: Tensor

    def mapped(self, mapper: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """[C, N, e], in batches."""
        whole = torch.arange(len(self.states))
        parts = [self.states.take(whole[start : start + _CHECKED]) for start in range(0, len(whole), _CHECKED)]
        return torch.cat([mapper(part.values, part.mask) for part in parts])

    def numbers(self, mapped: Tensor, metric: Metric) -> dict[str, float]:
        """The caption loss, and of how many the nearest of the ten plain states is the right one.

        ``wrong`` is the share of others, English captions and other languages counting alike. It says more of what
        will be drawn than the loss does, which is ruled by the captions that the LLM does not understand.
        """
        nearest = torch.stack([metric(mapped, one.expand_as(mapped)) for one in self.plain], 1).argmin(1)
        right = (nearest == self.digits).float()
        english, other = float(right[self.english].mean()), float(right[~self.english].mean())
        loss = float(metric(mapped, self.wanted).mean())
        return {TOTAL: loss, WRONG: 1 - (english + other) / 2, "right_english": english, "right_other": other}


def target_text(caption: Caption, config: TextToImageConfig) -> str:
    """The text whose states a caption's are to become."""
    return WORDS[ENGLISH][caption.digit] if config.loss.target == "plain" else caption.english


def taught(states: TextStates, captions: Sequence[Caption], table: CaptionTable, config: TextToImageConfig) -> Taught:
    """The captions' states with what they are to become."""
    rows = torch.tensor([table.rows[target_text(caption, config)] for caption in captions])
    return Taught(states, rows, torch.tensor([caption.digit for caption in captions]))


def train_mapper(
    where: Where, config: TextToImageConfig, lesson: Taught, table: CaptionTable, metric: Metric, held: HeldOut
) -> tuple[Mapper, Trained]:
    """Stage 1: a fresh mapper, by the caption loss alone. held: with the LLM's last states."""
    seed_globally(config.seed, WEIGHTS, where.number)
    length, width = table.states.shape[1:]
    mapper = Mapper(config.mapper, inputs=lesson.states.values.shape[-1], length=length, outputs=width)
    mapper.mean.copy_(table.mean)
    mapper.null.copy_(table.null)
    mapper.solve(lesson.states.values, lesson.states.mask, table.states[lesson.rows], config.loss.ridge)

    def loss(index: Tensor, random: torch.Generator) -> Losses:
        states = lesson.states.take(index)
        values = states.values
        if config.loss.noise:
            # In units of a token's own spread: an LLM's states may be a thousand times as large in one as in another.
            spread = values.std(-1, keepdim=True)
            values = values + config.loss.noise * spread * torch.randn(values.shape, generator=random)
        return {TOTAL: metric(mapper(values, states.mask), table.states[lesson.rows[index]]).mean()}

    stage = config.stage1
    trained = train_stage(
        where,
        stage,
        mapper,
        lambda first, last: lesson.batches(first, last, stage.batch, config.seed, where.number),
        loss,
        lambda: held.numbers(held.mapped(mapper), metric),
    )
    assert isinstance(trained.module, Mapper)
    return trained.module, trained


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
    held: HeldOut,
) -> tuple[list[Adapters], Trained]:
    """Stage 2: adapters, put into ``llm`` and ``mapper`` in place, hold their best weights afterwards. Where none are
    wanted, the mapper does.

    lesson, held: with states from below the adapted blocks.
    """
    mapper.requires_grad_(False)
    unet.requires_grad_(False)
    seed_globally(config.seed, WEIGHTS, where.number)
    groups = put_adapters(llm, mapper, config.adapters)
    upper = llm.upper(len(llm.blocks) - config.adapters.blocks)
    adapted: nn.Module = mapper.requires_grad_(not groups)
    if groups:
        modules = [adapters.modules() for adapters in groups]
        adapted = nn.ModuleDict({name: module for one in modules for name, module in one.items()})

    def mapped_from(values: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = mapper(upper(values, mask), mask)
        return states

    noise = Noise()
    pictures = min(config.loss.pictures, config.stage2.batch)
    # A text encoder's states may be small numbers, and most of them alike in all captions. Without this the noise of
    # the diffusion loss is all that the adapters follow.
    rows: Any = lesson.rows  # torch gives unique no types
    wanted = table.states[rows.unique()]
    spread = float(metric(table.mean.expand_as(wanted), wanted).mean())

    def loss(batch: tuple[Tensor, tuple[Tensor, Tensor]], random: torch.Generator) -> Losses:
        index, (latents, shown) = batch
        states = lesson.states.take(index)
        mapped = mapped_from(states.values, states.mask)
        parts = {"caption": metric(mapped, table.states[lesson.rows[index]]).mean() / spread}
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

    trained = train_stage(
        where, config.stage2, adapted, batches, loss, lambda: held.numbers(held.mapped(mapped_from), metric)
    )
    adapted.load_state_dict(trained.module.state_dict())
    adapted.eval()
    adapted.requires_grad_(False)
    return groups, trained


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
