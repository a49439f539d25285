"""Adapters that vanish into the layers they precede (RepAdapter: Luo et al. 2023, arXiv 2302.08106).

Before a linear layer W its input becomes ``x + s (B drop(A x + a) + b)``: A leads to a few dimensions, B back in
groups, with no non-linearity between, so that both together are W (I + s B A) and a bias. B, a and b start at zero and
A by Xavier: an adapted model is at first the very model it was.

    adapters = Adapters(llm.blocks[-6:], AdapterConfig())   # every nn.Linear in them
    adapters.switch(False)                                   # bit for bit the model without
    adapters.merge(); adapters.unmerge()                     # into the weights, and out of them again

Knows: linear layers. Refuses to know: what the model around them is, and how adapters are trained.

Letters in shapes: d inputs of a layer, o its outputs, h hidden dimensions of an adapter, g groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from icl_vision.checks import choice, count, number
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields

_HOW: Final = ("copy", "solve")


@dataclass(frozen=True)
class AdapterConfig:
    """What adapters are. hidden: h. groups: g, a divisor of h and of every d. scale: s. dropout: between A and B.

    blocks: how many of an LLM's uppermost blocks get them. mapper: whether the mapper's layers get them too.
    """

    blocks: int = 6
    hidden: int = 8
    groups: int = 2
    scale: float = 1.0
    dropout: float = 0.1
    mapper: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        count("adapters.blocks", self.blocks, least=0)
        for name in ("hidden", "groups"):
            count(f"adapters.{name}", getattr(self, name))
        number("adapters.scale", self.scale, above=0)
        number("adapters.dropout", self.dropout, least=0, most=0.99)
        if self.hidden % self.groups:
            raise UsageError(f"adapters.groups must divide adapters.hidden {self.hidden}; got {self.groups}")


class RepAdapter(nn.Module):
    """x [..., d] -> x + s (B drop(A x + a) + b), [..., d]."""

    def __init__(self, width: int, config: AdapterConfig) -> None:
        super().__init__()
        if width % config.groups:
            raise UsageError(f"adapters.groups must divide the {width} inputs of a layer; got {config.groups}")
        self.scale = config.scale
        self.groups = config.groups
        self.down = nn.Linear(width, config.hidden)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        # The weight of a grouped 1x1 convolution: output channel by input channel of its own group.
        self.up = nn.Parameter(torch.zeros(width, config.hidden // config.groups))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.down(x)).unflatten(-1, (self.groups, -1))
        back = torch.einsum("...gi,goi->...go", hidden, self.up.view(self.groups, -1, self.up.shape[1])).flatten(-2)
        return x + self.scale * (back + self.up_bias)

    def dense(self) -> tuple[Tensor, Tensor]:
        """I + s B A, float64 [d, d], and s (B a + b), float64 [d]: the adapter as one affine map."""
        chunks = self.up.detach().double().chunk(self.groups)
        up: Tensor = torch.block_diag(*chunks)  # type: ignore[no-untyped-call]  # torch gives it no types
        down, bias = self.down.weight.detach().double(), self.down.bias.detach().double()
        matrix = torch.eye(len(up), dtype=torch.float64, device=up.device) + self.scale * up @ down
        return matrix, self.scale * (up @ bias + self.up_bias.detach().double())


class AdaptedLinear(nn.Module):
    """A linear layer behind an adapter. on: whether the adapter is at work. merged: whether it is in the weights."""

    def __init__(self, linear: nn.Linear, config: AdapterConfig) -> None:
        super().__init__()
        self.linear = linear
        self.adapter = RepAdapter(linear.in_features, config).to(linear.weight.device)
        self.on = True
        self.merged = False
        self._kept: Tensor | None = None
        self._kept_bias: Tensor | None = None
        self._made_bias = False
        # A fresh module is in training mode, and the dropout of adapters would be at work in a model that is not.
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        if self.on and not self.merged:
            x = self.adapter(x)
        out: Tensor = self.linear(x)
        return out

    @torch.no_grad()
    def merge(self, keep: bool) -> None:
        """Put the adapter into the weights; keep: a copy of what they were."""
        if self.merged:
            raise UsageError("the adapters are merged already; unmerge them first")
        weight, bias = self.linear.weight, self.linear.bias
        matrix, shift = self.adapter.dense()
        self._kept = weight.detach().clone() if keep else None
        # Without a bias before, none is needed to go back; with one, solving needs no copy of it.
        self._kept_bias = bias.detach().clone() if keep and bias is not None else None
        self._made_bias = bias is None
        moved = weight.double() @ shift
        if bias is None:
            self.linear.bias = nn.Parameter(moved.to(weight.dtype), requires_grad=False)
        else:
            bias.copy_(bias.double() + moved)
        weight.copy_(weight.double() @ matrix)
        self.merged = True

    @torch.no_grad()
    def unmerge(self, how: Literal["copy", "solve"]) -> None:
        """Take the adapter out of the weights again, by the copy that was kept or by solving for what they were."""
        if not self.merged:
            raise UsageError("the adapters are not merged")
        weight, bias = self.linear.weight, self.linear.bias
        if how == "copy":
            if self._kept is None:
                raise UsageError("no copy was kept when the adapters were merged: use unmerge('solve')")
            weight.copy_(self._kept)
            if self._kept_bias is not None:
                bias.copy_(self._kept_bias)
        else:
            matrix, shift = self.adapter.dense()
            before = torch.linalg.solve(matrix, weight.double(), left=False)
            weight.copy_(before)
            if not self._made_bias:
                bias.copy_(bias.double() - before @ shift)
        if self._made_bias:
            self.linear.bias = None  # type: ignore[assignment]  # as nn.Linear(bias=False) has it
        self.merged, self._kept, self._kept_bias = False, None, None


class Adapters:
    """The adapters of every linear layer below a module.

    Args:
        module: what is searched; its layers are wrapped in place.
        config: what the adapters are.
        prefix: put before every layer's name in what is saved.

    Raises:
        UsageError: there is no linear layer, one is wrapped already, its weights are of 4 or 8 bits (an adapter could
            not be merged into them), or a module around it reads its weight without calling it (it would be bypassed).
    """

    def __init__(self, module: nn.Module, config: AdapterConfig, *, prefix: str = "") -> None:
        found = dict(_linears(module))
        if not found:
            raise UsageError(f"there is no linear layer in {type(module).__name__} to put an adapter before")
        self.config = config
        self.layers: dict[str, AdaptedLinear] = {}
        for name, (owner, own_name, linear) in found.items():
            wrapped = AdaptedLinear(linear, config)
            setattr(owner, own_name, wrapped)
            self.layers[prefix + name] = wrapped
        self._places = {prefix + name: (owner, own_name) for name, (owner, own_name, _) in found.items()}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything of the adapters that is trained."""
        return [weight for layer in self.layers.values() for weight in layer.adapter.parameters()]

    @property
    def size(self) -> int:
        """How many numbers that is."""
        return sum(weight.numel() for weight in self.parameters)

    @property
    def on(self) -> bool:
        """Whether they are at work."""
        return all(layer.on for layer in self.layers.values())

    def modules(self) -> nn.ModuleDict:
        """The adapters alone, without the layers, for an optimiser or an average."""
        return nn.ModuleDict({name.replace(".", "/"): layer.adapter for name, layer in self.layers.items()})

    def switch(self, on: bool) -> None:
        """Let them work or not. Off, every layer computes bit for bit what it did before; merged ones cannot be off.

        Raises UsageError where they are merged.
        """
        if not on and any(layer.merged for layer in self.layers.values()):
            raise UsageError("merged adapters cannot be switched off; unmerge them first")
        for layer in self.layers.values():
            layer.on = on

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        """``switch`` while the block runs."""
        before = self.on
        self.switch(on)
        try:
            yield
        finally:
            self.switch(before)

    def merge(self, *, keep: bool = True) -> None:
        """Put them into the weights (computed in double precision). keep: remember what those were, at their size."""
        for layer in self.layers.values():
            layer.merge(keep)

    def unmerge(self, how: Literal["copy", "solve"] = "copy") -> None:
        """Take them out again: "copy" bit for bit, "solve" without a copy, up to rounding (about 1e-7)."""
        choice("how", how, _HOW)
        for layer in self.layers.values():
            layer.unmerge(how)

    def remove(self) -> None:
        """Put the layers back where they were, without adapters. Merged ones leave their layers as they are."""
        for name, (owner, own_name) in self._places.items():
            setattr(owner, own_name, self.layers[name].linear)

    def tensors(self) -> dict[str, Tensor]:
        """A, a, B and b of every adapter, by layer: what is saved, and nothing of the layers."""
        return {
            f"{name}.{key}": value.detach()
            for name, layer in self.layers.items()
            for key, value in layer.adapter.state_dict().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``tensors`` gave. Raises UsageError where it is of other layers or shapes."""
        own = self.tensors()
        if set(own) != set(tensors):
            odd = sorted(set(own) ^ set(tensors))[0]
            raise UsageError(f"these adapters are of other layers: {odd!r} is on one side only")
        for name, value in tensors.items():
            if own[name].shape != value.shape:
                raise UsageError(f"the adapter {name!r} has shape {tuple(value.shape)}, not {tuple(own[name].shape)}")
        for name, layer in self.layers.items():
            layer.adapter.load_state_dict({key: tensors[f"{name}.{key}"] for key in layer.adapter.state_dict()})


def _linears(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str, nn.Linear]]]:
    """Every linear layer with its owner and its name there."""
    for owner_name, owner in module.named_modules():
        if isinstance(owner, AdaptedLinear):
            raise UsageError(f"{owner_name or 'the module'!r} has an adapter already")
        for name, child in owner.named_children():
            full = f"{owner_name}.{name}" if owner_name else name
            if _is_packed(child):
                raise UsageError(
                    f"{full!r} ({type(child).__name__}) has weights of 4 or 8 bits, which an adapter cannot be merged "
                    "into; load the model in 16 or 32 bits"
                )
            if isinstance(child, nn.Linear):
                if isinstance(owner, nn.MultiheadAttention):
                    raise UsageError(
                        f"{full!r} lies in an nn.MultiheadAttention, which reads its weight and would bypass an "
                        "adapter; adapt attention that calls its linear layers"
                    )
                yield full, (owner, name, child)


def _is_packed(module: nn.Module) -> bool:
    """Whether a layer takes a linear one's place with weights that are no floating-point matrix."""
    if not hasattr(module, "in_features"):
        return False
    weight = getattr(module, "weight", None)
    if callable(weight):  # torch.ao's quantized layers
        return True
    return isinstance(weight, Tensor) and (not weight.is_floating_point() or weight.element_size() < 2)
