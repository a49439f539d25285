"""The steps of a training run, and what happens between them: numbers, pictures, checkpoints.

Step n is a function of the weights, the optimisers' averages, the seed and n (see ``seeds``), so a run that is stopped
anywhere and resumed ends in the very weights of one that was not (on a CPU bit by bit; GPUs add in any order).

Knows: the order of things. Refuses to know: how each is done, and how many processes there are (``launch``).
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from icl_vision.errors import RunMismatchError, TrainingError
from icl_vision.files.runs import Run, versions
from icl_vision.models.interface import WordAutoencoder
from icl_vision.models.quantizers.usage import CodebookUsage
from icl_vision.training.building import build_model, codebook_entry, load_codebook, restore
from icl_vision.training.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from icl_vision.training.config import TrainConfig
from icl_vision.training.data.batches import Data, Share
from icl_vision.training.ema import Ema
from icl_vision.training.families import family_named
from icl_vision.training.memory import Memory
from icl_vision.training.step import TOTAL, Stepper, TrainingStep, optimiser_tensors, restore_optimisers
from icl_vision.training.watching.grids import save_grid
from icl_vision.training.watching.logs import RunLog
from icl_vision.training.watching.validation import grid_rows, validate
from icl_vision.training.watching.watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

MEMORY_FILE = "memory.safetensors"

_MEASURED = 8
"""Held-out images that a step may measure something at: an image has many positions, which are what counts."""

_COUNTED = 10
"""Batches whose words are counted in a log interval: enough for a perplexity, and the device is not waited for."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. checkpoint: folder of the last one. metrics: of the last validation. seconds: of this process,
    without what earlier ones took before a resume. skipped: files that could not be read, with the reason."""

    folder: Path
    checkpoint: Path
    steps: int
    seconds: float
    images_per_second: float
    metrics: dict[str, float]
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.checkpoint),
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "metrics": self.metrics,
            "skipped": self.skipped,
        }


class AgreedError(TrainingError):
    """An error that every process of the run has seen."""


class Loop:
    """The steps of a run, and what happens between them."""

    def __init__(self, fabric: Fabric, config: TrainConfig, folder: Path, data: Data) -> None:
        self.fabric = fabric
        self.config = config
        self.folder = folder
        self.data = data
        self.run: Run | None = None
        self.codebook = load_codebook(config)
        self.model = build_model(config, self.codebook)
        step: TrainingStep = family_named(config.family).build_step(config, self.model, self.codebook, data.classes)
        stored = None if data.pixels is None else len(data.pixels.values)
        self.memory = Memory(stored) if config.remember and stored else None
        if config.remember and self.memory is None:
            logger.warning("remember does nothing: the images are more than data.cache_mb holds")
        self.stepper = Stepper(fabric, config, step, self.memory)
        if config.init is None:
            step.measure(data.held_out.images[:_MEASURED].to(fabric.device).float() / 255)
        self.ema = Ema(self.model, config.ema) if config.ema.decay else None
        self.watch = Watch(config.stop)
        self.usage = [CodebookUsage(self.model.words) for _ in self.model.layout.grids]
        self.log: RunLog | None = None
        self.at = 0
        self.metrics: dict[str, float] = {}
        self.began = time.perf_counter()

    def start(self, run: Run | None, checkpoint: Checkpoint | None, progress: bool | None) -> None:
        """Take up where a checkpoint ends, or at step 0, and open the log (where there is a run: in one process)."""
        self.run = run
        if checkpoint is not None:
            self._restore(checkpoint)
        if self.run is not None:
            self.log = RunLog(
                self.run,
                total=self.config.steps,
                start=self.at,
                bar=sys.stderr.isatty() if progress is None else progress,
                tensorboard=self.config.log.tensorboard,
            )

    def go(self) -> TrainResult:
        """All steps that are left."""
        config, begin = self.config, self.at
        if self.memory is not None and self.memory.load(self.folder / MEMORY_FILE, self._images):
            logger.info("what frozen nets say of the images is known from %s", MEMORY_FILE)
        share = Share(config.batch, config.seed, self.fabric.global_rank, self.fabric.world_size)
        self.began = time.perf_counter()
        self.model.train()
        for batch in self.data.batches(begin, config.steps, share):
            images, parts = self.stepper.gradients(self.at, batch)
            if self.fabric.device.type == "cpu":  # elsewhere asking would make the loop wait for the device
                self._check(parts)
            self.stepper.update(self.at, images)
            if self.ema is not None:
                self.ema.update(self.at)
            self.at += 1
            self._between(parts)
        if begin == config.steps:  # resumed when nothing was left to do
            self._validate()
        seconds = time.perf_counter() - self.began
        return self._finish(seconds, (config.steps - begin) * config.batch / max(seconds, 1e-9))

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()

    # -- between steps

    def _between(self, parts: dict[str, torch.Tensor]) -> None:
        every = self.config.log
        if self.at % max(1, every.every // _COUNTED) == 0 or self._due(every.every):
            for usage, ids in zip(self.usage, self.stepper.ids, strict=True):
                usage.update(ids)
        # The check comes before anything is kept, so a checkpoint never holds NaN.
        due = [self._due(span) for span in (every.every, every.validate, every.grid, every.checkpoint)]
        if any(due):
            self._check(parts)
        values = self._interval() if due[0] else {}
        if due[1]:
            self._validate()
            values |= self.metrics
        if self.log is not None:
            self.log.advance()
            if values:
                self.log.numbers(self.at, values)
            if due[2]:
                self._grid(self.log)
            if due[3]:
                self._save()
        if due[1] or due[2] or due[3]:
            self.fabric.barrier()

    def _due(self, every: int) -> bool:
        return self.at % every == 0 or self.at == self.config.steps

    def _check(self, parts: dict[str, torch.Tensor]) -> None:
        norm = float(self.stepper.norm)
        finite = (torch.isfinite(self.stepper.norm) & torch.isfinite(parts[TOTAL])).float()
        # The gradient is the same in every process, a loss is not; they must stop together.
        if self.fabric.world_size > 1:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        if not finite.item():
            losses = {name: float(value) for name, value in parts.items()}
            self._stop(lambda: self.watch.refuse_numbers(self.at, losses, norm))

    def _interval(self) -> dict[str, float]:
        """The numbers of a log interval, the same in every process."""
        values = self.stepper.tally.means(self.fabric)
        self.stepper.tally.clear()
        perplexities = self._perplexities(values)
        values["rate"] = self.stepper.optimisers["generator"].param_groups[0]["lr"]
        values["gradient_norm"] = float(self.stepper.norm)
        values["seconds"] = time.perf_counter() - self.began
        self._stop(lambda: self.watch.check_usage(self.at, perplexities))
        return values

    def _perplexities(self, values: dict[str, float]) -> list[float]:
        perplexities = []
        for layer, usage in enumerate(self.usage, start=1):
            if self.fabric.world_size > 1:
                counts = usage.counts.to(self.fabric.device)
                torch.distributed.all_reduce(counts)
                usage.counts = counts.cpu()
            values[f"usage/{layer}"] = usage.usage
            values[f"perplexity/{layer}"] = usage.perplexity
            perplexities.append(usage.perplexity)
            usage.reset()
        return perplexities

    def _stop(self, check: Any) -> None:
        """Run a check that every process runs alike."""
        try:
            check()
        except TrainingError as error:
            if self.log is not None:
                last = latest_checkpoint(self.folder)
                kept = f"the last checkpoint is {last.folder.name}" if last else "no checkpoint was written yet"
                error = TrainingError(f"{error} ({kept} in {str(self.folder)!r})")
            raise (error if self.fabric.world_size == 1 else AgreedError(str(error))) from None

    @property
    def best(self) -> WordAutoencoder:
        """The averaged model where there is one."""
        if self.ema is None:
            return self.model
        average: Any = self.ema.average
        best: WordAutoencoder = average
        return best

    def _validate(self) -> None:
        if self.fabric.global_rank == 0:
            self.metrics = validate(self.best, self.data.held_out.images, batch=self.config.batch)

    def _grid(self, log: RunLog) -> None:
        images = self.data.held_out.images[: self.config.log.images]
        if not len(images):
            return
        rows, labels = grid_rows(self.best, images)
        log.picture(self.at, save_grid(self.folder / "grids" / f"step-{self.at:08d}.png", rows, labels))

    # -- keeping

    def _save(self) -> Path:
        tensors: dict[str, Any] = {"model": self.model.state_dict(), "optimiser": {}}
        if self.ema is not None:
            tensors["ema"] = self.ema.average.state_dict()
        if self.stepper.discriminator is not None:
            tensors["discriminator"] = self.stepper.discriminator.state_dict()
        tensors["optimiser"] = optimiser_tensors(self.stepper.optimisers)
        state = {
            "config": self.config.to_dict(),
            "config_hash": self.config.hash,
            "images": self.data.fingerprint,
            "codebook": codebook_entry(self.codebook),
            "low_intervals": self.watch.low,
            "versions": {**versions(), "torch": torch.__version__},
            "metrics": self.metrics,
        }
        if self.memory is not None:
            self.memory.save(self.folder / MEMORY_FILE, self._images)
        return save_checkpoint(self.folder, self.at, tensors, state, keep=self.config.log.keep)

    @property
    def _images(self) -> str:
        """What a memory belongs to: the images, in the order of this seed's split, at this size."""
        config = self.config
        return f"{self.data.fingerprint} {config.seed} {config.data.validation} {config.data.limit} {config.model.side}"

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.state.get("config_hash") != self.config.hash:
            raise RunMismatchError(
                f"the checkpoint {str(checkpoint.folder)!r} was trained with another configuration; resume with the "
                "same one, or choose another folder"
            )
        restore(self.model, checkpoint, "model")
        if self.ema is not None:
            restore(self.ema.average, checkpoint, "ema")
        if self.stepper.discriminator is not None:
            restore(self.stepper.discriminator, checkpoint, "discriminator")
        restore_optimisers(self.stepper.optimisers, checkpoint.tensors("optimiser"))
        self.at = checkpoint.step
        self.watch.low = int(checkpoint.state.get("low_intervals", 0))
        logger.info("resumed from %s", checkpoint.folder)

    def _finish(self, seconds: float, speed: float) -> TrainResult:
        last = latest_checkpoint(self.folder)
        assert last is not None  # the last step always writes one
        result = TrainResult(
            self.folder, last.folder, self.config.steps, seconds, speed, self.metrics, dict(self.data.skipped)
        )
        if self.run is not None:
            document = replace(result, folder=Path("."), checkpoint=last.folder.relative_to(self.folder)).to_dict()
            document = {"format_version": 1, "kind": "training", "parameters": self._parameters(), **document}
            self.run.finish(document)
        return result

    def _parameters(self) -> dict[str, int]:
        counted = {"model": self.model.parameters()}
        if self.stepper.discriminator is not None:
            counted["discriminator"] = self.stepper.discriminator.parameters()
        return {name: sum(each.numel() for each in parameters) for name, parameters in counted.items()}
