"""The packaged spae-clips-64: the contract, words of every layer, clips from every number of layers. No torch."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from icl_vision.testing import check_tokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer

NAME = "spae-clips-64"


@pytest.fixture(scope="module")
def tokenizer() -> OnnxTokenizer:
    return OnnxTokenizer.from_pretrained(NAME, providers="cpu", threads=1)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A yellow ball with eyes that rolls from left to right over white, uint8 [16, 64, 64, 3]."""
    frames = []
    for step in range(16):
        frame = Image.new("RGB", (64, 64), "white")
        draw = ImageDraw.Draw(frame)
        left = 2 + 2 * step
        draw.ellipse((left, 18, left + 28, 46), fill=(255, 196, 40))
        for eye in (8, 18):
            draw.ellipse((left + eye, 27, left + eye + 3, 33), fill=(70, 40, 20))
        frames.append(np.asarray(frame))
    return np.stack(frames)


def psnr(made: list[Image.Image], clip: np.ndarray) -> float:
    again = np.stack([np.asarray(frame) for frame in made]).astype(float)
    return float(10 * np.log10(255**2 / np.square(again - clip).mean()))


def test_it_says_a_clip_in_words_and_makes_it_again_better_the_more_there_are(
    tokenizer: OnnxTokenizer, clip: np.ndarray
) -> None:
    assert tokenizer.modality == "clip" and tokenizer.layout.cumulative == (1, 2, 6, 38, 294, 550, 806)
    (pyramid,) = tokenizer.encode([clip])
    made = tokenizer.decode([pyramid.truncate(layers) for layers in range(4, 8)])
    assert all(len(frames) == 16 and frames[0].size == (64, 64) for frames in made)
    found = [psnr(frames, clip) for frames in made]
    assert found == sorted(found)
    still = psnr([Image.fromarray(clip.mean(0).round().astype(np.uint8))] * 16, clip)
    assert found[-1] > still + 3  # it moves


def test_words_of_what_is_seen_are_blind_to_order_and_the_others_are_not(
    tokenizer: OnnxTokenizer, clip: np.ndarray
) -> None:
    forwards, backwards = tokenizer.encode([clip, clip[::-1].copy()])
    # Frames 2, 6, 10 and 14 are looked at; of the reverse other ones, which show nearly the same.
    looked = clip.copy()
    looked[[2, 6, 10, 14]] = clip[[14, 10, 6, 2]]
    (again,) = tokenizer.encode([looked])
    for layer in (0, 2):
        assert np.array_equal(forwards.ids[layer], again.ids[layer])
    assert not np.array_equal(forwards.ids[4], backwards.ids[4])


def test_a_word_says_how_it_moves(tokenizer: OnnxTokenizer, clip: np.ndarray) -> None:
    still = np.repeat(clip[:1], 16, axis=0)
    down = clip.transpose(0, 2, 1, 3)  # the same clip over its diagonal
    said = [pyramid.words()[1] for pyramid in tokenizer.encode([clip, clip[::-1].copy(), still, down.copy()])]
    assert said == ["right", "left", "still", "downward"]
    assert "Layer 2 says how the clip moves" in tokenizer.card["description"]


@pytest.mark.slow
def test_the_contract() -> None:
    check_tokenizer(lambda: OnnxTokenizer.from_pretrained(NAME, providers="cpu"))
