"""PSNR and SSIM against scikit-image 0.26's values and a literal loop; bad input."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.image_metrics import psnr, ssim


def images() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:24, 0:32]
    a = np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, (x * x + 5 * y) % 256], -1).astype(np.uint8)
    b = ((a.astype(int) * 3 + np.roll(a, 1, 0).astype(int)) // 4).astype(np.uint8)
    return a, b


def test_against_scikit_image() -> None:
    # structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
    # channel_axis=2) and peak_signal_noise_ratio(a, b) of scikit-image 0.26.0
    a, b = images()
    assert ssim(a, b)[0] == pytest.approx(0.992002336461543, rel=1e-9)
    assert psnr(a, b)[0] == pytest.approx(27.524349747062704, rel=1e-12)
    assert ssim(a[..., 1], b[..., 1])[0] == pytest.approx(0.9831265940769506, rel=1e-9)
    assert psnr(a[..., 1], b[..., 1])[0] == pytest.approx(25.11056245676952, rel=1e-12)


def test_ssim_against_a_literal_loop() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((13, 14)), generator.random((13, 14))
    tap = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(tap, tap) / tap.sum() ** 2
    values = []
    for row in range(3):
        for column in range(4):
            p, q = a[row : row + 11, column : column + 11], b[row : row + 11, column : column + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            both = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4) / ((mp * mp + mq * mq + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b)[0] == pytest.approx(np.mean(values), rel=1e-9)


def test_batches_dtypes_and_equal_images() -> None:
    a, b = images()
    batch_a, batch_b = np.stack([a, b, a]), np.stack([b, b, a])
    for metric, best in ((psnr, np.inf), (ssim, 1.0)):
        found = metric(batch_a, batch_b)
        assert found.shape == (3,) and found.dtype == np.float64
        assert found[0] == metric(a, b)[0] and found[1] == found[2] == best
        as_floats = metric((batch_a / 255).astype(np.float32), batch_b / 255)
        np.testing.assert_allclose(as_floats[0], found[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("reference", "other", "message"),
    [
        (np.zeros((4, 12, 12, 2)), np.zeros((4, 12, 12, 2)), r"reference must be images .* got shape \[4, 12, 12, 2\]"),
        (np.zeros((12, 12)), np.zeros((12, 13)), r"must have one shape; got \[1, 12, 12, 1\] and \[1, 12, 13, 1\]"),
        (np.zeros((12, 12)), np.full((12, 12), 1.5), r"images must lie in \[0, 1\] and hold no NaN; got 1.5 to 1.5"),
        (np.full((12, 12), np.nan), np.zeros((12, 12)), "reference must lie .* got nan to nan"),
        (np.zeros((12, 12), int), np.zeros((12, 12)), r"uint8 or float in \[0, 1\]; got dtype int64"),
        (np.zeros((0, 12, 12, 3)), np.zeros((0, 12, 12, 3)), "reference must be images"),
    ],
)
def test_bad_images(reference: np.ndarray, other: np.ndarray, message: str) -> None:
    for metric in (psnr, ssim):
        with pytest.raises(UsageError, match=message):
            metric(reference, other)


def test_ssim_needs_room_for_its_window() -> None:
    with pytest.raises(UsageError, match="images of 11 x 11 pixels or more; got 10 x 20"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
