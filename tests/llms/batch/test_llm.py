"""BatchLLM in front of the real SDKs and loopback servers that speak both providers' batch endpoints."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_clients import batched, llm_of
from batch_servers import (
    CANARY,
    AnthropicBatchServer,
    BatchServer,
    Cancelled,
    Expired,
    Fault,
    Lines,
    Missing,
    Odd,
    OpenAIBatchServer,
    Raw,
    Refused,
)

from icl_vision.contracts import Completion, Constraint, Prompt, Usage
from icl_vision.errors import (
    BudgetExceededError,
    CapabilityError,
    LLMError,
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
    RunError,
    RunLockedError,
    RunMismatchError,
    UsageError,
)
from icl_vision.llms import Budget, FallbackLLM, Meter, MeteredLLM, connect, record
from icl_vision.llms.batch.llm import BatchLLM
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.modes import repeat
from icl_vision.llms.remote.openai.llm import OpenAILLM
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["openai", "anthropic"])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with OpenAIBatchServer() if request.param == "openai" else AnthropicBatchServer() as server:
        yield server


@pytest.fixture
def openai_server() -> Iterator[OpenAIBatchServer]:
    with OpenAIBatchServer() as server:
        assert isinstance(server, OpenAIBatchServer)
        yield server


@pytest.fixture
def anthropic_server() -> Iterator[AnthropicBatchServer]:
    with AnthropicBatchServer() as server:
        assert isinstance(server, AnthropicBatchServer)
        yield server


def create_route(server: BatchServer) -> str:
    return "POST /batches" if isinstance(server, OpenAIBatchServer) else "POST /messages/batches"


def look_route(server: BatchServer) -> str:
    return "GET /batches/ID" if isinstance(server, OpenAIBatchServer) else "GET /messages/batches/ID"


def list_route(server: BatchServer) -> str:
    return create_route(server).replace("POST", "GET")


def result_route(server: BatchServer) -> str:
    return "GET /files/ID/content" if isinstance(server, OpenAIBatchServer) else "GET /messages/batches/ID/results"


async def until(done: Any) -> None:
    """Wait for something another thread does."""
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


# The call. ------------------------------------------------------------------------------------------------------------


async def test_each_caller_gets_its_own_answer(server: BatchServer, tmp_path: Path) -> None:
    questions = [f"question {number} é\u2028" for number in range(40)]
    async with batched(server, tmp_path / "run", window=0.5) as llm:
        answers = await asyncio.gather(*(llm.complete(Prompt("name it", "a: b", one)) for one in questions))
    for question, answer in zip(questions, answers, strict=True):
        assert question.upper() in answer.text
        assert answer.usage == Usage(requests=1, prompt_tokens=7, completion_tokens=2)
        assert answer.finish_reason == "stop"
    assert server.count(create_route(server)) == 1
    assert len(server.asked) == 40


async def test_a_full_batch_is_sent_at_once(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run", size=4, window=0.5) as llm:
        answers = await asyncio.gather(*(llm.complete(f"q{number}") for number in range(10)))
    assert [answer.text for answer in answers] == [f"Q{number}" for number in range(10)]
    assert sorted(len(batch.lines) for batch in server.batches) == [2, 4, 4]


async def test_too_many_bytes_make_two_batches(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batched(server, tmp_path / "run", window=0.5) as llm:
        monkeypatch.setattr(type(llm._provider), "max_bytes", 5000)
        answers = await asyncio.gather(*(llm.complete(f"{number} " + "x" * 2000) for number in range(4)))
    assert [answer.text[0] for answer in answers] == list("0123")
    assert sorted(len(batch.lines) for batch in server.batches) == [2, 2]


async def test_the_same_request_is_sent_once(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        answers = await asyncio.gather(*(llm.complete("same") for _ in range(5)))
        later = await llm.complete("same")
        assert {answer.text for answer in [*answers, later]} == {"SAME"}
        assert server.asked == ["same"]
        # Spent once, counted once.
        assert sum((answer.usage for answer in answers), Usage()).requests == 1
        assert later.usage == Usage()
        with repeat(1):
            await llm.complete("same")
        await llm.complete("same", max_tokens=3)
    assert server.asked == ["same"] * 3


def test_it_works_without_a_loop_and_in_the_cache(server: BatchServer, tmp_path: Path) -> None:
    with batched(server, tmp_path / "run") as llm:
        cached = CachedLLM(llm, ResponseCache(tmp_path / "cache.sqlite"))
        assert cached.complete_sync("one").text == "ONE"
        assert cached.complete_sync("one").usage == Usage()
        assert cached.identity == llm.identity == llm.llm.identity  # type: ignore[attr-defined]  # a batch LLM holds another


async def test_the_constraint_and_stops_are_kept(server: BatchServer, tmp_path: Path) -> None:
    server.results["one line\nof two"] = None
    async with batched(server, tmp_path / "run") as llm:
        cut = await llm.complete("first\nsecond", stop="\n")
        assert (cut.text, cut.finish_reason) == ("FIRST", "stop")
        if llm.profile.constraint is not None:
            server.results["pick"] = None
            constraint = Constraint(("PICK", "OTHER"))
            with pytest.warns(UserWarning, match="constraint"):
                await llm.complete("pick", constraint=constraint)
            sent = json.dumps(server.batches[-1].lines[0])
            assert "json_schema" in sent and "OTHER" in sent


async def test_responses_go_to_their_own_endpoint(openai_server: OpenAIBatchServer, tmp_path: Path) -> None:
    llm = OpenAILLM("gpt-4o-mini", api="responses", base_url=openai_server.url, api_key=CANARY)
    async with batched(openai_server, tmp_path / "run", llm=llm) as batch:
        answer = await batch.complete("hello")
    assert answer.text == "HELLO"
    assert openai_server.batches[0].endpoint == "/v1/responses"


async def test_fields_of_the_users_own_are_sent_plainly(server: BatchServer, tmp_path: Path) -> None:
    llm = llm_of(server, extra_body={"service_tier": "flex"})
    async with batched(server, tmp_path / "run", llm=llm) as batch:
        await batch.complete("hello")
    line = server.batches[0].lines[0]
    assert (line.get("body") or line.get("params"))["service_tier"] == "flex"


async def test_no_scores_through_a_batch(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        assert not llm.profile.scores_text
        assert not llm.profile.prefix_cache
        with pytest.raises(CapabilityError, match="batch endpoint"):
            await llm.score([(Prompt.of("a"), " b")])


# What goes wrong with one request. ------------------------------------------------------------------------------------


async def test_errors_go_to_their_own_callers_and_are_not_kept(server: BatchServer, tmp_path: Path) -> None:
    server.results |= {
        "refused": Refused(400, {"type": "invalid_request_error", "code": "bad_thing", "message": f"no, {CANARY}"}),
        "broken": Refused(529, {"type": "overloaded_error", "message": "busy"}),
        "long": Refused(
            400, {"type": "invalid_request_error", "message": "prompt is too long: 300000 tokens > 200000 maximum"}
        ),
        "late": Expired(),
        "stopped": Cancelled(),
        "gone": Missing(),
        "odd": Odd({"nothing": 1}),
        "odder": Odd([1]),
    }
    questions = ["good", *server.results]
    async with batched(server, tmp_path / "run", window=0.5) as llm:
        found = await asyncio.gather(*(llm.complete(one) for one in questions), return_exceptions=True)
        outcome = dict(zip(questions, found, strict=True))
        assert isinstance(outcome["good"], Completion)
        refused, broken, late = outcome["refused"], outcome["broken"], outcome["late"]
        assert isinstance(refused, LLMStatusError) and refused.status == 400 and "no, ***" in str(refused)
        assert isinstance(broken, LLMStatusError) and broken.status == 529 and "busy" in str(broken)
        assert isinstance(outcome["long"], PromptTooLongError) and outcome["long"].window == 200000
        assert isinstance(late, LLMTimeoutError) and "ask again" in str(late)
        assert type(outcome["stopped"]) is LLMError and "cancelled" in str(outcome["stopped"])
        assert isinstance(outcome["gone"], LLMResponseError) and "no usable line" in str(outcome["gone"])
        assert isinstance(outcome["odd"], LLMResponseError)
        assert isinstance(outcome["odder"], LLMResponseError) and "list" in str(outcome["odder"])
        # An error is no answer: asking again submits those and no others.
        server.results.clear()
        again = await asyncio.gather(*(llm.complete(one) for one in questions))
        assert [answer.text for answer in again] == [one.upper() for one in questions]
    assert [len(batch.lines) for batch in server.batches] == [9, 8]


async def test_errors_survive_a_restart_as_errors(server: BatchServer, tmp_path: Path) -> None:
    server.results["late"] = Expired()
    server.results["long"] = Refused(
        400, {"type": "invalid_request_error", "message": "prompt is too long: 300000 tokens > 200000 maximum"}
    )
    async with batched(server, tmp_path / "run") as llm:
        ids = await llm.submit(["good", "late", "long"])
        await llm.collect(ids)
    async with batched(server, tmp_path / "run") as llm:
        found = await llm.collect()
        assert list(found) == list(ids)
        good, late, long = found.values()
        assert isinstance(good, Completion) and good.text == "GOOD" and good.usage.requests == 1
        assert isinstance(late, LLMTimeoutError) and "ask again" in str(late)
        assert isinstance(long, PromptTooLongError) and long.window == 200000
        server.results.clear()
        assert (await llm.complete("late")).text == "LATE"
        assert isinstance((await llm.collect(ids))[ids[1]], Completion)
    assert server.asked == ["good", "late", "long", "late"]


async def test_a_damaged_line_costs_only_itself(
    server: BatchServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.results["bad"] = Raw(b'{"custom_id": "' + CANARY.encode() + b'" and then nothing')
    server.results["alien"] = Raw(b'{"custom_id": "somebody-else", "result": {}}')
    questions = ["a", "bad", "b", "alien", "c"]
    with caplog.at_level(logging.WARNING):
        async with batched(server, tmp_path / "run") as llm:
            found = await asyncio.gather(*(llm.complete(one) for one in questions), return_exceptions=True)
    assert [isinstance(one, Completion) for one in found] == [True, False, True, False, True]
    assert isinstance(found[1], LLMResponseError) and isinstance(found[3], LLMResponseError)
    assert server.count(result_route(server)) == 3  # it may have been the transfer: fetched again
    assert "cannot be used" in caplog.text and CANARY not in caplog.text


async def test_results_cut_off_on_the_way_are_fetched_again(server: BatchServer, tmp_path: Path) -> None:
    server.faults[result_route(server)].extend([Fault(cut=True), Fault(), Fault(status=503)])
    async with batched(server, tmp_path / "run") as llm:
        answers = await asyncio.gather(*(llm.complete(f"q{number}") for number in range(20)))
    assert [answer.text for answer in answers] == [f"Q{number}" for number in range(20)]
    assert server.count(result_route(server)) == 4


@pytest.mark.parametrize("word", ["expired", "cancelled"])
async def test_what_was_done_before_a_batch_ended_early_is_kept(
    openai_server: OpenAIBatchServer, tmp_path: Path, word: str
) -> None:
    openai_server.ends_as = word
    openai_server.results |= {"late": Expired() if word == "expired" else Cancelled(), "silent": Missing()}
    async with batched(openai_server, tmp_path / "run") as llm:
        done, late, silent = await asyncio.gather(
            *(llm.complete(one) for one in ("done", "late", "silent")), return_exceptions=True
        )
    assert isinstance(done, Completion) and done.text == "DONE"
    kind = LLMTimeoutError if word == "expired" else LLMError
    assert type(late) is kind and type(silent) is kind


@pytest.mark.parametrize(("code", "status"), [("invalid_json_line", 400), ("token_limit_exceeded", 429)])
async def test_a_batch_refused_as_a_whole(
    openai_server: OpenAIBatchServer, tmp_path: Path, code: str, status: int
) -> None:
    openai_server.failure = {"code": code, "line": 1, "message": "not today"}
    async with batched(openai_server, tmp_path / "run") as llm:
        ids = await llm.submit(["a", "b"])
        with pytest.raises(LLMStatusError, match=f"the first at line 1 \\({code}\\): not today") as caught:
            await asyncio.gather(llm.complete("a"), llm.complete("b"))
        assert (caught.value.status, caught.value.code) == (status, code)
        assert all(isinstance(one, LLMStatusError) for one in (await llm.collect(ids)).values())
    openai_server.failure = None
    async with batched(openai_server, tmp_path / "run") as llm:
        assert all(isinstance(one, LLMStatusError) and one.status == status for one in (await llm.collect()).values())
        assert (await llm.complete("a")).text == "A"


# What goes wrong on the way. ------------------------------------------------------------------------------------------


async def test_admin_calls_are_tried_again(server: BatchServer, tmp_path: Path) -> None:
    server.faults[look_route(server)].extend([Fault(status=500), Fault(), Fault(status=529), Fault(raw=b"<html>")])
    server.faults["POST /files"].extend(
        [Fault(status=503), Fault(), Fault(status=429, headers={"retry-after-ms": "5"})]
    )
    server.faults[create_route(server)].extend([Fault(status=429, headers={"retry-after-ms": "5"})] * 2)
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("hello")).text == "HELLO"
    assert server.asked == ["hello"]
    assert server.count(create_route(server)) == 3


async def test_a_long_outage_does_not_end_the_wait(server: BatchServer, tmp_path: Path) -> None:
    server.faults[look_route(server)].extend([Fault(status=500)] * 11)
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("hello")).text == "HELLO"


@pytest.mark.parametrize("fault", [Fault(after=True), Fault(after=True, status=504), Fault(after=True, raw=b"{}")])
async def test_a_batch_made_without_an_answer_is_found(server: BatchServer, tmp_path: Path, fault: Fault) -> None:
    server.faults[create_route(server)].append(fault)
    async with batched(server, tmp_path / "run") as llm:
        answers = await asyncio.gather(llm.complete("one"), llm.complete("two"))
    assert [answer.text for answer in answers] == ["ONE", "TWO"]
    assert server.count(create_route(server)) == 1
    assert server.count(list_route(server)) >= 1


@pytest.mark.parametrize("fault", [Fault(), Fault(status=502), Fault(raw=b"oops"), Fault(status=408)])
async def test_a_batch_that_was_not_made_is_made(server: BatchServer, tmp_path: Path, fault: Fault) -> None:
    server.faults[create_route(server)].extend([fault, fault])
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]
    assert server.count(create_route(server)) == 3


async def test_a_refused_batch_can_be_asked_again(server: BatchServer, tmp_path: Path) -> None:
    server.faults[create_route(server)].append(Fault(status=400))
    async with batched(server, tmp_path / "run") as llm:
        with pytest.raises(LLMStatusError, match=r"status 400: made to fail, \*\*\*"):
            await llm.complete("one")
        server.faults[create_route(server)].append(Fault(status=403))
        with pytest.raises(LLMStatusError, match="status 403"):
            await llm.submit(["one"])
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]
    assert server.count(list_route(server)) == (0 if isinstance(server, OpenAIBatchServer) else 3)


async def test_a_provider_that_never_answers(server: BatchServer, tmp_path: Path) -> None:
    server.faults[create_route(server)].extend([Fault()] * 5)
    async with batched(server, tmp_path / "run") as llm:
        with pytest.raises(LLMUnavailableError, match="made no batch in 5 attempts"):
            await llm.complete("one")
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]


async def test_an_upload_that_fails_leaves_nothing(openai_server: OpenAIBatchServer, tmp_path: Path) -> None:
    openai_server.faults["POST /files"].extend([Fault(status=401)])
    async with batched(openai_server, tmp_path / "run") as llm:
        with pytest.raises(LLMStatusError, match="OPENAI_API_KEY"):
            await llm.complete("one")
        assert list((tmp_path / "run" / "requests").iterdir()) == []
        assert (await llm.complete("one")).text == "ONE"


async def test_a_batch_that_cannot_be_seen_is_not_paid_for_again(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    async with batched(server, tmp_path / "run") as llm:
        await llm.submit(["one"])
        await until(lambda: server.count(look_route(server)) > 1)
        server.faults[look_route(server)].extend([Fault(status=404)] * 2)
        with pytest.raises(LLMStatusError, match="status 404"):
            await llm.complete("one")
        server.held = False
        server.faults.clear()
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]


async def test_max_wait_ends_the_wait_not_the_batch(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    async with batched(server, tmp_path / "run", max_wait=0.03) as llm:
        with pytest.raises(LLMTimeoutError, match=r"has not ended after 0\.03 s \(max_wait\); it is kept in"):
            await llm.complete("one")
        server.held = False
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]


# In two steps, and cancelling. ----------------------------------------------------------------------------------------


async def test_submit_and_collect(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    async with batched(server, tmp_path / "run") as llm:
        ids = await llm.submit(["a", "b", "a"], max_tokens=4)
        assert ids[0] == ids[2] != ids[1]
        assert await llm.submit(["b", "a"], max_tokens=4) == (ids[1], ids[0])
        assert await llm.collect(ids, wait=False) == {}
        assert sorted(server.asked) == ["a", "b"]
        server.held = False
        found = await llm.collect([ids[1], ids[0]])
        assert [one.text for one in found.values() if isinstance(one, Completion)] == ["B", "A"]
        assert list(found) == [ids[1], ids[0]]
        assert (await llm.complete("a", max_tokens=4)).usage == Usage()
        assert await llm.submit(["a"], max_tokens=4) == (ids[0],)
        with pytest.raises(UsageError, match="holds no request 'nonsense'"):
            await llm.collect(["nonsense"])
    assert len(server.batches) == 1


def test_the_sync_twins(server: BatchServer, tmp_path: Path) -> None:
    with batched(server, tmp_path / "run") as llm:
        ids = llm.submit_sync([Prompt("i", "c", "one"), "two"])
        found = llm.collect_sync()
        assert list(found) == list(ids)
        assert llm.collect_sync(ids, wait=False) == found
        with pytest.raises(UsageError, match="max_tokens"):
            llm.submit_sync(["one"], max_tokens=0)
        with pytest.raises(UsageError, match="empty"):
            llm.submit_sync([""])
        assert llm.submit_sync([]) == ()


async def test_a_cancelled_caller_cancels_no_batch(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    async with batched(server, tmp_path / "run") as llm:
        first, second = asyncio.create_task(llm.complete("one")), asyncio.create_task(llm.complete("two"))
        await until(lambda: len(server.batches) == 1)
        first.cancel()
        server.held = False
        assert (await second).text == "TWO"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await llm.complete("one")).text == "ONE"
    assert server.count(create_route(server)) == 1
    assert not any("cancel" in route for route in server.log)


async def test_what_nobody_waits_for_is_not_sent(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run", window=0.05) as llm:
        first, second = asyncio.create_task(llm.complete("one")), asyncio.create_task(llm.complete("two"))
        await until(lambda: len(llm._gathered) == 2)
        both = llm._gathered_bytes
        first.cancel()
        await until(lambda: len(llm._gathered) == 1)
        assert 0 < llm._gathered_bytes < both  # it no longer counts for the batch's size either
        assert (await second).text == "TWO"
    assert server.asked == ["two"]


async def test_closing_tells_the_callers(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    llm = batched(server, tmp_path / "run")
    sent = asyncio.create_task(llm.complete("sent"))
    await until(lambda: len(server.batches) == 1)
    gathered = asyncio.create_task(llm.complete("gathered"))
    collecting = asyncio.create_task(llm.collect())
    late = batched(server, tmp_path / "other", window=5)
    unsent = asyncio.create_task(late.complete("unsent"))
    await until(lambda: len(late._gathered) == 1)
    await until(lambda: len(server.batches) == 2)
    await llm.aclose()
    await late.aclose()
    for task in (sent, gathered):
        with pytest.raises(LLMUnavailableError, match="kept in"):
            await task
    assert all(isinstance(one, LLMUnavailableError) for one in (await collecting).values())
    with pytest.raises(LLMUnavailableError, match="closed before the request was submitted"):
        await unsent
    with pytest.raises(LLMUnavailableError, match="was closed; make another"):
        await llm.complete("more")
    await llm.aclose()
    server.held = False
    async with batched(server, tmp_path / "run") as llm:
        found = await llm.collect()
    assert [one.text for one in found.values() if isinstance(one, Completion)] == ["SENT", "GATHERED"]
    assert server.asked == ["sent", "gathered"]


# After a restart. -----------------------------------------------------------------------------------------------------


async def test_nothing_is_asked_again_after_a_restart(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        await llm.complete("one")
    requests = len(server.log)
    async with batched(server, tmp_path / "run") as llm:
        answer = await llm.complete("one")
    assert (answer.text, answer.usage) == ("ONE", Usage())
    assert answer.raw
    assert len(server.log) == requests


STEPS = ("added", "intent", "submitted", "fetched", "collected")


# Between the provider's yes and the note of it is where money is lost; the other steps are slow tests, since each takes
# a process that imports an SDK.
@pytest.mark.parametrize("step", ["made", *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS)])
async def test_killed_at_any_step(server: BatchServer, tmp_path: Path, step: str) -> None:
    """kill -9 of a process at every point at which something is written; the next one neither loses nor repeats."""
    folder = tmp_path / "run"
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import batch_clients, batch_servers
        from batch_servers import AnthropicBatchServer, OpenAIBatchServer
        from icl_vision.llms.batch.courier import Courier
        from icl_vision.llms.batch.folder import BatchFolder
        from icl_vision.llms.batch.provider import Provider

        class Away(batch_servers.{type(server).__name__}):
            def __init__(self):
                pass
            port = {server.port}

        def die(after, owner, name):
            original = getattr(owner, name)
            if after == "async":
                async def replaced(self, *args):
                    result = await original(self, *args)
                    os.kill(os.getpid(), signal.SIGKILL)
            else:
                def replaced(self, *args, **more):
                    original(self, *args, **more)
                    os.kill(os.getpid(), signal.SIGKILL)
            setattr(owner, name, replaced)

        {{
            "added": lambda: die("sync", BatchFolder, "add"),
            "intent": lambda: die("sync", BatchFolder, "intend"),
            "made": lambda: die("async", Provider, "made"),
            "submitted": lambda: die("sync", BatchFolder, "submitted"),
            "fetched": lambda: die("async", Provider, "fetch"),
            "collected": lambda: die("sync", BatchFolder, "_scan"),
        }}[{step!r}]()
        llm = batch_clients.batched(Away(), Path({str(folder)!r}))
        llm.submit_sync(["one", "two"])
        llm.collect_sync()
        print("still alive")
    """
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    made = step not in ("added", "intent")
    assert len(server.batches) == made
    # A batch of somebody else's of the same size, made since.
    lines = server.batches[0].lines if made else []
    others = [{**line, "custom_id": f"other-{number}"} for number, line in enumerate(lines)]
    server.batches.append(Lines("batch_x" if isinstance(server, OpenAIBatchServer) else "msgbatch_x", others, "", {}))
    async with batched(server, folder) as llm:
        answers = await asyncio.gather(*(llm.complete(one) for one in ("one", "two")))
        assert [answer.text for answer in answers] == ["ONE", "TWO"]
        assert sum(answer.usage.requests for answer in answers) == 2
        assert server.count(create_route(server)) == 1
        found = await llm.collect()
        assert len(found) == 2


