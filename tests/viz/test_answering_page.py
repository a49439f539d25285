"""The page of questions and captions: what is on it, what is left off, and that it is safe to open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from icl_vision.viz.answering_page import (
    AnsweringPage,
    AnswerTile,
    Measured,
    RowTable,
    Said,
    ShownExample,
    render_page,
    write_page,
)

HOSTILE = '<img src=x onerror="alert(1)">'


def image(shade: int) -> Image.Image:
    return Image.fromarray(np.full((40, 60, 3), shade, dtype=np.uint8))


def tile(**changes: object) -> AnswerTile:
    plain = AnswerTile(
        answer="green",
        question="What colour is the bus?",
        truth=("red", "red", "dark red"),
        right=False,
        parts=(("what", ["bus", "street"]), ("colours", ["red", "green"]), ("said", [])),
        used=(("colours", ["green"]), ("what", ["bus"])),
        examples=(ShownExample("what: car", "blue", "What colour is the car?"),),
        probability=0.625,
        method="fused",
        others=(Said("blind", "white", False), Said("caption as words", "red", True, "the ceiling")),
        prompt="C: bus\nQ: What colour",
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]  # whatever a test changes


def page(*tiles: AnswerTile, table: RowTable | None = None) -> str:
    return render_page(AnsweringPage("Questions", tiles, "What was asked.", table, {"seed": 0}, "Pictures: nobody"))


def test_everything_is_on_the_page() -> None:
    html = page(tile())
    for text in (
        "What was asked.",
        "What colour is the bus?",
        "green",
        "right: red / dark red",
        "probability 62%",
        "fused",
        "1 example shown before it",
        "What colour is the car?",
        "the ceiling",
        "C: bus\nQ: What colour",
        "Pictures: nobody",
    ):
        assert text in html, text
    assert "card asked wrong blind" in html and "<img" not in html  # nobody handed it a picture


def test_the_words_used_for_the_question_are_marked_and_no_others() -> None:
    html = page(tile())
    assert html.count('class="hue"') == 2
    assert 'style="--h:214">green</li>' in html and 'style="--h:214">bus</li>' in html
    assert "<li>red</li>" in html and "<li>street</li>" in html
    assert '<span class="name">said</span>' not in html  # an empty part
    weighed = page(tile(legend="They were weighed."))
    assert "They were weighed." in weighed and "given to the LLM" not in weighed
    none = page(tile(used=(("what", ()),)))
    assert 'class="hue"' not in none and "Bold words" not in none
    everything = page(tile(used=None))
    assert 'class="hue"' not in everything and "Bold words" not in everything
    # The same word in another part was not used.
    twice = page(tile(parts=(("what", ["orange"]), ("colours", ["orange"])), used=(("colours", ["orange"]),)))
    assert twice.count('class="hue"') == 1


def test_pictures_are_there_where_they_are_handed_over_and_are_small_copies() -> None:
    shown = ShownExample("what: car", "blue", "What colour?", image(20))
    html = page(tile(image=image(10), examples=(shown,)))
    assert (
        html.count("data:image/webp") == 2 and "card asked wrong blind" not in html and 'class="example seen"' in html
    )


def test_what_nobody_judged_is_neither_right_nor_wrong() -> None:
    html = page(tile(right=None, truth=(), others=(), answer=None, note="the LLM withheld its answer"))
    assert "no answer" in html and "the LLM withheld its answer" in html
    assert "&#10003;" not in html and "&#10007;" not in html and "card asked wrong" not in html


def test_a_table_says_number_interval_and_n_and_why_one_is_missing() -> None:
    rows = [
        Measured("describe-photo", "words for the question", 0.32, (0.27, 0.37), 349, ("21", "fused")),
        Measured("ascii", "character art", None, (0.0, 1.0), 0, (), "exceeds window"),
    ]
    table = RowTable("exact", rows, columns=("tokens", "method"), verdicts=["it beats blind by 6 points"], notes=["n"])
    html = page(table=table)
    assert "32.0% [27.0%, 37.0%]" in html and '<td class="number">349</td>' in html and "width:32.00%" in html
    assert (
        '<td class="soft">exceeds window</td>' in html
        and "<dd>character art</dd>" in html
        and "<li>it beats blind by 6 points</li>" in html
    )
    assert html.count("<tr>") == html.count("</tr>") == 3 and "<th>tokens</th>" in html
    graded = page(table=RowTable("CIDEr-D", [Measured("copy", "copied", 0.4, (0.3, 0.5), 202)], most=0.8))
    assert "0.400 [0.300, 0.500]" in graded and "width:50.00%" in graded


def test_nothing_becomes_markup(tmp_path: Path) -> None:
    hostile = tile(
        answer=HOSTILE,
        question=HOSTILE,
        truth=(HOSTILE,),
        parts=((HOSTILE, ["x" + HOSTILE]),),
        used=None,
        examples=(ShownExample(HOSTILE, HOSTILE, HOSTILE),),
        method=HOSTILE,
        note=HOSTILE,
        others=(Said(HOSTILE, HOSTILE, True, HOSTILE),),
        prompt=HOSTILE,
        image=image(10),
    )
    table = RowTable(HOSTILE, [Measured(HOSTILE, HOSTILE, 0.5, (0, 1), 1, (HOSTILE,), HOSTILE)], 1.0, (HOSTILE,))
    target = tmp_path / "page.html"
    write_page(target, AnsweringPage(HOSTILE, [hostile], HOSTILE, table, {HOSTILE: HOSTILE}, HOSTILE))
    html = target.read_text(encoding="utf-8")
    assert HOSTILE not in html and "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert html.count("<img") == 1  # the picture of the tile
