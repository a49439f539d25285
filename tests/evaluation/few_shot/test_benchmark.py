"""The benchmark from end to end: items, rows, kills and resumes, errors in place, estimates without a request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.asking.jobs import FAILURES_IN_A_ROW
from icl_vision.contracts import Profile, Usage
from icl_vision.errors import (
    BudgetExceededError,
    LabelError,
    LLMStatusError,
    LLMUnavailableError,
    PyramidError,
    RunMismatchError,
    TemplateError,
    UntrustedNameError,
    UsageError,
)
from icl_vision.evaluation import BenchmarkConfig, FewShotBenchmark, parse_settings
from icl_vision.evaluation.few_shot.config import SETTINGS, Setting
from icl_vision.evaluation.few_shot.controls.controls import CONTROLS
from icl_vision.evaluation.few_shot.episodes import sets
from icl_vision.evaluation.few_shot.scorers import LLM_ROWS
from icl_vision.evaluation.few_shot.tally import render_reliability, render_rows, render_table
from icl_vision.evaluation.kit.running import EXCEEDS_WINDOW
from icl_vision.files.runs import read_results, read_usage
from icl_vision.llms import Budget, Meter, MeteredLLM, Price, PriceTable
from icl_vision.llms.fake import FakeLLM
from icl_vision.probabilities import reliability
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tasks import FewShotClassifier
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.viz.benchmark.page import write_report
from icl_vision.vocabulary import Vocabulary

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 200), "old gold": (180, 160, 10),
           "white": (230, 230, 230)}  # fmt: skip
TWO = parse_settings(["all"], [2])
ONE = (Setting(2, 1),)


class ColourTokenizer(ImageTokenizer):
    """Three words: the strongest channel, the weakest, and how bright it is."""

    name = "colour"
    can_embed = True
    embedding_width = 3
    _own = Vocabulary(["ruby", "leaf", "sea", "fire", "moss", "ink", "dim", "bright"])

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(3)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._own

    @property
    def codebook(self) -> Any:
        return np.eye(8, dtype=np.float32)

    def _embed(self, images: list[Image.Image]) -> Any:
        return np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images])

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        means = self._embed(images)
        ids = [[int(mean.argmax()), 3 + int(mean.argmin()), 6 + int(mean.max() > 190)] for mean in means]
        return [TokenPyramid((np.asarray([row], dtype=np.int32),), self.layout, self.vocabulary) for row in ids]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (top / name.replace(" ", "_")).mkdir()
        for number in range(6):
            pixels = np.clip(np.array(colour) + random.integers(-25, 26, size=(16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / name.replace(" ", "_") / f"{number}.png")
    return top


@pytest.fixture
def make(photos: Path) -> Any:
    def benchmark(llm: Any = None, data: Path = photos, **options: Any) -> FewShotBenchmark:
        trust = options.pop("trust", False)
        config = BenchmarkConfig(**({"settings": ONE, "episodes": 2, "k": 3} | options))
        return FewShotBenchmark(data, llm=llm or FakeLLM(), tokenizer=ColourTokenizer(), config=config, trust=trust)

    return benchmark


def items(folder: Path) -> dict[str, Any]:
    return dict(read_results(folder))


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def cell(results: dict[str, Any], row: str, setting: str) -> dict[str, Any]:
    (found,) = [one for one in results["cells"] if (one["row"], one["setting"]) == (row, setting)]
    return dict(found)


def test_all_settings_and_rows_in_one_run(make: Any, tmp_path: Path) -> None:
    llm = FakeLLM(constraint="choice")
    finished = make(llm, settings=SETTINGS, episodes=2).run(tmp_path / "run", progress=False)
    assert (finished.asked, finished.kept, finished.failed) == (28, 0, 0)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results == finished.results and results["kind"] == "few-shot" and results["format_version"] == 1
    assert [one["id"] for one in results["settings"]] == [one.id for one in SETTINGS]
    rows = {row["name"]: row for row in results["rows"]}
    measured = [name for name, row in rows.items() if row["kind"] != "quoted"]
    assert measured[:8] == list(LLM_ROWS) and {"prior", "words_knn", "linear_probe", "untrained"} <= set(measured)
    assert all(row["source"] for row in rows.values() if row["kind"] == "quoted")
    assert not rows["exact"]["constrained"] and rows["constrained"]["constrained"]
    assert rows["exact"]["llm_calls"] == 1 and rows["prior"]["llm_calls"] == 0
    assert rows["direct"]["llm_calls"] == 3.5 and rows["calibrated"]["llm_calls"] == 14
    for row in measured:
        for setting in SETTINGS:
            found = cell(results, row, setting.id)
            if row == "label_name":
                assert found["note"].startswith("not available: a label's words are not in the codebook")
                continue
            accuracy = found["accuracy"]
            assert accuracy["n"] == 2 and found["note"] == ""
            low, high = accuracy["interval"]
            assert 0 <= low <= accuracy["accuracy"] <= high <= 1 and accuracy["scorer"]
    assert cell(results, "image_prototype", "5w-5s-0r-i")["accuracy"]["accuracy"] == 1
    assert results["requests"] == len(llm.calls) == results["usage"]["requests"]
    means = {(one["row"], one["ways"]): one["mean"] for one in results["means"]}
    shares = [cell(results, "direct", one.id)["accuracy"]["accuracy"] for one in SETTINGS if one.ways == 5]
    assert means["direct", 5] == pytest.approx(sum(shares) / 7) and means["label_name", 2] is None
    assert means["SPAE-PaLM (21)", 5] == pytest.approx(0.6186)
    table = render_table(results)
    assert "5-way" in table and "SPAE-PaLM (21)*" in table and "1s-0r-n" in table and "61.86" in table
    assert "SPAE" not in render_rows(results) and "only labels" in render_rows(results)


def test_an_item_holds_what_a_reader_needs(make: Any, tmp_path: Path) -> None:
    make(FakeLLM(overlap_answer_of), settings=parse_settings(["5w-3s-1r-i"], [5])).run(tmp_path / "run", progress=False)
    item = items(tmp_path / "run")["e00001/5w-3s-1r-i"]
    assert item["id"] == "e00001/5w-3s-1r-i" and item["episode"] == 1 and item["setting"] == "5w-3s-1r-i"
    assert sorted(item["labels"]) == sorted(COLOURS) and len(item["support"]) == 15
    assert item["query"]["image"] not in {one["image"] for one in item["support"]}
    assert len(item["query"]["words"]) == 3 and item["query"]["label"] in item["labels"]
    assert item["prompts"]["open"].count("Output: old gold") == 6
    assert item["prompts"]["open"].endswith("Output:")
    channel = item["prompts"]["channel"]
    assert all(f"{label}:" in channel for label in COLOURS) and all(word in channel for word in item["query"]["words"])
    answer = item["answers"]["likelihood"]
    assert set(answer) == {"label", "right", "raw", "probabilities", "calls", "calibrated"} and answer["calls"] >= 5
    assert item["answers"]["exact"]["raw"] is not None and item["usage"]["requests"] == item["asked"] > 0
    assert item["notes"]["constrained"].startswith("not available: scoring='constrained'")


def overlap_answer_of(text: str) -> str:
    return " red" if "ruby" in text.rpartition("Input:")[2] else " nothing"


def test_how_well_probabilities_fit_is_measured_over_the_same_questions(make: Any, tmp_path: Path) -> None:
    finished = make(episodes=4, settings=(Setting(2, 1), Setting(5, 1))).run(tmp_path / "run")
    asked = [item for _, item in read_results(tmp_path / "run") if item["setting"] == "5w-1s-0r-i"]
    found = cell(finished.results, "likelihood", "5w-1s-0r-i")["reliability"]
    answers = [item["answers"]["likelihood"] for item in asked]
    shares = [answer["probabilities"][answer["label"]] for answer in answers]
    right = [answer["right"] for answer in answers]
    assert found["n"] == len(asked) == 4 and found["probabilities"] == "raw"
    assert found["confidence"] == pytest.approx(np.mean(shares)) and found["accuracy"] == np.mean(right)
    assert found["ece"] == pytest.approx(reliability(shares, right).ece)
    briers = [
        sum((share - (label == item["query"]["label"])) ** 2 for label, share in answer["probabilities"].items())
        for item, answer in zip(asked, answers, strict=True)
    ]
    assert found["brier"] == pytest.approx(np.mean(briers))
    for row in ("prefix", "words_prototype", "constrained"):  # these give none
        assert "reliability" not in cell(finished.results, row, "5w-1s-0r-i")
    page = write_report(finished.folder).read_text(encoding="utf-8")
    assert page.count('<svg class="reliability"') == 6 and 'id="probabilities"' in page
    text = render_reliability(finished.results)
    rows = {one["row"] for one in finished.results["cells"] if "reliability" in one}
    assert {"likelihood", "direct", "calibrated"} <= rows and text.count("5w-1s-0r-i") == len(rows)
    assert f"{found['brier']:.3f}" in text
    without = {"cells": [{**one, "reliability": None} for one in finished.results["cells"]]}
    assert render_reliability(without) == ""


def test_fewer_shots_are_the_first_images_of_more_and_queries_stay(make: Any, tmp_path: Path) -> None:
    make(FakeLLM("red", scores_text=False), settings=TWO, scorers=("exact",), baselines=()).run(
        tmp_path / "run", progress=False
    )
    found = items(tmp_path / "run")
    for episode in ("e00000", "e00001"):
        support = {name: one["support"] for name, one in found.items() if name.startswith(episode)}
        most = support[f"{episode}/2w-5s-0r-i"]
        assert all(most[: len(one)] == one for one in support.values()) and len(most) == 10
        assert len({one["query"]["image"] for name, one in found.items() if name.startswith(episode)}) == 1


def test_the_same_question_is_asked_once_for_all_rows_and_settings(make: Any, tmp_path: Path) -> None:
    llm = FakeLLM()
    settings = parse_settings(["2w-1s-0r-n", "2w-1s-0r-i"], [2])
    options = {"episodes": 1, "baselines": ("blind",), "options": {"ensemble": None}}
    make(llm, settings=settings, **options).run(tmp_path / "run", progress=False)
    # The noisy channel names no labels first, so its prompts are the same with and without task induction.
    asked = [(call.kind, call.prompt.text, call.settings.get("continuation")) for call in llm.calls]
    assert len(asked) == len(set(asked)) == 2 * (1 + 2 + 6) + 2


def test_what_does_not_fit_the_window_says_so(make: Any, tmp_path: Path) -> None:
    llm = FakeLLM(context_window=120, constraint="choice")
    settings = parse_settings(["2w-1s-0r-i", "2w-5s-0r-i"], [2])
    results = make(llm, settings=settings).run(tmp_path / "run", progress=False).results
    assert cell(results, "likelihood", "2w-1s-0r-i")["accuracy"]["n"] == 2
    for row in ("exact", "direct", "constrained", "blind"):
        found = cell(results, row, "2w-5s-0r-i")
        assert found["accuracy"] is None and found["note"] == EXCEEDS_WINDOW
    assert cell(results, "words_prototype", "2w-5s-0r-i")["accuracy"]["n"] == 2
    assert "exceeds window" in render_table(results)


def test_an_llm_without_log_probabilities_gets_notes(make: Any, tmp_path: Path) -> None:
    results = make(FakeLLM(" red", scores_text=False)).run(tmp_path / "run", progress=False).results
    for row in ("likelihood", "direct", "calibrated"):
        found = cell(results, row, "2w-1s-0r-i")
        assert found["accuracy"] is None
        assert found["note"] == "not available: 'fake' gives no log-probabilities of given text"
    assert cell(results, "exact", "2w-1s-0r-i")["accuracy"]["n"] == 2
    assert cell(results, "blind", "2w-1s-0r-i")["accuracy"]["n"] == 2
    assert "(1) not available: " in render_table(results)


def test_made_up_names_take_the_labels_place(make: Any, tmp_path: Path) -> None:
    make(labels="nonsense").run(tmp_path / "run", progress=False)
    make().run(tmp_path / "real", progress=False)
    for name, item in items(tmp_path / "run").items():
        real = items(tmp_path / "real")[name]
        assert not {*item["labels"]} & {*COLOURS} and item["query"]["image"] == real["query"]["image"]
        assert not any(label in item["prompts"]["open"] for label in real["labels"])
        assert all(label in item["prompts"]["open"] for label in item["labels"])


def test_controls_are_asked_in_fewer_episodes_and_beside_the_same_questions(make: Any, tmp_path: Path) -> None:
    options = {"controls": ("shuffled_labels", "shuffled_words", "withheld"), "control_episodes": 2, "episodes": 3}
    finished = make(settings=parse_settings(["5w-1s-0r-i"], [5]), **options).run(tmp_path / "run", progress=False)
    rows = {row["name"]: row for row in finished.results["rows"]}
    assert rows["control:shuffled_labels"]["kind"] == "control" and rows["untrained"]["kind"] == "baseline"
    for row in ("control:shuffled_labels", "control:shuffled_words", "untrained"):
        assert cell(finished.results, row, "5w-1s-0r-i")["accuracy"]["n"] == 2
    assert cell(finished.results, "likelihood", "5w-1s-0r-i")["accuracy"]["n"] == 3
    note = cell(finished.results, "control:withheld", "5w-1s-0r-i")["note"]
    assert note.startswith("not available: the tokenizer 'colour' recognises no fixed classes")


def test_a_control_that_is_not_installed_says_how_and_costs_nothing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icl_vision.evaluation.few_shot.controls.controls.smollm2", lambda: None)
    results = make(controls=tuple(CONTROLS)).run(tmp_path / "run", progress=False).results
    assert cell(results, "control:second_llm", "2w-1s-0r-i")["note"].startswith("not installed: pip install")
    assert cell(results, "control:ascii", "2w-1s-0r-i")["accuracy"]["n"] == 2
    assert cell(results, "likelihood", "2w-1s-0r-i")["accuracy"]["n"] == 2


# Stopping and going on. -----------------------------------------------------------------------------------------------


def test_a_run_goes_on_without_asking_again(make: Any, tmp_path: Path) -> None:
    options = {"settings": TWO, "scorers": ("exact",), "baselines": ("prior",), "episodes": 3}
    whole = make(FakeLLM(" red", scores_text=False), **options).run(tmp_path / "whole", progress=False)

    class Cut(FakeLLM):
        async def _complete(self, prompt: Any, **settings: Any) -> Any:
            if len(self.calls) == 5:
                raise MemoryError("cut")
            return await super()._complete(prompt, **settings)

    first = Cut(" red", scores_text=False)
    with pytest.raises(MemoryError, match="cut"):
        make(first, **options).run(tmp_path / "run", progress=False)
    with pytest.raises(RunMismatchError, match="already holds this run; pass --resume"):
        make(FakeLLM(), **options).run(tmp_path / "run", progress=False)
    done = [line["id"] for line in journal(tmp_path / "run")]
    assert 0 < len(done) == len(set(done)) < 21
    second = FakeLLM(" red", scores_text=False)
    finished = make(second, **options).run(tmp_path / "run", resume=True, progress=False)
    assert (finished.asked, finished.kept) == (21 - len(done), len(done))
    ids = [line["id"] for line in journal(tmp_path / "run")]
    assert len(ids) == len(set(ids)) == 21
    for key in ("rows", "cells", "means", "items", "missing"):
        assert finished.results[key] == whole.results[key]
    third = FakeLLM(" red", scores_text=False)
    again = make(third, **options).run(tmp_path / "run", resume=True, progress=False)
    assert third.calls == [] and (again.asked, again.kept) == (0, 21)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"episodes": 3}, "episodes, questions"),
        ({"labels": "nonsense"}, "labels"),
        ({"options": {"order_seed": 5}}, "options"),
        ({"options": {"template": "classification_palm"}}, "options, prompt"),
        ({"scorers": ("exact",)}, "scorers"),
        ({"seed": 1}, "questions, seed"),
    ],
)
def test_another_configuration_is_refused(make: Any, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    make().run(tmp_path / "run", progress=False)
    with pytest.raises(RunMismatchError, match=f"another configuration \\({named} differ\\)"):
        make(**change).run(tmp_path / "run", resume=True, progress=False)


def test_a_default_or_a_version_that_changed_is_another_configuration(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make().run(tmp_path / "run", progress=False).results["config"]
    assert config["options"]["ensemble"] == "auto" and config["options"]["scoring"] == "auto" and config["icl_vision"]
    monkeypatch.setitem(FewShotClassifier.__init__.__kwdefaults__, "ensemble", None)
    with pytest.raises(RunMismatchError, match=r"another configuration \(options differ\)"):
        make().run(tmp_path / "run", resume=True, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr("icl_vision.evaluation.few_shot.benchmark.versions", lambda: {"icl-vision": "9.9"})
    with pytest.raises(RunMismatchError, match=r"another configuration \(icl_vision differ\)"):
        make().run(tmp_path / "run", resume=True, progress=False)


def test_what_makes_no_run_leaves_no_folder(photos: Path, tmp_path: Path) -> None:
    config = BenchmarkConfig(settings=ONE, episodes=2, k=5_000)
    benchmark = FewShotBenchmark(photos, llm=FakeLLM(), tokenizer="words-photo", config=config)
    with pytest.raises(PyramidError, match="gives 1 to 64 words an image; got k=5000"):
        benchmark.run(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_nothing_is_lost_or_asked_twice(photos: Path, tmp_path: Path) -> None:
    code = """
        import sys, time
        from icl_vision.evaluation import BenchmarkConfig, FewShotBenchmark, parse_settings
        from icl_vision.llms.fake import FakeLLM
        def answer(text):
            time.sleep(0.02)
            return " red"
        config = BenchmarkConfig(settings=parse_settings(["all"], [2]), episodes=6, k=None, scorers=("exact",),
                                 baselines=("prior",))
        benchmark = FewShotBenchmark(sys.argv[1], llm=FakeLLM(answer, scores_text=False), tokenizer="ascii",
                                     config=config)
        benchmark.run(sys.argv[2], resume=True, progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(photos), str(tmp_path / "run")]
    lines = tmp_path / "run" / "journal.jsonl"
    for enough in (3, 20):
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if lines.exists() and lines.read_bytes().count(b"\n") >= enough:
                break
            time.sleep(0.005)
        process.kill()  # it may have ended
        process.wait()
    subprocess.run(command, check=True, timeout=120)
    ids = [line["id"] for line in journal(tmp_path / "run")]
    assert len(ids) == len(set(ids)) == 42
    assert json.loads((tmp_path / "run" / "results.json").read_text())["items"] == 42


