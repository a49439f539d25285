"""The packaged spae-digits-32: the contract, readable words, pictures from every number of layers. No torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from icl_vision import ImageTokenizer
from icl_vision.errors import PyramidError, UnknownWordError
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.testing import Check, tokenizer_checks
from icl_vision.tokenizers.onnx import OnnxTokenizer

NAME = "spae-digits-32"


def load() -> OnnxTokenizer:
    return OnnxTokenizer.from_pretrained(NAME, providers="cpu", threads=1)


def digit(shape: str) -> Image.Image:
    """A drawn digit, 28 x 28, white on black."""
    image = Image.new("L", (280, 280))
    draw = ImageDraw.Draw(image)
    if shape == "1":
        draw.line((140, 50, 140, 230), fill=255, width=26)
    elif shape == "0":
        draw.ellipse((80, 50, 200, 230), outline=255, width=26)
    else:
        draw.line((80, 60, 200, 60), fill=255, width=26)
        draw.line((200, 60, 120, 230), fill=255, width=26)
    return image.resize((28, 28), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def tokenizer() -> OnnxTokenizer:
    return load()


@pytest.mark.parametrize("check", tokenizer_checks(load), ids=str)
def test_contract(check: Check) -> None:
    check()


def test_layers_and_the_first_word(tokenizer: OnnxTokenizer) -> None:
    assert tokenizer.layout.cumulative == (1, 5, 21, 37)
    names = {"0": "zero", "1": "one", "7": "seven"}
    for shape, pyramid in zip(names, tokenizer.encode([digit(shape) for shape in names]), strict=True):
        assert pyramid.words(1) == [names[shape]]
        assert not set(pyramid.words(2)) & set(names.values())  # a digit's name never stands for a stroke


def test_a_reader_reads_what_comes_back_and_more_layers_are_nearer(tokenizer: OnnxTokenizer) -> None:
    shapes = ["0", "1", "7"]
    pictures = [digit(shape) for shape in shapes]
    pyramids = tokenizer.encode(pictures)
    truth = tokenizer.preprocessing.batch([picture.convert("RGB") for picture in pictures])
    quality = []
    for layers in (1, 2, 3, 4):
        made = tokenizer.decode([pyramid.truncate(layers) for pyramid in pyramids])
        quality.append(float(psnr(truth, np.stack([np.asarray(image) for image in made])).mean()))
    assert quality[-1] > quality[0] + 2
    assert DigitReader(threads=1).read(made) == shapes


def test_padding_is_a_border_and_sizes_agree(tokenizer: OnnxTokenizer) -> None:
    small = digit("7")
    framed = Image.new("L", (32, 32))
    framed.paste(small, (2, 2))
    assert tokenizer.encode(small)[0] == tokenizer.encode(framed)[0]


def test_words_go_through_text_and_unknown_ones_are_refused(tokenizer: OnnxTokenizer) -> None:
    (pyramid,) = tokenizer.encode(digit("0"))
    assert tokenizer.from_text(tokenizer.to_text(pyramid)) == pyramid
    with pytest.raises(UnknownWordError):
        tokenizer.from_text("zebra " * 37)
    with pytest.raises(PyramidError, match="k must be one of 1, 5, 21, 37"):
        tokenizer.encode(digit("0"), k=6)


def test_the_card_says_what_it_rests_on(tokenizer: OnnxTokenizer) -> None:
    card = ImageTokenizer.from_pretrained(NAME).card
    assert (
        "MNIST" in card["data"]
        and card["metrics"]["reconstruction"]["n"] == 10000
        and card["metrics"]["parity"]["mismatches"] == 0
    )
    assert card["recipe"]["config"]["seed"] == 0


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from icl_vision import ImageTokenizer; import numpy as np;"
        f"t = ImageTokenizer.from_pretrained({NAME!r}, providers='cpu');"
        "t.decode(t.encode(np.zeros((28, 28), np.uint8))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
