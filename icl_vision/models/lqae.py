"""The Language-Quantized AutoEncoder: image -> vectors -> the nearest words of a language model -> its states -> image.

Knows: how encoder, lookup, frozen text encoder and decoder are put together, and what a training step wants of them.
Refuses to know: losses, optimisers, files; what the words are called (ids here, names in the tokenizer).

Source: Liu et al. 2023, "Language Quantized AutoEncoders" (arXiv:2302.00902), section 2. In training some words are
hidden and the frozen masked language model fills in what it expects there; the decoder reads its last states. So
pictures are to become words that follow each other as a language's do. When the model is used nothing is hidden.

Ours, each a switch of the config: whitened directions and BatchNorm in front of the lookup, light nets on TAEF2's
latents, a range of shares to hide. What differs else from the paper and from its repository: docs/lqae.md.

Letters in shapes: B batch, ch image channels, S side, c width of the words' table, d width of the encoder's vectors, T
words, H x W the grid, P = H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.interface import Decoder, Encoder, WordAutoencoder, check_images
from icl_vision.models.lqae_config import LqaeConfig
from icl_vision.models.nets.lqae_vit import VitDecoder, VitEncoder
from icl_vision.models.nets.spae_photo import PhotoDecoder, PhotoEncoder
from icl_vision.models.quantizers.lookup import WordLookup
from icl_vision.models.words.masked_lm import MaskedTextEncoder

__all__ = ["LQAE", "LqaeConfig", "LqaeOutput"]


@dataclass(frozen=True)
class LqaeOutput:
    """What a forward pass gives a loss.

    reconstruction: [B, ch, S, S], not clamped. target: what it is compared with, None for the images themselves; in
    training on latents both are TAEF2's, [B, 32, h, w]. direct: the reconstruction from the words' own vectors, past
    the text encoder, where it was asked for. points: the encoder's vectors [B, P, d]. chosen: the words there as the
    encoder sees them, [B, P, d], with gradient where they are learned. ids: int64 [B, H, W]. masked: bool [B, P], what
    was hidden. states: the text encoder's last [B, P, c], None without one."""

    reconstruction: Tensor
    target: Tensor | None
    direct: Tensor | None
    points: Tensor
    chosen: Tensor
    ids: Tensor
    masked: Tensor
    states: Tensor | None


