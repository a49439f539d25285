"""How a codebook is used: which words occur, how evenly, and which never do.

Knows: counts of ids. Refuses to know: what the ids stand for and where they come from.

Perplexity is ``exp(H)`` of the words' empirical distribution: T where all T words occur equally often, 1 where one
word is all that is ever said. A collapse of the codebook shows as a perplexity that falls towards 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from icl_vision.checks import count
from icl_vision.errors import UsageError


class CodebookUsage:
    """Counts of words over as many batches as are given to :meth:`update`. Keep one per layer, or one for all.

    Args:
        words: T, the number of words in the codebook.
    """

    counts: Tensor
    """int64 [T] on the CPU: how often each word occurred."""

    def __init__(self, words: int) -> None:
        words = count("words, the size of the codebook,", words)
        self.counts = torch.zeros(words, dtype=torch.int64)

    def update(self, ids: Tensor | Sequence[Tensor]) -> None:
        """Count the ids of a batch, any shape, any integer type; a sequence of tensors (layers) counts together.

        Raises:
            UsageError: ids that are no integers or lie outside the codebook; nothing is counted then.
        """
        layers = [ids] if isinstance(ids, Tensor) else list(ids)
        if any(layer.is_floating_point() or layer.is_complex() or layer.dtype == torch.bool for layer in layers):
            raise UsageError(f"ids must be whole numbers; got {', '.join(str(layer.dtype) for layer in layers)}")
        flat = torch.cat([layer.detach().reshape(-1).to(torch.int64).cpu() for layer in layers]) if layers else None
        if flat is None or not len(flat):
            return
        smallest, largest = int(flat.min()), int(flat.max())
        if smallest < 0 or largest >= len(self.counts):
            raise UsageError(f"ids must be 0 to {len(self.counts) - 1}; got {smallest if smallest < 0 else largest}")
        self.counts += torch.bincount(flat, minlength=len(self.counts))

    def merge(self, other: CodebookUsage) -> None:
        """Add the counts of another process or shard.

        Raises:
            UsageError: it counts another number of words.
        """
        if len(other.counts) != len(self.counts):
            raise UsageError(f"usages of {len(self.counts)} and {len(other.counts)} words cannot be added")
        self.counts += other.counts

    def reset(self) -> None:
        """Forget everything counted."""
        self.counts.zero_()

    @property
    def total(self) -> int:
        """How many ids were counted."""
        return int(self.counts.sum())

    @property
    def usage(self) -> float:
        """The share of words that occurred, 0 to 1."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """``exp`` of the entropy of what was counted, 1 to T; 0 before anything was."""
        if not self.total:
            return 0.0
        share = self.counts[self.counts > 0].double() / self.total
        return float(torch.exp(-(share * share.log()).sum()))

    @property
    def dead(self) -> Tensor:
        """The ids that never occurred, int64, ascending."""
        return (self.counts == 0).nonzero().squeeze(1)

    def to_dict(self) -> dict[str, float | int]:
        """``words``, ``total``, ``used``, ``usage``, ``dead`` and ``perplexity``, for logs and cards."""
        used = int((self.counts > 0).sum())
        return {
            "words": len(self.counts),
            "total": self.total,
            "used": used,
            "usage": self.usage,
            "dead": len(self.counts) - used,
            "perplexity": self.perplexity,
        }
