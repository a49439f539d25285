"""One training step of the autoencoder, and of its discriminator.

Knows: what a step computes, on one device or on several. Refuses to know: how often, on what data, what is logged.

Letters in shapes: B images of this process, C channels, S side, D layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icl_vision.models.losses.spae import SpaeLoss
from icl_vision.models.spae import SPAE, SpaeOutput
from icl_vision.training.config import DepthConfig, OptimiserConfig, TrainConfig
from icl_vision.training.data.batches import Batch
from icl_vision.training.memory import Memory
from icl_vision.training.schedule import rate_factor
from icl_vision.training.seeds import DEPTH, STEP, generator, seed_globally

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TOTAL = "total"


def draw_depth(config: DepthConfig, layers: int, seed: int, step: int) -> int:
    """How many layers are decoded at a step, the same in every process; in "extra" mode, how many once more."""
    if config.mode == "full":
        return layers
    weights = torch.tensor(config.weights or (1.0,) * layers, dtype=torch.float32)
    return int(torch.multinomial(weights, 1, generator=generator(seed, DEPTH, step))) + 1


class GeneratorStep(nn.Module):
    """The autoencoder with its loss, as one module whose forward pass gives plain tensors.

    So everything that takes part in the gradient happens inside what Fabric wraps (autocast, exchange of gradients),
    and the frozen value objects of ``models`` never pass through the wrapper, which would take them apart.
    ``output`` is what the last pass gave.
    """

    output: SpaeOutput | None = None

    def __init__(self, model: SPAE, loss: SpaeLoss, depth: DepthConfig) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.depth = depth

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, depth: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        """The loss' parts by name, and ``total`` with gradient. images: floating [B, C, S, S] in [0, 1]. frozen: see
        ``SPAE.forward``."""
        extra = self.depth.mode == "extra"
        self.output = output = self.model(images, None if extra else depth, frozen)
        shallow: tuple[Tensor, ...] = ()
        if extra and self.loss.config.shallow and depth < len(output.quantized.partial):
            shallow = (self.model.reconstruct(output.quantized.partial[depth - 1]),)
        report = self.loss.generator(images, output, step=step, labels=labels, shallow=shallow)
        return {**report.parts, TOTAL: report.total}


@dataclass
class Tally:
    """Sums of numbers since the last look, kept on their device so that the loop does not wait for it."""

    sums: dict[str, Tensor]
    counts: dict[str, int]

    @classmethod
    def empty(cls) -> Tally:
        """Nothing counted."""
        return cls({}, {})

    def add(self, name: str, value: Tensor) -> None:
        """Count one value."""
        before = self.sums.get(name)
        self.sums[name] = value.float() if before is None else before + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, fabric: Fabric) -> dict[str, float]:
        """The means over steps and processes, by name."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        values = torch.stack([self.sums[name] / self.counts[name] for name in names])
        reduced: Any = fabric.all_reduce(values, reduce_op="mean")
        return dict(zip(names, reduced.tolist(), strict=True))

    def clear(self) -> None:
        """Forget everything counted."""
        self.sums.clear()
        self.counts.clear()


