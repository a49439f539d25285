"""Streaming average quantization in which the first layer has words of its own.

Knows: which part of the codebook a layer may use. Refuses to know: why (``exporters/small_codebook.py`` says).

Ours, not SPAE's; UniAudio 1.5 gives its semantic layer a word list of its own for the same reason (Yang et al. 2024,
"LLM-Codec"): a word that names what is seen should not also stand for a stroke somewhere below.
"""

from __future__ import annotations

from torch import Tensor

from icl_vision.checks import count
from icl_vision.models.quantizers.base import Pool
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

    layerwise = True

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
        self.names = count("names, the words of layer 1 alone,", names, most=self.words - 1)

    def _among(self, layer: int, pool: Pool) -> Pool:
        own = slice(0, self.names) if layer == 1 else slice(self.names, None)
        return Pool(pool.vectors[own], None if pool.terms is None else pool.terms[own], own.start)
