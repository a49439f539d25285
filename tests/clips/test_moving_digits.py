"""Moving digits: the same clip for the same number, reflected at the border, and a middle frame that says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from icl_vision.clips.moving_digits import DIRECTIONS, MovingClip, MovingDigits
from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.metrics import Accuracy


def _digits(**options: object) -> MovingDigits:
    """Ten blocks of 28 x 28, each of a brightness of its own."""
    images = np.zeros((10, 28, 28), dtype=np.uint8)
    images[:, 4:24, 6:22] = np.arange(100, 200, 10, dtype=np.uint8)[:, None, None]
    return MovingDigits(images, np.arange(10), **options)  # type: ignore[arg-type]  # settings of many kinds


def _place(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The middle of what is lit, (row, column)."""
    return np.argwhere(frame[..., 0] > 0).mean(0)


def _read(train: list[MovingClip], test: list[MovingClip], features: dict[int, npt.NDArray[np.float64]]) -> Accuracy:
    """How often the direction is read from some features by the 15 nearest neighbours."""
    known = np.stack([features[id(clip)] for clip in train])
    named = np.array([clip.motions[0].direction for clip in train])
    right = 0
    for clip in test:
        near = named[np.argsort(np.square(known - features[id(clip)]).sum(1), kind="stable")[:15]]
        names, votes = np.unique(near, return_counts=True)
        right += names[votes.argmax()] == clip.motions[0].direction
    return Accuracy.count(right, len(test), "nearest places")


def test_a_clip_depends_on_its_number_and_seed_alone() -> None:
    row = _digits(digits=2)
    first = row.clip(3)
    row.clip(9)
    again = _digits(digits=2).clip(3)
    assert first.frames.shape == (16, 64, 64, 3) and first.frames.dtype == np.uint8
    assert np.array_equal(first.frames, again.frames) and first.motions == again.motions
    assert not np.array_equal(first.frames, row.clip(4).frames)
    assert not np.array_equal(first.frames, _digits(digits=2, seed=1).clip(3).frames)
    assert [clip.motions for clip in row.clips([3, 4])] == [first.motions, row.clip(4).motions]


def test_what_is_said_is_what_moved() -> None:
    clip = _digits(way="straight", speeds=(2.0, 2.0)).clip(0)
    (motion,) = clip.motions
    assert motion.speed == pytest.approx(2.0) and not motion.bounced
    moved = _place(clip.frames[-1]) - _place(clip.frames[0])
    assert np.abs(moved - 30 * np.array(DIRECTIONS[motion.direction])).max() <= 1
    assert clip.frames.max() == 100 + 10 * motion.label


def test_a_digit_is_reflected_at_the_border_and_the_bounces_are_counted() -> None:
    clips = _digits(speeds=(5.0, 5.0)).clips(range(40))
    assert any(clip.motions[0].bounces >= 2 for clip in clips)
    for clip in clips:
        (motion,) = clip.motions
        # Stepped by hand: a place that would leave is put back as far inside, and the velocity turns.
        place, velocity, bounces = np.array(motion.start), np.array(motion.velocity), 0
        assert np.abs(_place(clip.frames[0]) - (place + 13.5)).max() <= 0.51
        for frame in clip.frames[1:]:
            place = place + velocity
            for axis in (0, 1):
                if not 0 <= place[axis] <= 36:
                    place[axis] = -place[axis] if place[axis] < 0 else 72 - place[axis]
                    velocity[axis] = -velocity[axis]
                    bounces += 1
            assert np.abs(_place(frame) - (place + 13.5)).max() <= 0.51
        assert bounces == motion.bounces


def test_the_middle_frame_says_nothing_of_the_direction() -> None:
    row = _digits(way="straight")
    train, test = row.clips(range(300)), row.clips(range(300, 700))
    middle = {id(clip): _place(clip.frames[row.middle]) for clip in (*train, *test)}
    low, high = _read(train, test, middle).interval
    assert low <= 0.25 <= high
    # The same reader does read it where there is something to read: two frames.
    ends = {id(clip): _place(clip.frames[-1]) - _place(clip.frames[0]) for clip in (*train, *test)}
    assert _read(train, test, ends).interval[0] > 0.95
    # And starts alone say much, which is why the middle is what is drawn.
    starts = {id(clip): _place(clip.frames[0]) for clip in (*train, *test)}
    assert _read(train, test, starts).interval[0] > 0.8


def test_digits_are_read_from_a_file(tmp_path: Path) -> None:
    row = _digits()
    np.savez(tmp_path / "digits.npz", x_test=row.images, y_test=row.labels)
    read = MovingDigits.from_npz(tmp_path / "digits.npz", part="test")
    assert np.array_equal(read.clip(5).frames, row.clip(5).frames)
    with pytest.raises(UsageError, match="x_train and y_train are missing"):
        MovingDigits.from_npz(tmp_path / "digits.npz")
    (tmp_path / "no.npz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="cannot be read as an .npz file"):
        MovingDigits.from_npz(tmp_path / "no.npz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"way": "sideways"}, "way must be one of"),
        ({"way": "straight", "speeds": (3.0, 3.0)}, "meets the border of 64 within 16 frames"),
        ({"speeds": (2.0, 1.0)}, "least and most pixels a frame"),
        ({"size": 20}, "size must be a whole number from 28"),
        ({"digits": 0}, "digits must be"),
        ({"frames": 1}, "frames must be"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _digits(**options)


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match=r"uint8 \[N, h, w\]"):
        MovingDigits(np.zeros((2, 28, 28)), np.arange(2))  # type: ignore[arg-type]  # the wrong kind is the point
    with pytest.raises(UsageError, match="one whole number for each of 2 images"):
        MovingDigits(np.zeros((2, 28, 28), dtype=np.uint8), np.arange(3))