async def test_a_lost_batch_at_work_is_waited_for(anthropic_server: AnthropicBatchServer, tmp_path: Path) -> None:
    """Whether it is ours shows only after it has ended; nothing is submitted until then."""
    server = anthropic_server
    server.held = True
    server.faults[create_route(server)].append(Fault(after=True))
    async with batched(server, tmp_path / "run") as llm:
        task = asyncio.create_task(llm.complete("one"))
        await until(lambda: server.count(list_route(server)) >= 4)
        assert server.count(create_route(server)) == 1
        server.held = False
        assert (await task).text == "ONE"
    assert server.asked == ["one"]


async def test_somebody_elses_batch_is_not_taken_for_ours(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "first") as llm:
        await llm.complete("one")
    server.faults[create_route(server)].append(Fault())
    async with batched(server, tmp_path / "second") as llm:
        await llm.complete("one")
    assert server.asked == ["one", "one"]


async def test_a_lost_batch_is_found_behind_many_others(server: BatchServer, tmp_path: Path) -> None:
    prefix = "batch" if isinstance(server, OpenAIBatchServer) else "msgbatch"
    server.faults[create_route(server)].append(Fault(after=True))
    async with batched(server, tmp_path / "run", poll=0.05) as llm:
        task = asyncio.create_task(llm.complete("one"))
        await until(lambda: len(server.batches) == 1)
        server.batches.extend(Lines(f"{prefix}_other{number}", [{}] * 3, "", {}) for number in range(250))
        assert (await task).text == "ONE"
    assert server.count(create_route(server)) == 1
    assert server.count(list_route(server)) >= 3


