"""The journal of one call: on disk before anything is built upon it, and when there is no use in going on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from icl_vision.asking.jobs import FAILURES_IN_A_ROW, Failures, Journal
from icl_vision.contracts import Usage
from icl_vision.errors import LLMStatusError, LLMUnavailableError, PromptError
from icl_vision.files.runs import Run, read_results, read_usage


async def test_a_result_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    with Run.open(tmp_path, "test", {}) as run, Journal(run) as journal:
        await journal.record("a", {"text": "x", "usage": Usage(1, 2).to_dict()})
        assert dict(read_results(tmp_path)) == {"a": {"text": "x", "usage": Usage(1, 2).to_dict()}}
        assert not await journal.record_error("b", ValueError("no"), Usage(3))
    assert read_usage(tmp_path) == Usage(4, 2)
    with Run.open(tmp_path, "test", {}, resume=True) as run, Journal(run) as journal:
        assert [item for item, _ in journal.results()] == ["a"] and "b" not in run.done


async def test_what_was_paid_for_is_written_though_its_writer_is_cancelled(tmp_path: Path) -> None:
    with Run.open(tmp_path, "test", {}) as run, Journal(run) as journal:
        task = asyncio.create_task(journal.record("a", {"text": "x"}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [item for item, _ in read_results(tmp_path)] == ["a"]


async def test_without_a_run_nothing_is_kept_and_failures_still_count() -> None:
    with Journal(None) as journal:
        await journal.record("a", {})
        assert not list(journal.results())
        ends = [await journal.record_error("b", LLMUnavailableError("down"), Usage()) for _ in range(FAILURES_IN_A_ROW)]
        assert ends == [False] * (FAILURES_IN_A_ROW - 1) + [True]


def test_a_run_ends_where_everything_else_would_fail_too() -> None:
    failures = Failures((PromptError,))
    assert failures.end(LLMStatusError("no such key", 401)) and not failures.end(LLMStatusError("busy", 503))
    for _ in range(2 * FAILURES_IN_A_ROW):
        assert not failures.end(PromptError("too long"))  # says nothing of the others
    failures.none()
    assert [failures.end(LLMUnavailableError("down")) for _ in range(FAILURES_IN_A_ROW)][-2:] == [False, True]
