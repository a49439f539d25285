"""What rows of frame prediction are measured by, on the unknown frames.

Knows: PSNR, SSIM and LPIPS of a part of a clip, means, pairs. Refuses to know: what made the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.metrics import RunningMean
from icl_vision.evaluation.kit.paired_means import paired_mean

HIGHER = {"psnr": True, "ssim": True, "lpips": False}
Frames = npt.NDArray[np.uint8]
Found = dict[str, dict[str, list[float]]]
"""By row and metric, a number a clip."""


def add(found: Found, rows: Mapping[str, Frames], truth: Frames, region: Any, lpips: Callable[..., Any]) -> None:
    """Measure a clip's rows, uint8 [T, S, S, 3], on its region, and put the numbers into found."""
    wanted = truth[region]
    for name, frames in rows.items():
        part, flat = frames[region], (1, -1, *wanted.shape[2:])
        values = {
            "psnr": float(psnr(wanted.reshape(flat), part.reshape(flat))[0]),
            "ssim": float(ssim(wanted, part).mean()),
            "lpips": float(np.mean(lpips(wanted, part))),
        }
        for metric, value in values.items():
            found.setdefault(name, {}).setdefault(metric, []).append(value)


def means(found: Found) -> dict[str, dict[str, Any]]:
    """Of every row and metric, with 95% intervals."""
    summed: dict[str, dict[str, Any]] = {}
    for name, metrics in found.items():
        for metric, values in metrics.items():
            mean = RunningMean()
            for value in values:
                mean.add(value)
            summed.setdefault(name, {})[metric] = mean.to_dict()
    return summed


def pair(found: Found, first: str, second: str) -> list[dict[str, Any]]:
    """First minus second, clip by clip, for every metric."""
    return [
        {
            "metric": metric,
            "first": first,
            "second": second,
            **paired_mean(values, found[second][metric], higher_is_better=HIGHER[metric]).to_dict(),
        }
        for metric, values in found[first].items()
    ]
