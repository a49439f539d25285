"""A frozen masked language model between words and a picture: its words' vectors, its layers, its masked-word head.

    text = MaskedTextEncoder.load("minilm", layers=3, words=vocabulary.words)
    states = text(text.table[ids], masked)

Knows: the post-LN transformer of BERT, MiniLM, RoBERTa and DistilBERT, positions, masks, the head.
Refuses to know: pictures, how words are chosen, files (``masked_lm_files.py``).

Source: Devlin et al. 2019, "BERT" (arXiv:1810.04805); Liu et al. 2019, "RoBERTa" (arXiv:1907.11692); as the denoiser of
LQAE: Liu et al. 2023 (arXiv:2302.00902), section 2. Written out here, and not a transformers model, because the
published kinds differ in names only, a checkpoint must be opened without the folder it came from, and the graph that
is exported holds no branch that depends on data.

Positions are those of the places 0 to P-1, never derived from which words stand there: in LQAE's repository they are,
with transformers' rule for RoBERTa, so that a picture whose nearest word is the padding shifts all that follow. No
start or end token is added, as there.

Letters in shapes: B pictures, P words a picture, c width, T words in all, N positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import ArtefactDamagedError, UsageError
from icl_vision.models.words.masked_lm_files import Activation, TextShape, read_model


class MaskedTextEncoder(nn.Module):
    """Words' vectors -> the states of every layer, and from the last the words that masked places may hold.

    Args:
        shape: what it is made of; weights are random, as before such a model's training.
        table: fp32 [T, c], the words' vectors. Held, not copied, and no part of ``state_dict()``: whoever owns the
            words (LQAE's codebook) stores them once.
        trained: leave it trainable. Else no gradient reaches its weights, and gradients pass through to its input.
            There is no dropout in either case.

    Raises:
        UsageError: a table of another width.
    """

    table: Tensor
    mask: Tensor

    def __init__(self, shape: TextShape, table: Tensor, *, trained: bool = False) -> None:
        super().__init__()
        if table.ndim != 2 or table.shape[1] != shape.width:
            raise UsageError(
                f"the words' table must be [T, {shape.width}] as the text encoder is; got {list(table.shape)}"
            )
        self.shape = shape
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("mask", 0.02 * torch.randn(shape.width))
        self.positions = nn.Parameter(0.02 * torch.randn(shape.positions, shape.width))
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.head = _Head(shape, len(table)) if shape.head else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.requires_grad_(trained)

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        layers: int | None = None,
        random: bool = False,
        words: Sequence[str] | None = None,
        *,
        trained: bool = False,
    ) -> Self:
        """A published model, or one with its shape.

        Args:
            source: a folder that transformers saved (model and tokenizer), ``"minilm"`` for the installed
                all-MiniLM-L6-v2, or a hub name, which transformers downloads.
            layers: the first so many; None is all, 0 its embeddings alone. Fewer than all leave no head.
            random: random weights, of layers, positions, mask and head; the table is the model's own. With a name that
                is known here (``roberta-base``, ``bert-base-uncased``, ``distilbert-base-uncased``) no file is needed,
                and the table is random too.
            words: the drawn words, each a single piece of the model's tokenizer; None is every row of the table, its
                special tokens and continuations among them, as LQAE's repository has it.
            trained: see the class.

        Raises:
            ArtefactNotFoundError: no such folder or hub model, or one without a tokenizer.
            ArtefactDamagedError: weights and config do not belong together, or cannot be read.
            MissingExtraError: transformers is not installed.
            UsageError: a model of another make, pickled weights (the message says how to convert them), more layers
                than it has.
            VocabularyError: words that are no single piece.
        """
        shape, weights = read_model(source, layers=layers, random=random, words=words)
        if weights.tensors is not None:
            # Before there is memory for it: a config may ask for any size.
            with torch.device("meta"):
                wanted = cls(shape, weights.table).state_dict()
            for name, tensor in weights.tensors.items():
                if tensor.shape != wanted[name].shape:
                    raise ArtefactDamagedError(
                        f"the weights of {os.fspath(source)!r} are not of its config, which asks for "
                        f"{list(wanted[name].shape)} as {name}; they hold {list(tensor.shape)}"
                    )
        text = cls(shape, weights.table, trained=trained)
        if weights.tensors is not None:
            text.load_state_dict(weights.tensors)
        return text

    @property
    def has_head(self) -> bool:
        return self.head is not None

    def forward(self, embeddings: Tensor, masked: Tensor | None = None) -> tuple[Tensor, ...]:
        """Vectors of words [B, P, c] -> the states before the first layer and after each, layers + 1 of [B, P, c].

        masked: bool [B, P], the places whose word is hidden: they get the model's mask vector.

        Raises UsageError for more places than the model has positions.
        """
        x = self.embedded(embeddings, masked)
        states = [x]
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return tuple(states)

    def embedded(self, embeddings: Tensor, masked: Tensor | None = None) -> Tensor:
        """The state before the first layer alone, [B, P, c]; see ``forward``."""
        places = embeddings.shape[1]
        if places > self.shape.positions:
            raise UsageError(
                f"{places} words a picture are more than the {self.shape.positions} positions of this model"
            )
        x = embeddings
        if masked is not None:
            x = torch.where(masked[..., None], self.mask.to(x.dtype), x)
        normal: Tensor = self.norm(x + self.positions[:places])
        return normal

    def logits(self, hidden: Tensor) -> Tensor | None:
        """The last layer's states [..., c] -> a logit for every drawn word [..., T]; None where there is no head.

        Where only masked places count, hand over those alone: T may be 50,000.
        """
        if self.head is None:
            return None
        logits: Tensor = self.head(hidden, self.table)
        return logits


class _Attention(nn.Module):
    """Every place looks at all. [B, P, c] -> [B, P, c]."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width)
        self.value = nn.Linear(shape.width, shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(net(x)) for net in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class _Layer(nn.Module):
    """Attention, then an MLP, each with the input added and a layer norm behind it. [B, P, c] -> [B, P, c]."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.activation: Activation = shape.activation
        self.attention = _Attention(shape)
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.inner = nn.Linear(shape.width, shape.inner)
        self.outer = nn.Linear(shape.inner, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x))
        y: Tensor = self.norm(x + self.outer(_activated(self.inner(x), self.activation)))
        return y


class _Head(nn.Module):
    """States [..., c] -> logits [..., T]."""

    def __init__(self, shape: TextShape, words: int) -> None:
        super().__init__()
        self.activation: Activation = shape.activation
        self.dense = nn.Linear(shape.width, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.decoder = None if shape.tied else nn.Parameter(0.02 * torch.randn(words, shape.width))
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        y: Tensor = self.norm(_activated(self.dense(hidden), self.activation))
        return F.linear(y, table if self.decoder is None else self.decoder, self.bias)


def _activated(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return torch.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
