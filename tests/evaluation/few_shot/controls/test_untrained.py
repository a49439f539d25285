"""The randomly initialised encoder keeps the tokenizer's contract, and is random in its seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.controls.untrained import UntrainedTokenizer
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.testing import Check, tokenizer_checks
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.vocabulary import Vocabulary

VOCABULARY = Vocabulary([f"word{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}" for n in range(60)])
CODEBOOK = np.random.RandomState(1).standard_normal((60, 12)).astype(np.float32)


class Like(ImageTokenizer):
    """A tokenizer with a codebook and any layout."""

    name = "like"

    def __init__(self, layout: PyramidLayout) -> None:
        self._layout = layout

    @property
    def layout(self) -> PyramidLayout:
        return self._layout

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    @property
    def codebook(self) -> npt.NDArray[np.float32]:
        return CODEBOOK

    def layout_for(self, k: int) -> PyramidLayout:
        if self._layout == PyramidLayout.flat(5) and k <= 8:
            return PyramidLayout.flat(k)
        return super().layout_for(k)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        raise AssertionError("only its words are used")


FLAT = PyramidLayout.flat(5)
PYRAMID = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))


@pytest.mark.parametrize("check", tokenizer_checks(lambda: UntrainedTokenizer(Like(FLAT)), ks=[1, 5, 8]), ids=str)
def test_contract_flat(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", tokenizer_checks(lambda: UntrainedTokenizer(Like(PYRAMID))), ids=str)
def test_contract_pyramid(check: Check) -> None:
    check()


def pictures(count: int = 6) -> list[Any]:
    return [np.random.RandomState(seed).randint(0, 256, (40, 40, 3)).astype(np.uint8) // (1 + seed) for seed in
            range(count)]  # fmt: skip


def test_words_are_the_nearest_to_its_own_vector() -> None:
    tokenizer = UntrainedTokenizer(Like(FLAT))
    unit = CODEBOOK / np.linalg.norm(CODEBOOK, axis=1, keepdims=True)
    for pyramid, vector in zip(tokenizer.encode(pictures()), tokenizer.embed(pictures()), strict=True):
        assert list(pyramid.ids[0][0]) == list(np.argsort(-(unit @ vector), kind="stable")[:5])


def test_the_seed_is_all_that_is_random() -> None:
    words = [[p.words() for p in UntrainedTokenizer(Like(FLAT), seed=seed).encode(pictures())] for seed in (0, 0, 1)]
    assert words[0] == words[1] != words[2]
    assert len({tuple(one) for one in words[0]}) > 1


def test_pictures_do_not_all_collapse_to_one_direction() -> None:
    vectors = UntrainedTokenizer(Like(FLAT)).embed(
        [np.full((8, 8, 3), 20, np.uint8), np.full((8, 8, 3), 235, np.uint8)]
    )
    first, second = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert first @ second < 0


def test_pyramid_layers_look_at_their_cells() -> None:
    left, right = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    left[:, :32], right[:, 32:] = 255, 255
    one, other = UntrainedTokenizer(Like(PYRAMID)).encode([left, right])
    assert one.ids[1].shape == (2, 2)
    assert any((a != b).any() for a, b in zip(one.ids, other.ids, strict=True))


def test_card_says_whose_words_and_which_seed() -> None:
    card = UntrainedTokenizer(Like(FLAT), seed=3).card
    assert (card["name"], card["like"], card["seed"]) == ("untrained", "like", 3)


def test_bad_input_is_told() -> None:
    with pytest.raises(UsageError, match="'ascii' has no codebook"):
        UntrainedTokenizer(AsciiTokenizer())
    for seed in (-1, 2**32, True, 1.5):
        with pytest.raises(UsageError, match="seed must be a whole number"):
            UntrainedTokenizer(Like(FLAT), seed=seed)  # type: ignore[arg-type]  # wrong on purpose
