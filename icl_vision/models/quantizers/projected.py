"""A pyramid's quantizer in which every layer looks at the words through a linear map of its own.

Knows: eq. (1) of SPAE (which positions a layer owns), learned maps of frozen words, layers whose words are given.
Refuses to know: where given words come from (``region_words.py``), images, nets.

Words of a sentence model lie in a narrow cone, and 128 dimensions are far too many for 14,000 words to fill: the
nearest word of a vector is never near. A learned linear map of the *whole* codebook into few dimensions lets the words
fill the space that the encoder uses, while the words themselves, and their order of likeness up to that map, stay as
they are (SimVQ, Zhu et al. 2024, arXiv:2411.02038: one linear layer in front of a frozen random codebook; and
ViT-VQGAN, Yu et al. 2021, arXiv:2110.04627: few dimensions keep all codes in use). For layer l with its map W_l:

    looked up     z_l = z - sum of W_j e(k_j) over the position's earlier words j
    stands for    sum of W_j e(k_j) over the position's words

Dimensions open layer by layer: of n layers on the finest grid the first moves d/n dimensions, the second 2d/n, and so
on, coarser layers the first d/n. Otherwise both settle in the few dimensions that one word can fill (measured: 8 of 24,
where 24 carry something; docs/spae-photo.md), and the second only corrects the first.

Positions are those of eq. (1), sums take the place of eq. (3)'s mean: with a map per layer the mean's factors are
part of the maps. Only the codebook loss trains a map; gradients of a reconstruction go straight through to z.

The first layers may be *given* their words instead of looking them up (what an image shows is known better than a
reconstruction can tell). Their maps then learn to say what such a word foretells of z, and the layers below look up
what is left.

Letters in shapes: B batch, c width of the words' vectors, d width of z, T words, P positions, D layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from icl_vision.errors import PyramidError, UsageError
from icl_vision.models.quantizers.base import Quantized, Quantizer, flat, shaped
from icl_vision.models.quantizers.nearest import full_precision, nearest_words
from icl_vision.models.quantizers.places import Fill
from icl_vision.pyramid import PyramidLayout

_SCALE, _SHRINKING = 0.33, 0.6
"""Of a fresh map: about the spread of a fresh encoder's vectors (else a few words near the middle take everything), and
less from layer to layer, as what is left over gets smaller."""


class ProjectedQuantizer(Quantizer):
    """See above.

    Args:
        codebook: floating [T, c], frozen.
        layout: the grids.
        width: d, the channels of z.
        given: how many of the first layers are given their words, 0 to D - 1.
        fill: what a position without a word holds, see ``quantization.py``.
        chunk: see ``nearest_words``.
        candidates: in training, look only among so many words, drawn anew for every step; 0: among all. The search is
            the dearest part of a step on a CPU, and its answer need not be the best for a gradient.

    Raises:
        UsageError: ``width`` or ``given`` out of range.
    """

    centre: Tensor
    spread: Tensor
    open: Tensor

    def __init__(
        self,
        codebook: Tensor,
        layout: PyramidLayout,
        width: int,
        *,
        given: int = 0,
        fill: Fill = "finest",
        chunk: int | None = None,
        candidates: int = 0,
    ) -> None:
        super().__init__(codebook, layout, fill=fill, chunk=chunk)
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise UsageError(f"width, the channels of z, must be a whole number of 1 or more; got {width!r}")
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < len(layout):
            raise UsageError(f"given, a number of layers, must be 0 to {len(layout) - 1}; got {given!r}")
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 0:
            raise UsageError(f"candidates, a number of words, must be 0 (all) or more; got {candidates!r}")
        self.width = width
        self.given = given
        self.candidates = candidates if candidates < self.words else 0
        # So that fresh maps of the words have about unit spread in every dimension. It is part of the maps.
        self.register_buffer("centre", self.codebook.mean(0))
        self.register_buffer(
            "spread", self.codebook.std(0).clamp(min=1e-6) if self.words > 1 else self.codebook[0] * 0 + 1
        )
        self.register_buffer("open", _open_dimensions(layout, width), persistent=False)
        maps = []
        for layer in range(1, len(layout) + 1):
            one = nn.Linear(self.words_width, width)
            scale = _SCALE * _SHRINKING ** max(0, layer - given - 1)
            nn.init.normal_(one.weight, std=scale * self.words_width**-0.5)
            nn.init.zeros_(one.bias)
            if layer <= given:
                nn.init.zeros_(one.weight)  # knows nothing yet
            maps.append(one)
        self.maps = nn.ModuleList(maps)

    @property
    def words_width(self) -> int:
        """c."""
        return int(self.codebook.shape[1])

    @property
    def dimension(self) -> int:
        """d: what the base calls the width of z."""
        return self.width

    def forward(self, z: Tensor, depth: int | None = None, given: Sequence[Tensor] = ()) -> Quantized:
        """See ``Quantizer.forward``. given: int64 [B, h_l, w_l], the words of the first ``self.given`` layers.

        The commitment of a given layer is 0: nothing was chosen.
        """
        last = self._depth(depth)
        self._check_input(z)
        with full_precision(z.device):
            z = z.float()
            points, places = flat(z), self.places
            ids = self.encode_ids(z, given=given)
            total = torch.zeros_like(points)
            targets, partial, commitment = [], [], []
            codebook_loss = points.new_zeros(())
            for layer, found in enumerate(ids, start=1):
                index = places.index(layer)
                target = points.index_select(1, index) - total.index_select(1, index)
                vectors = self._mapped(layer, found.flatten(1), self.codebook)
                codebook_loss = codebook_loss + functional.mse_loss(vectors, target.detach())
                total = total + places.placed(vectors.detach(), places.rows(layer))
                covered = places.covered(layer)
                if layer <= self.given:
                    commitment.append(points.new_zeros(()))
                else:
                    commitment.append(
                        functional.mse_loss(points.index_select(1, covered), total.index_select(1, covered))
                    )
                targets.append(shaped(target, self.layout.grids[layer - 1]))
                partial.append(shaped(places.filled(total, layer), self.layout.finest))
            quantized = self._straight_through(points, partial[last - 1], last)
        return Quantized(quantized, ids, tuple(targets), tuple(partial), tuple(commitment), codebook_loss)

    def encode_ids(self, z: Tensor, codebook: Tensor | None = None, given: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """See ``Quantizer.encode_ids``; ``given`` as in ``forward``."""
        self._check_input(z)
        if len(given) != self.given:
            raise PyramidError(f"the words of the first {self.given} layers must be given; got those of {len(given)}")
        with torch.no_grad(), full_precision(z.device):
            words = self._own(codebook)
            points, places = flat(z.detach().float()), self.places
            drawn: Tensor | None = None
            searched = words
            if self.training and self.candidates:
                drawn = torch.randperm(words.shape[0], device=words.device)[: self.candidates]
                searched = words[drawn]
            total = torch.zeros_like(points)
            ids: list[Tensor] = []
            for layer, grid in enumerate(self.layout.grids, start=1):
                index = places.index(layer)
                if layer <= self.given:
                    found = given[layer - 1].to(torch.int64).flatten(1)
                    vectors = self._mapped(layer, found, words)
                else:
                    target = points.index_select(1, index) - total.index_select(1, index)
                    mapped = self._map(layer, searched)
                    found = nearest_words(target.flatten(0, 1), mapped, chunk=self.chunk)
                    found = found.reshape(points.shape[0], len(index))
                    vectors = functional.embedding(found, mapped)
                    found = found if drawn is None else drawn[found]
                ids.append(found.reshape(points.shape[0], *grid))
                total = total + places.placed(vectors, places.rows(layer))
        return tuple(ids)

    def decode_ids(
        self, ids: Sequence[Tensor], depth: int | Tensor | None = None, codebook: Tensor | None = None
    ) -> Tensor:
        """See ``Quantizer.decode_ids``."""
        words = self._own(codebook)
        layers = list(ids)
        self._check_ids(layers, words.shape[0])
        if depth is None:
            depth = len(layers)
        if not isinstance(depth, Tensor):
            layers = layers[: self._depth(depth, len(layers))]
        with full_precision(words.device):
            total = None
            for layer, found in enumerate(layers, start=1):
                vectors = self._mapped(layer, found.to(torch.int64).flatten(1), words)
                placed = self.places.placed(vectors, self.places.rows(layer))
                if isinstance(depth, Tensor):
                    placed = placed * (depth >= layer)
                total = placed if total is None else total + placed
            assert total is not None  # _check_ids refuses no layers
            return shaped(self.places.filled(total, depth), self.layout.finest)

    def nearness(self, layer: int, ids: Sequence[int], codebook: Tensor) -> Tensor:
        """The vectors by which a layer compares words, [n, d]; for telling ties from mistakes."""
        return self._map(layer, codebook[list(ids)].float())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}, given={self.given}"

    def _own(self, codebook: Tensor | None) -> Tensor:
        if codebook is None:
            return self.codebook.float()
        if codebook.ndim != 2 or codebook.shape[1] != self.words_width:
            raise UsageError(f"the codebook must be [T, {self.words_width}]; got {list(codebook.shape)}")
        return codebook.float()

    def _mapped(self, layer: int, found: Tensor, words: Tensor) -> Tensor:
        """The vectors of ids [B, n] through the layer's map, [B, n, d]."""
        return self._map(layer, functional.embedding(found, words))

    def _map(self, layer: int, vectors: Tensor) -> Tensor:
        one = self.maps[layer - 1]
        assert isinstance(one, nn.Linear)  # a ModuleList does not know
        standard = (vectors - self.centre) / self.spread
        mapped = functional.linear(standard, one.weight.float(), one.bias.float())
        return mapped * self.open[layer - 1]


def _open_dimensions(layout: PyramidLayout, width: int) -> Tensor:
    """Which dimensions each layer may move, fp32 [D, d] of zeros and ones."""
    finest = [layer for layer, grid in enumerate(layout.grids) if grid == layout.finest]
    opened = torch.ones(len(layout), width)
    for layer in range(len(layout)):
        share = 1 + sum(one < layer for one in finest) if layer in finest else 1
        opened[layer, math.ceil(width * share / len(finest)) :] = 0
    return opened
