"""One stage of training: steps, an average, checkpoints; stopped anywhere, it goes on as if it had not been.

A stage may be checked on what it does not train on: then the averaged weights that did best there are what it ends
with, those of its beginning among them, so that no stage makes worse what it was given.

Knows: optimiser, schedule, journal, checkpoints. Refuses to know: what a loss is made of.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from icl_vision.asking.jobs import progress_bar
from icl_vision.errors import TrainingError
from icl_vision.files.runs import Run, config_hash
from icl_vision.text_to_image.training.config import StageConfig
from icl_vision.training.building import restore
from icl_vision.training.checkpoint import latest_checkpoint, save_checkpoint
from icl_vision.training.ema import Ema, EmaConfig
from icl_vision.training.schedule import rate_factor
from icl_vision.training.seeds import STEP, generator, seed_globally
from icl_vision.training.step import optimiser_tensors, restore_optimisers

logger = logging.getLogger(__name__)

TOTAL: Final = "total"
WRONG: Final = "wrong"
EVERY: Final = 25
"""Steps between two lines of the journal."""

B = TypeVar("B")
Losses = Mapping[str, Tensor]


@dataclass(frozen=True)
class Where:
    """Where a stage is kept. folder: the run's. name: the stage's. number: of its random stream. run: the open run, for
    its journal. seed: of everything random. config: plain values that decide what is learned, all stages before too."""

    folder: Path
    name: str
    number: int
    run: Run
    seed: int
    config: Mapping[str, Any]
    progress: bool | None = None


@dataclass
class _Best:
    """The averaged weights that did best so far. step: how many steps they had. numbers: on what is held out. first:
    those of step 0."""

    step: int
    numbers: dict[str, float]
    first: dict[str, float]
    tensors: dict[str, Tensor]

    def beaten_by(self, numbers: Mapping[str, float]) -> bool:
        """Fewer wrong, or as many and a lower loss."""
        return (numbers[WRONG], numbers[TOTAL]) < (self.numbers[WRONG], self.numbers[TOTAL])


@dataclass(frozen=True)
class Trained:
    """How a stage ended. module: the averaged copy, as it did best where the stage was checked. step: how many steps
    those weights had. held_out, before: numbers on held-out captions, theirs and those of the beginning; empty where
    nothing was checked."""

    module: nn.Module
    step: int
    held_out: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for a card."""
        return {"step": self.step, "held_out": dict(self.held_out), "before": dict(self.before)}


def train_stage(
    where: Where,
    config: StageConfig,
    trained: nn.Module,
    batches: Callable[[int, int], Iterator[B]],
    loss: Callable[[B, torch.Generator], Losses],
    check: Callable[[], Mapping[str, float]] | None = None,
) -> Trained:
    """Train what in ``trained`` asks for gradients, and give the averaged copy (``trained`` itself without averaging).

    batches: those of the steps from the first argument to before the second. loss: the parts of a batch's loss by name,
    ``total`` among them; it draws from the generator it is given, or from the global ones, which are seeded.
    check: numbers on what is held out, ``total`` (the loss) and ``wrong`` (a share) among them, of ``trained`` as it is
    when it is called: before the first step and every ``config.check`` steps it holds the averaged weights. Those with
    the fewest wrong are given (of several, those of the lowest loss), or the last ones as ``config.keep`` says.

    Raises TrainingError where a loss is no number; the last checkpoint is from before.
    """
    root = where.folder / where.name
    digest = config_hash(where.name, where.config)
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    ema = Ema(trained, EmaConfig(config.ema)) if config.ema else None
    at = 0
    best: _Best | None = None

    def checked() -> None:
        nonlocal best
        if check is None:
            return
        # Into the very modules that are trained: what is checked may hold more than they do.
        moving = {name: value.clone() for name, value in trained.state_dict().items()}
        averaged = moving if ema is None else ema.average.state_dict()
        trained.load_state_dict(averaged)
        trained.eval()
        with torch.no_grad():
            found = dict(check())
        if best is None or config.keep == "last" or best.beaten_by(found):
            tensors = {name: value.clone() for name, value in averaged.items()}
            best = _Best(at, found, found if best is None else best.first, tensors)
        trained.load_state_dict(moving)
        trained.train()
        where.run.record(f"{where.name}-held-out-{at:06d}", {"step": at, **found})

    checkpoint = latest_checkpoint(root)
    if checkpoint is not None and checkpoint.state.get("config_hash") == digest:
        restore(trained, checkpoint, "model")
        restore_optimisers({"stage": optimiser}, checkpoint.tensors("optimiser"))
        if ema is not None:
            restore(ema.average, checkpoint, "ema")
        if check is not None:
            best = _Best(tensors=checkpoint.tensors("best"), **checkpoint.state["best"])
        at = checkpoint.step
        logger.info("%s goes on from step %d", where.name, at)

    def save() -> None:
        tensors: dict[str, Any] = {
            "model": trained.state_dict(),
            "optimiser": optimiser_tensors({"stage": optimiser}),
        }
        if ema is not None:
            tensors["ema"] = ema.average.state_dict()
        state: dict[str, Any] = {"config_hash": digest}
        if best is not None:
            tensors["best"] = best.tensors
            state["best"] = {"step": best.step, "numbers": best.numbers, "first": best.first}
        save_checkpoint(root, at, tensors, state, keep=1)

    if at == 0:
        checked()
    began, kept = time.perf_counter(), at
    trained.train()
    with progress_bar(config.steps - at, where.name, where.progress) as advance:
        for batch in batches(at, config.steps):
            seed_globally(where.seed, STEP, where.number, at)
            for group in optimiser.param_groups:
                group["lr"] = config.rate * rate_factor(config.schedule, at, config.steps)
            optimiser.zero_grad()
            parts = loss(batch, generator(where.seed, STEP, where.number, at, 1))
            parts[TOTAL].backward()  # type: ignore[no-untyped-call]  # torch's own lacks one
            norm = nn.utils.clip_grad_norm_(weights, config.clip)
            if not (math.isfinite(float(parts[TOTAL].detach())) and math.isfinite(float(norm))):
                raise TrainingError(
                    f"{where.name} has no finite loss at step {at}: {float(parts[TOTAL].detach())}, gradient "
                    f"{float(norm)}; lower {where.name}.rate ({config.rate}); the last checkpoint is in {str(root)!r}"
                )
            optimiser.step()
            if ema is not None:
                ema.update(at)
            at += 1
            advance(1)
            if at % EVERY == 0 or at == config.steps:
                seconds = (time.perf_counter() - began) / (at - kept)
                values = {name: float(value.detach()) for name, value in parts.items()}
                where.run.record(f"{where.name}-{at:06d}", {"step": at, "seconds_a_step": seconds, **values})
            if at % config.check == 0 or at == config.steps:
                checked()
            if at % config.checkpoint == 0 or at == config.steps:
                save()
    average: nn.Module = trained if ema is None else ema.average
    if best is None:
        return Trained(average.eval(), at)
    average.load_state_dict(best.tensors)
    logger.info("%s: the weights of step %d are kept, %s", where.name, best.step, best.numbers)
    return Trained(average.eval(), best.step, best.numbers, best.first)


def size_of(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(weight.numel() for weight in module.parameters())
