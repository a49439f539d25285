"""Fréchet distance, Inception Score and their extractors; LPIPS of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.models.losses.image_quality import (
    EfficientNetExtractor,
    Features,
    FeatureStatistics,
    InceptionExtractor,
    fid,
    frechet_distance,
    gather,
    inception_score,
    lpips,
)
from icl_vision.models.losses.perceptual import LPIPS
from icl_vision.models.nets.efficientnet import EfficientNetLite0


def covariance(seed: int, d: int = 5, n: int = 40) -> np.ndarray:
    return np.cov(np.random.default_rng(seed).standard_normal((n, d)) @ np.diag(np.arange(1, d + 1)), rowvar=False)


def test_frechet_distance_against_the_definition() -> None:
    a, b = covariance(0), covariance(1)
    mean_a, mean_b = np.arange(5.0), np.ones(5)
    # the square root of A B itself, by its eigenvalues: real and not negative, for A B is similar to a symmetric matrix
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mean_b, b, mean_a, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mean_a, a, mean_a, a) == pytest.approx(0, abs=1e-9)
    # one dimension: (m1 - m2)^2 + (s1 - s2)^2
    one = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[9.0]]))
    assert one == pytest.approx(4 + 1)


def test_frechet_distance_with_fewer_images_than_features() -> None:
    low = covariance(0, d=8, n=4)
    assert np.linalg.matrix_rank(low) == 3
    value = frechet_distance(np.zeros(8), low, np.zeros(8), covariance(1, d=8))
    assert np.isfinite(value) and value > 0
    assert frechet_distance(np.zeros(8), low, np.zeros(8), low) == pytest.approx(0, abs=1e-6)


def test_statistics_batch_by_batch_are_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32) + 1000  # far from zero
    statistics = FeatureStatistics()
    for start in range(0, 50, 7):
        part = torch.from_numpy(rows[start : start + 7])
        statistics.update(Features(part, torch.full((len(part), 2), 0.5)))
    assert statistics.n == 50 and statistics.probabilities.shape == (50, 2)
    np.testing.assert_allclose(statistics.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9)


def test_inception_score_of_known_cases() -> None:
    certain = np.tile(np.eye(4), (5, 1))
    assert inception_score(certain, splits=5) == pytest.approx((4, 0))
    assert inception_score(np.full((20, 4), 0.25), splits=2) == pytest.approx((1, 0))
    p = np.random.default_rng(0).dirichlet(np.ones(5), 12)
    scores = []
    for half in (p[:6], p[6:]):
        marginal = half.mean(0)
        scores.append(np.exp(np.mean([sum(row * np.log(row / marginal)) for row in half])))
    assert inception_score(p, splits=2) == pytest.approx((np.mean(scores), np.std(scores)))


class TinyInception(torch.nn.Module):
    """Answers as the published TorchScript network does."""

    def forward(self, x: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:
        mean = x.float().mean((2, 3))
        return mean if return_features else torch.softmax(mean / 255, 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_inception_from_a_torchscript_file(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(TinyInception()).save(str(path))
    extractor = InceptionExtractor(path)
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = extractor(images)
    assert extractor.name == "FID"
    torch.testing.assert_close(found.features, (images * 255).round().mean((2, 3)))
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(6))
    real, fake = gather(images.split(4), extractor), gather([images.flip(0)], extractor)
    assert fid(real, fake) == pytest.approx(0, abs=1e-6)
    assert fid(real, gather([images * 0.5], extractor)) > 100


def test_bad_inception_files(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFoundError, match="no Inception network at .*none.pt"):
        InceptionExtractor(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(ArtefactDamagedError, match="is not a TorchScript file"):
        InceptionExtractor(tmp_path / "bad.pt")


def test_efficientnet_features_carry_their_own_name() -> None:
    torch.manual_seed(0)
    extractor = EfficientNetExtractor(EfficientNetLite0(classes=7))
    found = extractor(torch.rand(2, 1, 40, 40))
    assert extractor.name == "FID-like (EfficientNet-Lite0)"
    assert found.features.shape == (2, 1280) and found.probabilities.shape == (2, 7)
    assert not found.features.requires_grad


def test_lpips_of_pairs() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    net = LPIPS()
    found = lpips(a, b, net)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, net(a, b).numpy())


def test_bad_input() -> None:
    with pytest.raises(UsageError, match=r"takes \[D\], \[D, D\], \[D\], \[D, D\]; got \[3\], \[2, 2\]"):
        frechet_distance(np.zeros(3), np.eye(2), np.zeros(3), np.eye(3))
    statistics = FeatureStatistics()
    with pytest.raises(UsageError, match="need 1 images or more; got 0"):
        _ = statistics.mean
    statistics.update(Features(torch.zeros(1, 3), torch.ones(1, 1)))
    with pytest.raises(UsageError, match="need 2 images or more; got 1"):
        _ = statistics.covariance
    with pytest.raises(UsageError, match=r"features must be \[B, 3\]; got shape \[1, 4\]"):
        statistics.update(Features(torch.zeros(1, 4), torch.ones(1, 1)))
    with pytest.raises(UsageError, match="features hold NaN or infinity"):
        statistics.update(Features(torch.full((1, 3), torch.nan), torch.ones(1, 1)))
    with pytest.raises(UsageError, match="rows that sum to 1"):
        inception_score(np.ones((3, 3)))
    with pytest.raises(UsageError, match="splits must be 1 to 3, the number of images; got 10"):
        inception_score(np.full((3, 2), 0.5))
