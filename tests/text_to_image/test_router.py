"""The router: where lines go, where it is unsure, what of a line it reads, files that are none, LLMs that are asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import loaded

from icl_vision.errors import LLMNoAnswerError, LLMStatusError, StorageError, UsageError
from icl_vision.llms import FakeLLM
from icl_vision.tasks.routing import EXAMPLES, read_route, route_prompt
from icl_vision.text_to_image import Router
from icl_vision.text_to_image.router import MOST_FEATURES, Calibration, packaged_lines
from icl_vision.text_to_image.routing.features import HEAD, MOST_FEATURE, TAIL, features, readable
from icl_vision.text_to_image.routing.lines import read_instructions

UNSURE = "make it blue"
"""The packaged router is not sure of it (a test below says so)."""


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.packaged()


def small(**changes: Any) -> dict[str, Any]:
    """A whole router's document, of three features."""
    document: dict[str, Any] = {
        "format": "icl_vision router",
        "format_version": 1,
        "smoothing": 1.0,
        "calibration": {"slope": 1.0, "offset": 0.0, "draw_from": 0.9, "text_below": 0.2},
        "facts": {},
        "features": ["w:draw", "w:who", "w:fox"],
        "draw": [90, 0, 9],
        "text": [0, 90, 9],
    }
    return {**document, **changes}


def saved(folder: Path, document: object) -> Path:
    path = folder / "router.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


# Where lines go -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "Draw a fox in the snow, please",
        "Zeichne mir bitte einen Hund",
        "dessine-moi un mouton",
        "Genera una imagen de un castillo",
        "Нарисуй мне кошку",
        "Gambarkan seekor kucing untuk saya",
        "给我画一只猫",
    ],
)
def test_requests_for_pictures_are_drawn(router: Router, line: str) -> None:
    route = router.route(line)
    assert (route.name, route.by, route.draw, route.reply) == ("draw", "counts", True, None)
    assert route.confidence == route.probability >= router.calibration.draw_from


@pytest.mark.parametrize(
    "line",
    [
        "What is the capital of Australia?",
        "Draw a conclusion from this text about bees",
        "What does a picture of a fox show?",
        "Describe a photo of a market in one sentence.",
        "Write a caption for a picture of my dog",
        'What does "paint the town red" mean?',
        "Wer hat dieses Bild gemalt?",
        "¿Quién pintó este cuadro?",
        "这幅画是谁画的？",
    ],
)
def test_everything_else_is_answered_in_text(router: Router, line: str) -> None:
    route = router.route(line)
    assert (route.name, route.by, route.draw) == ("text", "counts", False)
    assert route.confidence == 1 - route.probability > 1 - router.calibration.text_below
    assert route.to_dict() == {
        "route": "text", "probability": route.probability, "confidence": route.confidence, "by": "counts", "reply": None
    }  # fmt: skip


def test_the_same_line_always_goes_the_same_way_whatever_its_case_or_spelling(router: Router) -> None:
    told = {
        router.probability(line) for line in ("Dessine un bébé", "DESSINE  un\tbe\u0301be\u0301", "dessine un bébé ")
    }
    assert len(told) == 1


# What cannot be a request ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["", " ", "\n\t", "\x00\x01", "\ud800", "\u202e\u200b", "\ufeff"])
def test_lines_of_nothing_are_answered_in_text_and_no_llm_is_asked(router: Router, line: str) -> None:
    llm = FakeLLM("draw")
    route = router.route(line, llm)
    assert (route.name, route.by, route.draw) == ("text", "unsure", None) and llm.calls == []


@pytest.mark.parametrize(
    "line",
    [
        "draw\x00a\x07 cat\ud83d",
        "a" * 1_000_000,
        "draw " * 300_000,
        "\u0301" * 100_000,
        "\ufdfa" * 5_000,  # one character that is eighteen in its compatibility form
        "🦊" * 2_000,
        "{{ 7 * 7 }} {% raw %}",
        "w:draw c:_dr",
        "１２３ 四五六",
    ],
)
def test_odd_lines_get_a_probability_and_a_prompt_that_holds(router: Router, line: str) -> None:
    assert 0 <= router.probability(line) <= 1
    llm = FakeLLM("text")
    assert router.route(line, llm).name in ("draw", "text")
    for call in llm.calls:
        assert call.prompt.query.isprintable() or call.prompt.query.count("\n") == 1
    asked = route_prompt(readable(line)).query
    assert asked.startswith("Line: ") and asked.endswith("\nSay:") and asked.count("\n") == 1
    assert len(asked) <= HEAD + TAIL + len("Line:  ... \nSay:")


