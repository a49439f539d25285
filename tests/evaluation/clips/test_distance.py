"""Distances of sets of clips: the exact figure without a D x D matrix, and features that see order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, UsageError
from icl_vision.evaluation.clips.distance import FramesInOrder, frechet, gather
from icl_vision.models.losses.clip_features import I3DFeatures
from icl_vision.models.losses.image_quality import frechet_distance


@pytest.mark.parametrize("n", [4, 40])
def test_the_distance_is_that_of_the_formula_with_fewer_clips_than_features_too(n: int) -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(n, 7)), draw.normal(size=(n + 3, 7)) * 2 + 1
    expected = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_features_of_frames_in_order_see_a_clip_run_backwards() -> None:
    tool = FramesInOrder(lambda frames: frames[:, 0, 0, :2].astype(float), "corner")
    assert tool.name == "FVD-like (corner, frames in order)"
    clip = np.zeros((4, 2, 2, 3), dtype=np.uint8)
    clip[:, 0, 0, 0] = (0, 10, 20, 30)
    forwards, backwards = tool([clip, clip[::-1]])
    assert forwards.shape == (6,)
    assert forwards[:2] == pytest.approx([15, 0]) == backwards[:2]  # the mean is blind to order
    assert forwards[2] == pytest.approx(-backwards[2]) and abs(forwards[2]) > 1
    assert gather([[clip], [clip, clip]], tool).shape == (3, 6)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="2 or more"):
        frechet(np.zeros((1, 3)), np.zeros((4, 3)))
    with pytest.raises(UsageError, match="NaN or infinity"):
        frechet(np.full((2, 3), np.nan), np.zeros((4, 3)))


class _Net(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert rescale and resize and return_features
        return x.mean((2, 3, 4))


def test_the_network_of_fvd_is_a_users_file(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        torch.jit.script(_Net()).save(str(tmp_path / "i3d.pt"))  # type: ignore[no-untyped-call]  # torch does not type it
    tool = I3DFeatures(tmp_path / "i3d.pt", batch=2)
    clips = [np.full((10, 4, 4, 3), level, dtype=np.uint8) for level in (0, 10, 255)]
    assert tool.name == "FVD" and tool(clips)[:, 0].tolist() == [0, 10, 255]
    with pytest.raises(UsageError, match="10 frames a clip or more; got 4"):
        tool([clips[0][:4]])
    with pytest.raises(ArtefactNotFoundError, match="leave it out for the FVD-like figure"):
        I3DFeatures(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(ArtefactDamagedError, match="not a TorchScript file"):
        I3DFeatures(tmp_path / "text.pt")
