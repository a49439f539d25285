"""The nearest word of each vector on one grid, in the words' table as it is, or along a few whitened directions of it.

Knows: which word is nearest, the words as the encoder sees them, the way back from there to the table, how alike words
are chosen. Refuses to know: nets, language models, losses.

LQAE (Liu et al. 2023, arXiv:2302.00902) looks for the largest cosine between an encoder's vector and a row of RoBERTa's
embedding table. Rows of such tables lie in a narrow cone and differ along few of their 768 dimensions, so a few words
take everything (measured: docs/lqae.md). Ours: the table's principal directions, scaled to unit spread, in which the
words lie about evenly around the middle:

    seen_k = (e_k - mean) V / s          s_i^2 the variance along direction i, of the directions with the largest ones
    back   = s V^T                       so that seen_k back + mean is the row again, as far as these directions have it

Letters in shapes: B batch, c width of the table, d width of what is looked at, T words, H x W the grid, P = H W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icl_vision.checks import count
from icl_vision.errors import UsageError
from icl_vision.models.quantizers.nearest import full_precision, nearest_words


class WordLookup(nn.Module):
    """Vectors [B, d, H, W] -> ids of words, and words as the encoder sees them.

    Args:
        codebook: floating [T, c], finite.
        directions: d, at most c; 0 looks at the table as it is (d = c).
        normalise: the largest cosine, not the smallest distance.
        neighbours: in training, one of so many nearest words at random.
        learned: train the codebook, which then is part of ``state_dict()``; a frozen one is not.

    Raises:
        UsageError: a codebook that cannot be, more directions or neighbours than there are.
    """

    codebook: Tensor
    into: Tensor
    centre: Tensor
    back: Tensor

    def __init__(
        self,
        codebook: Tensor,
        *,
        directions: int = 0,
        normalise: bool = True,
        neighbours: int = 1,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if codebook.ndim != 2 or 0 in codebook.shape or not bool(torch.isfinite(codebook).all()):
            raise UsageError(f"the codebook must be finite numbers [T, c], words by width; got {list(codebook.shape)}")
        words, width = codebook.shape
        self.directions = count("directions", directions, least=0, most=min(width, words), of=" (the table's own)")
        self.neighbours = count("neighbours", neighbours, most=words, of="words")
        self.normalise = normalise
        self.learned = learned
        values = codebook.detach().float().clone()
        if learned:
            self.codebook = nn.Parameter(values)
        else:
            self.register_buffer("codebook", values, persistent=False)
        # Stored, not made again: another machine's eigenvectors may point the other way.
        for name, value in zip(("centre", "into", "back"), _directions(values, self.directions), strict=True):
            self.register_buffer(name, value)

    @property
    def words(self) -> int:
        """T."""
        return int(self.codebook.shape[0])

    def seen(self, rows: Tensor) -> Tensor:
        """Rows of the table [..., c] as the encoder sees them [..., d], fp32, also where the model was made half."""
        if not self.directions:
            return rows.float()
        with full_precision(rows.device):
            return (rows.float() - self.centre.float()) @ self.into.float()

    def lifted(self, points: Tensor) -> Tensor:
        """The way back: [..., d] -> [..., c], without the table's mean. For gradients."""
        return points @ self.back if self.directions else points

    def forward(self, z: Tensor, codebook: Tensor | None = None) -> Tensor:
        """The words of vectors [B, d, H, W]: int64 [B, H, W]. No gradients; exports with ``torch.export``.

        codebook: floating [T, c] instead of the own one, so that it can be the input of a graph.
        """
        with torch.no_grad(), full_precision(z.device):
            words = self.seen(self.codebook if codebook is None else codebook)
            points = z.detach().float().flatten(2).transpose(1, 2).flatten(0, 1)  # [B P, d]
            if self.training and self.neighbours > 1:
                ids = self._one_of_the_nearest(points, words)
            else:
                ids = nearest_words(points, words, normalise=self.normalise)
            return ids.reshape(z.shape[0], *z.shape[2:])

    def closeness(self, points: Tensor) -> Tensor:
        """How near each word is to each point [N, d]: [N, T], larger is nearer; with gradient. Minus the squared
        distance, of vectors of length 1 where ``normalise``; in fp32, also under autocast."""
        words = self.seen(self.codebook)
        if self.normalise:
            points, words = F.normalize(points, dim=1), F.normalize(words, dim=1)
        with full_precision(points.device):
            return 2 * points @ words.T - points.square().sum(1, keepdim=True) - words.square().sum(1)

    def _one_of_the_nearest(self, points: Tensor, words: Tensor) -> Tensor:
        scale = words.norm(dim=1).clamp(min=1e-12).reciprocal() if self.normalise else None
        scores = points @ words.T * scale if scale is not None else points @ words.T - words.square().sum(1) / 2
        nearest = scores.topk(self.neighbours, dim=1).indices  # [N, n]
        return nearest.gather(1, torch.randint(self.neighbours, (len(nearest), 1), device=nearest.device))[:, 0]

    def extra_repr(self) -> str:
        kind = "learned" if self.learned else "frozen"
        return f"{self.words} {kind} words, directions={self.directions}, normalise={self.normalise}"


def _directions(table: Tensor, directions: int) -> tuple[Tensor, Tensor, Tensor]:
    """The table's mean [c], the way in [c, d] and back [d, c]; empty where the table is looked at as it is."""
    if not directions:
        return table.new_zeros(0), table.new_zeros(0), table.new_zeros(0)
    mean = table.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((table - mean).double().T))  # ascending
    spread = values[-directions:].flip(0).clamp(min=1e-12).sqrt()
    axes = vectors[:, -directions:].flip(1)
    return mean, (axes / spread).float(), (axes * spread).T.contiguous().float()