def test_a_question_that_fails_is_an_error_item_and_the_others_go_on(make: Any, tmp_path: Path) -> None:
    answers = [" red", LLMUnavailableError("down"), " red", " red"]
    options = {"settings": parse_settings(["2w-1s-0r-n", "2w-1s-0r-i"], [2]), "scorers": ("exact",), "baselines": ()}
    finished = make(FakeLLM(answers, scores_text=False), **options).run(tmp_path / "run", progress=False)
    assert (finished.asked, finished.failed) == (3, 1)
    assert finished.results["items"] == 3 and finished.results["missing"] == 1
    (failed,) = [line for line in journal(tmp_path / "run") if "error" in line]
    assert failed["error"] == {"type": "LLMUnavailableError", "message": "down"}
    mended = make(FakeLLM(" red", scores_text=False), **options).run(tmp_path / "run", resume=True, progress=False)
    assert (mended.asked, mended.kept, mended.failed) == (1, 3, 0) and mended.results["missing"] == 0


def test_what_a_question_cost_before_it_failed_is_kept(make: Any, tmp_path: Path) -> None:
    # The open answer is paid for, the constrained one fails.
    answers = [" red", LLMUnavailableError("down"), " red", " red"]
    llm = FakeLLM(answers, scores_text=False, constraint="grammar")
    rows = {"settings": ONE, "scorers": ("exact", "constrained"), "baselines": (), "episodes": 2}
    finished = make(llm, **rows).run(tmp_path / "run", progress=False)
    assert (finished.asked, finished.failed) == (1, 1)
    assert [line.get("usage", {}).get("requests") for line in journal(tmp_path / "run")] == [1, None]
    assert read_usage(tmp_path / "run").requests == 3


