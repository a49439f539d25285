"""One training step, of a model and of a net that is trained against it.

Knows: what a step does, on one device or on several. Refuses to know: what a family computes in it, how often, on what
data, what is logged.

Letters in shapes: B images of this process, C channels, S side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icl_vision.models.interface import WordAutoencoder
from icl_vision.training.config import OptimiserConfig, TrainConfig
from icl_vision.training.data.batches import Batch
from icl_vision.training.memory import Memory
from icl_vision.training.schedule import rate_factor
from icl_vision.training.seeds import STEP, seed_globally

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TOTAL = "total"


class Adversary:
    """A net that is trained against the model, such as a discriminator; none of the model's own modules."""

    net: nn.Module
    """The net; put back wrapped, for several processes."""

    def takes_part(self, step: int) -> bool:
        """Whether it is moved at this step, from 0."""
        return True

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """Its loss by parts, and ``total`` with gradient, for the model's last pass. images: as the model had them."""
        raise NotImplementedError


class TrainingStep(nn.Module):
    """A family's model with its losses, as one module whose forward pass gives plain tensors.

    So everything that takes part in the gradient happens inside what Fabric wraps (autocast, exchange of gradients),
    and the frozen value objects of ``models`` never pass through the wrapper, which would take them apart. Losses that
    hold nets must not be modules of it: what is in here is trained, or moved with the model.

    ``ids`` are the words of the last pass, int64 [B, h_l, w_l], one tensor per layer.
    """

    ids: tuple[Tensor, ...] = ()
    adversary: Adversary | None = None

    def __init__(self, model: WordAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, labels: Tensor | None, step: int, frozen: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        """The losses' parts by name, and ``total`` with gradient.

        Args:
            images: floating [B, C, S, S] in [0, 1]. labels: int64 [B], where the data has any.
            step: from 0; all that is random follows from it and the seed (the global generators are seeded).
            frozen: what ``model.frozen(images)`` gave, where it is known already.
        """
        raise NotImplementedError

    def settle(self, device: torch.device) -> None:
        """Called once, when the model lies on its device: whatever is no part of it follows."""

    def measure(self, images: Tensor) -> None:
        """Called once before a run that starts afresh, with a few held-out images [N, C, S, S] in [0, 1], N perhaps 0:
        for what a model sets by looking at images."""


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
    """The model, and what is trained against it, with their optimisers. ``tally`` collects the parts of the losses,
    ``norm`` is the last gradient's.

    memory: of what frozen nets say, where a run keeps it.
    """

    def __init__(self, fabric: Fabric, config: TrainConfig, step: TrainingStep, memory: Memory | None = None) -> None:
        self.fabric = fabric
        self.config = config
        self.model = model = step.model
        self.memory = memory
        self.tally = Tally.empty()
        self.norm = torch.zeros(())
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types forget this form
        self.optimisers = {"generator": _optimiser(config.optimiser, model)}
        self._step: Any
        self._step, _ = fabric.setup(step, self.optimisers["generator"])
        self._inner = step
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.discriminator: nn.Module | None = None
        """The adversary's net, not wrapped."""
        if step.adversary is not None:
            self.discriminator = step.adversary.net
            self.optimisers["discriminator"] = _optimiser(config.optimiser, self.discriminator)
            step.adversary.net, _ = fabric.setup(self.discriminator, self.optimisers["discriminator"])
        step.settle(fabric.device)

    @property
    def ids(self) -> tuple[Tensor, ...]:
        """The words of the last batch, a tensor a layer."""
        return self._inner.ids

    def gradients(self, number: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """First half of step ``number`` (from 0): gradients of the model, clipped. Gives the images as used and
        the parts of the loss."""
        config = self.config
        seed_globally(config.seed, STEP, number, self.fabric.global_rank)
        images = batch.images.to(self.fabric.device, non_blocking=True).float().div_(255)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = None if batch.labels is None else batch.labels.to(self.fabric.device, non_blocking=True)
        parts = self._step(images, labels, number, self._frozen(batch, images))
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
        """Second half: move the model, then, where it takes part, its adversary."""
        rate = self.config.optimiser.rate * rate_factor(self.config.schedule, number, self.config.steps)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        self._move("generator")
        adversary = self._inner.adversary
        if adversary is not None and adversary.takes_part(number):
            parts = adversary.losses(images)
            self.fabric.backward(parts.pop(TOTAL))
            assert self.discriminator is not None
            nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.config.optimiser.clip or float("inf"))
            self._move("discriminator")
            for name, value in parts.items():
                self.tally.add(f"discriminator/{name}", value)

    def _move(self, name: str) -> None:
        self.optimisers[name].step()
        self.optimisers[name].zero_grad(set_to_none=True)


def _optimiser(config: OptimiserConfig, module: nn.Module) -> torch.optim.AdamW:
    """Adam with decoupled decay on matrices and kernels; vectors (norms, biases) are never decayed."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "weight_decay": 0.0}]
    if config.weight_decay:
        groups = [
            {
                "params": [each for each in trained if each.ndim >= 2],
                "weight_decay": config.weight_decay,
            },
            {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
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
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            owner, number, key = path.split(".")
            if owner == name:
                state.setdefault(int(number), {})[key] = _laid_out_as(parameters[int(number)], value)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """An average in its parameter's memory order (channels last, perhaps): the fused step goes through both as they
    lie."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
