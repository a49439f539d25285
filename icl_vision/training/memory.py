"""What frozen nets say of images that come again, kept from the first time on.

Knows: which images are known. Refuses to know: what the nets are, what is learned.

Half precision holds the features: TAEF2's latents are about 1 in size, and a training step rounds harder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)

Look = Callable[[Tensor], tuple[Tensor, ...]]


class Memory:
    """Features and words by image, filled as images come by.

    A batch with an image that is not known is looked at whole, so that what is kept of it does not depend on how many
    others were known (nets add up differently at other batch sizes): a resumed run fills its memory as the first did.
    """

    def __init__(self, images: int) -> None:
        self._known = torch.zeros(images, dtype=torch.bool)
        self._kept: list[Tensor] = []

    def recall(self, index: Tensor, images: Tensor, look: Look) -> tuple[Tensor, ...]:
        """What ``look(images)`` gives, on the images' device. index: int64 [B] on the CPU, which images these are."""
        if not bool(self._known[index].all()):
            self._learn(index, look(images))
        return tuple(_restored(kept[index].to(images.device)) for kept in self._kept)

    def save(self, file: Path, of: str) -> None:
        """Keep what is known in a file, whole or not at all. of: what it belongs to (the data's fingerprint)."""
        temporary = file.with_name(f".tmp-{file.name}")
        tensors = {f"kept.{number}": kept for number, kept in enumerate(self._kept)}
        save_file({"known": self._known, **tensors}, temporary, metadata={"of": of})
        os.replace(temporary, file)

    def load(self, file: Path, of: str) -> bool:
        """Take up what ``save`` kept. False, and nothing changes, where there is none or it is of other data.

        A damaged file is passed over with a warning in the log: all that it held can be looked at again.
        """
        if not file.is_file():
            return False
        try:
            with safe_open(file, framework="pt") as stored:
                if (stored.metadata() or {}).get("of") != of:
                    return False
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        except SafetensorError as error:
            logger.warning("%s is damaged (%s); every image is looked at again", file, error)
            return False
        known = tensors.pop("known")
        if len(known) != len(self._known):
            return False
        self._known = known
        self._kept = [tensors[f"kept.{number}"] for number in range(len(tensors))]
        return True

    def _learn(self, index: Tensor, said: tuple[Tensor, ...]) -> None:
        small = [_small(value) for value in said]
        if not self._kept:
            self._kept = [torch.zeros(len(self._known), *value.shape[1:], dtype=value.dtype) for value in small]
        new = ~self._known[index]
        for kept, value in zip(self._kept, small, strict=True):
            kept[index[new]] = value[new]
        self._known[index] = True


def _small(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16 if value.is_floating_point() else torch.int32)


def _restored(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value.to(torch.int64)
