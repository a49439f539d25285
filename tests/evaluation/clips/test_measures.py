"""Numbers of clips, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.clips.measures import MOST_PSNR, clip_measures, likeness, motion_of


def _grey(*levels: int) -> np.ndarray:
    return np.stack([np.full((12, 12, 3), level, dtype=np.uint8) for level in levels])


def test_the_psnr_of_a_clip_is_that_of_its_mean_squared_error() -> None:
    # Errors of 0 and 51 levels: half of 0.2 squared is 0.02, 16.99 dB. The frames alone have "infinity" and 13.98 dB.
    found = clip_measures(_grey(100, 100), _grey(100, 151))
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.02))
    assert found["over_time"]["psnr"] == [MOST_PSNR, pytest.approx(-10 * np.log10(0.04))]
    assert "lpips" not in found


def test_motion_is_what_changes_from_frame_to_frame() -> None:
    clip = _grey(0, 51, 102)
    # Everything brighter by as much: wrong frames, right motion.
    found = clip_measures(clip, _grey(51, 102, 153))
    assert found["motion_psnr"] == MOST_PSNR and found["movement"] == pytest.approx(1.0)
    # Half the steps: each difference is wrong by 25.5 levels, a tenth.
    found = clip_measures(clip, (clip // 2 + clip % 2).astype(np.uint8))
    assert found["movement"] == pytest.approx(0.5, abs=0.01) and found["motion_psnr"] == pytest.approx(20, abs=0.2)
    still = clip_measures(clip, _grey(51, 51, 51))
    assert still["movement"] == 0 and still["motion_psnr"] == pytest.approx(-20 * np.log10(0.2))
    assert clip_measures(_grey(7, 7), _grey(7, 9))["movement"] is None


def test_lpips_is_a_mean_over_frames() -> None:
    found = clip_measures(_grey(0, 0), _grey(10, 30), lambda a, b: np.abs(b[:, 0, 0, 0] - a[:, 0, 0, 0]) / 100)
    assert found["lpips"] == pytest.approx(0.2) and found["over_time"]["lpips"] == pytest.approx([0.1, 0.3])


def test_how_much_a_clip_moves_and_how_near_a_frame_is() -> None:
    assert motion_of(_grey(0, 102)) == pytest.approx(0.2)
    assert motion_of(_grey(5, 5)) == 0
    assert likeness(_grey(0)[0], _grey(200, 51)) == pytest.approx(-10 * np.log10(0.04), abs=1e-4)
    assert likeness(_grey(3)[0], _grey(3)) == MOST_PSNR


def test_what_is_no_pair_of_clips_is_refused() -> None:
    for a, b in ((_grey(1, 2), _grey(1, 2, 3)), (_grey(1), _grey(1)), (_grey(1, 2) / 255, _grey(1, 2))):
        with pytest.raises(UsageError, match="clips must be uint8"):
            clip_measures(a, b)
