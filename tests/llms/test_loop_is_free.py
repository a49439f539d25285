"""Whatever takes its time on this machine, other LLMs are answered meanwhile: nothing of ours blocks the shared loop.

That nothing else does is watched in every test; see ``loop_guard``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loop_guard
import pytest

from icl_vision.contracts import Prompt
from icl_vision.errors import LLMUnavailableError
from icl_vision.files.runs import Run
from icl_vision.llms import Budget, CachedLLM, FakeLLM, ResponseCache, connect, record
from icl_vision.llms.loop import OwnThread, hop, run_sync
from icl_vision.llms.wrappers import metered

OTHER = FakeLLM("another LLM")
PROMPT = Prompt("", "", "x")


def answers_while(work: Callable[[], Any], started: threading.Event, go_on: threading.Event) -> Any:
    """The result of ``work``, another LLM having been asked in the middle of it."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    assert started.wait(30)
    try:
        assert OTHER.complete_sync("are you there?").text == "another LLM"  # waits for ever where the loop is blocked
    finally:
        go_on.set()
    thread.join(30)
    (found,) = result
    return found


class Gate:
    """Stands before a function: says when it is called, and lets it go on when told."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.started, self.go_on = function, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.started.set()
        assert self.go_on.wait(30)
        return self.function(*arguments, **options)


@pytest.mark.parametrize("method", ["get", "put_all"])
@pytest.mark.parametrize("kind", ["complete", "score"])
def test_a_cache_that_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, kind: str) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    llm = CachedLLM(FakeLLM("yes"), cache)
    gate = Gate(getattr(cache, method))
    monkeypatch.setattr(cache, method, gate)
    ask = (lambda: llm.complete_sync(PROMPT)) if kind == "complete" else (lambda: llm.score_sync([(PROMPT, " a")]))
    assert answers_while(ask, gate.started, gate.go_on)
    monkeypatch.undo()
    assert len(cache) == 1
    cache.close()


def test_a_cache_that_another_process_really_locks(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    assert len(cache) == 0
    lock = sqlite3.connect(tmp_path / "answers.sqlite", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    llm = CachedLLM(FakeLLM("yes"), cache)

    async def main() -> str:
        waiting = asyncio.create_task(llm.complete(PROMPT))
        for _ in range(20):
            assert (await OTHER.complete("are you there?")).text == "another LLM"
            await asyncio.sleep(0.005)
        assert not waiting.done()
        lock.execute("ROLLBACK")
        return (await waiting).text

    assert asyncio.run(main()) == "yes"
    lock.close()
    cache.close()


def test_a_recording_on_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = record(FakeLLM("yes"), tmp_path / "r.jsonl")
    gate = Gate(llm._append)
    monkeypatch.setattr(llm, "_append", gate)
    assert answers_while(lambda: llm.complete_sync(PROMPT), gate.started, gate.go_on).text == "yes"


def test_a_long_prompt_that_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = connect(FakeLLM("yes"), budget=Budget(requests=9))
    gate = Gate(metered.count_tokens)
    monkeypatch.setattr(metered, "count_tokens", gate)
    assert answers_while(lambda: llm.complete_sync(PROMPT), gate.started, gate.go_on).text == "yes"


def test_a_key_that_is_asked_for_and_an_sdk_that_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_key() -> str:
        raise LLMUnavailableError("the vault is shut")

    gate = Gate(no_key)
    llm = connect("openai:gpt-4o", api_key=gate, base_url="http://127.0.0.1:9/v1")

    def ask() -> str:
        with pytest.raises(LLMUnavailableError) as caught:
            llm.complete_sync(PROMPT)
        return str(caught.value)

    assert answers_while(ask, gate.started, gate.go_on) == "the vault is shut"
    llm = connect("openai:gpt-4o", api_key="k", base_url="http://127.0.0.1:9/v1", attempts=1)
    gate = Gate(llm._made_client)  # type: ignore[attr-defined]  # the adapter of the row
    monkeypatch.setattr(llm, "_made_client", gate)
    assert "cannot be reached" in answers_while(ask, gate.started, gate.go_on)
    llm.close()  # type: ignore[attr-defined]  # the adapter of the row


def test_a_run_is_closed_by_another_thread_than_opened_it(tmp_path: Path) -> None:
    run: list[Run] = []
    opener = threading.Thread(target=lambda: run.append(Run.open(tmp_path / "run", "x", {})))
    opener.start()
    opener.join()
    run[0].close()
    Run.open(tmp_path / "run", "x", {}, resume=True).close()


class TestOwnThread:
    def test_work_in_order_that_nobody_waits_for_is_done(self) -> None:
        own, done, go_on = OwnThread("mine"), [], threading.Event()

        async def main() -> None:
            first = asyncio.create_task(own.run(lambda: (go_on.wait(30), done.append(1))))
            second = asyncio.create_task(own.run(done.append, 2))
            await asyncio.sleep(0.01)
            first.cancel()
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert first.cancelled() and second.cancelled() and done == []
            go_on.set()
            await own.run(done.append, 3)

        asyncio.run(main())
        assert done == [1, 2, 3]

    def test_errors_are_the_works_own(self) -> None:
        with pytest.raises(ZeroDivisionError):
            run_sync(OwnThread("mine").run(lambda: 1 / 0))


def test_the_guard_sees_what_blocks(tmp_path: Path, blocking_work: list[str]) -> None:
    async def on_the_loop() -> None:
        cache = ResponseCache(tmp_path / "a.sqlite")
        cache.put("k", {})
        cache.close()
        Run.open(tmp_path / "run", "x", {}, resume=True).close()

    asyncio.run(hop(on_the_loop()))
    said = "\n".join(blocking_work)
    blocking_work.clear()
    assert "JsonRows.put_all" in said and "runs.py" in said and "open " in said and "rows.py" in said
    # What users' own loops do is their affair.
    asyncio.run(on_the_loop())
    assert blocking_work == [] and loop_guard.found is blocking_work
