"""A judge of what a small coloured picture shows, learned from other pictures of the same things (frames, say).

    judge = FrameJudge.fit(frames, skip=(0,))      # frames: of each class, uint8 [F, S, S, 3]
    judge.first(drawn, 5)                          # the five likeliest classes of each drawing, best first

Linear discriminants of pixels: classes are means, and how pictures of one class differ among themselves, pooled over
classes, says which differences count. No net is trained; the judge's own accuracy on frames that it was not given is
measured along with it.

Knows: arrays of pixels and classes. Refuses to know: where frames come from, and who drew.

Letters in shapes: B pictures, S side, K classes, P principal components.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.checks import count
from icl_vision.errors import UsageError

Pictures = npt.NDArray[np.uint8]
_SHRINK = 0.3


@dataclass(frozen=True)
class FrameJudge:
    """mean: of all pixels. project: [S*S*3, P], to where differences within a class have one size. classes: [K, P]."""

    mean: npt.NDArray[np.float32]
    project: npt.NDArray[np.float32]
    classes: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, frames: Sequence[Pictures], *, skip: Iterable[int] = (), components: int = 128) -> FrameJudge:
        """Learn K classes.

        Args:
            frames: of each class, uint8 [F, S, S, 3].
            skip: places of frames that are not learned from: those it is tried on, and what drawers were trained on.
            components: P.

        Raises UsageError for fewer than two classes, or one without a frame to learn from.
        """
        count("components", components)
        left = set(skip)
        kept = [[frame for place, frame in enumerate(own) if place not in left] for own in frames]
        if len(kept) < 2 or not all(kept):
            raise UsageError("a judge needs two classes or more, and of each a frame that is not skipped")
        values = np.concatenate([_flat(np.stack(own)) for own in kept])
        labels = np.repeat(np.arange(len(kept)), [len(own) for own in kept])
        mean = values.mean(0)
        values = values - mean
        # Principal components first: pixels are more than pictures of a class.
        _, sizes, rows = np.linalg.svd(values[:: max(1, len(values) // 4000)], full_matrices=False)
        basis = rows[: min(components, int((sizes > 1e-4 * sizes[0]).sum()))].T
        points = values @ basis
        means = np.stack([points[labels == label].mean(0) for label in range(len(kept))])
        within = np.cov((points - means[labels]).T).reshape(basis.shape[1], -1)
        # A class of a picture that stands still says nothing of what may vary: some of every direction is added.
        spread = (1 - _SHRINK) * within + _SHRINK * np.eye(len(within)) * max(
            float(np.trace(within)) / len(within), 1e-6
        )
        root = np.linalg.cholesky(np.linalg.inv(spread))
        project = (basis @ root).astype(np.float32)
        return cls(mean.astype(np.float32), project, (means @ root).astype(np.float32))

    def first(self, images: Pictures, most: int = 5) -> npt.NDArray[np.int64]:
        """int64 [B, most]: the likeliest classes of pictures uint8 [B, S, S, 3], best first.

        Raises UsageError for pictures of another size.
        """
        flat = _flat(images)
        if flat.shape[1:] != self.mean.shape:
            raise UsageError(f"the judge reads pictures of {len(self.mean)} numbers; got {list(images.shape)}")
        points = (flat - self.mean) @ self.project
        distance = (self.classes**2).sum(1) - 2 * points @ self.classes.T
        ranked: npt.NDArray[np.int64] = np.argsort(distance, axis=1, kind="stable")[:, : count("most", most)]
        return ranked

    def hits(self, images: Pictures, shown: Sequence[int], most: int = 5) -> list[bool]:
        """Whether what each picture shows is among its first classes."""
        return [int(label) in row for label, row in zip(shown, self.first(images, most).tolist(), strict=True)]


def _flat(images: Any) -> npt.NDArray[np.float32]:
    array = np.asarray(images, dtype=np.float32) / np.float32(255)
    return array.reshape(len(array), -1)
