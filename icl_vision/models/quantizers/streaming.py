"""Vectors become words of a codebook, layer by layer on a pyramid of grids, and words become vectors again.

Knows: which word stands where, eq. (1)-(3) of SPAE, straight-through gradients, what a position without a word gets.
Refuses to know: images, nets, what a word means, weights of losses.

Three quantizers with one signature; they differ in what a layer is asked for and in how words add up:

=============================  ===============================================  ==========================
quantizer                      what layer l looks up, z_l                       what l words stand for
=============================  ===============================================  ==========================
``StreamingAverageQuantizer``  ``(n + 1) z - sum of the n words before``        their mean (eq. 3)
``ResidualQuantizer``          ``z - sum of the words before``                  their sum
``VectorQuantizer``            ``z``, one layer                                 the word
=============================  ===============================================  ==========================

The first line is eq. (2) of SPAE (Yu et al. 2023, arXiv:2306.17842) with its terms gathered: the word that brings the
running mean back to z. The paper also prints a streaming update, ``mean + e / (n + 1)``, which does not shrink the old
mean and so is no mean; eq. (3) is what is computed here. Residual quantization: Lee et al. 2022 (arXiv:2203.01941);
the plain one: van den Oord et al. 2017 (arXiv:1711.00937).

**Positions without a word.** A layer owns the positions of eq. (1) only, so the first layers of a pyramid leave most
positions empty; the paper does not say what a decoder sees there. With ``fill="finest"`` such a position takes the
value of the owner in the finest layer there is whose cell contains it (cells tile the grid, so there always is one);
its straight-through gradient goes to that owner, whose word it is. With ``fill="zeros"`` it holds zeros and passes no
gradient. Where every position has a word the two are the same.

Everything is computed in fp32, under autocast too: distances in 65,000 words differ in digits that bf16 does not have.
The search for words is in ``nearest.py``; it never holds a score for every pair of position and word.

Letters in shapes: B batch, c codebook width, T words, H x W the finest grid (F x H x W for video), P its positions,
h_l x w_l the grid of layer l, D layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.errors import UsageError
from icl_vision.models.quantizers.base import Quantized, Quantizer
from icl_vision.models.quantizers.nearest import nearest_words
from icl_vision.models.quantizers.places import Fill
from icl_vision.models.quantizers.usage import CodebookUsage
from icl_vision.pyramid import PyramidLayout

__all__ = [
    "CodebookUsage",
    "Fill",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "StreamingAverageQuantizer",
    "VectorQuantizer",
    "nearest_words",
]


class StreamingAverageQuantizer(Quantizer):
    """SPAE's quantizer: a position's words are averaged (eq. 1-3 of arXiv:2306.17842). Arguments: see the base."""

    def _target(self, z: Tensor, total: Tensor, held: Tensor) -> Tensor:
        return (held + 1) * z - total

    def _estimate(self, total: Tensor, held: Tensor) -> Tensor:
        return total / held.clamp(min=1)


class ResidualQuantizer(Quantizer):
    """Each layer says what the layers before left over; words are added up (RQ-VAE, arXiv:2203.01941).

    Args:
        codebook: floating [T, c], shared by all layers.
        grid: rows and columns (or frames, rows and columns) of every layer.
        layers: how many.
        normalise, learned, chunk: see ``Quantizer``.
    """

    def __init__(
        self,
        codebook: Tensor,
        grid: Sequence[int],
        layers: int,
        *,
        normalise: bool = False,
        learned: bool = False,
        chunk: int | None = None,
    ) -> None:
        layers = count("layers", layers)
        super().__init__(
            codebook, PyramidLayout((tuple(grid),) * layers), normalise=normalise, learned=learned, chunk=chunk
        )

    def _target(self, z: Tensor, total: Tensor, held: Tensor) -> Tensor:
        return z - total

    def _estimate(self, total: Tensor, held: Tensor) -> Tensor:
        return total


class VectorQuantizer(ResidualQuantizer):
    """One word a position (VQ-VAE, arXiv:1711.00937), frozen or learned: a residual quantizer of one layer.

    Args:
        codebook: floating [T, c]; None draws one uniformly from -1/T to 1/T (as VQGAN does), to be learned.
        size, dim: T and c where ``codebook`` is None.
        grid: rows and columns (or frames, rows and columns).
        learned: train the codebook; None: where it was drawn, not where it was given.
        normalise, chunk: see ``Quantizer``.

    Raises:
        UsageError: neither a codebook nor a size and a dim, or both; a drawn codebook that is not to be learned.
    """

    def __init__(
        self,
        codebook: Tensor | None = None,
        *,
        grid: Sequence[int],
        size: int | None = None,
        dim: int | None = None,
        learned: bool | None = None,
        normalise: bool = False,
        chunk: int | None = None,
    ) -> None:
        if codebook is None:
            if size is None or dim is None or size < 1 or dim < 1:
                raise UsageError(
                    f"without a codebook give size and dim, both 1 or more; got size={size!r}, dim={dim!r}"
                )
            if learned is False:
                raise UsageError("a codebook drawn at random means nothing unless learned: give one, or learned=True")
            codebook = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
            learned = True
        elif size is not None or dim is not None:
            raise UsageError("give a codebook, or a size and a dim, not both")
        super().__init__(codebook, grid, 1, normalise=normalise, learned=bool(learned), chunk=chunk)
