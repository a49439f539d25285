"""The page of `icl-vision show`: what is on it, that it is safe to open, and that it can be read everywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyramid_fakes import HOSTILE, Flat, NoVectors, OneGrid, SixLayers, picture

from icl_vision.errors import UsageError
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.viz.page import escape
from icl_vision.viz.pyramids.look import look
from icl_vision.viz.pyramids.page import render_pyramid_page

Start = Callable[..., Any]
READY = "document.documentElement.dataset.ready === 'yes'"


class Structure(HTMLParser):
    """Every tag that is opened is closed, in order; collects tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def html() -> str:
    return render_pyramid_page([look(picture(), SixLayers(), name="beach.jpg")])


def test_every_word_has_its_place_on_the_page(html: str) -> None:
    shown = look(picture(), SixLayers(), name="beach.jpg")
    page = Structure(html)
    cells = [attributes for tag, attributes in page.tags if attributes.get("role") == "gridcell"]
    assert len(cells) == 597
    assert shown.similarity is not None
    number = 0
    for layer, side in enumerate((1, 2, 4, 8, 16, 16), start=1):
        for at in np.ndindex(side, side):
            cosine = shown.similarity.layers[layer - 1][at]
            word = shown.pyramid.words(layer)[at[0] * side + at[1]]
            expected = f"{word}: layer {layer}, row {at[0] + 1}, column {at[1] + 1}, similarity {cosine:.3f}"
            assert cells[number]["title"] == expected
            number += 1
        assert f"<pre>{escape(' '.join(shown.pyramid.words(layer)))}</pre>" in html  # to copy
    assert html.count('class="board words') == 4 and html.count('class="board shades') == 2
    assert html.count('<div class="cloud">') == 3
    for text in (
        "beach.jpg in words",
        "597 ordinary words in 6 layers",
        "cosine of a word's vector with the image&#x27;s own vector",
        "icl-vision show beach.jpg --tokenizer six-layers --out page.html",
        "<b>341 words</b> 5 layers",
        "Made by icl-vision ",
        '<p class="more">and 537 more</p>',
        "the mean of all 256 words is ",
    ):
        assert text in html, text
    for layer in range(1, 7):
        assert escape(shown.similarity.verdict(layer).capitalize()) in html
    assert " dB" not in html  # nobody measured it
    better = render_pyramid_page([dataclasses.replace(shown, psnr=(7.0, 8.0, 9.0, 12.0, 20.0, 22.5))])
    assert "(22.5\N{NO-BREAK SPACE}dB PSNR)" in better and "4 layers, 12.0\N{NO-BREAK SPACE}dB" in better
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1 + 6 + 1  # made again; 1 to 6 layers; what went in


def test_page_is_safe_small_and_the_same_every_time(html: str) -> None:
    assert len(html.encode()) < 1_000_000
    assert html == render_pyramid_page([look(picture(), SixLayers(), name="beach.jpg")])
    assert HOSTILE not in html and escape(HOSTILE) in html
    page = Structure(html)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert (
        policy is not None and "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)
    )
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "http" not in html.replace("http-equiv", "") and "innerHTML" not in html and "@import" not in html
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    sources += re.findall(r"url\((.*?)\)", html)
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    spoilt = render_pyramid_page([look(picture(), SixLayers(), name=HOSTILE)], command=HOSTILE)
    assert HOSTILE not in spoilt
    Structure(spoilt)


def test_a_flat_list_is_ranked_with_bars() -> None:
    shown = look(picture(), Flat(), name="beach.jpg")
    html = render_pyramid_page([shown])
    Structure(html)
    assert "6 words, best first" in html and 'role="grid"' not in html and "Back from words" not in html
    assert f'title="{escape(HOSTILE)}: rank 1, similarity ' in html
    assert "the mean vector of the first 5 words" in html


def test_one_layer_is_shown_by_its_grid_alone() -> None:
    shown = look(picture(), OneGrid(), name="beach.jpg")
    assert shown.one_grid and not look(picture(), SixLayers()).one_grid and not look(picture(), Flat()).one_grid
    html = render_pyramid_page([shown])
    Structure(html)
    assert "64 ordinary words in one layer" in html and html.count('class="board words') == 1
    assert "In words" not in html and "coarse to fine" not in html and "Back from words" not in html
    assert "<b>Made again</b> from nothing but its 64 words" in html and 'class="hero three"' not in html
    assert "Nearer to their own mean than" in html and "of the image it says nothing" in html
    one = look(picture(), SixLayers(), k=1)
    assert not one.one_grid and "In one word" in render_pyramid_page([one])


def test_without_vectors_the_page_says_so() -> None:
    html = render_pyramid_page([look(picture(), NoVectors())])
    Structure(html)
    assert "has no word vectors" in html and "similarity 0" not in html and "Made again" not in html


def test_character_art_is_a_text_picture() -> None:
    shown = look(picture(), AsciiTokenizer(4, 6), name="beach.jpg")
    html = render_pyramid_page([shown])
    Structure(html)
    assert escape("\n".join(shown.pyramid.words())) in html and "beach.jpg in characters" in html


