"""AsciiTokenizer: the contract, the picture it draws, and its refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from icl_vision.errors import PyramidError, UsageError, VocabularyError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.testing import Check, sample_images, tokenizer_checks
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.vocabulary import Vocabulary

FACTORIES = {
    "16x16": AsciiTokenizer,
    "3x7": lambda: AsciiTokenizer(3, 7),
    "1x1": lambda: AsciiTokenizer(1, 1, ramp="\N{FULL BLOCK}\N{LIGHT SHADE}"),
}


@pytest.mark.parametrize(
    "check", [check for make in FACTORIES.values() for check in tokenizer_checks(make)], ids=lambda check: check.name
)
def test_contract(check: Check) -> None:
    check()


def test_ids_are_code_points_on_the_grid_and_rows_are_words() -> None:
    [pyramid] = AsciiTokenizer().encode(sample_images()[2])
    assert pyramid.ids[0].shape == (16, 16)
    assert pyramid.words(1) == ["".join(map(chr, row)) for row in pyramid.ids[0].tolist()]
    assert pyramid.k == 16
    assert pyramid.vocabulary is None


def test_dark_is_ink_and_steps_are_equal() -> None:
    tokenizer = AsciiTokenizer(1, 9)
    ramp = np.repeat(np.arange(9, dtype=np.uint8) * 29, 10)[None, :]
    assert tokenizer.encode(ramp)[0].words() == ["@%#*+=-:."]
    assert AsciiTokenizer(1, 2).encode(np.array([[0, 255]], np.uint8))[0].words() == ["@."]


def test_the_whole_image_is_squashed_not_cropped() -> None:
    wide = np.full((10, 100), 255, np.uint8)
    wide[:, :25] = 0
    assert AsciiTokenizer(2, 4).encode(wide)[0].words() == ["@...", "@..."]


def test_text_is_rows_and_comes_back() -> None:
    tokenizer = AsciiTokenizer(2, 3)
    [pyramid] = tokenizer.encode(np.array([[0, 128, 255], [255, 128, 0]], np.uint8))
    text = tokenizer.to_text(pyramid)
    assert text == "@+.\n.+@"
    assert tokenizer.from_text(text) == pyramid
    assert tokenizer.from_text(f"\n{text}\r\n") == pyramid
    assert " " not in tokenizer.ramp


@pytest.mark.parametrize("k", [None, 16, 256])
def test_k_is_the_whole_picture(k: int | None) -> None:
    tokenizer = AsciiTokenizer()
    assert tokenizer.encode(sample_images(), k) == tokenizer.encode(sample_images())


@pytest.mark.parametrize("k", [1, 5, 17])
def test_there_is_no_shorter_form(k: int) -> None:
    tokenizer = AsciiTokenizer()
    with pytest.raises(PyramidError, match=rf"no shorter form: k must be 16 \(its rows\) or None; got {k}"):
        tokenizer.encode(sample_images(), k)
    with pytest.raises(PyramidError, match="no shorter form"):
        tokenizer.to_text(tokenizer.encode(sample_images()[0])[0], k)


def test_card() -> None:
    card = json.loads(json.dumps(AsciiTokenizer(4, 6).card))
    assert card["layout"] == {"grids": [[4, 6]], "finest": [4, 6]}
    assert card["vocabulary"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@@@", "has 1 rows; the tokenizer has 2"),
        ("@@@\n@@", "row 2 of the ASCII art has 2 characters, not 3"),
        ("@@@\n@x@", "row 2 of the ASCII art holds 'x', not one of '@%#"),
        ("@@ \n@@@", "row 1 of the ASCII art holds ' '"),
        ("", "has 0 rows"),
    ],
)
def test_text_that_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(PyramidError, match=message):
        AsciiTokenizer(2, 3).from_text(text)


@pytest.mark.parametrize("rows", [0, -1, 513, 2.5, True, "16", None])
def test_bad_sizes(rows: object) -> None:
    with pytest.raises(UsageError, match="rows must be a whole number from 1 to 512; got"):
        AsciiTokenizer(rows)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="columns must be a whole number"):
        AsciiTokenizer(16, rows)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("ramp", ["", "@", "@@", "@ .", "@\n", "@\x00", "@\u3000"])
def test_bad_ramps(ramp: str) -> None:
    with pytest.raises(UsageError, match="ramp must be two or more different printable characters without spaces"):
        AsciiTokenizer(ramp=ramp)


def test_pyramids_of_others_are_refused() -> None:
    words = TokenPyramid((np.zeros((1, 5), int),), PyramidLayout.flat(5), Vocabulary(["cat"], name="pets"))
    with pytest.raises(VocabularyError, match="words are 'pets'; the tokenizer 'ascii' uses characters"):
        AsciiTokenizer().to_text(words)
    other = AsciiTokenizer(16, 8).encode(sample_images()[0])[0]
    with pytest.raises(PyramidError, match="layout is 16x8; the tokenizer 'ascii' has 16x16"):
        AsciiTokenizer().to_text(other)
