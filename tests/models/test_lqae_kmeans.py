"""benchmarks/lqae_kmeans.py: patches of latents and back, and centres that are those of the points."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts import loaded

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded(BENCHMARKS / "lqae_kmeans.py")


@pytest.mark.parametrize("side", [1, 2])
def test_patches_come_back_through_other_coordinates(script: ModuleType, side: int) -> None:
    torch.manual_seed(0)
    latents, into = torch.randn(3, 32, 4, 4), torch.randn(32, 32)
    points = script.patches(latents, into, side)
    assert points.shape == (3 * (4 // side) ** 2, 32 * side**2)
    again = script.unpatched(points, torch.linalg.inv(into), side, 4)
    torch.testing.assert_close(again, latents, atol=1e-3, rtol=1e-3)
    # The first point is the first image's upper left corner.
    corner = torch.einsum("chw,cd->dhw", latents[0, :, :side, :side], into)
    torch.testing.assert_close(points[0], corner.flatten())


def test_centres_settle_in_the_middle_of_their_points(script: ModuleType) -> None:
    torch.manual_seed(0)
    true = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = (true[:, None] + 0.1 * torch.randn(4, 50, 2)).flatten(0, 1)
    centres, errors = script.k_means(points, 8, 10)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05
    assert float(torch.cdist(true, centres).min(1).values.max()) < 0.2
