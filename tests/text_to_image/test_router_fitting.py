"""Lines to learn from, and what is fitted to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.text_to_image import Router
from icl_vision.text_to_image.router import packaged_lines
from icl_vision.text_to_image.routing import fitting
from icl_vision.text_to_image.routing.features import features
from icl_vision.text_to_image.routing.lines import MOST_CHARACTERS, MOST_FILLED, read_instructions

THINGS = ["a cat", "a dog", "a house", "a tree", "a boat", "a star", "a bird", "a fish", "a king", "a road"]
VERBS = ["draw", "paint", "sketch", "depict", "doodle"]
ASKED = ["who made", "what is", "why is there", "explain", "how old is"]
ENDS = ["", " now", " for me", " please", " today", " again"]


def written(folder: Path, rows: list[Any], name: str = "lines.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def own_lines() -> list[dict[str, Any]]:
    """Sixty templates and what fills them."""
    rows: list[dict[str, Any]] = [{"fill": {"x": thing}} for thing in THINGS]
    for route, starts in (("draw", VERBS), ("text", ASKED)):
        rows += [{"route": route, "text": f"{start} {{x}}{end}"} for start in starts for end in ENDS]
    return rows


def test_templates_are_filled_from_their_own_language(tmp_path: Path) -> None:
    rows = [
        {"language": "en", "fill": {"x": "a cat"}}, {"language": "en", "fill": {"x": "a dog"}},
        {"language": "de", "fill": {"x": "eine Katze", "g": "einer Katze"}},
        {"language": "en", "route": "draw", "text": "draw {x}"}, "", {"language": "de", "route": "draw", "text": "{x}"},
        {"language": "de", "route": "text", "text": "{x}, ein Bild von {g}, {y}"}, {"route": "text", "text": "{x}"},
    ]  # fmt: skip
    english, german, both, none = read_instructions(written(tmp_path, rows))
    assert english.texts == ("draw a cat", "draw a dog") and english.things == (0, 1)
    assert german.texts == ("eine Katze",)
    assert both.texts == ("eine Katze, ein Bild von einer Katze, {y}",)
    assert none.texts == ("{x}",) and none.things == (-1,) and none.language == ""


def test_no_thing_is_met_on_one_route_more_than_on_the_other(tmp_path: Path) -> None:
    instructions = read_instructions(written(tmp_path, own_lines()))
    for route in ("draw", "text"):
        texts = [text for one in instructions if one.route == route for text in one.texts]
        met = [sum(thing in text for text in texts) for thing in THINGS]
        assert len(texts) == 30 * MOST_FILLED and max(met) - min(met) <= 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: a line is an object with route and text"),
        ({"route": "draw", "text": "x", "note": 1}, "line 2: a line is an object with route and text"),
        ({"route": "paint", "text": "x"}, "line 2: route must be one of 'draw', 'text'; got 'paint'"),
        ({"text": "x"}, "line 2: route must be one of"),
        ({"route": "draw"}, "line 2: text must be a text"),
        ({"route": "draw", "text": "  "}, "line 2: text must be a text .* and not empty"),
        ({"route": "draw", "text": "x" * (MOST_CHARACTERS + 1)}, "line 2: text must be a text of at most 10,000"),
        ({"route": "draw", "text": "x", "language": 3}, "line 2: language must be a text"),
        ({"fill": {}}, "line 2: fill must be an object of names and texts, alone"),
        ({"fill": {"x": 3}}, "line 2: fill 'x' must be a text"),
        ({"fill": {"x": "a"}, "text": "b"}, "line 2: fill must be an object of names and texts, alone"),
    ],
)
def test_wrong_lines_are_refused_with_their_number(tmp_path: Path, row: Any, why: str) -> None:
    path = written(tmp_path, [{"route": "draw", "text": "good"}, row])
    with pytest.raises(UsageError, match=why) as caught:
        read_instructions(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_instructions(tmp_path / "none.jsonl")
    (tmp_path / "odd").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_instructions(tmp_path / "odd")


def test_a_router_learns_its_users_words(tmp_path: Path) -> None:
    router = Router.fit(written(tmp_path, own_lines()))
    assert router.route("depict a mountain").name == "draw" and router.route("how old is a mountain").name == "text"
    assert router.facts["templates"] == 60 and router.facts["routes"] == {"draw": 30, "text": 30}
    held_out = router.facts["held_out"]
    assert held_out["accuracy_where_sure"] >= 0.95 and held_out["text_drawn"] <= fitting.FALSE_DRAWS
    assert Router.fit(written(tmp_path, own_lines())).to_document() == router.to_document()


def test_own_lines_are_learnt_along_with_the_packaged_ones(tmp_path: Path) -> None:
    line = "zorple me a gnarf"
    assert Router.packaged().route(line).name == "text"
    path = written(tmp_path, [{"route": "draw", "text": f"zorple me {one}"} for one in THINGS])
    assert Router.fit([packaged_lines(), path]).route(line).name == "draw"


def test_the_packaged_router_is_what_its_instructions_give() -> None:
    again, packaged = Router.fit(packaged_lines()), Router.packaged()
    assert again.names == packaged.names and np.array_equal(again.counts, packaged.counts)
    assert again.calibration.draw_from == pytest.approx(packaged.calibration.draw_from, abs=0.011)
    assert again.calibration.slope == pytest.approx(packaged.calibration.slope, abs=1e-3)


def test_the_router_tells_what_scikit_learn_tells(tmp_path: Path) -> None:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.naive_bayes import MultinomialNB

    path = written(tmp_path, own_lines())
    instructions, router = read_instructions(path), Router.fit(path)
    lines = [(text, one.route) for one in instructions for text in one.texts]
    vectors = DictVectorizer()
    table = vectors.fit_transform([features(text) for text, _ in lines])
    model = MultinomialNB(alpha=fitting.SMOOTHING, fit_prior=False).fit(table, [route == "draw" for _, route in lines])
    for line in ("draw a cat", "who made a dog please", "paint something else"):
        known = {name: weight for name, weight in features(line).items() if name in vectors.vocabulary_}
        text, draw = model.predict_log_proba(vectors.transform([known]))[0]
        assert router.log_odds(line) * sum(known.values()) ** 0.5 == pytest.approx(draw - text)


def test_too_few_lines_or_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    few = [{"route": "draw", "text": f"draw {number}"} for number in range(30)] + [{"route": "text", "text": "why?"}]
    with pytest.raises(UsageError, match="20 or more instructions of each route; got 30 of 'draw' and 1 of 'text'"):
        Router.fit(written(tmp_path, few))
    same = [{"route": route, "text": "x"} for route in ("draw", "text") for _ in range(30)]
    with pytest.raises(UsageError, match="nothing in these instructions tells one route from the other"):
        Router.fit(written(tmp_path, same))


def test_one_thing_alone_fills_everything_and_it_still_fits(tmp_path: Path) -> None:
    rows = [row for row in own_lines() if row.get("fill", {"x": "a cat"}) == {"x": "a cat"}]
    assert Router.fit(written(tmp_path, rows)).route("paint a cat").name == "draw"


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match="fitting a router"):
        Router.fit(written(tmp_path, own_lines()))
