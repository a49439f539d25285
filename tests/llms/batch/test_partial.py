"""Batches that come back partly (expired, with missing or doubled ids, errors alone), and runs that rest on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_clients import batched
from batch_servers import AnthropicBatchServer, BatchServer, Cancelled, Expired, Missing, OpenAIBatchServer, Refused

from icl_vision import FewShotClassifier
from icl_vision.contracts import Completion
from icl_vision.errors import LLMError, LLMResponseError, LLMStatusError, LLMTimeoutError
from icl_vision.tasks import classify_many


@pytest.fixture(params=["openai", "anthropic"])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with OpenAIBatchServer() if request.param == "openai" else AnthropicBatchServer() as server:
        yield server


def doubled(server: BatchServer, *more: tuple[str, Any], first: bool = False) -> None:
    """Add lines to the results that speak of questions once more, with another result."""
    results = server._results  # type: ignore[attr-defined]  # both fakes have it

    def with_more(batch: Any) -> Any:
        before = dict(server.results)
        found = results(batch)
        for question, result in more:
            lines = [line for line in batch.lines if server.question(line) == question]
            server.results = {question: result} if result is not None else {}
            added = results(type(batch)(batch.id, lines, batch.endpoint))
            if isinstance(found, tuple):  # answers and errors, a file each
                found = tuple(new + old if first else old + new for old, new in zip(found, added, strict=True))
            else:
                found = added + found if first else found + added
        server.results = before
        return found

    server._results = with_more  # type: ignore[attr-defined]  # both fakes have it
    server.shuffled = lambda lines: b"".join(line + b"\n" for line in lines)  # type: ignore[method-assign]  # in place of the fake's own


def said(server: BatchServer, text: str) -> Any:
    """A result: a good answer with this text."""
    from batch_servers import Lines, Odd

    if isinstance(server, OpenAIBatchServer):
        return Odd(server._body(Lines("x", [], "/v1/chat/completions"), text))
    return Odd(server._message(text))  # type: ignore[attr-defined]  # both fakes have it


async def collected(server: BatchServer, folder: Path, *questions: str) -> dict[str, Any]:
    async with batched(server, folder) as llm:
        ids = await llm.submit(questions)
        return dict(zip(questions, (await llm.collect(ids)).values(), strict=True))


async def test_the_same_answer_twice_is_one_and_paid_once(server: BatchServer, tmp_path: Path) -> None:
    doubled(server, ("a", None), ("b", None))
    found = await collected(server, tmp_path / "run", "a", "b", "c")
    assert [one.text for one in found.values()] == ["A", "B", "C"]
    assert [one.usage.requests for one in found.values()] == [1, 1, 1]
    (answers,) = (tmp_path / "run" / "answers").iterdir()
    assert len(answers.read_text().splitlines()) == 3
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("a")).text == "A"
    assert len(server.batches) == 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("problem", [Expired(), Cancelled(), Refused(500, {"type": "api_error", "message": "oh"})])
async def test_an_error_beside_an_answer_takes_nothing_away(
    server: BatchServer, tmp_path: Path, problem: Any, first: bool
) -> None:
    doubled(server, ("a", problem), first=first)
    found = await collected(server, tmp_path / "run", "a", "b")
    assert found["a"].text == "A" and found["b"].text == "B"


@pytest.mark.parametrize("first", [True, False])
async def test_two_answers_that_differ_are_none(server: BatchServer, tmp_path: Path, first: bool) -> None:
    """As where an id stands on another request's answer: then that one is missing."""
    server.results["b"] = Missing()
    doubled(server, ("a", said(server, "B")), first=first)
    found = await collected(server, tmp_path / "run", "a", "b", "c")
    assert isinstance(found["a"], LLMResponseError) and "that differ" in str(found["a"])
    assert isinstance(found["b"], LLMResponseError) and found["c"].text == "C"
    del server._results  # type: ignore[attr-defined]  # both fakes have it
    server.results.clear()
    async with batched(server, tmp_path / "run") as llm:
        assert [(await llm.complete(one)).text for one in ("a", "b", "c")] == ["A", "B", "C"]
    assert sorted(server.asked) == ["a", "a", "b", "b", "c"]


