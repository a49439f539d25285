"""What all quantizers share: words found layer by layer, gradients past them, words turned back into vectors.

Knows: the order of layers, straight-through gradients, the losses that need the codebook, what is checked.
Refuses to know: how a position's words add up and how a layer sees them (a subclass's few hooks; ``streaming.py`` has
the equations), where layers lie (``places.py``), how words are found (``nearest.py``).

Letters in shapes: B batch, c width of the words' vectors, d width of z (c, unless a quantizer maps words), T words,
H x W the finest grid (F x H x W for video), P its positions, h_l x w_l the grid of layer l, D layers.

Everything is computed in fp32, under autocast too: distances in 65,000 words differ in digits that bf16 does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from icl_vision.checks import choice, count
from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.quantizers.nearest import check_chunk, full_precision, nearest_words, word_terms
from icl_vision.models.quantizers.places import Fill, LayerPlaces
from icl_vision.pyramid import PyramidLayout


@dataclass(frozen=True)
class Pool:
    """Words that are looked among. vectors: fp32 [n, c]. terms: ``word_terms`` of them, where known. ids: which words
    of the codebook they are, int64 [n]; or the id of the first, where they follow one another there."""

    vectors: Tensor
    terms: Tensor | None
    ids: Tensor | int = 0

    def numbered(self, rows: Tensor) -> Tensor:
        """The ids of the words in these rows."""
        if isinstance(self.ids, Tensor):
            return self.ids[rows]
        return rows + self.ids if self.ids else rows


@dataclass(frozen=True)
class Quantized:
    """What a quantizer made of a batch ``z`` [B, d, H, W]. All floating tensors are fp32."""

    quantized: Tensor
    """[B, d, H, W]: exactly what the words of the first ``depth`` layers stand for, holes filled; its gradient goes
    straight through to ``z``."""
    ids: tuple[Tensor, ...]
    """int64 [B, h_l, w_l], one per layer; all layers, whatever the depth."""
    targets: tuple[Tensor, ...]
    """[B, d, h_l, w_l], with gradient: z_l of eq. (2) at the positions that layer l owns."""
    partial: tuple[Tensor, ...]
    """[B, d, H, W], no gradient: what the words of the first l layers stand for (eq. 3), holes filled."""
    commitment: tuple[Tensor, ...]
    """A scalar per layer: ``(z - sg(partial))^2``, the mean over channels and the positions that have a word."""
    codebook_loss: Tensor
    """A scalar: ``(sg(z_l) - e(k_l))^2``, the mean over channels and positions, summed over layers; 0 where nothing of
    the words is learned."""


class Quantizer(nn.Module):
    """Base of the quantizers: everything but the rule by which words add up.

    Args:
        codebook: floating [T, c], finite. Kept as fp32. A frozen one is a buffer that is not in ``state_dict()``
            (codebooks live once, in a folder of their own); a learned one is a Parameter and is.
        layout: the grids; ``layout.finest`` is the grid of z.
        normalise: look for the largest cosine, not for the smallest distance. The words' vectors themselves stay as
            they are, so give unit vectors if lengths are to mean nothing at all.
        fill: what a position without a word holds, see ``streaming.py``.
        learned: train the codebook (through ``codebook_loss``).
        chunk: scores held at once during the search, see ``nearest_words``.

    Raises:
        UsageError: a codebook of another shape, with NaN or infinity; an unknown fill; a chunk below 1.
    """

    codebook: Tensor
    _terms: Tensor
    given: int = 0
    """How many of the first layers are given their words instead of looking them up."""

    def __init__(
        self,
        codebook: Tensor,
        layout: PyramidLayout,
        *,
        normalise: bool = False,
        fill: Fill = "finest",
        learned: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(codebook, Tensor) or codebook.ndim != 2 or 0 in codebook.shape:
            shape = list(codebook.shape) if isinstance(codebook, Tensor) else type(codebook).__name__
            raise UsageError(f"the codebook must be a tensor [T, c], words by width; got {shape}")
        if not codebook.is_floating_point() or not torch.isfinite(codebook).all():
            raise UsageError("the codebook must hold finite floating-point numbers")
        fill = choice("fill", fill, get_args(Fill))
        chunk = check_chunk(chunk)
        self.layout = layout
        self.normalise = normalise
        self.fill: Fill = fill
        self.learned = learned
        self.learns_words = learned  # the words, or the way a layer sees them
        self.chunk = chunk
        values = codebook.detach().to(torch.float32).clone()
        if learned:
            self.codebook = nn.Parameter(values)
        else:
            self.register_buffer("codebook", values, persistent=False)
            self.register_buffer("_terms", word_terms(values, normalise=normalise), persistent=False)
        self.places = LayerPlaces(layout, fill)

    # -- the rule, given by subclasses

    layerwise: ClassVar[bool] = False
    """Whether layers differ in the words they may say or in how they see them; then none is looked up with another."""

    def _target(self, z: Tensor, total: Tensor, held: Tensor) -> Tensor:
        """z_l from z [B, n, d], the sum of the words before [B, n, d] and their number [n, 1]."""
        raise NotImplementedError

    def _estimate(self, total: Tensor, held: Tensor) -> Tensor:
        """What the words stand for, from their sum [B, P, d] and number [P, 1]; 0 where there is none."""
        raise NotImplementedError

    def _seen(self, layer: int, vectors: Tensor) -> Tensor:
        """Words' vectors [..., c] as a layer sees them, [..., d]; with gradient where that is learned."""
        return vectors

    def _pool(self, words: Tensor, terms: Tensor | None) -> Pool:
        """The words that are looked among in one encoding: of the codebook [T, c], with its terms where known."""
        return Pool(words, terms)

    def _among(self, layer: int, pool: Pool) -> Pool:
        """The part of the pool that a layer may say."""
        return pool

    # -- what callers use

    @property
    def words(self) -> int:
        """T."""
        return int(self.codebook.shape[0])

    @property
    def words_width(self) -> int:
        """c."""
        return int(self.codebook.shape[1])

    @property
    def dimension(self) -> int:
        """d, the width of z: c where a layer sees words as they are."""
        return self.words_width

    def forward(self, z: Tensor, depth: int | None = None, given: Sequence[Tensor] = ()) -> Quantized:
        """Quantize, with all that a training step needs.

        Args:
            z: floating [B, d, H, W] ([B, d, F, H, W] for video).
            depth: how many layers ``quantized`` is made of, 1 to D; None is all. Nothing else depends on it.
            given: int64 [B, h_l, w_l], the words of the first ``self.given`` layers. Their commitment is 0: nothing
                was chosen.

        Raises:
            UsageError: z of another shape or an integer type.
            PyramidError: depth out of range, another number of given layers.
        """
        last = self._depth(depth)
        self._check_input(z)
        with full_precision(z.device):
            z = z.float()
            ids = self.encode_ids(z, given=given)
            points, places = flat(z), self.places
            total = torch.zeros_like(points)
            targets, partial, commitment = [], [], []
            codebook_loss = points.new_zeros(())
            for layer, layer_ids in enumerate(ids, start=1):
                index = places.index(layer)
                target = self._target(
                    points.index_select(1, index), total.index_select(1, index), places.held(layer - 1)[index]
                )
                vectors = self._seen(layer, functional.embedding(layer_ids.flatten(1), self.codebook.float()))
                if self.learns_words:
                    codebook_loss = codebook_loss + functional.mse_loss(vectors, target.detach())
                total = total + places.placed(vectors.detach(), places.rows(layer))
                estimate = self._estimate(total, places.held(layer))
                covered = places.covered(layer)
                commitment.append(
                    points.new_zeros(())
                    if layer <= self.given
                    else functional.mse_loss(points.index_select(1, covered), estimate.index_select(1, covered))
                )
                targets.append(shaped(target, self.layout.grids[layer - 1]))
                partial.append(shaped(places.filled(estimate, layer), self.layout.finest))
            quantized = self._straight_through(points, partial[last - 1], last)
        return Quantized(quantized, ids, tuple(targets), tuple(partial), tuple(commitment), codebook_loss)

    def encode_ids(self, z: Tensor, codebook: Tensor | None = None, given: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """The words alone: int64 [B, h_l, w_l], one tensor per layer. No gradients.

        Exports with ``torch.export``: all loops and shapes but the batch are known beforehand.

        Args:
            z: floating [B, d, H, W].
            codebook: floating [T, c], used instead of the quantizer's own; so that it can be the input of a graph.
            given: as in ``forward``.

        Raises:
            UsageError: z or the codebook has another shape.
            PyramidError: another number of given layers.
        """
        self._check_input(z)
        if len(given) != self.given:
            raise PyramidError(f"the words of the first {self.given} layers must be given; got those of {len(given)}")
        with torch.no_grad(), full_precision(z.device):
            words, terms = self._words_and_terms(codebook)
            points, places = flat(z.detach().float()), self.places
            pool = self._pool(words, terms)
            total = torch.zeros_like(points)
            ids: list[Tensor] = []
            for layers, index, rows in places.groups(apart=self.layerwise):
                first = layers[0]
                if first <= self.given:
                    chosen = given[first - 1].to(torch.int64).flatten(1)
                    vectors = self._seen(first, functional.embedding(chosen, words))
                else:
                    target = self._target(
                        points.index_select(1, index), total.index_select(1, index), places.held(first - 1)[index]
                    )
                    chosen, vectors = self._nearest(first, target, pool)
                counts = [self.layout.counts[layer - 1] for layer in layers]
                parts = torch.split(chosen, counts, dim=1) if len(layers) > 1 else (chosen,)
                for layer, part in zip(layers, parts, strict=True):
                    ids.append(part.reshape(points.shape[0], *self.layout.grids[layer - 1]))
                if layers[-1] < len(self.layout):
                    total = total + places.placed(vectors, rows)
        return tuple(ids)

    def decode_ids(
        self, ids: Sequence[Tensor], depth: int | Tensor | None = None, codebook: Tensor | None = None
    ) -> Tensor:
        """What words stand for, holes filled: fp32 [B, d, H, W].

        Args:
            ids: integer [B, h_l, w_l], coarse first; fewer layers than the layout's are fine.
            depth: how many layers of these count, 1 to ``len(ids)``; None is all. An int64 scalar tensor makes it an
                input of an exported graph (there it is not checked).
            codebook: floating [T, c] instead of the quantizer's own.

        Raises:
            PyramidError: no layers or too many, grids of another shape, ids outside the codebook, depth out of range.
        """
        words = self._words_and_terms(codebook)[0]
        layers = list(ids)
        self._check_ids(layers, words.shape[0])
        if depth is None:
            depth = len(layers)
        if not isinstance(depth, Tensor):
            layers = layers[: self._depth(depth, len(layers))]
        with full_precision(words.device):
            total = None
            for layer, layer_ids in enumerate(layers, start=1):
                vectors = self._seen(layer, functional.embedding(layer_ids.to(torch.int64).flatten(1), words))
                placed = self.places.placed(vectors, self.places.rows(layer))
                if isinstance(depth, Tensor):
                    placed = placed * (depth >= layer)
                total = placed if total is None else total + placed
            assert total is not None  # _check_ids refuses no layers
            estimate = self._estimate(total, self.places.held(depth))
            return shaped(self.places.filled(estimate, depth), self.layout.finest)

    def nearness(self, layer: int, ids: Sequence[int], codebook: Tensor) -> Tensor:
        """The vectors by which a layer compares words, [n, d]; for telling ties from mistakes."""
        return self._seen(layer, codebook[list(ids)].float())

    def extra_repr(self) -> str:
        return (
            f"{self.layout}, {self.words} {'learned' if self.learned else 'frozen'} words of width {self.words_width}, "
            f"normalise={self.normalise}, fill={self.fill!r}"
        )

    def _nearest(self, layer: int, target: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
        """The words [B, n] nearest to the targets [B, n, d], and their vectors as the layer sees them [B, n, d]."""
        among = self._among(layer, pool)
        seen = self._seen(layer, among.vectors)
        chosen = nearest_words(
            target.flatten(0, 1),
            seen,
            normalise=self.normalise,
            chunk=self.chunk,
            terms=among.terms if seen is among.vectors else None,
        ).reshape(target.shape[:2])
        return among.numbered(chosen), functional.embedding(chosen, seen)

    def _straight_through(self, points: Tensor, estimate: Tensor, depth: int) -> Tensor:
        """The words' estimate [B, c, H, W], with the gradient of the points [B, P, c] it stands for."""
        # Adding z - sg(z), exactly 0, leaves the words' value untouched to the last digit.
        worded = (self.places.held(depth) > 0).to(points.dtype)
        through = shaped(self.places.filled(points * worded, depth), self.layout.finest)
        return estimate + (through - through.detach())

    # -- checks

    def _words_and_terms(self, codebook: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The codebook in use, fp32, and its terms where they are known."""
        if codebook is not None:
            if codebook.ndim != 2 or codebook.shape[1] != self.words_width:
                raise UsageError(f"the codebook must be [T, {self.words_width}]; got {list(codebook.shape)}")
            return codebook.float(), None
        # A module cast to half precision has rounded terms too; those of the rounded vectors are taken anew.
        exact = not self.learned and self._terms.dtype == torch.float32
        return self.codebook.float(), self._terms if exact else None

    def _check_input(self, z: Tensor) -> None:
        if z.ndim != 2 + len(self.layout.finest) or tuple(z.shape[1:]) != (self.dimension, *self.layout.finest):
            raise UsageError(
                f"z must be [B, {self.dimension}, {', '.join(map(str, self.layout.finest))}], channels and the finest "
                f"grid of {self.layout}; got {list(z.shape)}"
            )
        if not z.is_floating_point():
            raise UsageError(f"z must be floating point; got {z.dtype}")

    def _check_ids(self, ids: Sequence[Tensor], words: int) -> None:
        if not 1 <= len(ids) <= len(self.layout):
            raise PyramidError(f"ids must be of 1 to {len(self.layout)} layers, coarse first; got {len(ids)}")
        for layer, (layer_ids, grid) in enumerate(zip(ids, self.layout.grids, strict=False), start=1):
            if layer_ids.ndim != 1 + len(grid) or tuple(layer_ids.shape) != (ids[0].shape[0], *grid):
                raise PyramidError(
                    f"the ids of layer {layer} must be [B, {', '.join(map(str, grid))}], one B for all layers; got "
                    f"{list(layer_ids.shape)}"
                )
            if layer_ids.is_floating_point() or layer_ids.dtype == torch.bool:
                raise PyramidError(f"the ids of layer {layer} must be whole numbers; got {layer_ids.dtype}")
            # A graph cannot look at its data; there an id outside the codebook is the caller's to refuse.
            if not torch.compiler.is_compiling() and layer_ids.numel():
                smallest, largest = int(layer_ids.min()), int(layer_ids.max())
                if smallest < 0 or largest >= words:
                    wrong = smallest if smallest < 0 else largest
                    raise PyramidError(f"the ids of layer {layer} must be 0 to {words - 1}; got {wrong}")

    def _depth(self, depth: int | None, most: int | None = None) -> int:
        most = len(self.layout) if most is None else most
        if depth is None:
            return most
        return count("depth", depth, most=most, of="layers", error=PyramidError)


def flat(z: Tensor) -> Tensor:
    """[B, c, H, W] -> [B, P, c]."""
    return z.flatten(2).transpose(1, 2)


def shaped(points: Tensor, grid: Sequence[int]) -> Tensor:
    """[B, n, c] -> [B, c, h, w]."""
    return points.transpose(1, 2).reshape(points.shape[0], points.shape[2], *grid)
