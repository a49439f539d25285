"""How well held-out images come back, for every number of layers, through the ids alone, as a user would get them.

Knows: PSNR per depth, the rows of a reconstruction grid. Refuses to know: training.

Letters in shapes: V held-out images (or clips, of T frames), C channels, S side, D layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from icl_vision.models.interface import WordAutoencoder

_SHOWN = 4
"""Frames of a clip that stand in a grid."""


def validate(model: WordAutoencoder, images: Tensor, *, batch: int) -> dict[str, float]:
    """PSNR in dB (mean over images) as ``psnr/1`` to ``psnr/D``, and ``psnr`` for all layers.

    images: uint8 [V, C, S, S], or clips [V, T, C, S, S], whose PSNR is that of all their pixels together; nothing is
    measured for none. Reconstructions are rounded to 8 bits, as files are.
    """
    if not len(images):
        return {}
    depths = len(model.layout)
    sums = torch.zeros(depths, dtype=torch.float64)
    with evaluating(model) as device:
        for part in torch.split(images, batch):
            truth = part.to(device).float()
            for depth, reconstruction in enumerate(reconstructions(model, truth / 255), start=1):
                error = ((reconstruction * 255).round() - truth).square().flatten(1).mean(1).clamp(min=1e-10)
                sums[depth - 1] += (10 * torch.log10(255**2 / error)).double().sum().cpu()
    means = (sums / len(images)).tolist()
    return {f"psnr/{depth}": value for depth, value in enumerate(means, start=1)} | {"psnr": means[-1]}


def grid_rows(model: WordAutoencoder, images: Tensor) -> tuple[list[Tensor], list[str]]:
    """The originals and one row of reconstructions for every number of layers, with the rows' labels.

    Of clips [V, T, C, S, S] a few frames each stand in the rows, one beside the other.
    """
    with evaluating(model) as device:
        pixels = images.to(device).float() / 255
        rows = [_frames(row.cpu()) for row in (pixels, *reconstructions(model, pixels))]
    counts = model.layout.cumulative
    return rows, ["original", *(f"{count} word{'s' if count > 1 else ''}" for count in counts)]


def _frames(row: Tensor) -> Tensor:
    """Images as they are; of clips ``_SHOWN`` frames, evenly spread."""
    if row.ndim == 4:
        return row
    shown = min(_SHOWN, row.shape[1])
    return row[:, [frame * row.shape[1] // shown for frame in range(shown)]].flatten(0, 1)


def reconstructions(model: WordAutoencoder, images: Tensor) -> Iterator[Tensor]:
    """[V, C, S, S] in [0, 1] from the first 1, 2, ... D layers."""
    ids = model.encode_ids(images)
    for depth in range(1, len(ids) + 1):
        yield model.decode_ids(ids, depth)


@contextmanager
def evaluating(model: WordAutoencoder) -> Iterator[torch.device]:
    """The model in evaluation mode, without gradients; yields its device."""
    before = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(before)
