"""From an LLM's hidden states to the states a diffusion model reads.

Two forms: ``tokens``, the report's stack of linear layers, token by token; and ``queries``, learned ones that attend to
all tokens, for text encoders whose states are in other places than an LLM's. A causal LM has said everything in its
last tokens and a sentence encoder in its first, so queries are the default.

Knows: shapes. Refuses to know: LLMs, text encoders, training.

Letters in shapes: B texts, L tokens, d the LLM's width, N states of the text encoder and e their width, w own width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from icl_vision.checks import choice, count
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields

Kind = Literal["queries", "tokens"]


@dataclass(frozen=True)
class MapperConfig:
    """kind: "queries" or "tokens". width: w. blocks: of attention (queries), or linear layers after the first (tokens).
    heads: of the attention, a divisor of the width."""

    kind: Kind = "queries"
    width: int = 160
    blocks: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        choice("mapper.kind", self.kind, get_args(Kind))
        for name in ("width", "blocks", "heads"):
            count(f"mapper.{name}", getattr(self, name))
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
        self.body: nn.Module = (
            _Queries(config, inputs, length, outputs)
            if config.kind == "queries"
            else _Tokens(config, inputs, length, outputs)
        )
        self.register_buffer("mean", torch.zeros(length, outputs))
        self.register_buffer("null", torch.zeros(length, outputs))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        if values.shape[-1] != self.inputs:
            raise UsageError(
                f"this mapper reads states of {self.inputs} numbers, and the LLM's have {values.shape[-1]}: it was "
                "made for another LLM"
            )
        mapped: Tensor = self.mean + self.body(self.norm(values), mask)
        return mapped


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
