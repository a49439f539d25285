"""The page kit: everything escaped, nothing loaded from anywhere, pictures inline."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import ImageError
from icl_vision.viz.page import accuracy_bars, chips, document, escape, percent, picture, thumbnail

HOSTILE = '<script>alert("x")</script>&\'\x00'


class Checker(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def parse(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker


def test_escape_leaves_no_markup_and_no_control_characters() -> None:
    text = escape(HOSTILE)
    assert "<" not in text and '"' not in text and "'" not in text and "\x00" not in text
    assert "\N{REPLACEMENT CHARACTER}" in text
    assert escape(3) == "3"


def test_document_forbids_every_load() -> None:
    html = document(HOSTILE, "<p>body</p>")
    checker = parse(html)
    policies = [attrs["content"] for tag, attrs in checker.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies and "default-src 'none'" in str(policies[0])
    assert not any(tag in ("script", "link", "iframe", "object") for tag, _ in checker.tags)
    assert "<title>&lt;script&gt;" in html
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    assert "http://" not in html and "https://" not in html and "@import" not in html


def test_thumbnail_is_reencoded_and_small() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", comment=b"secret comment")
    uri = thumbnail(buffer.getvalue(), 64)
    kind, _, data = uri.partition(",")
    assert kind == "data:image/webp;base64"
    decoded = base64.b64decode(data)
    assert b"secret" not in decoded
    assert Image.open(io.BytesIO(decoded)).size == (64, 48)


def test_thumbnail_of_a_bad_image_is_an_image_error() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"no image at all", 64)


def test_picture_escapes_its_text() -> None:
    checker = parse(picture("data:,", HOSTILE, 10))
    assert checker.tags[0][1]["alt"] == HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def test_chips_keep_order_colour_and_limit() -> None:
    html = chips(["one", "<b>", "three"], lambda word: 120 if word == "one" else None, limit=2)
    parse(html)
    assert html.index(">one<") < html.index("&lt;b&gt;")
    assert '<li class="hue" style="--h:120">one</li>' in html
    assert "three" not in html and "and 1 more" in html


def test_line_drawings_are_shown_as_rows() -> None:
    html = chips(["@@  ", " :-<"])
    assert html.startswith("<pre") and "@@  \n :-&lt;" in html and "<li" not in html


def test_bars_carry_value_interval_and_name() -> None:
    row = {"accuracy": 0.75, "n": 40, "interval": [0.5981, 0.8581], "scorer": "likelihood"}
    empty = {"accuracy": None, "n": 0, "interval": [0.0, 1.0], "scorer": "exact"}
    html = accuracy_bars([("LLM", row), (HOSTILE, empty)])
    parse(html)
    assert "width:75.00%" in html and "left:59.81%;width:26.00%" in html
    assert "LLM: 75%, 95% interval 59.8% to 85.8%, n = 40" in html
    assert "<script" not in html
    assert percent(None) == "-" and percent(0.756) == "76%"
