"""Noise in word space: how many words change, to what, and that a seed repeats it."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_pictures import DIGITS, WORDS, picture

from icl_vision.drawing.corruption import check_rates, corrupt_words, corruption_rates, shuffle_words
from icl_vision.errors import UsageError
from icl_vision.pyramid import PyramidLayout, TokenPyramid


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 1.0])
def test_exactly_so_many_words_change(rate: float) -> None:
    intact = picture(1)
    noisy = corrupt_words(intact, rate, seed=3)
    changed = sum(a != b for a, b in zip(intact.words(), noisy.words(), strict=True))
    assert changed == round(rate * DIGITS.cumulative[-1])
    assert noisy.layout == intact.layout


def test_a_seed_and_a_number_repeat_the_noise_and_others_do_not() -> None:
    intact = picture(1)
    assert corrupt_words(intact, 0.5, seed=1, number=2) == corrupt_words(intact, 0.5, seed=1, number=2)
    others = [corrupt_words(intact, 0.5, seed=1, number=3), corrupt_words(intact, 0.5, seed=2, number=2)]
    assert corrupt_words(intact, 0.5, seed=1, number=2) not in others


def test_replacements_are_spread_over_the_whole_vocabulary() -> None:
    intact = TokenPyramid((np.zeros((40, 40), np.int32),), PyramidLayout(((40, 40),)), WORDS)
    counts = np.bincount(corrupt_words(intact, 1.0, seed=0).ids[0].ravel(), minlength=len(WORDS))
    assert counts[0] == 0
    assert counts[1:].min() > 20  # 1600 draws over 35 words: 46 each


def test_rates_fall_from_the_first_to_the_last() -> None:
    assert corruption_rates(4) == pytest.approx((0.5, 0.4, 0.3, 0.2))
    assert corruption_rates(1) == (0.5,)
    assert check_rates([1, 0]) == (1.0, 0.0)


def test_shuffling_keeps_each_layers_words() -> None:
    intact = picture(1)
    mixed = shuffle_words(intact, seed=0)
    assert mixed != intact
    for layer in range(1, intact.layers + 1):
        assert sorted(mixed.words(layer)) == sorted(intact.words(layer))


@pytest.mark.parametrize("rates", [0.5, (0.5,), (0.5, "0.2"), (True, 0.2), None])
def test_rates_that_are_none_are_refused(rates: object) -> None:
    with pytest.raises(UsageError, match="corruption must be two rates"):
        check_rates(rates)


def test_other_bad_input() -> None:
    with pytest.raises(UsageError, match="rates from 0 to 1; got"):
        check_rates((0.5, 1.2))
    with pytest.raises(UsageError, match="count must be a whole number of 1 or more examples; got 0"):
        corruption_rates(0)
    for rate in (-0.1, 1.1, True, "0.5"):
        with pytest.raises(UsageError, match="rate must be a number from 0 to 1"):
            corrupt_words(picture(1), rate, seed=0)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="seed must be a whole number of 0 or more; got -1"):
        corrupt_words(picture(1), 0.5, seed=-1)
    art = TokenPyramid((np.full((2, 2), 65),), PyramidLayout(((2, 2),)))
    with pytest.raises(UsageError, match="only pictures with a vocabulary"):
        corrupt_words(art, 0.5, seed=0)
