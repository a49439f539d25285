"""The remembering tokenizer: each path once, everything else untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.contracts import Tokenizer
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["dark", "grey", "light"])


class ShadeTokenizer(ImageTokenizer):
    """One word by brightness; counts what it is asked."""

    name = "shade"
    can_embed = True
    embedding_width = 1

    def __init__(self) -> None:
        self.encoded = 0
        self.embedded = 0

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(1)

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        self.encoded += len(images)
        shades = [min(2, int(np.asarray(image).mean()) // 86) for image in images]
        return [
            TokenPyramid((np.asarray([[shade]], dtype=np.int32),), self.layout, self.vocabulary) for shade in shades
        ]

    def _embed(self, images: list[Image.Image]) -> Any:
        self.embedded += len(images)
        return np.asarray([[np.asarray(image).mean()] for image in images], dtype=np.float32)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    result = []
    for shade in (10, 120, 250):
        path = tmp_path / f"{shade}.png"
        Image.fromarray(np.full((4, 4, 3), shade, dtype=np.uint8)).save(path)
        result.append(str(path))
    return result


def test_each_path_is_encoded_once(paths: list[str]) -> None:
    inner = ShadeTokenizer()
    tokenizer = RememberingTokenizer(inner)
    assert isinstance(tokenizer, Tokenizer)
    words = [pyramid.words() for pyramid in tokenizer.encode([*paths, paths[0]], 1)]
    assert words == [["dark"], ["grey"], ["light"], ["dark"]]
    assert inner.encoded == 3
    assert tokenizer.encode(iter(paths), 1)[2].words() == ["light"]
    assert tokenizer.encode([Path(path) for path in paths], 1)[1].words() == ["grey"]
    assert tokenizer.encode(paths[1], 1)[0].words() == ["grey"]
    assert inner.encoded == 3
    tokenizer.encode(paths)  # another k is another question
    assert inner.encoded == 6


def test_each_path_is_embedded_once(paths: list[str]) -> None:
    inner = ShadeTokenizer()
    tokenizer = RememberingTokenizer(inner)
    np.testing.assert_array_equal(tokenizer.embed([paths[2], paths[0], paths[2]]), [[250], [10], [250]])
    tokenizer.embed(paths)
    assert inner.embedded == 3
    assert tokenizer.embed([]).shape == (0, 1)


def test_other_images_go_straight_through(paths: list[str]) -> None:
    inner = ShadeTokenizer()
    tokenizer = RememberingTokenizer(inner)
    image = Image.open(paths[0])
    for _ in range(2):
        assert tokenizer.encode([image, paths[1]], 1)[0].words() == ["dark"]
        assert tokenizer.encode(iter([image]), 1)[0].words() == ["dark"]
        assert tokenizer.embed(image)[0, 0] == 10
    assert (inner.encoded, inner.embedded) == (6, 2)
    array = np.full((2, 4, 4, 3), 250, dtype=np.uint8)
    assert [pyramid.words() for pyramid in tokenizer.encode(array, 1)] == [["light"], ["light"]]


def test_the_rest_is_the_wrapped_tokenizers(paths: list[str]) -> None:
    inner = ShadeTokenizer()
    tokenizer = RememberingTokenizer(inner)
    (pyramid,) = tokenizer.encode(paths[0], 1)
    assert tokenizer.to_text(pyramid) == "dark"
    assert tokenizer.from_text("grey").words() == ["grey"]
    assert tokenizer.vocabulary is VOCABULARY and tokenizer.codebook is None
    assert tokenizer.card == inner.card and tokenizer.layout == inner.layout
    assert tokenizer.layout_for(1) == inner.layout_for(1)
    assert tokenizer.name == "shade" and tokenizer.can_embed and not tokenizer.can_decode
