"""The judge of small coloured pictures: what it learns from frames, and what it is not given."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.text_to_image.frame_judge import FrameJudge, Pictures


def frames(classes: int = 12, number: int = 6, seed: int = 0) -> list[Pictures]:
    """Of each class a pattern that moves by a pixel, and noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(classes):
        pattern = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 2, 0), 2, 1)
        moved = [np.roll(pattern, step % 2, axis=1) + rng.normal(0, 12, (8, 8, 3)) for step in range(number)]
        found.append(np.clip(np.stack(moved), 0, 255).astype(np.uint8))
    return found


def test_it_knows_frames_that_it_was_not_given():
    own = frames()
    judge = FrameJudge.fit(own, skip=(0, 3), components=24)
    tried = np.stack([one[place] for one in own for place in (0, 3)])
    shown = [label for label in range(12) for _ in range(2)]
    assert sum(judge.hits(tried, shown, 1)) >= 22 and all(judge.hits(tried, shown, 5))
    others = np.roll(tried, 2, axis=0)  # of the class before
    assert sum(judge.hits(others, shown, 1)) <= 2


def test_skipped_frames_are_not_learned_from():
    own = frames()
    spoilt = [one.copy() for one in own]
    for one in spoilt:
        one[0] = 0
    first, second = (FrameJudge.fit(some, skip=(0,), components=8) for some in (own, spoilt))
    assert np.array_equal(first.classes, second.classes)


def test_what_it_ranks_is_in_order():
    own = frames()
    judge = FrameJudge.fit(own, components=24)
    ranked = judge.first(np.stack([one[1] for one in own]), 12)
    assert ranked.shape == (12, 12) and all(sorted(row) == list(range(12)) for row in ranked.tolist())


def test_what_it_cannot_learn_or_read():
    with pytest.raises(UsageError, match="two classes or more"):
        FrameJudge.fit(frames(1))
    with pytest.raises(UsageError, match="a frame that is not skipped"):
        FrameJudge.fit(frames(number=1), skip=(0,))
    with pytest.raises(UsageError, match="reads pictures of 192 numbers"):
        FrameJudge.fit(frames(), components=8).first(np.zeros((1, 4, 4, 3), np.uint8))
