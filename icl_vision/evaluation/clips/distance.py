"""A distance between two sets of clips: FVD where its network is there, and an openly named stand-in where not.

Knows: how features of sets are compared, and features of frames in their order. Refuses to know: torch, files.

The Frechet video distance (Unterthiner et al. 2018, arXiv 1812.01717) is the Frechet distance of I3D features. That
network is not packaged: ``models/losses/clip_features.py`` takes a user's file of it. Without it ``FramesInOrder``
gives a figure of its own, always under its own name, which is never to be set beside a published FVD.

Of n clips and D features, n below D: the trace of the root of the product of two covariances is the nuclear norm of the
n x m matrix of inner products, so nothing of size D x D is ever made, and the figure is exact.

Letters in shapes: N clips, T frames, S side, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

Features = npt.NDArray[Any]
"""float [N, D]."""


class ClipFeatures(Protocol):
    """Features by which sets of clips are compared. name: what a distance in them is called, e.g. "FVD"."""

    name: str

    def __call__(self, clips: Sequence[npt.NDArray[np.uint8]]) -> Features:
        """Clips, each uint8 [T, S, S, 3] -> float [N, D]."""
        ...


class FramesInOrder:
    """Features of single frames, pooled so that their order counts.

    Args:
        embed: frames uint8 [M, S, S, 3] -> float [M, d], e.g. of EfficientNet-Lite0.
        of: what ``embed`` is, for the name.

    Of T frames the features are the mean and the first two terms of their cosine transform over time (which of two
    halves holds what, and what the middle has that the ends have not): 3 d numbers. The mean alone is blind to order; a
    clip backwards has another first term.
    """

    TERMS: Final = 3

    def __init__(self, embed: Callable[[npt.NDArray[np.uint8]], Features], of: str) -> None:
        self._embed = embed
        self.name = f"FVD-like ({of}, frames in order)"

    def __call__(self, clips: Sequence[npt.NDArray[np.uint8]]) -> Features:
        """See the class."""
        rows = []
        for clip in clips:
            frames = np.asarray(self._embed(clip), dtype=np.float64)
            rows.append((cosines(len(frames), self.TERMS) @ frames).ravel())
        return np.stack(rows)


def cosines(frames: int, terms: int) -> npt.NDArray[np.float64]:
    """The first rows of the cosine transform over time, [terms, frames], the first of them the plain mean."""
    at = (np.arange(frames) + 0.5) * np.pi / frames
    rows: npt.NDArray[np.float64] = np.stack([np.cos(term * at) for term in range(terms)])
    return rows / frames


def gather(batches: Iterable[Sequence[npt.NDArray[np.uint8]]], features: ClipFeatures) -> Features:
    """Features of a set, batch by batch."""
    return np.concatenate([np.asarray(features(batch), dtype=np.float64) for batch in batches])


def frechet(real: Features, made: Features) -> float:
    """||mean_a - mean_b||^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features [N, D] and [M, D], with n - 1 below.

    Raises:
        UsageError: fewer than two clips, other shapes, numbers that are not finite.
    """
    a, b = np.asarray(real, dtype=np.float64), np.asarray(made, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UsageError(f"features must be [N, D] and [M, D], N and M 2 or more; got {list(a.shape)}, {list(b.shape)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError("features hold NaN or infinity; check the clips")
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    a, b = (a - a.mean(0)) / np.sqrt(len(a) - 1), (b - b.mean(0)) / np.sqrt(len(b) - 1)
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(apart + np.square(a).sum() + np.square(b).sum() - 2 * common))
