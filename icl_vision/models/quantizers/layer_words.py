"""Streaming average quantization in which the first layer has words of its own.

Knows: which part of the codebook a layer may use. Refuses to know: why (``exporters/small_codebook.py`` says).

Ours, not SPAE's; UniAudio 1.5 gives its semantic layer a word list of its own for the same reason (Yang et al. 2024,
"LLM-Codec"): a word that names what is seen should not also stand for a stroke somewhere below.
"""

from __future__ import annotations

import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.quantizers.nearest import full_precision, nearest_words
from icl_vision.models.quantizers.places import Fill
from icl_vision.models.quantizers.streaming import StreamingAverageQuantizer
from icl_vision.pyramid import PyramidLayout


class NamedAverageQuantizer(StreamingAverageQuantizer):
    """Layer 1 chooses among the first ``names`` words of the codebook, every other layer among the rest.

    Args:
        codebook: floating [T, c], names first.
        layout: the grids.
        names: how many, 1 to T - 1.
        normalise, fill, learned: see ``Quantizer``.

    Raises:
        UsageError: ``names`` leaves no word for one of the two.
    """

    def __init__(
        self,
        codebook: Tensor,
        layout: PyramidLayout,
        names: int,
        *,
        normalise: bool = False,
        fill: Fill = "finest",
        learned: bool = False,
    ) -> None:
        super().__init__(codebook, layout, normalise=normalise, fill=fill, learned=learned)
        if not 1 <= names < self.words:
            raise UsageError(f"names, the words of layer 1 alone, must be 1 to {self.words - 1}; got {names}")
        self.names = names

    def encode_ids(self, z: Tensor, codebook: Tensor | None = None) -> tuple[Tensor, ...]:
        """The words alone: int64 [B, h_l, w_l], one tensor per layer. No gradients; exports as the base's does."""
        self._check_input(z)
        with torch.no_grad(), full_precision(z.device):
            words, terms = self._words_and_terms(codebook)
            points, places = z.detach().float().flatten(2).transpose(1, 2), self.places
            total = torch.zeros_like(points)
            ids: list[Tensor] = []
            for layer, grid in enumerate(self.layout.grids, start=1):
                own = slice(0, self.names) if layer == 1 else slice(self.names, None)
                index = places.index(layer)
                target = self._target(
                    points.index_select(1, index), total.index_select(1, index), places.held(layer - 1)[index]
                )
                found = nearest_words(
                    target.flatten(0, 1),
                    words[own],
                    normalise=self.normalise,
                    chunk=self.chunk,
                    terms=None if terms is None else terms[own],
                )
                found = (found + own.start).reshape(points.shape[0], len(index))
                ids.append(found.reshape(points.shape[0], *grid))
                total = total + places.placed(words[found], places.rows(layer))
        return tuple(ids)
