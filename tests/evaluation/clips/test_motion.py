"""Episodes of motion: balanced, no digit twice, controls that take time away; words at their places see order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from grey_clips import GreyClips

from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.errors import UsageError
from icl_vision.evaluation.clips.motion import (
    CONTROLS,
    KINDS,
    OPPOSITE,
    SPEEDS,
    Frames,
    MotionEpisode,
    by_change,
    by_places,
    motion_episode,
    row_of,
)
from icl_vision.evaluation.kit.metrics import Accuracy
from icl_vision.tokenizers.one_layer import OneLayer


def _row(way: str = "straight", digits: int = 40) -> MovingDigits:
    """Forty bright blocks of 6 x 6 that cross a frame of 16 x 16 in 4 frames."""
    images = np.full((digits, 6, 6), 255, dtype=np.uint8)
    return MovingDigits(images, np.arange(digits), way=way, frames=4, size=16, speeds=(1.8, 2.2))


def test_an_episode_is_balanced_and_asks_for_no_digit_that_was_shown() -> None:
    episode = motion_episode(_row(), shots=2, each=3)
    assert Counter(name for _, name in episode.support) == dict.fromkeys(("right", "down", "left", "up"), 2)
    assert Counter(name for _, name in episode.queries) == dict.fromkeys(("right", "down", "left", "up"), 3)
    assert [name for _, name in episode.support[:4]] == ["right", "down", "left", "up"]
    other = motion_episode(_row(), shots=2, each=3, first=500)
    pairs = zip(other.support + other.queries, episode.support + episode.queries, strict=True)
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in pairs)
    with pytest.raises(UsageError, match="direction is told of clips with way='straight'; got way='bounce'"):
        motion_episode(_row("bounce"), shots=1, each=1)


def test_no_digit_is_asked_for_before_it_is_shown_either() -> None:
    row = _row(digits=12)
    row.images[:] = np.arange(100, 112, dtype=np.uint8)[:, None, None]  # a digit is told by how bright it is
    for first in range(0, 200, 10):
        episode = motion_episode(row, shots=1, each=1, first=first)
        shown, asked = ({int(clip.max()) for clip, _ in some} for some in (episode.support, episode.queries))
        assert not shown & asked, first
    with pytest.raises(UsageError, match="1 digits are too few for 1 support clips and 1 queries"):
        motion_episode(_row(digits=1), shots=1, each=1)


def _centre(frame: Frames) -> np.ndarray:
    return np.argwhere(frame[..., 0] > 0).mean(0)


def _read(episode: MotionEpisode, features: Callable[[Frames], np.ndarray]) -> Accuracy:
    """Right answers of the 15 nearest neighbours by some features."""
    known = np.stack([features(clip) for clip, _ in episode.support])
    names = np.array([name for _, name in episode.support])
    right = 0
    for clip, truth in episode.queries:
        near = names[np.argsort(np.square(known - features(clip)).sum(1), kind="stable")[:15]]
        values, votes = np.unique(near, return_counts=True)
        right += values[votes.argmax()] == truth
    return Accuracy.count(right, len(episode.queries), "nearest places")


@pytest.mark.parametrize("kind", ["speed", "bounce"])
def test_the_middle_frame_says_nothing_of_speed_and_bounce_and_other_frames_do(kind: str) -> None:
    images = np.zeros((900, 28, 28), dtype=np.uint8)
    images[:, 4:24, 6:22] = 255
    row = row_of(images, np.zeros(900, dtype=np.int64), kind)
    episode = motion_episode(row, shots=50, each=50, kind=kind)
    assert Counter(name for _, name in episode.queries) == dict.fromkeys(KINDS[kind], 50)
    low, high = _read(episode, lambda clip: _centre(clip[row.middle])).interval
    assert low <= 1 / len(KINDS[kind]) <= high
    way = _read(episode, lambda clip: np.abs(_centre(clip[-1]) - _centre(clip[0])))
    assert way.interval[0] > 1 / len(KINDS[kind]) + 0.1


def test_speeds_are_those_asked_for_and_may_be_of_one_direction() -> None:
    images = np.full((40, 28, 28), 255, dtype=np.uint8)
    row = row_of(images, np.arange(40), "speed")
    episode = motion_episode(row, shots=1, each=2, kind="speed", along="left")
    for clip, name in episode.queries + episode.support:
        down, right = (_centre(clip[-1]) - _centre(clip[0])) / 15
        assert down == 0 and SPEEDS[name][0] - 0.07 <= -right <= SPEEDS[name][1] + 0.07
    with pytest.raises(UsageError, match="kind must be one of"):
        motion_episode(row, shots=1, each=1, kind="colour")


def test_how_much_changes_tells_speeds_and_is_told_of_several_times_only() -> None:
    images, tokenizer = np.full((60, 6, 6), 255, dtype=np.uint8), GreyClips()
    rows = [MovingDigits(images, np.arange(60), 1, "straight", 4, 16, (speed, speed)) for speed in (0.3, 2.2)]
    clips = [row.clip(number).frames for number in range(12) for row in rows]
    names = ["slow", "fast"] * 12
    words = [OneLayer(tokenizer, 3).encode([clip])[0] for clip in clips]  # type: ignore[arg-type]  # of the bare contract
    said = by_change(words[:8], names[:8], words[8:], tokenizer.codebook)
    assert sum(a == b for a, b in zip(said, names[8:], strict=True)) >= 14
    with pytest.raises(UsageError, match="two times or more"):
        by_change(tokenizer.encode(clips), names, tokenizer.encode(clips), tokenizer.codebook)


def test_words_at_their_places_tell_directions_and_the_controls_take_them_away() -> None:
    episode, tokenizer = motion_episode(_row(), shots=5, each=5), GreyClips()
    labels = [name for _, name in episode.support]
    support = tokenizer.encode([clip for clip, _ in episode.support])
    truth = [name for _, name in episode.queries]
    right = {}
    for control, change in CONTROLS.items():
        queries = tokenizer.encode([change(clip, number) for number, (clip, _) in enumerate(episode.queries)])
        said = by_places(support, labels, queries, tokenizer.codebook)
        right[control] = sum(a == b for a, b in zip(said, truth, strict=True))
        if control == "played backwards":
            assert sum(a == OPPOSITE[b] for a, b in zip(said, truth, strict=True)) >= 15
    assert right["as they are"] >= 15 and right["played backwards"] <= 3
    assert right["frames in random order"] < right["as they are"]


def test_one_layer_of_a_tokenizer_is_its_words() -> None:
    from icl_vision.errors import PyramidError

    tokenizer, (clip, _) = GreyClips(), motion_episode(_row(), shots=1, each=1).support[0]
    (whole,) = tokenizer.encode([clip])
    layer = OneLayer(tokenizer, 2)  # type: ignore[arg-type]  # of the bare contract
    (words,) = layer.encode([clip])
    assert layer.layout.grids == ((2, 2, 2),) and words.words() == whole.words(2)
    assert layer.to_text(words) == " ".join(whole.words(2)) and not layer.can_decode
    assert layer.from_text(layer.to_text(words)) == words
    with pytest.raises(PyramidError, match="k must be one of 8"):
        layer.from_text(" ".join(whole.words()))
    assert layer.identity != OneLayer(tokenizer, 3).identity  # type: ignore[arg-type]  # as above
    with pytest.raises(PyramidError):
        layer.encode([clip], 5)
    with pytest.raises(UsageError, match="layer must be a whole number from 1 to 3"):
        OneLayer(tokenizer, 4)  # type: ignore[arg-type]  # as above
