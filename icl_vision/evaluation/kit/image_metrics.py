"""PSNR and SSIM between images and their reconstructions, in numpy.

Knows: the two formulas and what an array of images looks like.
Refuses to know: files, tokenizers, averages over a data set; learned metrics (models/losses/image_quality.py).

SSIM: Wang et al. 2004, "Image quality assessment", with the paper's own settings: an 11 x 11 Gaussian window of sigma
1.5, K1 = 0.01, K2 = 0.03, windows that lie wholly inside the image, the mean over windows and channels. The same as
scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)``.

Letters in shapes: N images, H/W height and width, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03

Images = npt.NDArray[Any]
"""uint8, or float in [0, 1]: a batch [N, H, W, C], or one image [H, W, C] or [H, W]; C is 1, 3 or 4."""


def psnr(reference: Images, images: Images) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), float64 [N]; infinite for equal images.

    Raises:
        UsageError: shapes that differ or are no images, another dtype, values outside [0, 1], NaN.
    """
    a, b = _pair(reference, images)
    error = np.square(a - b).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(error), dtype=np.float64)


def ssim(reference: Images, images: Images) -> npt.NDArray[np.float64]:
    """Structural similarity, float64 [N], at most 1 (equal images).

    Raises:
        UsageError: as ``psnr``, or images smaller than the 11 x 11 window.
    """
    a, b = _pair(reference, images)
    if min(a.shape[1:3]) < WINDOW:
        raise UsageError(f"ssim needs images of {WINDOW} x {WINDOW} pixels or more; got {a.shape[1]} x {a.shape[2]}")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return np.asarray((top / bottom).mean((1, 2, 3)), dtype=np.float64)


def _blur(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian means over windows wholly inside: [N, H, W, C] -> [N, H - 10, W - 10, C]."""
    taps = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    taps /= taps.sum()
    for axis in (1, 2):
        kept = values.shape[axis] - WINDOW + 1
        shifted = (np.take(values, range(start, start + kept), axis=axis) for start in range(WINDOW))
        values = np.sum([tap * part for tap, part in zip(taps, shifted, strict=True)], axis=0)
    return values


def _pair(reference: Images, images: Images) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b = _batch(reference, "reference"), _batch(images, "images")
    if a.shape != b.shape:
        raise UsageError(f"reference and images must have one shape; got {list(a.shape)} and {list(b.shape)}")
    return a, b


def _batch(images: Images, what: str) -> npt.NDArray[np.float64]:
    """Float64 [N, H, W, C] in [0, 1]."""
    array = np.asarray(images)
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or not array.size:
        raise UsageError(
            f"{what} must be images [N, H, W, C], [H, W, C] or [H, W] with 1, 3 or 4 channels last; "
            f"got shape {list(np.shape(images))}"
        )
    if array.dtype == np.uint8:
        return array.astype(np.float64) / 255
    if array.dtype.kind != "f":
        raise UsageError(f"{what} must be uint8 or float in [0, 1]; got dtype {array.dtype}")
    result = array.astype(np.float64)
    # not (a and b): NaN fails every comparison
    if not (result.min() >= 0 and result.max() <= 1):
        raise UsageError(f"{what} must lie in [0, 1] and hold no NaN; got {result.min():.4g} to {result.max():.4g}")
    return result
