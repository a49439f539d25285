"""Many questions into a run folder: nothing answered is asked again, what failed is, and a run is of one task only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import BudgetExceededError, NotFittedError, RunMismatchError, UsageError
from icl_vision.llms import Budget, FakeLLM
from icl_vision.tasks.answer.captioner import Captioner
from icl_vision.tasks.answer.many import aanswer_many, answer_many, missing_in
from icl_vision.tasks.answer.pictures import Described
from icl_vision.tasks.answer.visual_qa import VisualQA


@pytest.fixture
def asked(picture: Any) -> tuple[list[Any], list[str]]:
    """Six pictures, two questions about each."""
    images = [picture(colour, shade) for shade in range(2) for colour in ("red", "green", "blue")]
    return [image for image in images for _ in range(2)], ["what colour is it?", "is it dark?"] * len(images)


@pytest.fixture
def fitted(support: Any, tokenizer: Any) -> Any:
    def make(llm: Any = None, **options: Any) -> VisualQA:
        images, labels = support
        options = {"shots": 3, "progress": False, **options}
        return VisualQA(llm or FakeLLM(), tokenizer, 3, **options).fit(images, "what colour is it?", labels)

    return make


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def test_results_are_those_of_answers(fitted: Any, asked: Any, tmp_path: Path) -> None:
    task = fitted()
    outcome = answer_many(task, *asked, out=tmp_path / "run")
    plain = task.answers(*asked)
    assert [row["text"] for row in outcome.rows] == [one.text for one in plain]
    assert [row["probability"] for row in outcome.rows] == [one.probability for one in plain]
    assert [row["question"] for row in outcome.rows] == asked[1]
    assert [row["examples"] for row in outcome.rows] == [list(one.examples) for one in plain]
    assert outcome.rows[3]["image"] == "image-3" and "error" not in outcome.rows[0] and "usage" not in outcome.rows[0]
    assert (outcome.answered, outcome.kept, outcome.failed) == (12, 0, 0)
    document = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert document["results"] == outcome.rows and document["questions"] == 12 and document["failed"] == 0
    assert document["usage"] == outcome.usage.to_dict() and outcome.usage.requests > 12
    assert len({line["id"] for line in journal(tmp_path / "run")}) == 12
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["command"] == "answer"


def test_resume_asks_only_what_is_missing(fitted: Any, asked: Any, tmp_path: Path) -> None:
    images, questions = asked
    answer_many(fitted(), images[:5], questions[:5], out=tmp_path / "run")
    llm = FakeLLM()
    task = fitted(llm)
    assert missing_in(tmp_path / "run", task, images, questions) == [5, 6, 7, 8, 9, 10, 11]
    outcome = answer_many(task, images, questions, out=tmp_path / "run", resume=True)
    assert (outcome.answered, outcome.kept) == (7, 5)
    assert not any("image-0" in line["id"] for line in journal(tmp_path / "run")[5:])
    before = len(llm.calls)
    again = answer_many(task, images, questions, out=tmp_path / "run", resume=True)
    assert again.rows == outcome.rows and again.answered == 0 and len(llm.calls) == before
    with pytest.raises(RunMismatchError, match="already holds this run"):
        answer_many(task, images, questions, out=tmp_path / "run")


def test_another_question_choice_or_picture_is_another_item(fitted: Any, picture: Any, tmp_path: Path) -> None:
    task, image = fitted(), picture("red")
    for number, (one, question, choices) in enumerate([
        (image, "what colour is it?", None),
        (image, "what colour is that?", None),
        (image, "what colour is it?", ["red", "green"]),
        (image, "what colour is it?", ["red", "blue"]),
        (picture("green"), "what colour is it?", None),
        ([image, image], "what colour is it?", None),
        (Described("a red thing"), "what colour is it?", None),
        (task.tokenizer_.encode([image])[0], "what colour is it?", None),
        (image, None, None),
    ]):  # fmt: skip
        outcome = answer_many(task, [one], [question], out=tmp_path / "run", choices=choices, resume=True)
        assert (outcome.answered, outcome.kept) == (1, 0), number
        again = answer_many(task, [one], [question], out=tmp_path / "run", choices=choices, resume=True)
        assert (again.answered, again.kept) == (0, 1) and again.rows == outcome.rows
    assert len(journal(tmp_path / "run")) == 9


def test_a_question_given_twice_is_asked_once(fitted: Any, picture: Any, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    picture("red").save(file)
    llm = FakeLLM()
    once = answer_many(fitted(llm), [file], "what is it?", out=tmp_path / "one")
    first = len(llm.calls)
    twice = answer_many(fitted(llm), [file, str(file)], "what is it?", out=tmp_path / "two")
    assert len(llm.calls) == 2 * first and twice.rows == once.rows * 2
    assert once.rows[0]["image"] == str(file)


def test_a_picture_whose_content_changed_is_asked_about_again(fitted: Any, picture: Any, tmp_path: Path) -> None:
    file = tmp_path / "it.png"
    picture("red").save(file)
    answer_many(fitted(), [file], "what colour is it?", out=tmp_path / "run")
    picture("blue").save(file)
    outcome = answer_many(fitted(), [file], "what colour is it?", out=tmp_path / "run", resume=True)
    assert (outcome.answered, outcome.kept) == (1, 0)


def test_one_that_fails_costs_only_itself_and_is_asked_again(fitted: Any, picture: Any, tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    images = [picture("red"), late, [picture("green"), late]]
    outcome = answer_many(fitted(), images, "what colour is it?", out=tmp_path / "run")
    assert (outcome.answered, outcome.failed) == (1, 2)
    assert outcome.rows[1]["error"].startswith("ImageNotFoundError") and outcome.rows[1]["text"] == ""
    assert outcome.rows[2]["image"] == ["image-2", str(late)]
    picture("blue").save(late)
    again = answer_many(fitted(), images, "what colour is it?", out=tmp_path / "run", resume=True)
    assert (again.answered, again.kept, again.failed) == (2, 1, 0)


def test_captions_are_runs_of_their_own(support: Any, tokenizer: Any, fitted: Any, tmp_path: Path) -> None:
    images, labels = support
    captioner = Captioner(FakeLLM(lambda prompt: " A picture.\nQ:"), tokenizer, 3, progress=False)
    captioner.fit(images, [f"A {label} picture." for label in labels])
    outcome = answer_many(captioner, images, out=tmp_path / "run")
    assert {row["text"] for row in outcome.rows} == {"A picture."} and outcome.rows[0]["question"] is None
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["command"] == "caption"
    with pytest.raises(RunMismatchError):
        answer_many(fitted(), images, "what?", out=tmp_path / "run", resume=True)


def test_another_task_is_refused(fitted: Any, asked: Any, tmp_path: Path) -> None:
    answer_many(fitted(), *asked, out=tmp_path / "run")
    for options, what in (({"shots": 2}, "shots"), ({"scoring": "greedy"}, "method, scoring"), ({"k": 2}, "k")):
        task = fitted() if "k" in options else fitted(**options)
        if "k" in options:
            task = task.set_params(**options).fit([], [], [])
        with pytest.raises(RunMismatchError, match=what):
            answer_many(task, *asked, out=tmp_path / "run", resume=True)
        with pytest.raises(RunMismatchError, match=what):
            missing_in(tmp_path / "run", task, *asked)


def test_a_budget_is_the_runs(fitted: Any, asked: Any, tmp_path: Path) -> None:
    whole = answer_many(fitted(scoring="greedy"), *asked, out=tmp_path / "whole").usage.requests
    task = fitted(scoring="greedy", budget=Budget(requests=whole - 4), concurrency=1)
    for _ in range(2):  # what the first attempt spent still counts
        with pytest.raises(BudgetExceededError):
            answer_many(task, *asked, out=tmp_path / "run", resume=True)
        assert sum("result" in line for line in journal(tmp_path / "run")) == whole - 4
    rest = answer_many(fitted(scoring="greedy"), *asked, out=tmp_path / "run", resume=True)
    assert rest.kept == whole - 4 and rest.failed == 0


async def test_the_coroutine(fitted: Any, asked: Any, tmp_path: Path) -> None:
    outcome = await aanswer_many(fitted(), *asked, out=tmp_path / "run")
    assert outcome.rows == answer_many(fitted(), *asked, out=tmp_path / "run", resume=True).rows


def test_what_cannot_be_asked(tokenizer: Any, fitted: Any, asked: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        answer_many(VisualQA(FakeLLM(), tokenizer), *asked, out=tmp_path / "run")
    with pytest.raises(UsageError, match="equal length"):
        answer_many(fitted(), asked[0], asked[1][:3], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
