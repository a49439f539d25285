"""From an LLM's hidden states to the states a diffusion model reads.

Four forms: ``tokens``, the report's stack of linear layers, token by token; ``queries``, learned ones that attend to
all tokens; ``last``, linear, from the last tokens, where a causal LM has said all; and ``choice``, the same with a soft
choice among a few learned states, for a diffusion model that draws few things and dislikes blurred states. That is the
default: on wordings that were never trained on, more of what it maps is drawn right.

Knows: shapes. Refuses to know: LLMs, text encoders, training.

Letters in shapes: B texts, L tokens, d the LLM's width, N states of the text encoder and e their width, w own width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from icl_vision.checks import choice, count
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields

Kind = Literal["choice", "last", "queries", "tokens"]
_SHARP: Final = 10.0
"""By how much the scores of least squares (0 to 1) are multiplied before one of several states is chosen."""


@dataclass(frozen=True)
class MapperConfig:
    """kind: "choice", "last", "queries" or "tokens". width: w. last: how many last tokens are read (choice, last);
    0 (choice): each is scored alone, and the surest of them is heard, which finds a name wherever in a text it stands.
    blocks: of attention (queries), or linear layers after the first (tokens). heads: of the attention, a divisor of the
    width."""

    kind: Kind = "choice"
    width: int = 16
    last: int = 4
    blocks: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        choice("mapper.kind", self.kind, get_args(Kind))
        for name in ("width", "blocks", "heads"):
            count(f"mapper.{name}", getattr(self, name))
        count("mapper.last", self.last, least=0 if self.kind == "choice" else 1)
        if self.width % self.heads:
            raise UsageError(f"mapper.heads must divide mapper.width {self.width}; got {self.heads}")


class Mapper(nn.Module):
    """values [B, L, d] and mask bool [B, L] -> states [B, N, e].

    mean: float [N, e], a buffer: what is given where nothing is known, usually the mean of the training captions'
    states; the net learns what a text changes of it. null: float [N, e], a buffer: the states of no caption, which
    guidance draws away from.
    """

    mean: Tensor
    null: Tensor

    def __init__(self, config: MapperConfig, *, inputs: int, length: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.inputs, self.length, self.outputs = inputs, length, outputs
        # First: an LLM's states may be a thousand times as large in one place as in another.
        self.norm = nn.LayerNorm(inputs)
        kinds: dict[str, type[nn.Module]] = {"choice": _Choice, "last": _Last, "queries": _Queries, "tokens": _Tokens}
        self.body: nn.Module = kinds[config.kind](config, inputs, length, outputs)
        self.register_buffer("mean", torch.zeros(length, outputs))
        self.register_buffer("null", torch.zeros(length, outputs))

    def solve(self, values: Tensor, mask: Tensor, wanted: Tensor, ridge: float) -> None:
        """Begin where least squares end, for a mapper that is linear: as it is, untouched, for the others."""
        if isinstance(self.body, _Last):
            with torch.no_grad():
                self.body.solve(self.norm(values), mask, wanted - self.mean, ridge)

    def sharpen(self, factor: float) -> None:
        """Choose more firmly: multiply the scores of a choice. The same one is likeliest as before.

        Raises UsageError where the mapper is of another kind.
        """
        if not isinstance(self.body, _Choice):
            raise UsageError(f"only a mapper of kind 'choice' can be sharpened; this one is {self.config.kind!r}")
        with torch.no_grad():
            self.body.enter.weight.mul_(factor)
            self.body.enter.bias.mul_(factor)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        if values.shape[-1] != self.inputs:
            raise UsageError(
                f"this mapper reads states of {self.inputs} numbers, and the LLM's have {values.shape[-1]}: it was "
                "made for another LLM"
            )
        mapped: Tensor = self.mean + self.body(self.norm(values), mask)
        return mapped


class _Last(nn.Module):
    """The last tokens of a text, where a causal LM has said everything: linear, through a narrow middle. It learns less
    than the others can, and so less that holds for the trained wordings alone."""

    def __init__(self, config: MapperConfig, inputs: int, length: int, outputs: int) -> None:
        super().__init__()
        self.last, self.shape = config.last, (length, outputs)
        self.enter = nn.Linear(max(1, config.last) * inputs, config.width)
        self.leave = nn.Linear(config.width, length * outputs)

    def tokens(self, values: Tensor, mask: Tensor) -> Tensor:
        """The last tokens' states side by side, the very last first; zeros where there are fewer. [B, last * d]"""
        places = mask.sum(1, keepdim=True) - 1 - torch.arange(self.last, device=mask.device)
        rows = torch.arange(len(values), device=mask.device)[:, None]
        return (values[rows, places.clamp(min=0)] * (places >= 0).unsqueeze(-1)).flatten(1)

    @torch.no_grad()
    def solve(self, values: Tensor, mask: Tensor, wanted: Tensor, ridge: float) -> None:
        """Take the weights of least squares: states, normed, to wanted ones [B, N, e], with ridge * |weights|^2 beside
        the squared errors, and of the solution the ``width`` directions that say most."""
        tokens = self.tokens(values, mask)
        centre, mean = tokens.mean(0), wanted.flatten(1).mean(0)
        tokens, targets = tokens - centre, wanted.flatten(1) - mean
        gram = tokens.T @ tokens + ridge * torch.eye(tokens.shape[1])
        left, sizes, right = torch.svd_lowrank(torch.linalg.solve(gram, tokens.T @ targets), q=self.enter.out_features)
        self.enter.weight.copy_((left * sizes.sqrt()).T)
        self.enter.bias.copy_(-(self.enter.weight @ centre))
        self.leave.weight.copy_(right * sizes.sqrt())
        self.leave.bias.copy_(mean)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        left: Tensor = self.leave(self.enter(self.tokens(values, mask)))
        return left.view(-1, *self.shape)


