"""What the frozen trunk sees of captioned pictures, once for every fit.

Knows: the readers' pictures, the trunk, views and class words of pictures. Refuses to know: targets, the fit.

Letters in shapes: N pictures, F features, C classes, T words of the codebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icl_vision.images import load_image
from icl_vision.models.nets.efficientnet import SIDE, EfficientNetLite0
from icl_vision.models.words.describe import LEAST_SHARE, region_means, views
from icl_vision.models.words.photo import ClassTable, best_classes, class_words
from icl_vision.tokenizers.pixels import Preprocessing

if TYPE_CHECKING:
    from icl_vision.images import ImageSource

PIXELS = Preprocessing(SIDE, "squash", "bilinear")
"""As ``words-photo`` has its pictures."""
_BATCH = 16


@dataclass(frozen=True, slots=True)
class SeenPictures:
    """Of N pictures: features [N,F], logits [N,C], differences of region means to the features [N,5,F]."""

    features: Tensor
    logits: Tensor
    differences: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def views(self) -> Tensor:
        """What the head sees, [N, F + C]."""
        return views(self.features, self.logits)

    def shares(self, table: ClassTable, codebook: Tensor) -> Tensor:
        """p(w | x) of every word of the codebook [N,T], as ``words-photo`` has it."""
        none = torch.zeros(self.logits.shape[1])
        with torch.inference_mode():
            parts = torch.split(self.logits, _BATCH)
            rows = [class_words(*best_classes(part, none), table, codebook, none) for part in parts]
            return torch.cat(rows)


def logs(shares: Tensor, ids: Tensor) -> Tensor:
    """log p(w | x) of some words as the head takes it, [N, S]."""
    return shares[:, ids].clamp(min=LEAST_SHARE).log()


def look_at(
    pictures: Sequence[ImageSource], trunk: EfficientNetLite0, *, told: Callable[[int], object] = lambda done: None
) -> SeenPictures:
    """Run the trunk over pictures.

    Args:
        pictures: what ``images.load_image`` takes.
        trunk: in evaluation mode.
        told: called after some pictures with how many there were.

    Raises:
        ImageError: a picture that cannot be opened.
    """
    rows: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for start in range(0, len(pictures), _BATCH):
        images = [load_image(picture) for picture in pictures[start : start + _BATCH]]
        pixels = torch.from_numpy(PIXELS.batch(images)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            logits, features, last = trunk.look(pixels)
            made = (features, logits, region_means(last) - features.unsqueeze(1))
        for row, part in zip(rows, made, strict=True):
            row.append(part)
        told(len(images))
    features, logits, differences = (torch.cat(row).clone() for row in rows)
    return SeenPictures(features, logits, differences)