def test_of_a_long_line_the_beginning_and_the_end_are_read(router: Router) -> None:
    book = "the quick brown fox jumps over it again " * 5_000
    assert router.probability("Summarise the following text: " + book) < router.calibration.text_below
    ends = set(features(f"{book} Draw a zebra"))
    assert "w:zebra" in ends and "w:zebra" not in features(f"{book} zebra {book}")
    assert len(features("x" * 1000)) <= 12 and all(len(name) <= MOST_FEATURE for name in features("x" * 1000))


@pytest.mark.parametrize("line", [None, 3, b"draw", ["draw"]])
def test_what_is_no_text_is_refused(router: Router, line: Any) -> None:
    with pytest.raises(UsageError, match=r"a line must be a text; got .* \("):
        router.route(line)


# Where it is not sure -------------------------------------------------------------------------------------------------


def test_where_it_is_unsure_the_llm_is_asked_once_with_the_line_and_examples_of_both(router: Router) -> None:
    assert router.route(UNSURE).by == "unsure" and router.route(UNSURE).name == "text"
    llm = FakeLLM(" Draw.\n")
    route = router.route(UNSURE, llm)
    assert (route.name, route.by, route.draw, route.reply) == ("draw", "llm", True, " Draw.")
    (call,) = llm.calls
    assert call.prompt.query == f"Line: {UNSURE}\nSay:"
    assert [call.prompt.context.count(f"Say: {name}") for name in ("draw", "text")] == [3, 3]
    assert all(line in call.prompt.context for line, _ in EXAMPLES)
    sure = FakeLLM("text")
    assert router.route("Please draw a cat in the snow", sure).name == "draw" and sure.calls == []


def test_an_llm_that_can_be_held_to_two_words_is(router: Router) -> None:
    llm = FakeLLM("text", constraint="choice")
    assert router.route(UNSURE, llm).by == "llm"
    assert llm.calls[0].settings["constraint"].allowed == ("draw", "text")


@pytest.mark.parametrize("reply", ["perhaps", "draw or text", "", "do not draw", "drawing", "42"])
def test_an_answer_that_names_no_route_is_text(router: Router, reply: str) -> None:
    route = router.route(UNSURE, FakeLLM(reply))
    assert (route.name, route.by, route.draw) == ("text", "unsure", None) and route.reply is not None


def test_an_llm_that_says_nothing_is_text_and_one_that_fails_is_an_error(router: Router) -> None:
    assert router.route(UNSURE, FakeLLM([LLMNoAnswerError("only thoughts", "thoughts")])).name == "text"
    with pytest.raises(LLMStatusError, match="busy"):
        router.route(UNSURE, FakeLLM([LLMStatusError("busy", 503)]))


def test_answers_are_read() -> None:
    read = {said: read_route(said) for said in (" draw", "TEXT", '"Draw."', "text\n", "I would say: text", "ｄｒａｗ")}
    assert read == {" draw": "draw", "TEXT": "text", '"Draw."': "draw", "text\n": "text", "I would say: text": "text",
                    "ｄｒａｗ": "draw"}  # fmt: skip


def test_a_template_of_ones_own_is_used(router: Router, tmp_path: Path) -> None:
    (tmp_path / "route.jinja").write_text(
        "{% block instruction %}{% endblock %}{% block context %}{% for e in examples %}{{ e.line }}={{ e.route }}\n"
        "{% endfor %}{% endblock %}{% block query %}{{ line }}={% endblock %}"
    )
    llm = FakeLLM("draw")
    assert router.route(UNSURE, llm, templates=tmp_path).name == "draw"
    assert llm.calls[0].prompt.query == f"{UNSURE}="


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_saved_router_is_the_same_router(router: Router, tmp_path: Path) -> None:
    router.save(tmp_path / "again.json")
    again = Router.load(tmp_path / "again.json")
    assert again.names == router.names and np.array_equal(again.counts, router.counts)
    assert again.calibration == router.calibration and again.facts == router.facts
    for line in ("Draw a cat", "Who are you?", UNSURE):
        assert again.route(line) == router.route(line)