class _Choice(_Last):
    """As ``_Last``, with a soft choice in its middle: of a few states that it has learned, it gives mixtures."""

    @torch.no_grad()
    def solve(self, values: Tensor, mask: Tensor, wanted: Tensor, ridge: float) -> None:
        """Take the wanted states as those to choose from, and least squares of which it is as the scores. Where each
        token is scored, of texts that end with what is to be heard: the last token says it, the others nothing.

        Raises UsageError where there are more different ones than the ``width``.
        """
        flat: Any = wanted.flatten(1)  # torch gives unique no types
        states, chosen = flat.unique(dim=0, return_inverse=True)
        if len(states) > self.enter.out_features:
            raise UsageError(
                f"a mapper of kind 'choice' and width {self.enter.out_features} cannot choose among {len(states)} "
                "states: raise mapper.width, or take loss.target=plain or mapper.kind=last"
            )
        which = nn.functional.one_hot(chosen, len(states)).float()
        if self.last:
            tokens = self.tokens(values, mask)
        else:
            final = torch.zeros_like(mask)
            final[torch.arange(len(mask)), mask.sum(1) - 1] = True
            # What a token before the last one says, of a text that is not yet at its end, is none of them.
            tokens = torch.cat([values[final], values[mask & ~final]])
            which = torch.cat([which, which.new_zeros(len(tokens) - len(which), len(states))])
        centre, mean = tokens.mean(0), which.mean(0)
        gram = (tokens - centre).T @ (tokens - centre) + ridge * torch.eye(tokens.shape[1])
        found = torch.linalg.solve(gram, (tokens - centre).T @ (which - mean))
        self.enter.weight.zero_()
        self.enter.weight[: len(states)] = _SHARP * found.T
        self.enter.bias.fill_(-10 * _SHARP)  # what is left over is never chosen
        self.enter.bias[: len(states)] = _SHARP * (mean - centre @ found)
        self.leave.weight.zero_()
        self.leave.weight[:, : len(states)] = states.T
        self.leave.bias.zero_()

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        if self.last:
            scores = self.enter(self.tokens(values, mask))
        else:
            scores = self.enter(values).masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        left: Tensor = self.leave(scores.softmax(-1))
        return left.view(-1, *self.shape)


class _Tokens(nn.Module):
    """Linear layers, token by token; tokens beyond N are cut off, places without a token get nothing."""

    def __init__(self, config: MapperConfig, inputs: int, length: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs, *[config.width] * config.blocks]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            # Without one the width would be a cap on the rank of what can be said.
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(config.width, outputs))
        self.length = length

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        mapped = self.layers(values[:, : self.length]) * mask[:, : self.length].unsqueeze(-1)
        return nn.functional.pad(mapped, (0, 0, 0, self.length - mapped.shape[1]))


class _Queries(nn.Module):
    """N learned queries, in blocks of attention to the tokens, to each other, and an MLP."""

    def __init__(self, config: MapperConfig, inputs: int, length: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, config.width)
        self.queries = nn.Parameter(torch.randn(length, config.width) * 0.5)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, outputs))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        tokens = self.enter(values)
        states = self.queries.expand(len(values), -1, -1)
        for block in self.blocks:
            states = block(states, tokens, mask)
        left: Tensor = self.leave(states)
        return left


class _Block(nn.Module):
    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        width = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.across = _Attention(width, config.heads)
        self.among = _Attention(width, config.heads)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, states: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        states = states + self.across(self.norms[0](states), tokens, mask)
        own = self.norms[1](states)
        states = states + self.among(own, own, None)
        out: Tensor = states + self.mlp(self.norms[2](states))
        return out


class _Attention(nn.Module):
    """Attention that calls its linear layers, so that adapters can be put before them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.offer = nn.Linear(width, width)
        self.give = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        ask, offer, give = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.ask, queries), (self.offer, keys), (self.give, keys))
        )
        seen = None if mask is None else mask[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(ask, offer, give, attn_mask=seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out
