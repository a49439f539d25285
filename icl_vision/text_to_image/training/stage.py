"""One stage of training: steps, an average, checkpoints; stopped anywhere, it goes on as if it had not been.

Knows: optimiser, schedule, journal, checkpoints. Refuses to know: what a loss is made of.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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


def train_stage(
    where: Where,
    config: StageConfig,
    trained: nn.Module,
    batches: Callable[[int, int], Iterator[B]],
    loss: Callable[[B, torch.Generator], Losses],
) -> nn.Module:
    """Train what in ``trained`` asks for gradients, and give the averaged copy (``trained`` itself without averaging).

    batches: those of the steps from the first argument to before the second. loss: the parts of a batch's loss by name,
    ``total`` among them; it draws from the generator it is given, or from the global ones, which are seeded.

    Raises TrainingError where a loss is no number; the last checkpoint is from before.
    """
    root = where.folder / where.name
    digest = config_hash(where.name, where.config)
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    ema = Ema(trained, EmaConfig(config.ema)) if config.ema else None
    at = 0
    checkpoint = latest_checkpoint(root)
    if checkpoint is not None and checkpoint.state.get("config_hash") == digest:
        restore(trained, checkpoint, "model")
        restore_optimisers({"stage": optimiser}, checkpoint.tensors("optimiser"))
        if ema is not None:
            restore(ema.average, checkpoint, "ema")
        at = checkpoint.step
        logger.info("%s goes on from step %d", where.name, at)

    def save() -> None:
        tensors: dict[str, Any] = {
            "model": trained.state_dict(),
            "optimiser": optimiser_tensors({"stage": optimiser}),
        }
        if ema is not None:
            tensors["ema"] = ema.average.state_dict()
        save_checkpoint(root, at, tensors, {"config_hash": digest}, keep=1)

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
            if at % config.checkpoint == 0 or at == config.steps:
                save()
    average: nn.Module = trained if ema is None else ema.average
    return average.eval()