async def test_the_search_for_a_lost_batch_ends(server: BatchServer, tmp_path: Path) -> None:
    """Batches of last week are not looked through, page after page."""
    prefix = "batch" if isinstance(server, OpenAIBatchServer) else "msgbatch"
    old = time.time() - 3 * 86_400
    server.batches.extend(Lines(f"{prefix}_old{number}", [{}], "", {}, created=old) for number in range(500))
    server.faults[create_route(server)].append(Fault())
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("one")).text == "ONE"
    assert server.count(list_route(server)) <= 2


async def test_damaged_answers_are_fetched_again(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        await llm.complete("one")
    (answers,) = (tmp_path / "run" / "answers").iterdir()
    answers.write_bytes(answers.read_bytes()[:-9])
    async with batched(server, tmp_path / "run") as llm:
        assert (await llm.complete("one")).text == "ONE"
    assert server.asked == ["one"]


async def test_damaged_requests_are_not_guessed(server: BatchServer, tmp_path: Path) -> None:
    server.held = True
    async with batched(server, tmp_path / "run") as llm:
        await llm.submit(["one"])
    (requests,) = (tmp_path / "run" / "requests").iterdir()
    content = requests.read_bytes()
    requests.write_bytes(content.replace(b"one", b"two"))
    async with batched(server, tmp_path / "run") as llm:
        with pytest.raises(RunError, match="is not the file that was written; restore it"):
            await llm.complete("one")
        requests.write_bytes(content)
        server.held = False
        assert (await llm.complete("one")).text == "ONE"


async def test_a_journal_of_another_kind(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        await llm.complete("one")
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_text('{"id": "batch:abc", "result": {"state": "unheard of"}}\n')
    async with batched(server, tmp_path / "run") as llm:
        with pytest.raises(RunError, match="'batch:abc', that cannot be read"):
            await llm.complete("one")


async def test_one_folder_one_llm_one_process(server: BatchServer, tmp_path: Path) -> None:
    async with batched(server, tmp_path / "run") as llm:
        await llm.complete("one")
        script = (
            f"from filelock import FileLock, Timeout\n"
            f"try: FileLock({str(tmp_path / 'run' / 'lock')!r}).acquire(blocking=False)\n"
            f"except Timeout: print('locked')"
        )
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.strip() == "locked"
    other = batched(server, tmp_path / "run", llm=llm_of(server, extra_body={"top_k": 1}))
    async with other:
        with pytest.raises(RunMismatchError, match="another configuration"):
            await other.complete("one")
    assert issubclass(RunLockedError, RunError)


# Keys and options. ----------------------------------------------------------------------------------------------------


async def test_the_key_is_written_nowhere(
    server: BatchServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults[create_route(server)].extend([Fault(status=500), Fault(after=True, status=500)])
    server.faults[look_route(server)].extend([Fault(status=500)] * 5)
    server.results["refused"] = Refused(400, {"type": "bad", "message": f"your key is {CANARY}"})
    with caplog.at_level(logging.DEBUG, logger="icl_vision"):
        async with batched(server, tmp_path / "run") as llm:
            answers = await asyncio.gather(llm.complete("one"), llm.complete("refused"), return_exceptions=True)
            shown = repr(llm) + repr(answers) + "".join(map(str, answers))
    assert CANARY not in shown and CANARY not in caplog.text
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    assert all(CANARY.encode() not in body for body in server.bodies)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poll": 0}, "poll .seconds. must be a number above 0; got 0"),
        ({"poll": float("nan")}, "poll .seconds. must be a number"),
        ({"max_wait": -1}, "max_wait .seconds. must be a number above 0; got -1"),
        ({"window": "soon"}, "window .seconds. must be a number of 0 or more; got 'soon'"),
        ({"size": 0}, "size must be a whole number from 1 to 50,000"),
        ({"size": 60_000}, "got 60000"),
        ({"size": True}, "got True"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    llm = OpenAILLM("gpt-4o-mini", api_key=CANARY)
    with pytest.raises(UsageError, match=message):
        BatchLLM(llm, tmp_path, **options)


def test_an_llm_by_its_string(tmp_path: Path) -> None:
    llm = BatchLLM("openai:gpt-4o-mini", tmp_path / "run")
    assert llm.profile.name == "openai:gpt-4o-mini"
    assert not (tmp_path / "run").exists()  # nothing is read or written before the first question


# A budget. ------------------------------------------------------------------------------------------------------------


async def test_a_connected_llm_with_a_budget(server: BatchServer, tmp_path: Path) -> None:
    meter = Meter(budget=Budget(requests=2))
    llm = connect(llm_of(server), meter=meter)
    async with batched(server, tmp_path / "run", llm=llm) as batch:
        assert batch.identity == llm_of(server).identity  # the folder is the same with and without a budget
        answers = await asyncio.gather(*(batch.complete(text) for text in ("one", "one", "two")))
        assert [one.text for one in answers] == ["ONE", "ONE", "TWO"]
        spent = meter.total()[0]
        assert spent == sum((one.usage for one in answers), Usage()) and spent.requests == 2
        with pytest.raises(BudgetExceededError, match="the budget is 2"):
            await batch.complete("three")
        assert (await batch.complete("one")).usage.requests == 0  # from the folder
        with pytest.raises(BudgetExceededError):
            await batch.submit(["one", "three"])
        assert meter.total()[0] == spent and all(one == Usage() for one in meter._reserved.values())
    assert sorted(server.asked) == ["one", "two"]  # asked at the same time: in no order


async def test_what_a_batch_may_cost_is_held_until_it_is_known(server: BatchServer, tmp_path: Path) -> None:
    meter = Meter(budget=Budget(requests=3))
    server.held = True
    async with batched(server, tmp_path / "run", llm=MeteredLLM(llm_of(server), meter), max_wait=0.03) as batch:
        await batch.submit(["one", "two"])
        with pytest.raises(BudgetExceededError):
            await asyncio.gather(*(batch.complete(text) for text in ("three", "four")))
        with pytest.raises(LLMTimeoutError):
            await batch.complete("one")
        await until(lambda: not batch._entries)
        booked = meter.total()[0]
        assert booked.requests in (2, 3)  # under way, and to be paid for ("three" may have been sent)
        server.held = False
        assert (await batch.complete("one")).text == "ONE"
        assert meter.total()[0].requests == booked.requests  # written off before, so not booked twice


async def test_failed_and_unsent_requests_cost_no_tokens(server: BatchServer, tmp_path: Path) -> None:
    meter = Meter()
    async with batched(server, tmp_path / "run", llm=MeteredLLM(llm_of(server), meter), window=0.05) as batch:
        waiting = asyncio.create_task(batch.complete("never sent"))
        await until(lambda: batch._gathered)
        waiting.cancel()
        await until(lambda: not batch._gathered)
        assert meter.total()[0] == Usage() and all(one == Usage() for one in meter._reserved.values())
    batch = batched(server, tmp_path / "other", llm=MeteredLLM(llm_of(server), meter), window=60)
    waiting = asyncio.create_task(batch.complete("closed before"))
    await until(lambda: batch._gathered)
    await batch.aclose()
    with pytest.raises(LLMUnavailableError):
        await waiting
    assert meter.total()[0] == Usage() and all(one == Usage() for one in meter._reserved.values())


def test_what_goes_around_what_is_said(tmp_path: Path) -> None:
    llm = OpenAILLM("gpt-4o-mini", api_key=CANARY)
    with pytest.raises(CapabilityError, match=r"RecordingLLM\(BatchLLM\(llm, folder\), \.\.\.\).*'openai:gpt-4o-mini'"):
        BatchLLM(record(llm, tmp_path / "r.jsonl"), tmp_path)
    with pytest.raises(CapabilityError, match="give BatchLLM one of them, and let FallbackLLM hold the BatchLLM"):
        BatchLLM(FallbackLLM([llm, llm]), tmp_path)
    FallbackLLM([BatchLLM(llm, tmp_path / "run"), llm])
    record(BatchLLM(llm, tmp_path / "run"), tmp_path / "r.jsonl.2")


def test_llms_that_have_no_batch_endpoint(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="'fake' has no batch endpoint"):
        BatchLLM(FakeLLM("x"), tmp_path)
    with pytest.raises(CapabilityError, match="batch=True"):
        BatchLLM(OpenAILLM("some-new-model", api_key=CANARY), tmp_path)
    with pytest.raises(UsageError, match="BatchLLM goes inside the cache"):
        BatchLLM(CachedLLM(FakeLLM("x"), ResponseCache(tmp_path / "c.sqlite")), tmp_path)


async def test_no_key_is_told_to_every_caller(server: BatchServer, tmp_path: Path) -> None:
    kind = type(llm_of(server))
    name = "gpt-4o-mini" if kind is OpenAILLM else "claude-haiku-4-5"
    assert kind.key_variable not in os.environ
    async with batched(server, tmp_path / "run", llm=kind(name, base_url=server.url)) as llm:
        with pytest.raises(LLMUnavailableError, match=f"set {kind.key_variable}"):
            await llm.complete("one")
    assert server.log == []
