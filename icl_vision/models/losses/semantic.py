"""The semantic loss of SPAE: words that fit the image pull the encoder towards them (eq. 4 to 7).

Knows: candidate pools, targets, and the softmax cross-entropy over squared distances to every word.
Refuses to know: where similarities come from (models/losses/guides.py), and every other loss.

Source: Yu et al. 2023, "SPAE" (arXiv:2306.17842), section 3.1. With similarities s'(I, k) of image and word:

    s(I, k) = (s' - min_j s') / (max_j s' - min_j s')          eq. (6): the best word always scores 1
    C_l(I)  = { k : s(I, k) >= rho_l }                         eq. (4): never empty
    loss    = mean over layers l, positions z_l and words c in C_l of
              -log softmax_k( -||z_l - e(k)||^2 / temperature ) at c   eq. (7)

Eq. (7) has no temperature (1 here). Between unit vectors squared distances span 4 at most, so over thousands of words
its softmax is nearly flat; a codebook of unit vectors wants a temperature of about 0.05.

||z||^2 falls out of the softmax, and the mean over a pool is linear in its words, so the whole loss is

    logsumexp_k( (2 z.e_k - ||e_k||^2) / t ) - (2 z.a - b) / t

with a, b the vector and squared length of one drawn word ("sampled", as the paper does), or their means over the pool
("expected": the same expectation without its noise). The first term needs [positions, words] numbers: it is computed in
chunks, its gradient along the way, and nothing of that size is kept.

Letters in shapes: B images, T words, c codebook width, N positions, n positions of one layer and image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from icl_vision.checks import count, number
from icl_vision.errors import UsageError
from icl_vision.files.typed import check_fields
from icl_vision.models.quantizers.nearest import full_precision

Targets = Literal["sampled", "expected"]

CPU_CHUNK = 1 << 21
"""Largest [rows, words] block held at a time on a CPU: 8 MiB of float32, measured as fastest."""

DEVICE_CHUNK = 1 << 26
"""The same elsewhere: 256 MiB, few and large kernels."""


@dataclass(frozen=True)
class SemanticOptions:
    """How eq. (4) to (7) are taken.

    thresholds: rho_l per layer, in [0, 1]; layers beyond them have no semantic loss, thresholds beyond the layers are
    not used. targets: "sampled" draws one word per position from the pool, "expected" takes the pool's mean.
    temperature: divides the squared distances. positions: at most so many positions of a layer, drawn anew each call
    and shared by the batch (an unbiased estimate that saves time); 0 takes all.
    """

    thresholds: tuple[float, ...] = (0.98, 0.95, 0.90, 0.85, 0.80)
    targets: Targets = "sampled"
    temperature: float = 1.0
    positions: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.thresholds or not all(0.0 <= rho <= 1.0 for rho in self.thresholds):
            raise UsageError(f"thresholds must be one or more numbers in [0, 1], a layer each; got {self.thresholds}")
        number("temperature", self.temperature, above=0)
        count("positions", self.positions, least=0)


@dataclass(frozen=True)
class SemanticLoss:
    """``total``: the mean over layers, a scalar with gradient. ``layers``: each layer's own mean, with gradient."""

    total: Tensor
    layers: tuple[Tensor, ...]


def normalise_similarity(similarity: Tensor) -> Tensor:
    """Eq. (6): each row brought to [0, 1], its largest value to 1. A constant row becomes all ones.

    similarity: [B, T], any finite scale.

    Raises UsageError where a value is NaN or infinite: a guide that gives one would poison the encoder silently.
    """
    if not torch.isfinite(similarity).all():
        raise UsageError("the guide's similarities hold NaN or infinity; check its weights and its images")
    low = similarity.amin(1, keepdim=True)
    spread = similarity.amax(1, keepdim=True) - low
    scaled = (similarity - low) / torch.where(spread > 0, spread, torch.ones_like(spread))
    return torch.where(spread > 0, scaled, torch.ones_like(scaled))


def candidate_pool(normalised: Tensor, threshold: float) -> Tensor:
    """Eq. (4): which words are candidates, bool [B, T]; at least one a row.

    normalised: [B, T] from ``normalise_similarity``.
    """
    # (max - min) / (max - min) is exactly 1 in IEEE arithmetic, so the best word passes even at a threshold of 1.
    return normalised >= threshold


