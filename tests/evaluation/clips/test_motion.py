"""Episodes of motion: balanced, no digit twice, controls that take time away; words at their places see order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from grey_clips import GreyClips

from icl_vision.clips.moving_digits import MovingDigits
from icl_vision.errors import UsageError
from icl_vision.evaluation.clips.motion import CONTROLS, OPPOSITE, by_places, motion_episode


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
    with pytest.raises(UsageError, match="run straight; got way='bounce'"):
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
    from icl_vision.tokenizers.one_layer import OneLayer

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
