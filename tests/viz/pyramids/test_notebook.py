"""``pyramid.show()``: a piece of a notebook that is safe, small, and keeps its style to itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pyramid_fakes import HOSTILE, LAYOUT, WORDS, Flat, SixLayers, picture

from icl_vision.errors import ImageError, PyramidError, VocabularyError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.vocabulary import Vocabulary


def pyramid() -> TokenPyramid:
    return SixLayers().encode(picture())[0]


def test_coarse_layers_are_grids_and_deep_ones_clouds() -> None:
    html = pyramid().show()._repr_html_()
    assert html.count("<td") == 597 and html.count('<div class="cloud">') == 2
    assert "layer 6 (16x16)" in html
    assert HOSTILE not in html and "&lt;img/src=x&gt;" in html
    assert "<script" not in html and "url(" not in html and len(html) < 100_000
    first = pyramid().words(3)[0].replace("<", "&lt;").replace(">", "&gt;")
    assert f'title="{first}: layer 3, row 1, column 1"' in html


def test_styles_reach_nothing_else() -> None:
    html = pyramid().show(image=picture(), tokenizer=SixLayers()).html
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    rules = [rule.strip() for rule in re.sub(r"url\(.*?\)", "", style).split("}") if rule.strip()]
    assert len(rules) > 10
    for rule in rules:
        for selector in rule.split("{")[0].split(","):
            assert selector.strip().startswith(".icl-pyramid"), selector


def test_image_and_tokenizer_add_backdrop_and_similarity() -> None:
    shown = pyramid()
    html = shown.show(image=picture(), tokenizer=SixLayers()).html
    assert html.count("data:image/webp;base64,") == 1 and html.count('<table class="over icl-') == 6
    assert "similarity to the image&#x27;s own vector" in html
    assert re.search(r"row 1, column 1, similarity -?0\.\d{3}", html)
    assert html == shown.show(image=picture(), tokenizer=SixLayers()).html
    words = shown.show(tokenizer=SixLayers()).html
    assert "the mean vector of the 5 words of layers 1 to 2" in words and "data:" not in words
    image = shown.show(image=picture()).html
    assert "data:image" in image and "similarity" not in image


def test_flat_lists_and_characters_stand_beside_the_image() -> None:
    flat = Flat().encode(picture())[0]
    html = flat.show(image=picture(), tokenizer=Flat()).html
    assert html.count("<td") == 6 and html.count("data:image") == 1 and "layer 1 (1x6)" in html
    assert "rank 6, similarity" in html
    art = AsciiTokenizer(4, 4)
    html = art.encode(picture())[0].show(image=picture(), tokenizer=art).html
    assert "<pre>" in html and "data:image" in html


def test_what_does_not_fit_is_refused() -> None:
    video = PyramidLayout(((1, 1, 1), (2, 2, 2)))
    frames = TokenPyramid(tuple(np.zeros(grid, np.int32) for grid in video.grids), video, WORDS)
    assert frames.show().html.count("<table>") == 3  # frames side by side
    assert "frame 2, row 1, column 2" in frames.show().html
    with pytest.raises(PyramidError, match="words of a video cannot be drawn on one image"):
        frames.show(image=picture())
    other = Vocabulary([f"w{number}" for number in range(256)], name="other")
    with pytest.raises(VocabularyError, match="'other'; the tokenizer 'six-layers' uses 'fake-words'"):
        TokenPyramid(tuple(np.zeros(grid, np.int32) for grid in LAYOUT.grids), LAYOUT, other).show(
            tokenizer=SixLayers()
        )
    with pytest.raises(ImageError):
        pyramid().show(image="nowhere.png")
