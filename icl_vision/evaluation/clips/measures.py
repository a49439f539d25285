"""Numbers for a clip and what was made of it: of the whole clip, frame by frame, and of the motion alone.

Knows: formulas on arrays of frames. Refuses to know: files, tokenizers, means over a set of clips.

PSNR of a clip is that of its mean squared error over all frames together, so one bad frame counts as it looks; a mean
of the frames' own PSNRs would let a frame that is met exactly (a frame repeated) buy all the others. SSIM and LPIPS are
means over frames. "Motion" are the differences of neighbouring frames: ``motion_psnr`` compares those of the two clips,
and ``movement`` is how much the second moves as a share of how much the first does (RMS): 0 stands still, 1 moves as
much, above 1 flickers.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.reconstruction import Pixels

Clips = npt.NDArray[np.uint8]
"""uint8 [T, S, S, 3]: one clip."""

MOST_PSNR: Final = 100.0
"""dB; equal clips have an infinite PSNR, which has no mean."""
METRICS: Final = {"psnr": True, "ssim": True, "lpips": False, "motion_psnr": True}
"""Each metric that can be better or worse, and whether higher is better."""


def clip_measures(clip: Clips, made: Clips, perceptual: Any = None) -> dict[str, Any]:
    """{psnr, ssim, lpips, motion_psnr, movement, over_time: {psnr: [T], ssim: [T], lpips: [T]}}.

    Args:
        clip, made: uint8 [T, S, S, 3], two frames or more; SSIM needs sides of 11 or more and is left out below.
        perceptual: (originals, reconstructions) [N, S, S, 3] -> distance of each pair, e.g. LPIPS; None leaves it out.

    Raises:
        UsageError: shapes that differ, another dtype, a single frame.
    """
    a, b = np.asarray(clip), np.asarray(made)
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim != 4 or a.shape != b.shape or len(a) < 2:
        raise UsageError(
            f"clips must be uint8 [T, S, S, 3] of one shape, T of 2 or more; got {a.dtype} {list(a.shape)} and "
            f"{b.dtype} {list(b.shape)}"
        )
    over_time: dict[str, Any] = {"psnr": psnr(a, b).clip(max=MOST_PSNR)}
    if min(a.shape[1:3]) >= 11:
        over_time["ssim"] = ssim(a, b)
    if perceptual is not None:
        over_time["lpips"] = np.asarray(perceptual(a, b))
    whole: dict[str, float | None] = {name: float(values.mean()) for name, values in over_time.items()}
    x, y = a.astype(np.float64) / 255, b.astype(np.float64) / 255
    moved, made_moved = np.diff(x, axis=0), np.diff(y, axis=0)
    still = float(np.square(moved).mean())
    whole |= {
        "psnr": _decibels(float(np.square(x - y).mean())),
        "motion_psnr": _decibels(float(np.square(moved - made_moved).mean())),
        # A clip that stands still has no share of motion to keep.
        "movement": float(np.sqrt(np.square(made_moved).mean() / still)) if still else None,
    }
    return {**whole, "over_time": {name: [float(value) for value in values] for name, values in over_time.items()}}


def motion_of(clip: Clips) -> float:
    """How much a clip moves: the RMS difference of its frames from their mean, in [0, 1]."""
    x = np.asarray(clip, dtype=np.float64) / 255
    return float(np.sqrt(np.square(x - x.mean(0)).mean()))


def likeness(frame: Pixels, others: Pixels) -> float:
    """PSNR in dB of a frame [S, S, 3] and the nearest of others [N, S, S, 3]."""
    near = np.asarray(others, dtype=np.float32) - np.asarray(frame, dtype=np.float32)
    return _decibels(float(np.square(near).mean((1, 2, 3)).min()) / 255**2)


def _decibels(error: float) -> float:
    return min(MOST_PSNR, float(-10 * np.log10(error))) if error > 0 else MOST_PSNR
