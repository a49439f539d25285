"""`evaluation.denoising`: baselines by hand, paired means, a whole small run, resuming, the page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_vision.drawing import Decoding, Pair, Query, Stage
from icl_vision.errors import UsageError
from icl_vision.evaluation.denoising.baselines import BASELINES, Task
from icl_vision.evaluation.denoising.evaluation import CONTROLS, Cell, DenoisingEvaluation
from icl_vision.evaluation.denoising.page import denoising_page
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.evaluation.kit.pictures import Picture
from icl_vision.files.runs import Run
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tasks.denoise.tasks import Alignment
from icl_vision.tokenizers.base import on_grids
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary(["ash", "bay", "cob", "dew", "elm"], name="five")
LAYOUT = PyramidLayout(((1, 1), (2, 2)))


def words(text: str) -> TokenPyramid:
    return TokenPyramid(on_grids(np.asarray(WORDS.ids(text.split()), dtype=np.int32), LAYOUT), LAYOUT, WORDS)


PAIRS = [
    Pair(words("ash ash ash ash ash"), words("ash bay cob dew elm")),
    Pair(words("bay bay bay dew dew"), words("bay bay elm dew ash")),
    Pair(words("cob cob cob cob cob"), words("bay elm cob ash ash")),
]
VECTORS = np.eye(5, dtype=np.float32)


def asked(condition: str, known: dict[int, str] | None = None, *, vectors: Any = VECTORS) -> Task:
    return Task(PAIRS, words(condition), Query(words(condition), known or {}, "one"), vectors)


def test_plurality_takes_the_most_frequent_word_and_keeps_what_is_known() -> None:
    made = BASELINES["plurality"][0](asked("ash ash ash ash ash", {1: "dew"}))
    assert made is not None and made.words() == ["bay", "dew", "cob", "dew", "ash"]


@pytest.mark.parametrize("vectors", [VECTORS, None])
def test_the_nearest_example_is_found_by_the_condition_at_known_places(vectors: Any) -> None:
    near = BASELINES["nearest example"][0]
    made = near(asked("cob cob bay dew dew", vectors=vectors))
    assert made is not None and made.words() == PAIRS[1].target.words()
    made = near(asked("cob cob bay dew dew", {0: "cob", 1: "cob"}, vectors=vectors))
    assert made is not None and made.words() == ["cob", "cob", "cob", "ash", "ash"]


def test_the_nearest_known_word_fills_its_layer() -> None:
    made = BASELINES["nearest known word"][0](asked("ash ash ash ash ash", {1: "dew", 2: "elm"}))
    assert made is not None and made.words() == ["bay", "dew", "elm", "dew", "elm"]
    assert BASELINES["nearest known word"][0](asked("ash ash ash ash ash")) is None


def test_random_words_are_among_the_allowed() -> None:
    made = BASELINES["random allowed"][0](asked("ash ash ash ash ash"))
    assert made is not None
    for place, word in enumerate(made.words()):
        assert word in {pair.target.words()[place] for pair in PAIRS}
    assert BASELINES["random allowed"][0](asked("ash ash ash ash ash")) == made


def test_random_words_keep_to_what_the_llm_may_answer() -> None:
    shown = words("ash bay cob dew elm")
    once = Decoding(most_uses=1)
    rows = (Stage(stride=(1, 2), condition="same", allowed="shown", decoding=once),)
    made = BASELINES["random allowed"][0](Task(PAIRS, shown, Query(shown, {}, "one"), None, stages=rows))
    assert made is not None
    rest = made.words()[1:]
    assert (sorted(rest[:2]), sorted(rest[2:])) == (["bay", "cob"], ["dew", "elm"])
    own = (Stage(stride=(1, 2), condition="same", allowed="own", decoding=once),)
    query = Query(shown, {1: "elm"}, "one", {2: ("elm", "ash")})
    made = BASELINES["random allowed"][0](Task(PAIRS, shown, query, None, stages=own))
    assert made is not None and made.words()[1] == "elm" and {*made.words()[1:]} <= {"elm", "ash"}


def test_aligned_words_are_moved_back_and_only_where_something_moved() -> None:
    task = asked("ash bay cob dew elm")
    assert BASELINES["aligned words"][0](task) is None
    made = BASELINES["aligned words"][0](replace(task, alignment=Alignment(turns=1)))
    assert made is not None and made.words() == ["ash", "cob", "elm", "bay", "dew"]


def test_the_conditions_words_are_themselves() -> None:
    made = BASELINES["condition words"][0](asked("dew dew dew dew dew"))
    assert made is not None and made.words() == ["dew"] * 5


# Paired means ---------------------------------------------------------------------------------------------------------


def test_a_clear_difference_is_shown_and_its_direction_follows_the_metric() -> None:
    a, b = [20.0, 21.0, 22.0, 23.0], [19.0, 19.5, 21.0, 21.5]
    assert paired_mean(a, b, higher_is_better=True).better is True
    found = paired_mean(a, b, higher_is_better=False)
    assert found.better is False and found.wins == 0
    assert found.mean == pytest.approx(1.25)
    assert found.interval[0] > 0


def test_no_difference_is_not_called_one() -> None:
    found = paired_mean([1.0, 2.0, 3.0, 2.0], [2.0, 1.0, 2.0, 3.0], higher_is_better=True)
    assert found.better is None and found.interval[0] < 0 < found.interval[1]


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for number in range(200):
        a = draw.normal(0.3, 1, 40)
        low, high = paired_mean(a, np.zeros(40), higher_is_better=True, seed=number, rounds=1000).interval
        held += low <= 0.3 <= high
    assert 0.88 <= held / 200 <= 0.98


def test_values_that_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="needs two values a picture; got 2 and 1"):
        paired_mean([1.0, 2.0], [1.0], higher_is_better=True)
    with pytest.raises(UsageError, match="needs two values a picture; got 0 and 0"):
        paired_mean([], [], higher_is_better=True)
    with pytest.raises(UsageError, match="finite"):
        paired_mean([math.inf], [1.0], higher_is_better=True)


# A run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> OnnxTokenizer:
    return OnnxTokenizer.from_pretrained("spae-digits-32", providers="cpu", threads=1)


def strokes(count: int) -> list[Picture]:
    found = []
    for number in range(count):
        image = np.zeros((28, 28), np.uint8)
        image[4:24, 5 + 2 * number : 8 + 2 * number] = 255
        found.append(Picture(f"stroke {number}", image))
    return found


def distance(a: Any, b: Any) -> Any:
    return np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255


def evaluation(tokenizer: OnnxTokenizer, llm: FakeLLM | None = None, **options: Any) -> DenoisingEvaluation:
    drawn = strokes(8)
    settings = {"llm": llm or FakeLLM(constraint="logit_bias"), "tokenizer": tokenizer, "context": 4}
    tasks = options.pop("tasks", ("outpainting", "rotation"))
    return DenoisingEvaluation(settings | options.pop("settings", {}), tasks, drawn[:4], drawn[4:6], **options)


def test_a_run_has_every_row_on_the_same_pictures(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    one = evaluation(tokenizer, strides=("rows", 2), perceptual=distance)
    with Run.open(tmp_path, "eval denoising", {}) as run:
        one.measure(run)
        results = one.summary(run)
        page = denoising_page(one, run, results | {"tokenizer": "t", "llm": "<l>", "config": {}})
    rows = [(row["task"], row["row"], row["stride"]) for row in results["rows"]]
    of_pictures = set(BASELINES) - {"extrapolated words"}
    assert len(rows) == len(set(rows)) == 2 * (2 + len(of_pictures) + 2 + len(CONTROLS)) - 2
    assert ("rotation", "nearest known word", None) not in rows
    assert ("rotation", "aligned words", None) in rows and ("outpainting", "aligned words", None) not in rows
    assert all(row["psnr"]["n"] == 2 for row in results["rows"])
    by_name = {(row["task"], row["row"], row["stride"]): row for row in results["rows"]}
    ceiling, shown = by_name["rotation", "ceiling", None], by_name["rotation", "corrupted input", None]
    assert ceiling["psnr"]["mean"] > shown["psnr"]["mean"]
    assert ceiling["lpips"]["mean"] < shown["lpips"]["mean"]
    assert (
        by_name["rotation", "llm", "2"]["usage"]["requests"] > by_name["rotation", "llm", "rows"]["usage"]["requests"]
    )
    # The lower half of 32 pixels has 16 rows: too few for LPIPS, which is said.
    assert by_name["outpainting", "llm", "rows"]["lpips"] is None
    assert "31 pixels" in results["notes"]["lpips"]
    seconds = {pair["second"] for pair in results["pairs"] if pair["task"] == "rotation"}
    assert seconds == {"ceiling", "corrupted input", *of_pictures, *CONTROLS} - {"nearest known word"}
    assert "&lt;l&gt;" in page and "<l>" not in page
    assert page.count("<img") == 2 * len(rows) + 4


def test_a_finished_row_is_not_done_again(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    with Run.open(tmp_path, "eval denoising", {}) as run:
        evaluation(tokenizer, tasks=("rotation",), controls=()).measure(run)
    llm = FakeLLM()
    again = evaluation(tokenizer, llm, tasks=("rotation",), controls=())
    with Run.open(tmp_path, "eval denoising", {}, resume=True) as run:
        again.measure(run)
        assert not llm.calls
        assert len(again.summary(run)["rows"]) == 2 + (len(BASELINES) - 1)  # one without known words, and the LLM's


def test_pictures_that_cannot_be_read_are_counted_and_shown(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    one = evaluation(tokenizer, FakeLLM("I would rather not."), tasks=("rotation",), controls=())
    with Run.open(tmp_path, "eval denoising", {}) as run:
        one.measure(run)
        results = one.summary(run)
        page = denoising_page(one, run, results | {"tokenizer": "t", "llm": "l", "config": {}})
    (row,) = [row for row in results["rows"] if row["row"] == "llm"]
    assert row["failed"] == 2 and row["psnr"] is None
    assert page.count('<span class="none">failed</span>') == 2


def test_a_prompt_beyond_the_window_is_a_row_that_says_so(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    one = evaluation(tokenizer, FakeLLM(context_window=40), tasks=("rotation",), controls=())
    with Run.open(tmp_path, "eval denoising", {}) as run:
        one.measure(run)
        (row,) = [row for row in one.summary(run)["rows"] if row["row"] == "llm"]
    assert row["problem"].startswith("exceeds window: ")


def test_the_papers_protocol_is_labelled(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    one = evaluation(tokenizer, tasks=("inpainting",), controls=(), settings={"protocol": "paper"})
    with Run.open(tmp_path, "eval denoising", {}) as run:
        one.measure(run)
        results = one.summary(run)
    assert "corrupted copies of the answer" in results["leaking"]
    rows = {row["row"]: row["psnr"]["mean"] for row in results["rows"]}
    # Most of the copies are right at each place, so a vote without any LLM all but recovers the answer.
    assert rows["plurality"] > rows["random allowed"]


def test_the_plan_is_what_is_asked(tokenizer: OnnxTokenizer, tmp_path: Path) -> None:
    llm = FakeLLM(constraint="logit_bias")
    one = evaluation(tokenizer, llm, tasks=("outpainting",))
    plans = one.plan()
    assert [cell.item for cell, _ in plans] == [
        "outpainting/llm/rows", "outpainting/single pass/rows", "outpainting/shuffled words/rows",
    ]  # fmt: skip
    assert not llm.calls
    with Run.open(tmp_path, "eval denoising", {}) as run:
        one.measure(run)
    assert len(llm.calls) == sum(plan.usage.requests for _, plan in plans)


def test_bad_input(tokenizer: OnnxTokenizer) -> None:
    with pytest.raises(UsageError, match="at least one task, one stride and one picture"):
        evaluation(tokenizer, tasks=())
    with pytest.raises(UsageError, match="controls are single pass, shuffled words; got upside down"):
        evaluation(tokenizer, controls=("upside down",))
    assert Cell("rotation", "llm", 3).item == "rotation/llm/3"
