"""Digits drawn and judged: rows, measures, comparisons, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from icl_vision.cli import main
from icl_vision.drawing import Pair
from icl_vision.errors import BudgetExceededError, LLMUnavailableError, UsageError
from icl_vision.evaluation.drawing.evaluation import GenerationConfig, GenerationEvaluation
from icl_vision.evaluation.drawing.items import TEXTS, DigitPool, contexts_for
from icl_vision.evaluation.drawing.page import grid, render_page
from icl_vision.evaluation.drawing.rows import BASELINES, MEANINGS
from icl_vision.evaluation.drawing.summary import drawings_of, render, summarise
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.files.runs import Run, read_usage
from icl_vision.llms.cost import Budget
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tasks.draw.generator import ImageGenerator
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parents[2] / "tasks"))
from drawing_llm import drawing_llm, share

VOCABULARY = Vocabulary(["one", "two", "dot", "dash"], name="marks")
LAYOUT = PyramidLayout(((1, 1), (1, 2)))


def pair(text: str, *words: str) -> Pair:
    ids = VOCABULARY.ids(words)
    return Pair(text, TokenPyramid((ids[:1].reshape(1, 1), ids[1:].reshape(1, 2)), LAYOUT, VOCABULARY))


PAIRS = [
    pair("a", "one", "dot", "dash"),
    pair("a", "one", "dot", "dot"),
    pair("a", "one", "dot", "dash"),
    *[pair("b", "two", "dash", "dash")] * 4,
]


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("spae-digits-32", threads=1)


def evaluation(
    tokenizer: ImageTokenizer, llm: Any = None, controls: Sequence[str] = (), n: int = 20
) -> GenerationEvaluation:
    generator = ImageGenerator(llm or drawing_llm(), tokenizer)
    config = GenerationConfig(n, TEXTS["digits"], shots=2, controls=tuple(controls), control_n=10)
    return GenerationEvaluation(generator, tokenizer, DigitPool.packaged(), DigitReader(threads=1), config)


def test_what_the_examples_give_without_an_llm() -> None:
    rows = {name: rule(PAIRS, "a", [0]) for name, rule in BASELINES.items()}
    assert rows["text plurality"] == ["one", "dot", "dash"]
    assert rows["plurality vote"] == ["two", "dash", "dash"]
    assert rows["copied example"] in [p.target.words() for p in PAIRS[:3]]
    assert rows["text frequencies"][:2] == ["one", "dot"]
    # Nothing has this text: all examples are looked at.
    assert BASELINES["text plurality"](PAIRS, "c", [0]) == rows["plurality vote"]
    drawn = {tuple(BASELINES["random allowed"](PAIRS, "a", [seed])) for seed in range(40)}
    assert len(drawn) > 4
    assert set(BASELINES) < set(MEANINGS)


def test_contexts_are_balanced_drawn_by_the_seed_and_hold_no_fresh_digit() -> None:
    pool = DigitPool.packaged()
    first, again, other = pool.context(0, 5, seed=3), pool.context(0, 5, seed=3), pool.context(1, 5, seed=3)
    assert first.digits == [str(digit) for digit in range(10) for _ in range(5)] and len(first.fresh) == 10
    assert np.array_equal(first.images, again.images) and not np.array_equal(first.images, other.images)
    assert not any(np.array_equal(image, fresh) for image in first.images for fresh in first.fresh)
    with pytest.raises(UsageError, match="10 examples and a fresh one need 11"):
        pool.context(0, 10, seed=0)


def test_pools_are_training_digits_only(tmp_path: Path) -> None:
    images = np.arange(20 * 28 * 28, dtype=np.uint8).reshape(20, 28, 28)
    np.savez(tmp_path / "some.npz", x_train=images, y_train=np.arange(20) % 10, x_test=images, y_test=np.zeros(20))
    assert len(DigitPool.read(tmp_path / "some.npz").images) == 20
    np.savez(tmp_path / "test.npz", x_test=images, y_test=np.zeros(20))
    with pytest.raises(UsageError, match="with x_train and y_train"):
        DigitPool.read(tmp_path / "test.npz")
    np.savez(tmp_path / "flat.npz", x_train=images.reshape(20, -1), y_train=np.arange(20))
    with pytest.raises(UsageError, match=r"uint8 \[N, H, W\]"):
        DigitPool.read(tmp_path / "flat.npz")


def test_questions_have_an_answer_for_each_digit(tokenizer: ImageTokenizer) -> None:
    assert all(sorted(one.digit for one in some) == list("0123456789") for some in TEXTS.values())
    assert all(len({one.text for one in some}) == 10 for some in TEXTS.values())
    asked = [*evaluation(tokenizer, controls=["shuffled texts"]).items()]
    assert asked.count(("llm", 1)) == asked.count(("shuffled texts", 0)) == 1
    assert ("shuffled texts", 1) not in asked  # control_n
    assert contexts_for(30, TEXTS["digits"]) == 3
    with pytest.raises(UsageError, match="a multiple of the 10 questions"):
        contexts_for(25, TEXTS["digits"])


def test_a_run_is_drawn_summed_up_and_shown(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    judged = evaluation(tokenizer, controls=["single pass"], n=10)
    with Run.open(tmp_path, "eval generation", {}) as run:
        judged.draw(run)
        results = {"llm": "fake", **summarise(run, tokenizer, "digit reader")}
        drawings, _ = drawings_of(run)
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == [name for name in MEANINGS if name != "shuffled texts"]
    assert {row["read_right"]["n"] for row in rows.values()} == {10}
    assert rows["ceiling"]["read_right"]["accuracy"] >= 0.8
    assert rows["plurality vote"]["read_right"]["accuracy"] <= 0.2  # one picture for all digits
    assert rows["copied example"]["copies"] == 10 and rows["copied example"]["nearest_example"] == 0
    assert rows["copied example"]["equal_words"] == 37 and rows["llm"]["requests"] > 0
    assert rows["text frequencies"]["requests"] == 0 and rows["text frequencies"]["seconds"] is None
    against = [one["rows"] for one in results["comparisons"]]
    assert ["llm", "ceiling"] not in against and ["llm", "text frequencies"] in against and len(against) == 6
    table = render(results)
    assert "the LLM beats 'plurality vote'" in table and "ceiling" in table
    page = render_page(results, drawings, tokenizer, "whose")
    assert page.count("data:image/png") == 8 and "http" not in page.replace("http-equiv", "")


class PowerCut(FakeLLM):
    """Answers some requests, then no more."""

    left = 60

    async def _score(self, pairs: Any, **settings: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise LLMUnavailableError("the power is out")
        return await super()._score(pairs, **settings)


def test_a_stopped_run_goes_on_in_mid_picture(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    def draw(llm: FakeLLM, folder: Path) -> Any:
        with Run.open(folder, "eval generation", {}, resume=folder.exists()) as run:
            judged = evaluation(tokenizer, llm, n=10)
            judged.generator.set_params(concurrency=1)
            judged.draw(run)
            return drawings_of(run)[0]

    fresh = drawing_llm()
    whole = draw(fresh, tmp_path / "whole")
    with pytest.raises(LLMUnavailableError):
        draw(PowerCut(score=share, constraint="logit_bias"), tmp_path / "cut")
    again = drawing_llm()
    assert draw(again, tmp_path / "cut") == whole
    assert 0 < len(again.calls) < len(fresh.calls)


def test_a_budget_is_for_all_contexts_and_all_parts_of_a_run(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    def draw(folder: Path, budget: Budget | None) -> int:
        llm = drawing_llm()
        with Run.open(folder, "eval generation", {}, resume=folder.exists()) as run:
            judged = evaluation(tokenizer, llm, n=20)
            judged.generator.set_params(budget=budget)
            judged.draw(run)
        return len(llm.calls)

    whole = draw(tmp_path / "whole", None)
    assert evaluation(tokenizer, n=20).contexts == 2
    enough = Budget(requests=whole)
    assert draw(tmp_path / "enough", enough) == whole
    # Each context alone would keep to it.
    tight = Budget(requests=whole - whole // 4)
    with pytest.raises(BudgetExceededError):
        draw(tmp_path / "tight", tight)
    with pytest.raises(BudgetExceededError):
        draw(tmp_path / "tight", tight)
    used = sum(read_usage(one).requests for one in (tmp_path / "tight" / "drawn").iterdir())
    assert whole // 2 < used <= whole - whole // 4
    assert draw(tmp_path / "tight", enough) == whole - used


def test_a_drawing_that_is_refused_counts_as_wrong(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    with Run.open(tmp_path, "eval generation", {}) as run:
        evaluation(tokenizer, FakeLLM("nothing of use here", scores_text=False), n=10).draw(run)
        rows = {row["name"]: row for row in summarise(run, tokenizer, "digit reader")["rows"]}
    assert rows["llm"]["failed"] == 10 and rows["llm"]["read_right"]["accuracy"] == 0
    assert rows["llm"]["nearest_example"] is None


def test_grids_mark_what_is_wrong_or_missing() -> None:
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    sheet = np.asarray(grid([[white, white], [white, None]], [[True, False], [True, False]]))
    assert sheet.shape == (72, 72, 3)
    assert sheet[0, 0].tolist() == [60, 60, 60] and sheet[0, 40].tolist() == sheet[50, 50].tolist() == [224, 60, 44]


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "eval",
        "generation",
        "--llm",
        "fake",
        "--n",
        "10",
        "--shots",
        "1",
        "--control",
        "none",
        "--out",
        str(out),
    ]
    dry = CliRunner().invoke(main, [*options, "--dry-run", "--json"])
    assert dry.exit_code == 0 and json.loads(dry.stdout)["contexts"] == 1 and not out.exists(), dry.output
    result = CliRunner().invoke(main, [*options, "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((out / "results.json").read_text())
    assert document["copy_threshold"] == 0.05 and document["config"]["data"] == "packaged digits"
    with Image.open(out / "grids" / "llm.png") as sheet:
        assert sheet.size == (360, 36)
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    again = CliRunner().invoke(main, [*options, "--resume"])
    assert again.exit_code == 0 and "read right [95%]" in again.stdout, again.output
    other = CliRunner().invoke(main, [*options, "--resume", "--seed", "1"])
    assert other.exit_code == 1 and "another configuration" in other.stderr
    odd = CliRunner().invoke(main, ["eval", "generation", "--llm", "fake", "--n", "15", "--out", str(tmp_path / "x")])
    assert odd.exit_code == 1 and "a multiple of the 10 questions" in odd.stderr