def test_several_images_share_a_page() -> None:
    looks = [look(picture(), SixLayers(), name=name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    html = render_pyramid_page(looks)
    Structure(html)
    assert "3 images in words" in html and html.count("<article id=") == 3
    assert all(f'href="#i{number}"' in html and f'id="i{number}"' in html for number in (1, 2, 3))
    with pytest.raises(UsageError, match="one image or more; got none"):
        render_pyramid_page([])


def test_fewer_layers_are_fewer_boards() -> None:
    html = render_pyramid_page([look(picture(), SixLayers(), k=1)])
    Structure(html)
    assert html.count('role="gridcell"') == 1 and "1 ordinary words" not in html


# In a browser ---------------------------------------------------------------------------------------------------------

TIP = "document.querySelector('#tip:not([hidden])')?.innerText"
CELL = ".layer:nth-child(5) [role=row]:nth-child(3) .it:nth-child(7)"


@pytest.fixture
def page_file(html: str, tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    return tmp_path / "page.html"


def expected(layer: int, row: int, column: int) -> str:
    shown = look(picture(), SixLayers())
    assert shown.similarity is not None
    word = shown.pyramid.words(layer)[(row - 1) * 16 + column - 1]
    cosine = shown.similarity.layers[layer - 1][row - 1, column - 1]
    return f"{word}\nlayer {layer}, row {row}, column {column}, similarity {cosine:.3f}"


def test_pointer_finger_and_keyboard_give_word_place_and_similarity(browser: Start, page_file: Path) -> None:
    page = browser(width=1280, height=900)
    page.open(page_file, ready=READY)
    assert page.run(TIP) is None
    middle = (
        f"(() => {{ const node = document.querySelector('{CELL}'); node.scrollIntoView({{block: 'center'}});"
        " const box = node.getBoundingClientRect();"
        " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
    )
    x, y = page.run(middle)
    page.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    page.wait(f"{TIP} !== undefined")
    assert page.run(TIP) == expected(5, 3, 7)
    assert page.run("document.querySelectorAll('.layer:nth-child(5) .same').length") > 1  # its cells and its cloud word
    page.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 2, "y": 2})
    page.wait(f"{TIP} === undefined")
    page.run(f"document.querySelector('{CELL}').focus()")
    assert page.run(TIP) == expected(5, 3, 7)
    for key, place in (("ArrowRight", (3, 8)), ("ArrowDown", (4, 8)), ("ArrowLeft", (4, 7)), ("ArrowUp", (3, 7))):
        page.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": key})
        page.call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "code": key})
        assert page.run(TIP) == expected(5, *place)
    page.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": "End", "code": "End"})
    assert page.run(TIP) == expected(5, 16, 16)
    page.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Escape", "code": "Escape"})
    assert page.run(TIP) is None
    stops = (
        "document.querySelectorAll('.rove .it[tabindex=\"0\"]').length === document.querySelectorAll('.rove').length"
    )
    assert page.run(stops)  # one stop of the Tab key a board, not 597
    page.show(360, 740)
    x, y = page.run(middle)
    page.call("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    page.call("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait(f"{TIP} !== undefined")
    assert page.run(TIP) == expected(5, 3, 7)
    page.click(".layer:nth-child(5) .cloud li")
    assert " of 256 cells (row " in page.run(TIP)
    assert page.messages == []


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_runs_over_and_words_can_be_read(browser: Start, page_file: Path, dark: bool) -> None:
    page = browser(width=360, height=740, dark=dark)
    page.open(page_file, ready=READY)
    assert page.run("document.documentElement.scrollWidth") == 360
    assert page.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 26)" if dark else "rgb(250, 250, 247)"
    )
    sizes = "[...document.querySelectorAll('.board.words b')].map((one) => parseFloat(getComputedStyle(one).fontSize))"
    found = page.run(sizes)
    assert len(found) == 85 and np.median(found) > 8.5 and min(found) > 7
    over = (
        "[...document.querySelectorAll('.board.words .it')].filter((cell) => {"
        " const box = cell.getBoundingClientRect(), word = cell.firstChild.getBoundingClientRect();"
        " return word.left < box.left - 1 || word.right > box.right + 1 || word.top < box.top - 2"
        " || word.bottom > box.bottom + 2; }).length"
    )
    assert page.run(over) == 0
    for cell in (".layer:nth-child(5) .it:first-child", ".layer:nth-child(4) [role=row]:nth-child(1) .it:last-child"):
        page.click(cell)
        box = page.run(
            "(() => { const b = document.querySelector('#tip').getBoundingClientRect(); return [b.left, b.right]; })()"
        )
        assert box[0] >= 0 and box[1] <= 360
    assert page.run("document.documentElement.scrollWidth") == 360
    page.show(1280, 900, dark=dark)
    assert page.run(over) == 0
    page.run("[...document.images].forEach((one) => { one.loading = 'eager'; })")
    page.wait("[...document.images].every((one) => one.complete && one.naturalWidth > 0 && one.alt)")
    assert page.messages == []


def test_without_scripts_the_words_are_there(browser: Start, page_file: Path) -> None:
    page = browser(width=1280, height=900)
    page.call("Emulation.setScriptExecutionDisabled", {"value": True})
    page.open(page_file)
    assert page.run("document.querySelectorAll('.board .it[title]').length") == 597
    assert page.run("document.querySelector('#tip')") is None


@pytest.mark.parametrize("kind", ["flat", "art", "several"])
def test_other_kinds_fit_a_phone_too(browser: Start, tmp_path: Path, kind: str) -> None:
    tokenizer = {"flat": Flat(), "art": AsciiTokenizer(32, 64), "several": SixLayers()}[kind]
    names = [f"{'long_file_name_' * 5}{number}.jpg" for number in range(3 if kind == "several" else 1)]
    html = render_pyramid_page([look(picture(), tokenizer, name=name) for name in names])
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page = browser(width=360, height=740)
    page.open(tmp_path / "page.html", ready=READY)
    assert page.run("document.documentElement.scrollWidth") == 360
    if kind == "flat":
        page.click(".ranks li:nth-child(2)")
        assert page.run(TIP).startswith("word000\nrank 2, similarity ")
    assert page.messages == []
