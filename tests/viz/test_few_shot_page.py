"""The few-shot page: what is on it, that it is safe to open, and that it stays small."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from icl_vision.viz.few_shot_page import (
    EpisodeView,
    FewShotPage,
    PromptView,
    QueryTile,
    SupportTile,
    render_few_shot_page,
)

HOSTILE = '<img src=x onerror="alert(1)">'
RESULT = {"accuracy": 0.5, "n": 2, "interval": [0.0953, 0.9047], "scorer": "likelihood"}
BLIND = {"accuracy": 0.0, "n": 2, "interval": [0.0, 0.6576], "scorer": "likelihood"}


def image(shade: int) -> Image.Image:
    return Image.fromarray(np.full((40, 60, 3), shade, dtype=np.uint8))


def make_page(labels: tuple[str, str] = ("cat", "dog")) -> FewShotPage:
    first, second = labels
    support = [
        SupportTile(image(10), ["fur", "whisker"], first),
        SupportTile(image(20), ["fur", "bark"], second),
    ]
    queries = [
        QueryTile(image(30), ["whisker", "paw"], first, first, {first: 0.9, second: 0.1}),
        QueryTile(image(40), ["bark"], second, first, {first: 0.6, second: 0.4}),
        QueryTile(image(50), ["sea"], second, None, None),
    ]
    return FewShotPage(
        title="Photographs named",
        llm="Some LLM",
        result=RESULT,
        baselines={"blind": BLIND, "words_prototype": RESULT},
        legend={"blind": "words withheld"},
        episodes=[EpisodeView(labels, support, queries)],
        prompt=PromptView("cat: fur\n", [("cat: whisker paw", 0.9), ("dog: whisker paw", 0.1)], "The likeliest wins."),
        facts={"seed": 0},
        attribution="Pictures: nobody",
    )


def test_everything_is_on_the_page() -> None:
    html = render_few_shot_page(make_page())
    for text in (
        "Photographs named",
        "1 of 2",
        "95% interval 9.5% to 90.5%",
        "scored by likelihood",
        "words prototype",
        "words withheld",
        "Episode 1",
        "1 of 3 right",
        "wrong: it is dog",
        "no answer",
        "cat: whisker paw",
        "The likeliest wins.",
        "Pictures: nobody",
        "<dt>seed</dt><dd>0</dd>",
    ):
        assert text in html, text
    assert html.count("<img ") == 2 + 3 + 1
    assert "width:90.0%" in html and "width:60.0%" in html


def test_words_take_the_colour_of_their_only_class() -> None:
    html = render_few_shot_page(make_page())
    assert html.count('style="--h:214">whisker</li>') == 2  # support and query (the head shows plain words)
    assert html.count('style="--h:28">bark</li>') == 2
    assert "<li>fur</li>" in html and "<li>paw</li>" in html


def test_nothing_hostile_becomes_markup() -> None:
    page = make_page((HOSTILE, "dog"))
    page = dataclasses.replace(
        page,
        title=HOSTILE,
        llm=HOSTILE,
        legend={"blind": HOSTILE},
        facts={HOSTILE: HOSTILE},
        attribution=HOSTILE,
        prompt=PromptView(HOSTILE, [(HOSTILE, None)], HOSTILE),
    )
    html = render_few_shot_page(page)
    assert "<img src=x" not in html and 'onerror="' not in html
    assert "&lt;img src=x" in html


def test_page_loads_nothing() -> None:
    html = render_few_shot_page(make_page())
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html and "url(" not in html
    assert all(part.startswith("data:image/webp;base64,") for part in html.split('src="')[1:])


def test_no_episodes_no_prompt() -> None:
    page = dataclasses.replace(make_page(), episodes=[], prompt=None)
    html = render_few_shot_page(page)
    assert "Episode" not in html and "as sent" not in html and "Photographs named" in html
