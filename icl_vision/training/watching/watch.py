"""When a run must stop by itself: numbers that are none, and a codebook of which a single word is left.

Knows: what is a bad sign, and what to change. Refuses to know: what is done about it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from icl_vision.checks import count
from icl_vision.errors import TrainingError, UsageError
from icl_vision.files.typed import check_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StopConfig:
    """When to give up.

    perplexity: the codebook has collapsed when the perplexity of every layer's words stays below this (1 means that a
    layer says one word for every image); null never stops for it. patience: for so many log intervals in a row.
    """

    perplexity: float | None = 1.5
    patience: int = 10

    def __post_init__(self) -> None:
        check_fields(self)
        count("stop.patience", self.patience, of="log intervals")
        if self.perplexity is not None and self.perplexity < 1:
            raise UsageError(f"stop.perplexity is 1 or more, or null to never stop; got {self.perplexity}")


class Watch:
    """Looks at losses and perplexities and raises TrainingError when going on makes no sense.

    ``low`` counts the intervals in a row in which all layers were below the threshold; it is part of a checkpoint.
    """

    def __init__(self, config: StopConfig, low: int = 0) -> None:
        self.config = config
        self.low = low
        self._warned: set[int] = set()

    def refuse_numbers(self, step: int, parts: Mapping[str, float], norm: float) -> NoReturn:
        """Raise, naming which of the losses or the gradient's norm is NaN or infinite."""
        bad = [name for name, value in parts.items() if not math.isfinite(value)]
        if not math.isfinite(norm):
            bad.append("the gradient's norm")
        raise TrainingError(
            f"step {step}: not finite: {', '.join(bad) or 'a loss in another process'}; lower optimiser.rate, set "
            "optimiser.clip, or use precision 32-true, and start again"
        )

    def check_usage(self, step: int, perplexities: Sequence[float]) -> None:
        """Raise where the codebook has collapsed; warn once about a single layer that has."""
        threshold = self.config.perplexity
        if threshold is None or not perplexities:
            return
        for layer, value in enumerate(perplexities, start=1):
            if value < threshold and layer not in self._warned and len(perplexities) > 1:
                self._warned.add(layer)
                logger.warning("step %d: layer %d says little more than one word (perplexity %.2f)", step, layer, value)
        self.low = self.low + 1 if max(perplexities) < threshold else 0
        if self.low >= self.config.patience:
            shown = ", ".join(f"{value:.2f}" for value in perplexities)
            raise TrainingError(
                f"step {step}: the codebook has collapsed: for {self.low} log intervals the perplexity of every layer "
                f"was below {threshold:g} (now {shown}); lower optimiser.rate or loss.semantic, raise loss.commitment, "
                "or set stop.perplexity to null to go on regardless"
            )