class Stepper:
    """Both nets with their optimisers. ``tally`` collects the parts of the losses, ``norm`` is the last gradient's.

    memory: of what frozen nets say, where a run keeps it.
    """

    def __init__(
        self, fabric: Fabric, config: TrainConfig, model: SPAE, loss: SpaeLoss, memory: Memory | None = None
    ) -> None:
        self.fabric = fabric
        self.config = config
        self.model = model
        self.loss = loss
        self.memory = memory
        self.tally = Tally.empty()
        self.norm = torch.zeros(())
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = GeneratorStep(model, loss, config.depth)
        self.optimisers = {"generator": _optimiser(config.optimiser, model)}
        self._step: Any
        self._step, _ = fabric.setup(step, self.optimisers["generator"])
        self._inner = step
        loss.codebook = model.quantizer.codebook  # a buffer is another tensor once the model has moved
        self._parameters = [one for one in model.parameters() if one.requires_grad]
        self.discriminator: nn.Module | None = loss.discriminator
        if loss.discriminator is not None:
            self.optimisers["discriminator"] = _optimiser(config.optimiser, loss.discriminator)
            loss.discriminator, _ = fabric.setup(loss.discriminator, self.optimisers["discriminator"])
        for part in (loss.guide, loss.perceptual):
            if isinstance(part, nn.Module):
                part.to(fabric.device)

    @property
    def output(self) -> SpaeOutput:
        """What the model made of the last batch."""
        assert self._inner.output is not None
        return self._inner.output

    def gradients(self, number: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """First half of step ``number`` (from 0): gradients of the autoencoder, clipped. Gives the images as used and
        the parts of the loss."""
        config = self.config
        seed_globally(config.seed, STEP, number, self.fabric.global_rank)
        depth = draw_depth(config.depth, len(config.model.grids), config.seed, number)
        images = batch.images.to(self.fabric.device, non_blocking=True).float().div_(255)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = None if batch.labels is None else batch.labels.to(self.fabric.device, non_blocking=True)
        parts = self._step(images, labels, number, depth, self._frozen(batch, images))
        self.fabric.backward(parts[TOTAL])
        # A norm without a limit, too, tells NaN from numbers.
        self.norm = nn.utils.clip_grad_norm_(self._parameters, config.optimiser.clip or float("inf"))
        parts = {name: value.detach() for name, value in parts.items()}
        for name, value in parts.items():
            self.tally.add(f"loss/{name}", value)
        return images, parts

    def _frozen(self, batch: Batch, images: Tensor) -> tuple[Tensor, ...] | None:
        if self.memory is None or batch.index is None:
            return None
        with self.fabric.autocast():
            return self.memory.recall(batch.index, images, self.model.frozen)

    def update(self, number: int, images: Tensor) -> None:
        """Second half: move the autoencoder, then, where the GAN takes part, the discriminator."""
        rate = self.config.optimiser.rate * rate_factor(self.config.schedule, number, self.config.steps)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        self._move("generator")
        if self.loss.adversarial(number):
            report = self.loss.discriminator_loss(images, self.output)
            self.fabric.backward(report.total)
            assert self.discriminator is not None
            nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.config.optimiser.clip or float("inf"))
            self._move("discriminator")
            for name, value in report.parts.items():
                self.tally.add(f"discriminator/{name}", value)

    def _move(self, name: str) -> None:
        self.optimisers[name].step()
        self.optimisers[name].zero_grad(set_to_none=True)


def _optimiser(config: OptimiserConfig, module: nn.Module) -> torch.optim.AdamW:
    """Adam with decoupled decay on matrices and kernels; vectors (norms, biases) are never decayed."""
    trained = [one for one in module.parameters() if one.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "weight_decay": 0.0}]
    if config.weight_decay:
        groups = [
            {"params": [one for one in trained if one.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
        ]
    # fused: one kernel for all tensors, on the CPU too, where the default is a Python loop.
    return torch.optim.AdamW(groups, lr=config.rate, betas=config.betas, eps=config.eps, fused=True)


def optimiser_tensors(optimisers: dict[str, torch.optim.AdamW]) -> dict[str, Tensor]:
    """The optimisers' tensors, named ``generator.12.exp_avg``: what a checkpoint keeps."""
    return {
        f"{name}.{number}.{key}": value
        for name, optimiser in optimisers.items()
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimisers(optimisers: dict[str, torch.optim.AdamW], tensors: dict[str, Tensor]) -> None:
    """Put tensors back that ``optimiser_tensors`` gave. Rates and the like come from the configuration."""
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            owner, number, key = path.split(".")
            if owner == name:
                state.setdefault(int(number), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