def test_the_log_odds_are_those_of_the_counts(tmp_path: Path) -> None:
    router = Router.load(saved(tmp_path, small()))
    draw = np.log((90 + 1) / (99 + 3)) - np.log((0 + 1) / (99 + 3))
    assert router.log_odds("draw") == pytest.approx(draw * 4 / 4**0.5)
    assert router.log_odds("draw fox") == pytest.approx((draw * 4 + 0 * 4) / 8**0.5)
    assert router.log_odds("zzz") == 0 and router.probability("zzz") == 0.5
    assert router.route("draw").name == "draw" and router.route("who").name == "text"
    assert router.route("who draw").by == "unsure"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "no router"),
        ("[]", "its format"),
        ('{"format": "icl_vision router", "format_version": 1, "format_version": 1}', "twice"),
        (small(format="pickle"), "does not say that its format is 'icl_vision router'"),
        (small(format_version=2), "format version is 2; this version reads 1"),
        (small(features=[]), "features"),
        (small(features=["w:draw"] * 3), "must differ"),
        (small(features=["w:draw", "w:who", 3]), "texts of 1 to 96 characters"),
        (small(features=["w:draw", "w:who", "x" * 97]), "texts of 1 to 96 characters"),
        (small(features=None), "must be a list"),
        (small(features=["x"] * (MOST_FEATURES + 1)), "at most 500,000"),
        (small(draw=[1, 2]), "3 features, but 2 and 3 counts"),
        (small(draw=[1, 2, -3]), "whole numbers from 0"),
        (small(text=[1, 2, 1.5]), "whole numbers from 0"),
        (small(text=[1, 2, True]), "whole numbers from 0"),
        (small(text=[1, 2, 10**12]), "whole numbers from 0"),
        (small(smoothing=0), "smoothing must be a number above 0"),
        (small(smoothing="much"), "smoothing must be a number above 0"),
        (small(calibration={}), "calibration must have slope, offset"),
        (small(calibration={"slope": 1, "offset": 0, "draw_from": 0.1, "text_below": 0.5}), "thresholds must be"),
        (small(calibration={"slope": -1, "offset": 0, "draw_from": 0.9, "text_below": 0.5}), "slope must be above 0"),
        (small(calibration={"slope": "1", "offset": 0, "draw_from": 0.9, "text_below": 0.5}), "slope must be a number"),
        (small(facts=[]), "facts must be an object"),
        (json.dumps(small(smoothing=1.0)).replace("1.0", "NaN"), "which is no number"),
    ],
)
def test_files_that_are_no_router_are_refused_by_name(tmp_path: Path, document: object, why: str) -> None:
    path = saved(tmp_path, document)
    with pytest.raises(StorageError, match=why) as caught:
        Router.load(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no file"):
        Router.load(tmp_path / "none.json")
    with pytest.raises(StorageError, match="cannot be read"):
        Router.load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(StorageError, match="is no router"):
        Router.load(tmp_path / "bytes.json")


def test_thresholds_are_checked() -> None:
    with pytest.raises(StorageError, match="draw_from must be a number"):
        Calibration(1.0, 0.0, float("nan"), 0.1)


# What comes with the library ------------------------------------------------------------------------------------------


def test_the_packaged_instructions_are_many_in_many_languages(router: Router) -> None:
    instructions = read_instructions(packaged_lines())
    languages = {one.language for one in instructions}
    assert len(instructions) == router.facts["templates"] >= 2_000 and len(languages) >= 8
    for language in languages:
        own = [one for one in instructions if one.language == language]
        assert min(sum(one.route == name for one in own) for name in ("draw", "text")) >= 70
    assert len({(one.language, one.template) for one in instructions}) == len(instructions)
    assert not any("{" in text for one in instructions for text in one.texts if "{" not in one.template)


def test_the_frozen_lines_keep_the_promised_figures() -> None:
    benchmarks = Path(__file__).resolve().parents[2] / "benchmarks"
    recorded = json.loads((benchmarks / "results" / "router.json").read_text(encoding="utf-8"))
    script = loaded(benchmarks / "router.py")
    given, router = read_instructions(benchmarks / "router_lines.jsonl"), Router.packaged()
    known = {line for line, _ in script.same_template(given, read_instructions(packaged_lines()))}
    lines = [one for one in given if one.template not in known]
    told = [router.route(one.template) for one in lines]
    sure = [(one.route, route.name) for one, route in zip(lines, told, strict=True) if route.by == "counts"]
    right = sum(wanted == got for wanted, got in sure)
    row = recorded["rows"]["router"]
    assert (len(lines), len(sure)) == (recorded["lines"]["n"], row["right_of_sure"]["n"])
    assert right / len(sure) == row["right_of_sure"]["accuracy"] >= 0.95
    drawn = sum(one.route == "text" and route.name == "draw" for one, route in zip(lines, told, strict=True))
    assert drawn == round(row["text_drawn"]["accuracy"] * row["text_drawn"]["n"]) <= 0.01 * row["text_drawn"]["n"]
    assert recorded["calibration"]["all"]["ece"] <= 0.05 and recorded["lines"]["n"] >= 200


def test_routing_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from icl_vision.text_to_image import Router\n"
        "assert Router.packaged().route('Please draw a cat in the snow').draw\n"
        "print(*[name for name in ('torch', 'sklearn', 'scipy', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
