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

import torch
from torch import Tensor, nn
from torch.nn import functional

from icl_vision.checks import count
from icl_vision.models.quantizers.base import Pool, Quantizer
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
        fill: what a position without a word holds, see ``streaming.py``.
        chunk: see ``nearest_words``.
        candidates: in training, look only among so many words, drawn anew for every step; 0: among all. The search is
            the dearest part of a step on a CPU, and its answer need not be the best for a gradient.

    Raises:
        UsageError: ``width`` or ``given`` out of range.
    """

    centre: Tensor
    spread: Tensor
    open: Tensor
    layerwise = True

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
        self.width = count("width, the channels of z,", width)
        self.given = count("given", given, least=0, most=len(layout) - 1, of="layers")
        candidates = count("candidates", candidates, least=0, of="words")
        self.candidates = candidates if candidates < self.words else 0
        self.learns_words = True  # through the maps
        # So that fresh maps of the words have about unit spread in every dimension. It is part of the maps.
        self.register_buffer("centre", self.codebook.mean(0))
        self.register_buffer(
            "spread", self.codebook.std(0).clamp(min=1e-6) if self.words > 1 else self.codebook[0] * 0 + 1
        )
        self.register_buffer("open", _open_dimensions(layout, width), persistent=False)
        maps = []
        for layer in range(1, len(layout) + 1):
            linear = nn.Linear(self.words_width, self.width)
            scale = _SCALE * _SHRINKING ** max(0, layer - given - 1)
            nn.init.normal_(linear.weight, std=scale * self.words_width**-0.5)
            nn.init.zeros_(linear.bias)
            if layer <= given:
                nn.init.zeros_(linear.weight)  # knows nothing yet
            maps.append(linear)
        self.maps = nn.ModuleList(maps)

    @property
    def dimension(self) -> int:
        """d."""
        return self.width

    def _target(self, z: Tensor, total: Tensor, held: Tensor) -> Tensor:
        return z - total

    def _estimate(self, total: Tensor, held: Tensor) -> Tensor:
        return total

    def _seen(self, layer: int, vectors: Tensor) -> Tensor:
        linear = self.maps[layer - 1]
        assert isinstance(linear, nn.Linear)  # a ModuleList does not know
        standard = (vectors - self.centre) / self.spread
        return functional.linear(standard, linear.weight.float(), linear.bias.float()) * self.open[layer - 1]

    def _pool(self, words: Tensor, terms: Tensor | None) -> Pool:
        if not (self.training and self.candidates):
            return Pool(words, terms)
        drawn = torch.randperm(words.shape[0], device=words.device)[: self.candidates]
        return Pool(words[drawn], None, drawn)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}, given={self.given}"


def _open_dimensions(layout: PyramidLayout, width: int) -> Tensor:
    """Which dimensions each layer may move, fp32 [D, d] of zeros and ones."""
    finest = [layer for layer, grid in enumerate(layout.grids) if grid == layout.finest]
    opened = torch.ones(len(layout), width)
    for layer in range(len(layout)):
        share = 1 + sum(earlier < layer for earlier in finest) if layer in finest else 1
        opened[layer, math.ceil(width * share / len(finest)) :] = 0
    return opened
