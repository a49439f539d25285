"""Reconstructions as one picture: the originals on top, below them one row for each number of layers.

Knows: how rows of images are laid out. Refuses to know: models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.files.storage import atomic_path

_GAP = 2
_SMALLEST = 64
"""Images with shorter sides are enlarged, by a whole factor, so that a person sees something."""


def grid_image(rows: Sequence[Tensor], labels: Sequence[str] = ()) -> Image.Image:
    """Rows of images as one RGB picture.

    rows: [N, C, S, S] each, the same shape, C 1 or 3, uint8 or floating in [0, 1]. labels: a word or two in front of
    each row, or none.

    Raises UsageError where the rows do not fit together.
    """
    if not rows or len({tuple(row.shape) for row in rows}) != 1 or rows[0].ndim != 4 or rows[0].shape[1] not in (1, 3):
        raise UsageError(f"rows of a grid must be [N, 1 or 3, S, S] and alike; got {[list(row.shape) for row in rows]}")
    if labels and len(labels) != len(rows):
        raise UsageError(f"{len(rows)} rows need as many labels, or none; got {len(labels)}")
    images, _, side, _ = rows[0].shape
    factor = max(1, -(-_SMALLEST // side))
    cell = side * factor + _GAP
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = max((int(probe.textlength(label)) + 3 * _GAP for label in labels), default=0)
    page = Image.new("RGB", (margin + images * cell - _GAP, len(rows) * cell - _GAP), "white")
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        strip = np.concatenate(list(_pixels(row)), axis=1)
        tiles = Image.fromarray(strip).resize((images * side * factor, side * factor), Image.Resampling.NEAREST)
        for column in range(images):
            tile = tiles.crop((column * side * factor, 0, (column + 1) * side * factor, side * factor))
            page.paste(tile, (margin + column * cell, number * cell))
        if labels:
            draw.text((_GAP, number * cell + (cell - _GAP) // 2), labels[number], fill="black", anchor="lm")
    return page


def save_grid(path: Path, rows: Sequence[Tensor], labels: Sequence[str] = ()) -> Image.Image:
    """Write ``grid_image`` as a PNG, atomically, and give it."""
    image = grid_image(rows, labels)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
    return image


def _pixels(row: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """uint8 [N, S, S, 3]."""
    values = row.detach().cpu()
    if values.is_floating_point():
        values = (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return values.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