def test_a_wrong_key_and_an_endless_failure_end_the_run(make: Any, tmp_path: Path) -> None:
    def failing(error: Exception, **options: Any) -> FakeLLM:
        llm = FakeLLM([error] * 100, scores_text=False)
        with pytest.raises(type(error)):
            make(llm, settings=TWO, scorers=("exact",), baselines=(), episodes=9, **options).run(
                tmp_path / type(error).__name__, progress=False
            )
        return llm

    assert len(failing(LLMStatusError("no such key", 401)).calls) == 1
    assert len(failing(LLMUnavailableError("down")).calls) == FAILURES_IN_A_ROW


def test_a_budget_ends_the_run_and_keeps_what_is_answered(make: Any, tmp_path: Path) -> None:
    llm = MeteredLLM(FakeLLM(" red", scores_text=False), Meter(None, Budget(3)))
    with pytest.raises(BudgetExceededError):
        make(llm, settings=TWO, scorers=("exact",), baselines=()).run(tmp_path / "run", progress=False)
    assert len(journal(tmp_path / "run")) == 3


def test_an_image_that_breaks_costs_its_own_items_only(photos: Path, make: Any, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    for place in range(5):
        (copy / "red" / f"{place}.png").write_bytes(b"no image")
    finished = make(data=copy, settings=TWO, episodes=6, baselines=(), scorers=("exact",)).run(
        tmp_path / "run", progress=False
    )
    assert finished.failed > 0 and finished.asked > 0 and finished.asked + finished.failed == 42


# Estimates, files, bad input. -----------------------------------------------------------------------------------------


def test_an_estimate_asks_nothing_and_is_right(make: Any, tmp_path: Path) -> None:
    llm = FakeLLM(constraint="choice")
    options = {"settings": SETTINGS, "episodes": 4, "controls": ("shuffled_labels",), "control_episodes": 2}
    estimate = make(llm, **options).estimate()
    assert llm.calls == [] and estimate.items == 56 and estimate.episodes == 8
    finished = make(llm, **options).run(tmp_path / "run", progress=False)
    assert finished.results["requests"] == len(llm.calls)
    # Images of other episodes may have words in common, so that a question or two is asked once.
    assert estimate.requests == pytest.approx(len(llm.calls), rel=0.1)
    assert estimate.prompt_tokens == pytest.approx(finished.results["usage"]["prompt_tokens"], rel=0.4)
    assert 0 < estimate.new_tokens < estimate.prompt_tokens / 3
    assert "56 questions (8 episodes), about" in str(estimate) and estimate.to_dict()["items"] == 56


def test_an_estimate_leaves_out_what_a_run_has_already(make: Any, tmp_path: Path) -> None:
    options = {"settings": TWO, "controls": ("shuffled_labels",), "control_episodes": 2}
    whole = make(**options, episodes=4).estimate(tmp_path / "run")
    assert (whole.items, whole.episodes) == (28, 4)  # no run there yet
    make(**options, episodes=4).run(tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "journal.jsonl").write_text("".join(lines[:17]))
    left = make(**options, episodes=4).estimate(tmp_path / "run")
    assert (left.items, left.episodes) == (11, 2)
    # Both lack controls: less than the share of the items.
    assert 0 < left.requests < whole.requests * 11 / 28 and left.new_tokens < left.prompt_tokens
    with pytest.raises(RunMismatchError, match="k differ"):
        make(**options, episodes=4, k=None).estimate(tmp_path / "run")


def test_an_estimate_of_an_ensemble_counts_two_requests_a_prompt(make: Any, tmp_path: Path) -> None:
    class Bags(FakeLLM):
        """Of the kind of llama.cpp's server: all words after a prompt cost little more than one."""

        @property
        def profile(self) -> Profile:
            return replace(super().profile, scores_bags=True, prefix_cache=True)

    options = {"settings": parse_settings(["5w-3s-0r-i"], [5]), "scorers": ("likelihood",), "baselines": ()}
    estimate = make(Bags(), **options).estimate()
    # 15 examples an episode, some of them with the same words, each of which is one prompt.
    finished = make(Bags(), **options).run(tmp_path / "run", progress=False)
    prompts = {line for one in items(tmp_path / "run").values() for line in channel_prompts(one)}
    assert finished.results["rows"][0]["llm_calls"] == 15 * 3
    assert estimate.requests <= 2 * 2 * 15 and estimate.requests == pytest.approx(2 * len(prompts), rel=0.3)
    assert estimate.new_tokens <= estimate.prompt_tokens / 2


def channel_prompts(item: dict[str, Any]) -> set[str]:
    labelled = {(one["label"], *one["words"]) for one in item["support"]}
    return {f"{item['episode']} {one}" for one in labelled}


def test_what_a_run_cost_is_in_its_results_where_prices_are_given(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cost" not in make().run(tmp_path / "none", progress=False).results
    prices = PriceTable({"fake": Price(input=2.0, output=10.0)})
    results = make().run(tmp_path / "run", progress=False, prices=prices).results
    usage = results["usage"]
    money = (2 * usage["prompt_tokens"] + 10 * usage["completion_tokens"]) / 1e6
    assert results["cost"] == {"amount": pytest.approx(money)} and money > 0
    again = make().run(tmp_path / "run", progress=False, resume=True, prices=PriceTable()).results
    assert again["cost"] == {"amount": None, "reason": "no price for 'fake' in the table"}
    # A control's own LLM has its own price.
    second = FakeLLM(name="second")
    control = replace(
        CONTROLS["second_llm"], missing=lambda setup: None, prepare=lambda setup: replace(setup, llm=second)
    )
    monkeypatch.setattr("icl_vision.evaluation.few_shot.controls.controls.CONTROLS", {"second_llm": control})
    both = make(controls=("second_llm",)).run(tmp_path / "two", progress=False, prices=prices).results
    assert both["cost"] == {"amount": None, "reason": "no price for 'second' in the table"}
    priced = PriceTable({"fake": Price(2.0, 10.0), "second": Price(0.0, 0.0)})
    both = make(controls=("second_llm",)).run(tmp_path / "two", progress=False, resume=True, prices=priced).results
    assert both["cost"] == results["cost"] and both["usage"]["prompt_tokens"] > usage["prompt_tokens"]


def test_a_run_can_be_asked_of_another_llm_from_its_own_file(make: Any, photos: Path, tmp_path: Path) -> None:
    make(settings=TWO).run(tmp_path / "one", progress=False)
    again = make(data=tmp_path / "one" / "episodes.json", settings=TWO, episodes=None, trust=True)
    assert again.episodes == 2 and again.episode_set.root == photos.resolve()
    again.run(tmp_path / "two", progress=False)
    pair = [{name: one["query"] for name, one in items(tmp_path / name).items()} for name in ("one", "two")]
    assert pair[0] == pair[1]
    with pytest.raises(UsageError, match="holds 2 episodes of 2 ways; 9 are needed"):
        make(data=tmp_path / "one" / "episodes.json", settings=TWO, episodes=9, trust=True)
    with pytest.raises(UsageError, match="holds no episodes of 5 ways, only of 2: change ways"):
        make(data=tmp_path / "one" / "episodes.json", settings=SETTINGS, episodes=None, trust=True)
    with pytest.raises(UsageError, match=r"is not an episode file of format version 1; those are the episodes\.json"):
        make(data=tmp_path / "one" / "results.json", settings=TWO)
    with pytest.raises(UntrustedNameError, match=r"names the folder of images .*pass images= \(--images DIR\)"):
        make(data=tmp_path / "one" / "episodes.json", settings=TWO, episodes=None)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../b.png", "C:\\x.png", "..\\x.png"])
def test_an_episode_file_names_no_image_outside_the_folder(make: Any, photos: Path, tmp_path: Path, name: str) -> None:
    make(settings=TWO).run(tmp_path / "one", progress=False)
    file = tmp_path / "one" / "episodes.json"
    document = json.loads(file.read_text())
    document["episodes"][0]["queries"][0]["path"] = name
    changed = json.dumps(document)
    document = json.loads(file.read_text())
    file.write_text(changed)
    with pytest.raises(UsageError, match="names the image|must stay inside its folder"):
        sets.read(file, photos)
    document["images"][name] = "0" * 64
    file.write_text(json.dumps(document))
    with pytest.raises(UntrustedNameError, match="names the image"):
        sets.read(file, photos)


def test_episodes_at_the_same_time_give_the_same_results(make: Any, tmp_path: Path) -> None:
    one = make(settings=TWO, episodes=5).run(tmp_path / "one", progress=False)
    many = make(settings=TWO, episodes=5).run(tmp_path / "many", concurrency=4, progress=False)
    assert one.results["cells"] == many.results["cells"] and many.asked == 35
    assert [line["id"] for line in journal(tmp_path / "one")] == [
        f"e{number:05d}/{setting.id}" for number in range(5) for setting in TWO
    ]


def test_time_is_told_once_it_was_measured(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_vision.evaluation.kit.running._MEASURED", 0.0)
    said: list[str] = []
    make(settings=TWO, episodes=3).run(tmp_path / "run", progress=False, say=said.append)
    (line,) = said
    assert " s a question so far: about " in line and line.endswith(" to go")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scorers": ("exakt",)}, "no scorer is called 'exakt'; there are exact, "),
        ({"baselines": ("knn",)}, "no baseline is called 'knn'; there are blind, "),
        ({"controls": ("noise",)}, "no control is called 'noise'; there are shuffled_labels, "),
        ({"control_scorer": "best"}, "no scorer is called 'best'"),
        ({"settings": ()}, "a benchmark needs at least one setting"),
        ({"labels": "fake"}, "labels must be one of real, nonsense; got 'fake'"),
        ({"episodes": 0}, "episodes must be a whole number of 1 or more; got 0"),
        ({"k": 0}, "k must be a whole number of 1 or more"),
        ({"options": {"scoring": "best"}}, "scoring must be one of 'auto', 'channel', "),
        (
            {"options": {"selection": "random"}},
            "'selection' is no option of the classifier that a benchmark leaves open",
        ),
        ({"options": {"shots": 3}}, "'shots' is no option of the classifier that a benchmark leaves open; those are "),
    ],
)
def test_configurations_that_cannot_work_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BenchmarkConfig(**options)
    assert message in str(caught.value)


def test_a_label_that_must_not_enter_a_prompt_ends_the_run_at_once(make: Any, photos: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    (copy / "red").rename(copy / "###")
    with pytest.raises(LabelError):
        make(data=copy, settings=parse_settings(["5w-1s-0r-i"], [5])).run(tmp_path / "run", progress=False)
    with pytest.raises(UsageError, match="concurrency must be a whole number of 1 or more; got 0"):
        make().run(tmp_path / "other", concurrency=0)


def test_usage_of_the_journal_adds_up(make: Any, tmp_path: Path) -> None:
    finished = make(settings=TWO).run(tmp_path / "run", progress=False)
    spent = sum((Usage(**one["usage"]) for one in items(tmp_path / "run").values()), Usage())
    assert spent.to_dict() == finished.results["usage"]


@pytest.mark.slow
def test_the_embedded_llm_fills_every_row(photos: Path, tmp_path: Path, model_cache: Path) -> None:
    pytest.importorskip("xllamacpp")
    config = BenchmarkConfig(settings=parse_settings(["2w-1s-0r-i", "2w-3s-0r-i"], [2]), episodes=2)
    finished = FewShotBenchmark(photos, llm="local", config=config).run(tmp_path / "run", progress=False)
    assert finished.failed == 0
    for row in LLM_ROWS:
        assert cell(finished.results, row, "2w-3s-0r-i")["accuracy"]["n"] == 2
    assert finished.results["usage"]["cached_tokens"] > finished.results["usage"]["prompt_tokens"] / 2


def test_an_extracted_archive_is_asked_as_it_is(make: Any, tmp_path: Path) -> None:
    stem = "open_ended_mi_shots_1_ways_2"
    rows = []
    for number in (1, 2, 3):
        row = {"question_id": number, "question": "What is this?", "answer": "dax"}
        for place, (name, colour) in enumerate((("dax", "red"), ("blicket", "blue")), 1):
            row |= {f"image_{place}": f"{stem}_id_{number}_image_{place}.png", f"caption_{place}": f"This is a {name}."}
            Image.new("RGB", (16, 16), COLOURS[colour]).save(tmp_path / str(row[f"image_{place}"]))
        row["question_image"] = f"{stem}_id_{number}_question.png"
        Image.new("RGB", (16, 16), (220, 40, 40)).save(tmp_path / str(row["question_image"]))
        rows.append(row)
    (tmp_path / f"{stem}_all_questions.json").write_text(json.dumps(rows))
    benchmark = make(data=tmp_path, episodes=None)
    assert benchmark.episodes == 3
    finished = benchmark.run(tmp_path / "run", progress=False)
    assert cell(finished.results, "image_prototype", "2w-1s-0r-i")["accuracy"]["accuracy"] == 1
    assert items(tmp_path / "run")["e00002/2w-1s-0r-i"]["labels"] == ["dax", "blicket"]


class NeverAnswers(FakeLLM):
    """Answers nothing; once every question is asked for, the main thread, which waits, gets a Ctrl-C.

    Not before: Python drops what a signal raises while a file is opened or an object is finalised.
    """

    asked = 0

    async def _complete(self, *arguments: Any, **options: Any) -> Any:
        first, self.asked = self.asked == 0, self.asked + 1
        if first:
            while not self._main_thread_waits():  # noqa: ASYNC110  nobody tells when a thread begins to wait
                await asyncio.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.sleep(3600)

    @staticmethod
    def _main_thread_waits() -> bool:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame is not None and frame.f_code is not concurrent.futures.as_completed.__code__:
            frame = frame.f_back
        return frame is not None

    _score = _complete


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as at a terminal; a job in the background of a script has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_run_whose_questions_are_never_answered(make: Any, tmp_path: Path) -> None:
    llm = NeverAnswers()
    with pytest.raises(KeyboardInterrupt):
        make(llm, episodes=3).run(tmp_path / "run", concurrency=2)
    assert journal(tmp_path / "run") == []  # an interrupt is no answer and no error
    finished = make(episodes=3).run(tmp_path / "run", resume=True)  # and nothing holds the folder
    assert (finished.asked, finished.failed) == (3, 0)


def test_an_estimate_with_a_template_that_is_not_there_is_no_estimate(make: Any) -> None:
    with pytest.raises(TemplateError, match="there is no template 'nosuch'"):
        make(options={"template": "nosuch"}).estimate()
