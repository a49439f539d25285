"""What every family with a "photo" net asks of a run: TAEF2's weights, and latents that count as pixels do.

Knows: TAEF2's folder, which images a run may remember. Refuses to know: any one family, its losses.
"""

from __future__ import annotations

import logging

from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.interface import Decoder, Encoder
from icl_vision.training.config import TrainConfig

logger = logging.getLogger(__name__)


def check_remember(config: TrainConfig, *, photo: bool) -> None:
    """Raises UsageError where ``remember`` has nothing to remember, or images that never come again.

    photo: whether the model has a photo net.
    """
    if config.remember and (not photo or config.data.augments(config.model.side)):
        raise UsageError(
            "remember is for net photo, and for images that are the same in every epoch: set data.flip to false, "
            "data.shift to 0 and data.load_size to null, or remember to false"
        )


def taef2_folder(pretrained: str | None) -> str:
    """The folder that a run names. Raises UsageError where it names none."""
    if pretrained is None:
        raise UsageError(
            "a photo net stands on the TAEF2 autoencoder: name the folder of its two weight files with pretrained "
            "(--set pretrained=FOLDER)"
        )
    return pretrained


def measure_latents(encoder: Encoder, decoder: Decoder, images: Tensor, even: float = 0.0) -> None:
    """For training on latents: how much each of them matters to a pixel. images: held-out ones [N, C, S, S], N may be
    0. even: see ``Decoder.measure``."""
    if not len(images):
        logger.warning("no image is held out to measure the latents' metric with: all their channels count alike")
        return
    decoder.measure(encoder.features(images), even)