def log_partition(points: Tensor, codebook: Tensor, temperature: float = 1.0) -> Tensor:
    """logsumexp over words k of (2 z.e_k - ||e_k||^2) / temperature, [N], for points z [N, c] and codebook [T, c].

    Differentiable once, with respect to ``points`` only; the codebook is a constant. Memory: one chunk.
    """
    result: Tensor = _LogPartition.apply(points, codebook.detach(), temperature)  # type: ignore[no-untyped-call]  # torch does not type it
    return result


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, codebook: Tensor, temperature: float) -> Tensor:
        squares = codebook.square().sum(1)
        numbers = CPU_CHUNK if points.device.type == "cpu" else DEVICE_CHUNK
        rows = max(1, numbers // len(codebook))
        result = points.new_empty(len(points))
        slope = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        for start in range(0, len(points), rows):
            part = slice(start, start + rows)
            logits = torch.addmm(squares, points[part], codebook.T, beta=-1 / temperature, alpha=2 / temperature)
            top = logits.amax(1, keepdim=True)
            weight = logits.sub_(top).exp_()  # at most 1: no overflow, and one pass of exp serves both results
            total = weight.sum(1, keepdim=True)
            result[part] = (total.log() + top).squeeze(1)
            if slope is not None:
                slope[part] = (weight @ codebook) / total
        ctx.temperature = temperature
        ctx.save_for_backward(*([] if slope is None else [slope]))
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.saved_tensors:
            return None, None, None
        return ctx.saved_tensors[0] * (gradient * (2 / ctx.temperature)).unsqueeze(1), None, None


def semantic_loss(
    targets: Sequence[Tensor],
    similarity: Tensor,
    codebook: Tensor,
    options: SemanticOptions,
    *,
    generator: torch.Generator | None = None,
) -> SemanticLoss:
    """Eq. (7). Gradients reach ``targets`` only: the loss is the encoder's, not the codebook's or the guide's.

    Args:
        targets: z_l of each layer, [B, c, h_l, w_l] (3-D grids too), coarse first, as ``Quantized.targets``.
        similarity: [B, T], any scale (``Guide.similarity``).
        codebook: [T, c], on the targets' device.
        options: thresholds and the rest.
        generator: what words and positions are drawn with, on the targets' device; None takes torch's own.

    Raises:
        UsageError: shapes that do not fit, or a similarity that is not finite.
    """
    _check(targets, similarity, codebook)
    with torch.no_grad():
        # fp32 whatever autocast says: distances between near words differ in digits that bf16 does not have.
        normalised = normalise_similarity(similarity.float())
    with full_precision(similarity.device):
        layers = tuple(
            _layer_loss(z, candidate_pool(normalised, threshold), codebook.detach(), options, generator)
            for z, threshold in zip(targets, options.thresholds, strict=False)
        )
        return SemanticLoss(torch.stack(layers).mean(), layers)


def _layer_loss(
    z: Tensor, pool: Tensor, codebook: Tensor, options: SemanticOptions, generator: torch.Generator | None
) -> Tensor:
    points = z.flatten(2).transpose(1, 2)  # [B, n, c]
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    words = codebook.to(points.dtype)
    if 0 < options.positions < points.shape[1]:
        order = torch.randperm(points.shape[1], generator=generator, device=points.device)
        points = points[:, order[: options.positions]]
    anchor, square = _anchors(pool, words, points.shape[1], options.targets, generator)
    reward = (2 * (points * anchor).sum(2) - square) / options.temperature  # [B, n]
    partition = log_partition(points.reshape(-1, points.shape[2]), words, options.temperature)
    return (partition.view_as(reward) - reward).mean()


@torch.no_grad()
def _anchors(
    pool: Tensor, words: Tensor, n: int, targets: Targets, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """What each position is pulled to: vector [B, n or 1, c] and mean squared length [B, n or 1]."""
    if targets == "sampled":
        drawn = torch.multinomial(pool.float(), n, replacement=True, generator=generator)  # [B, n]
        anchor = words[drawn]
        return anchor, anchor.square().sum(2)
    share = pool.to(words.dtype) / pool.sum(1, keepdim=True)
    return (share @ words).unsqueeze(1), (share @ words.square().sum(1)).unsqueeze(1)


def _check(targets: Sequence[Tensor], similarity: Tensor, codebook: Tensor) -> None:
    if not targets:
        raise UsageError("the semantic loss needs the targets of at least one layer; got none")
    if similarity.ndim != 2 or similarity.shape[1] != len(codebook):
        raise UsageError(
            f"similarity must be [B, {len(codebook)}], a column per codebook word; got {list(similarity.shape)}"
        )
    for layer, z in enumerate(targets, start=1):
        if z.ndim < 3 or z.shape[:2] != (len(similarity), codebook.shape[1]):
            raise UsageError(
                f"the targets of layer {layer} must be [{len(similarity)}, {codebook.shape[1]}, ...grid]; "
                f"got {list(z.shape)}"
            )