class LQAE(WordAutoencoder):
    """Encoder, lookup, text encoder, decoder.

    Args:
        config: what to build.
        codebook: floating [T, c], the words' rows of the text encoder's table. None only with ``config.learned``.

    Raises:
        UsageError: a codebook that does not fit the config.
    """

    encoder: Encoder
    decoder: Decoder
    seen_mean: Tensor
    seen_spread: Tensor
    table_mean: Tensor
    table_spread: Tensor

    def __init__(self, config: LqaeConfig, codebook: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.layout = config.layout
        self.lookup = WordLookup(
            _checked_codebook(config, codebook),
            directions=config.directions,
            normalise=config.normalise,
            neighbours=config.neighbours,
            learned=config.learned,
        )
        self.encoder, self.decoder = build_nets(config)
        self.norm: nn.Module = nn.Identity()
        if config.batch_norm:
            self.norm = nn.BatchNorm2d(config.channels_of_z, affine=False)
        self.text: MaskedTextEncoder | None = None
        if config.text is not None:
            self.text = MaskedTextEncoder(config.text, self.lookup.codebook)
        with torch.no_grad():
            table = self.lookup.codebook.detach()
            seen = self.lookup.seen(table)
        # As the words are at the start: a fixed scale, also where the codebook is learned.
        for name, values in (("seen", seen), ("table", table)):
            self.register_buffer(f"{name}_mean", values.mean(0))
            self.register_buffer(f"{name}_spread", values.std(0, unbiased=False).clamp(min=1e-6))

    # -- the line an image walks

    def encode(self, images: Tensor, frozen: Sequence[Tensor] | None = None) -> Tensor:
        """Images, floating [B, ch, S, S] in [0, 1] -> vectors z [B, d, H, W] in the units of the words as seen.

        frozen: what ``self.frozen(images)`` gave, where it is known already.
        """
        check_images(images, self.config)
        known = self.frozen(images) if frozen is None else frozen
        return self._in_words_units(self.encoder.vectors(known[0] if known else images))

    def forward(
        self, images: Tensor, frozen: Sequence[Tensor] | None = None, *, past_text: bool = False, direct: bool = False
    ) -> LqaeOutput:
        """A training step's pass.

        Args:
            images: floating [B, ch, S, S] in [0, 1].
            frozen: what ``self.frozen(images)`` gave, where it is known already.
            past_text: leave out the text encoder's layers and hide nothing: how training may begin, before there is
                anything that a language model could make sense of.
            direct: give ``LqaeOutput.direct`` too.

        Raises:
            UsageError: images of another shape or type.
        """
        check_images(images, self.config)
        known = self.frozen(images) if frozen is None else frozen
        z = self.encode(images, known).float()
        points = z.flatten(2).transpose(1, 2)  # [B, P, d]
        ids = self.lookup(z)
        rows = F.embedding(ids.flatten(1), self.lookup.codebook.float())  # [B, P, c]
        chosen = self.lookup.seen(rows)
        through = self.lookup.lifted(points - points.detach())  # exactly 0, with the encoder's gradient
        masked = self._drawn_mask(points) if not past_text else points.new_zeros(points.shape[:2], dtype=torch.bool)
        rows = rows.detach()
        if self.config.straight_through == "encoder":
            states = self._states(rows + through, masked, past_text=past_text)
        else:
            with torch.no_grad():
                states = self._states(rows, masked, past_text=past_text)
            states = states + through
        return LqaeOutput(
            reconstruction=self._reconstruct(states),
            target=self.decoder.target(known[0]) if self._on_latents else None,
            direct=self._reconstruct(self._states(rows + through, None, past_text=True)) if direct else None,
            points=points,
            chosen=chosen,
            ids=ids,
            masked=masked,
            states=None if self.text is None or past_text else states,
        )

    # -- words

    @property
    def words(self) -> int:
        return self.lookup.words

    @property
    def codebook(self) -> Tensor:
        """fp32 [T, c]: the words' rows of the table, or their learned vectors."""
        return self.lookup.codebook

    @property
    def learned_codebook(self) -> Tensor | None:
        return self.lookup.codebook if self.config.learned else None

    def encode_ids(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images -> their words: int64 [B, H, W], as one layer. No gradients."""
        with torch.no_grad():
            return (self.lookup(self.encode(images)),)

    def decode_ids(self, ids: Sequence[Tensor], layers: int | Tensor | None = None) -> Tensor:
        """Words -> images [B, ch, S, S], clamped to [0, 1]. layers: 1 or None, there is one layer (for graphs that have
        it as an input: a tensor is not looked at).

        Raises:
            PyramidError: another number of layers, a grid of another shape, ids outside the codebook.
        """
        if len(ids) != 1 or (layers is not None and not isinstance(layers, Tensor) and layers != 1):
            raise PyramidError(f"an LQAE has one layer; got {len(ids)}, of which {layers} are to count")
        return self.decode(ids[0], self.lookup.codebook).clamp(0.0, 1.0)

    def decode(self, ids: Tensor, codebook: Tensor) -> Tensor:
        """Words -> images, not clamped; the codebook [T, c] is given, so that it can be the input of a graph."""
        if tuple(ids.shape[1:]) != self.layout.grids[0]:
            raise PyramidError(f"ids must be [B, {self.config.grid}, {self.config.grid}]; got {list(ids.shape)}")
        if not torch.compiler.is_compiling() and bool(((ids < 0) | (ids >= len(codebook))).any()):
            raise PyramidError(f"ids must be 0 to {len(codebook) - 1}; got {int(ids.min())} to {int(ids.max())}")
        rows = F.embedding(ids.to(torch.int64).flatten(1), codebook)
        images: Tensor = self.decoder(self._gridded(self._states(rows, None)))
        return images

    def hidden_states(self, ids: Tensor) -> tuple[Tensor, ...]:
        """What the text encoder says of words [B, H, W] of which none is hidden: its states before the first layer and
        after each, [B, P, c]. Raises UsageError where there is no text encoder."""
        if self.text is None:
            raise UsageError("this LQAE has no text encoder: it has no hidden states")
        states: tuple[Tensor, ...] = self.text(F.embedding(ids.flatten(1), self.lookup.codebook.float()))
        return states

    def frozen(self, images: Tensor) -> tuple[Tensor, ...]:
        """``PhotoEncoder.features`` of a photo net; nothing for the other."""
        return (self.encoder.features(images),) if self.encoder.remembers else ()

    # -- parts

    @property
    def _on_latents(self) -> bool:
        return self.training and self.config.train_on == "latents"

    def _in_words_units(self, vectors: Tensor) -> Tensor:
        """The encoder's output [B, d, H, W], normalised to the mean and spread of the words as seen."""
        if not self.config.batch_norm:
            return vectors
        normal: Tensor = self.norm(vectors)
        return self.seen_mean[:, None, None] + self.seen_spread[:, None, None] * normal

    def _drawn_mask(self, points: Tensor) -> Tensor:
        """Which words are hidden, bool [B, P]: of every picture a share drawn between the two of ``mask``."""
        least, most = self.config.mask
        share = least + (most - least) * torch.rand(points.shape[0], 1, device=points.device)
        return torch.rand(points.shape[:2], device=points.device) < share

    def _states(self, rows: Tensor, masked: Tensor | None, *, past_text: bool = False) -> Tensor:
        """Rows of the table [B, P, c] -> what the decoder reads, [B, P, c]."""
        if self.text is not None:
            states: Tensor = self.text.embedded(rows, masked) if past_text else self.text(rows, masked)[-1]
            return states
        normal = (rows - self.table_mean) / self.table_spread
        return normal if masked is None else normal.masked_fill(masked[..., None], 0.0)

    def _reconstruct(self, states: Tensor) -> Tensor:
        grid = self._gridded(states)
        reconstruction: Tensor = self.decoder.compared(grid) if self._on_latents else self.decoder(grid)
        return reconstruction

    def _gridded(self, states: Tensor) -> Tensor:
        """[B, P, c] -> [B, c, H, W]."""
        return states.transpose(1, 2).reshape(states.shape[0], -1, *self.layout.grids[0])


def build_nets(config: LqaeConfig) -> tuple[Encoder, Decoder]:
    """The encoder and decoder of a config, with fresh weights (within ``torch.device("meta")``, without memory)."""
    if config.net == "vit":
        outside = (config.side, config.channels, config.patch)
        inside = (config.hidden, config.layers, config.heads, config.inner)
        return VitEncoder(*outside, config.channels_of_z, *inside), VitDecoder(*outside, config.dim, *inside)
    coarse = config.side != 8 * config.grid
    blocks = config.decoder_blocks or config.blocks
    return (
        PhotoEncoder(config.side, config.channels_of_z, config.width, config.blocks, semantics=False, coarse=coarse),
        PhotoDecoder(config.side, config.dim, config.width, blocks, thaw=config.thaw, coarse=coarse),
    )


def _checked_codebook(config: LqaeConfig, codebook: Tensor | None) -> Tensor:
    """The codebook to start from, fp32."""
    if codebook is None:
        if config.words is None:
            raise UsageError(
                "LQAE needs the words' table [T, c]; only a learned codebook can be drawn (learned, words)"
            )
        return torch.randn(config.words, config.dim)
    if config.learned:
        raise UsageError(f"the config draws a codebook of {config.words} words, and one was given: drop either")
    if codebook.ndim != 2 or codebook.shape[1] != config.dim:
        raise UsageError(f"the codebook must be [T, {config.dim}] as the config's dim says; got {list(codebook.shape)}")
    return codebook.detach().float()