async def test_errors_alone(server: BatchServer, tmp_path: Path) -> None:
    """No answer at all: OpenAI then names an error file and no output file."""
    server.results |= {
        "a": Refused(429, {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "slow"}),
        "b": Expired(),
        "c": Refused(500, {"type": "api_error", "message": "oh"}),
    }
    found = await collected(server, tmp_path / "run", "a", "b", "c")
    assert [type(one) for one in found.values()] == [LLMStatusError, LLMTimeoutError, LLMStatusError]
    server.results.clear()
    again = await collected(server, tmp_path / "run", "a", "b", "c")
    assert [one.text for one in again.values()] == ["A", "B", "C"]
    assert server.asked == ["a", "b", "c"] * 2


@pytest.mark.parametrize("word", ["expired", "cancelled", "completed"])
async def test_no_file_at_all(tmp_path: Path, word: str) -> None:
    with OpenAIBatchServer() as server:
        server.ends_as = word
        server.results |= {"a": Missing(), "b": Missing()}
        found = await collected(server, tmp_path / "run", "a", "b")
        assert all(isinstance(one, LLMError) and "ask again" in str(one) for one in found.values())
        server.results.clear()
        server.ends_as = None
        again = await collected(server, tmp_path / "run", "a", "b")
        assert [one.text for one in again.values()] == ["A", "B"]


async def test_results_that_are_late_are_waited_for(server: BatchServer, tmp_path: Path) -> None:
    """A batch may be called ended a moment before its results are whole."""
    server.results |= {"b": Missing()}
    results, looks = server._results, []  # type: ignore[attr-defined]  # both fakes have it

    def later(batch: Any) -> Any:
        looks.append(1)
        if len(looks) > 2:
            server.results.clear()
            server.__dict__.get("files", {}).pop(f"file-{batch.id}-out", None)
        return results(batch)

    server._results = later  # type: ignore[attr-defined]  # both fakes have it
    found = await collected(server, tmp_path / "run", "a", "b", "c")
    assert [one.text for one in found.values()] == ["A", "B", "C"] and len(server.batches) == 1


def test_a_run_over_batches_that_expire_is_finished_by_resuming(
    server: BatchServer, tmp_path: Path, class_folder: Path
) -> None:
    files = sorted(class_folder.rglob("*.png"))
    labels = [path.parent.name for path in files]
    queries = files[:9]

    def classifier(llm: Any) -> FewShotClassifier:
        made = FewShotClassifier(llm, "ascii", None, shots=1, scoring="parse", concurrency=1000, progress=False)
        return made.fit(files, labels)

    class Label(dict):  # type: ignore[type-arg]  # of any keys
        """Every third question expires, every fourth is missing, the others are answered "red"."""

        def get(self, question: str, default: Any = None) -> Any:
            number = len(self)
            self.setdefault(question, number)
            place = self[question]
            if broken and place % 3 == 0:
                return Expired()
            if broken and place % 4 == 0:
                return Missing()
            return said(server, "red")

    broken = True
    server.results = Label()
    with batched(server, tmp_path / "batches") as llm:
        first = classify_many(classifier(llm), queries, tmp_path / "run")
    assert 0 < first.failed < 9 and first.answered == 9 - first.failed
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert sum("error" in line for line in lines) == first.failed and len(lines) == 9
    broken = False
    submitted = len(server.asked)
    with batched(server, tmp_path / "batches") as llm:
        second = classify_many(classifier(llm), queries, tmp_path / "run", resume=True)
    assert (second.kept, second.answered, second.failed) == (first.answered, first.failed, 0)
    assert len(server.asked) - submitted == first.failed
    assert [row["label"] for row in second.rows] == ["red"] * 9


def test_batches_of_two_folders_begun_in_the_same_second_are_not_mixed_up(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both submissions lose their answer at the same moment; each finds its own batch and none is made twice."""
    import time

    from batch_servers import Fault

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    route = "POST /batches" if isinstance(server, OpenAIBatchServer) else "POST /messages/batches"
    server.faults[route].extend([Fault(after=True), Fault(after=True)])
    with batched(server, tmp_path / "one") as one, batched(server, tmp_path / "two") as two:
        ids = [one.submit_sync(["a", "b"]), two.submit_sync(["c", "d"])]
        found = [one.collect_sync(ids[0]), two.collect_sync(ids[1])]
    texts = [[getattr(answer, "text", answer) for answer in each.values()] for each in found]
    assert texts == [["A", "B"], ["C", "D"]] and len(server.batches) == 2
    assert all(isinstance(answer, Completion) for each in found for answer in each.values())
