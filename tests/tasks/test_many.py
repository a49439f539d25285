"""Many images into a run folder: nothing finished is asked again, errors are no answers, money stops in time."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from icl_vision.asking import jobs, many
from icl_vision.contracts import Usage
from icl_vision.errors import (
    BudgetExceededError,
    LLMStatusError,
    LLMUnavailableError,
    NotFittedError,
    RunError,
    RunLockedError,
    RunMismatchError,
    UsageError,
)
from icl_vision.files.runs import Run, read_usage
from icl_vision.llms import Budget, CachedLLM, Meter, MeteredLLM, ResponseCache
from icl_vision.llms.scores import score_each
from icl_vision.llms.wrappers.wrapped import WrappedLLM
from icl_vision.tasks import FewShotClassifier, aclassify_many, classify_many
from icl_vision.tasks.many import missing_in


@pytest.fixture
def images(picture):
    """Twelve different images: four shades of three colours."""
    return {f"{colour}-{shade}": picture(colour, shade) for shade in range(4) for colour in ("red", "green", "blue")}


@pytest.fixture
def fit(support, tokenizer):
    def make(llm, **options):
        return FewShotClassifier(llm, tokenizer, k=3, progress=False, **options).fit(*support)

    return make


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_results_are_those_of_classify(fit, overlap_llm, images, tmp_path):
    clf = fit(overlap_llm())
    outcome = classify_many(clf, images, tmp_path / "run")
    plain = clf.classify([*images.values()])
    assert [row["image"] for row in outcome.rows] == [*images]
    assert [row["label"] for row in outcome.rows] == [one.label for one in plain]
    assert [row["probabilities"] for row in outcome.rows] == [one.probabilities for one in plain]
    assert (outcome.answered, outcome.kept, outcome.failed) == (12, 0, 0)
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    assert document["results"] == outcome.rows and document["images"] == 12 and document["failed"] == 0
    assert document["usage"] == outcome.usage.to_dict()
    assert len({line["id"] for line in journal(tmp_path / "run")}) == 12


def test_resume_asks_only_what_is_missing(fit, overlap_llm, images, tmp_path):
    first = dict(list(images.items())[:5])
    classify_many(fit(overlap_llm(), ensemble=None), first, tmp_path / "run")
    llm = overlap_llm()
    clf = fit(llm, ensemble=None)
    assert len(missing_in(tmp_path / "run", clf, images)) == 7
    outcome = classify_many(clf, images, tmp_path / "run", resume=True)
    assert (outcome.answered, outcome.kept) == (7, 5)
    assert sum(len(asked) for asked in llm.asked) == 7 * 3
    assert [row["image"] for row in outcome.rows] == [*images]
    llm.asked.clear()
    again = classify_many(clf, images, tmp_path / "run", resume=True)
    assert again.rows == outcome.rows and again.answered == 0 and not llm.asked
    assert missing_in(tmp_path / "run", clf, images) == []


def test_an_item_is_its_name_and_its_content(fit, overlap_llm, picture, tmp_path):
    clf = fit(overlap_llm(scores_text=False))
    classify_many(clf, {"x": picture("red")}, tmp_path / "run")
    outcome = classify_many(clf, {"x": picture("blue")}, tmp_path / "run", resume=True)
    assert outcome.answered == 1 and outcome.rows[0]["label"] == "wet"


def test_the_journal_is_written_before_the_next_question(fit, overlap_llm, images, tmp_path):
    """What was answered when the process dies is on disk, but for what is in flight."""
    seen = []

    def before(prompts):
        path = tmp_path / "run" / "journal.jsonl"
        seen.append(path.read_bytes().count(b"\n") if path.exists() else 0)

    llm = overlap_llm(scores_text=False, before=before)
    classify_many(fit(llm, concurrency=1), images, tmp_path / "run")
    assert seen == list(range(12))


def test_errors_are_journalled_as_errors_and_asked_again(fit, overlap_llm, images, tmp_path):
    def before(prompts):
        if "ocean" in prompts[0].query:
            raise LLMUnavailableError("the line is cut")

    clf = fit(overlap_llm(scores_text=False, before=before))
    outcome = classify_many(clf, images | {"gone": tmp_path / "gone.png"}, tmp_path / "run")
    assert outcome.failed == 5 and outcome.answered == 8
    failed = {row["image"]: row["error"] for row in outcome.rows if "error" in row}
    assert failed["blue-0"] == "LLMUnavailableError: the line is cut"
    assert failed["gone"].startswith("ImageNotFoundError: ")
    assert all(row["label"] is None for row in outcome.rows if "error" in row)
    kinds = [line["error"]["type"] for line in journal(tmp_path / "run") if "error" in line]
    assert sorted(kinds) == ["ImageNotFoundError"] + ["LLMUnavailableError"] * 4
    again = classify_many(fit(overlap_llm(scores_text=False)), images, tmp_path / "run", resume=True)
    assert (again.answered, again.kept, again.failed) == (4, 8, 0)


def test_one_score_that_fails_costs_no_other(fit, overlap_llm, images, tmp_path):
    """Many images share a call: the journal and the cache keep what came back of it, and only the rest is asked."""

    class PairByPair(WrappedLLM):
        """Scores by a request each, one of which fails as often as told."""

        broken = 2
        asked: ClassVar[collections.Counter] = collections.Counter()

        async def _complete(self, prompt, **settings):
            return await self.llm.complete(prompt, **settings)

        async def _score(self, pairs, *, terminator):
            async def one(prompt, text):
                self.asked[prompt.text, text] += 1
                if "ocean" in prompt.text + text and "Output: red" not in text and self.broken and len(self.asked) > 9:
                    self.broken -= 1
                    raise LLMStatusError("no", 400)
                scores = await self.llm.score([(prompt, text)], terminator=terminator)
                return scores.logprobs[0], scores.usage

            return await score_each([functools.partial(one, *pair) for pair in pairs], method="pairs")

    llm = PairByPair(overlap_llm(prefix_cache=False, bags=False))
    expected = [row["label"] for row in classify_many(fit(llm.llm), images, tmp_path / "whole").rows]
    cache = ResponseCache(tmp_path / "answers.sqlite")
    # One call at a time: some of these images have the same words.
    outcome = classify_many(fit(CachedLLM(llm, cache), concurrency=1), images, tmp_path / "run")
    assert llm.broken == 0
    assert outcome.answered + outcome.failed == 12 and outcome.failed <= 1
    again = classify_many(fit(CachedLLM(llm, cache), concurrency=1), images, tmp_path / "run", resume=True)
    assert [row["label"] for row in again.rows] == expected and again.failed == 0
    # Two requests failed: nothing else was asked a second time.
    assert sum(llm.asked.values()) - len(llm.asked) == 2
    cache.close()


def test_the_same_image_twice_is_asked_once(fit, overlap_llm, picture, tmp_path):
    path = tmp_path / "a.png"
    picture("red").save(path)
    outcome = classify_many(fit(overlap_llm()), [path, str(path)], tmp_path / "run")
    assert outcome.answered == 1 and outcome.rows[0] == outcome.rows[1]
    assert outcome.rows[0]["image"] == str(path)


def test_lots_are_read_ahead_and_keep_the_order(fit, overlap_llm, images, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "LOT", 5)
    clf = fit(overlap_llm())
    outcome = classify_many(clf, images, tmp_path / "run")
    assert [row["image"] for row in outcome.rows] == [*images] and outcome.answered == 12
    whole = classify_many(clf, images, tmp_path / "whole")
    assert whole.rows == outcome.rows


def test_a_budget_stops_the_run_and_keeps_what_is_answered(fit, overlap_llm, images, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "LOT", 6)
    meter = Meter(budget=Budget(requests=4))
    clf = fit(MeteredLLM(overlap_llm(scores_text=False), meter))
    with pytest.raises(BudgetExceededError, match="number 5; the budget is 4"):
        classify_many(clf, images, tmp_path / "run")
    lines = journal(tmp_path / "run")
    assert len(lines) == 4 and all("result" in line for line in lines)
    assert not (tmp_path / "run" / "results.json").exists()
    assert read_usage(tmp_path / "run") == Usage(4, 40, 0, 8)
    meter = Meter(budget=Budget(requests=100))
    clf = fit(MeteredLLM(overlap_llm(scores_text=False), meter))
    outcome = classify_many(clf, images, tmp_path / "run", resume=True)
    assert (outcome.answered, outcome.kept) == (8, 4) and outcome.usage.requests == 12


def test_a_refusal_for_good_stops_the_run(fit, overlap_llm, images, tmp_path):
    calls = []

    def before(prompts):
        calls.append(1)
        if len(calls) > 3:
            raise LLMStatusError("no such key", 401)

    clf = fit(overlap_llm(scores_text=False, before=before), concurrency=1)
    with pytest.raises(LLMStatusError, match="no such key"):
        classify_many(clf, images, tmp_path / "run")
    assert len(calls) == 4
    assert [("result" in line) for line in journal(tmp_path / "run")] == [True] * 3 + [False]


def test_too_many_failures_in_a_row_stop_the_run(fit, overlap_llm, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FAILURES_IN_A_ROW", 5)

    def before(prompts):
        raise LLMUnavailableError("nobody there")

    clf = fit(overlap_llm(scores_text=False, before=before), concurrency=1)
    pictures = {str(number): picture("red", number) for number in range(50)}
    with pytest.raises(LLMUnavailableError, match="nobody there"):
        classify_many(clf, pictures, tmp_path / "run")
    assert len(journal(tmp_path / "run")) == 5


def test_another_configuration_is_refused(fit, overlap_llm, images, support, tokenizer, tmp_path, picture):
    clf = fit(overlap_llm(), ensemble=None)
    classify_many(clf, images, tmp_path / "run")
    with pytest.raises(RunMismatchError, match="already holds this run"):
        classify_many(clf, images, tmp_path / "run")
    for options, named in (
        ({"shots": 1}, "prompt, shots"),
        ({"order_seed": 5}, "order_seed, prompt"),
        ({"induction": False, "scoring": "direct"}, "method, prompt"),
        ({"calibration": "contextual"}, "calibration"),
        ({"on_unknown": "raise"}, "on_unknown"),
        ({"ensemble": "auto"}, "prompt"),
    ):
        with pytest.raises(RunMismatchError, match=rf"\({named} differ\)"):
            classify_many(fit(overlap_llm(), **{"ensemble": None} | options), images, tmp_path / "run", resume=True)
    pictures, labels = support
    other = FewShotClassifier(overlap_llm(), tokenizer, k=3, ensemble=None).fit(
        [picture("green"), *pictures[1:]], labels
    )
    with pytest.raises(RunMismatchError, match=r"\(examples, prompt differ\)"):
        classify_many(other, images, tmp_path / "run", resume=True)
    with pytest.raises(RunMismatchError, match=r"\(examples, prompt differ\)"):
        missing_in(tmp_path / "run", other, images)
    # What only says how to ask is no part of it.
    same = fit(overlap_llm(), ensemble=None, concurrency=2, batch_size=3, errors="return")
    assert same.run_config() == clf.run_config()
    assert classify_many(same, images, tmp_path / "run", resume=True).kept == 12


def test_one_process_at_a_time(fit, overlap_llm, images, tmp_path):
    clf = fit(overlap_llm())
    with (
        Run.open(tmp_path / "run", "classify", clf.run_config()),
        pytest.raises(RunLockedError, match="another process"),
    ):
        classify_many(clf, images, tmp_path / "run", resume=True)


def test_a_run_can_be_interrupted(fit, overlap_llm, images, tmp_path):
    """Cancelled while a question is in flight, the journal is whole and the folder free again."""
    calls = []

    def before(prompts):
        calls.append(1)
        if len(calls) == 4:
            raise asyncio.CancelledError

    clf = fit(overlap_llm(scores_text=False, before=before), concurrency=1)
    with pytest.raises(concurrent.futures.CancelledError):
        classify_many(clf, images, tmp_path / "run")
    assert [("result" in line) for line in journal(tmp_path / "run")] == [True] * 3
    assert classify_many(clf, images, tmp_path / "run", resume=True).answered == 9


async def test_from_a_running_loop(fit, overlap_llm, images, tmp_path):
    clf = await asyncio.to_thread(fit, overlap_llm())
    outcome = await aclassify_many(clf, images, tmp_path / "run")
    assert outcome.answered == 12
    assert classify_many(clf, images, tmp_path / "run", resume=True).kept == 12  # a notebook's cell


def test_other_ways_to_ask(fit, overlap_llm, images, tmp_path):
    """Scores in chunks, calibration and neighbours go through the same journal."""
    for number, options in enumerate(
        ({"calibration": "contextual"}, {"selection": "nearest", "shots": 1}, {"scoring": "direct", "concurrency": 3})
    ):
        clf = fit(overlap_llm(), **options)
        outcome = classify_many(clf, images, tmp_path / str(number))
        assert [row["label"] for row in outcome.rows] == [one.label for one in clf.classify([*images.values()])]
        assert len(journal(tmp_path / str(number))) == 12


def test_no_images_is_a_run_too(fit, overlap_llm, tmp_path):
    outcome = classify_many(fit(overlap_llm()), [], tmp_path / "run")
    assert outcome.rows == [] and json.loads((tmp_path / "run" / "results.json").read_text())["images"] == 0


def test_arguments_that_cannot_work(fit, overlap_llm, tokenizer, tmp_path):
    with pytest.raises(NotFittedError):
        classify_many(FewShotClassifier(overlap_llm(), tokenizer), [], tmp_path / "run")
    clf = fit(overlap_llm())
    with pytest.raises(UsageError, match="a sequence of images or a mapping"):
        classify_many(clf, "one.png", tmp_path / "run")
    with pytest.raises(UsageError, match="an image's name must be a str; got 3"):
        classify_many(clf, {3: np.zeros((4, 4, 3), np.uint8)}, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        classify_many(clf, [], tmp_path / "file")
    assert not (tmp_path / "run").exists()
