"""Learned image measures as functions of uint8 arrays, for evaluations that know no torch.

Knows: how arrays become tensors. Refuses to know: what is measured and how results are summed up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icl_vision.codebook import Codebook
from icl_vision.evaluation.reconstruction import Pixels
from icl_vision.models.losses.guides import CLIPGuide, ConSEGuide
from icl_vision.models.losses.image_quality import (
    EfficientNetExtractor,
    FeatureExtractor,
    FeatureStatistics,
    InceptionExtractor,
    fid,
    gather,
    inception_score,
    lpips,
)
from icl_vision.models.losses.perceptual import load_lpips
from icl_vision.models.words.clip_words import load_clip


def perceptual() -> Callable[[Pixels, Pixels], npt.NDArray[np.float32]]:
    """LPIPS (AlexNet) of each pair, [N]. Raises as ``load_lpips`` where its weights are not installed."""
    net = load_lpips()
    return lambda a, b: lpips(_tensor(a), _tensor(b), net)


def conse_guidance(codebook: Codebook) -> Callable[[Pixels], npt.NDArray[np.float32]]:
    """Similarity of each picture to every word by ``ConSEGuide``, [N, T]. Raises as ``ConSEGuide.load``."""
    guide = ConSEGuide.load(codebook)

    def similarity(pixels: Pixels) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = guide.similarity(_tensor(pixels)).numpy()
        return values

    return similarity


class CaptionSimilarity:
    """How well captions fit pictures: the cosine of CLIP's vector of a caption and its vector of the picture.

    name: what a table calls it. encoder: a CLIP-like model of the user's, by folder or hub name.

    Raises what ``load_clip`` raises.
    """

    def __init__(self, encoder: str | os.PathLike[str]) -> None:
        self._parts = load_clip(encoder)
        where = self._parts.name
        self.name = f"CLIP similarity ({os.path.basename(where.rstrip('/')) if os.path.isdir(where) else where})"

    def __call__(self, pixels: Pixels, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N], of pictures uint8 [N, S, S, 3] and their captions."""
        texts = list(dict.fromkeys(captions))
        guide = CLIPGuide(self._parts, torch.from_numpy(self._parts.embed_texts(texts, template="{}")))
        cosines = guide.similarity(_tensor(pixels)).numpy()
        own: npt.NDArray[np.float32] = cosines[np.arange(len(captions)), [texts.index(text) for text in captions]]
        return own


class SetDistance:
    """A Frechet distance between two sets of pictures, under the name of its features.

    Args:
        inception: the user's TorchScript file of the Inception network, for a FID proper; None takes
            EfficientNet-Lite0, whose figure is named so and is not to be set beside a published FID.
    """

    def __init__(self, inception: str | os.PathLike[str] | None = None) -> None:
        self._extractor: FeatureExtractor = (
            EfficientNetExtractor() if inception is None else InceptionExtractor(inception)
        )
        self.name = self._extractor.name

    def gather(self, batches: Iterable[Pixels]) -> FeatureStatistics:
        """Statistics of a set, batch by batch."""
        return gather((_tensor(batch) for batch in batches), self._extractor)

    def distance(self, real: Any, drawn: Any) -> float:
        """Between two sets' statistics."""
        return fid(real, drawn)

    def score(self, drawn: Any) -> float | None:
        """The Inception Score of a set; None where the features are not Inception's."""
        return inception_score(drawn.probabilities)[0] if isinstance(self._extractor, InceptionExtractor) else None


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
