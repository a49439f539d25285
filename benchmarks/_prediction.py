"""What rows of frame prediction are measured by, on the unknown frames.

Knows: PSNR, SSIM and LPIPS of a part of a clip, means, pairs. Refuses to know: what made the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.models.losses.instruments import perceptual
from icl_vision.tasks.denoise.clip_tasks import task_for

HIGHER = {"psnr": True, "ssim": True, "lpips": False}
Frames = npt.NDArray[np.uint8]


class Prediction:
    """Rows of the task, measured clip by clip."""

    def __init__(self) -> None:
        self.task = task_for("prediction", clips=True)
        self._lpips = perceptual()
        self._found: dict[str, dict[str, list[float]]] = {}

    def add(self, rows: Mapping[str, Frames], truth: Frames) -> None:
        """Measure a clip's rows, uint8 [T, S, S, 3], against it."""
        region = self.task.region(truth.shape)
        wanted = truth[region]
        for name, frames in rows.items():
            part, flat = frames[region], (1, -1, *wanted.shape[2:])
            values = {
                "psnr": float(psnr(wanted.reshape(flat), part.reshape(flat))[0]),
                "ssim": float(ssim(wanted, part).mean()),
                "lpips": float(np.mean(self._lpips(wanted, part))),
            }
            for metric, value in values.items():
                self._found.setdefault(name, {}).setdefault(metric, []).append(value)

    def means(self) -> dict[str, dict[str, Any]]:
        """Of every row and metric, with 95% intervals."""
        summed: dict[str, dict[str, Any]] = {}
        for name, metrics in self._found.items():
            for metric, values in metrics.items():
                mean = RunningMean()
                for value in values:
                    mean.add(value)
                summed.setdefault(name, {})[metric] = mean.to_dict()
        return summed

    def pairs(self, one: str, *, first: bool) -> list[dict[str, Any]]:
        """One row and every other, clip by clip, for every metric: that row minus the other, or (not ``first``) the
        other minus it."""
        rows = []
        for other in self._found:
            if other != one:
                left, right = (one, other) if first else (other, one)
                for metric, higher in HIGHER.items():
                    pair = paired_mean(self._found[left][metric], self._found[right][metric], higher_is_better=higher)
                    rows.append({"metric": metric, "first": left, "second": right, **pair.to_dict()})
        return rows
