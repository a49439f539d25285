"""The background loop: from scripts, running loops, threads, forked children; and how it refuses to wait for itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from icl_vision.errors import LLMTimeoutError, UsageError
from icl_vision.llms import loop


async def where() -> tuple[int, asyncio.AbstractEventLoop]:
    await asyncio.sleep(0)
    return threading.get_ident(), asyncio.get_running_loop()


def test_every_call_runs_on_the_same_loop_and_another_thread():
    first, second = loop.run_sync(where()), loop.run_sync(where())
    assert first == second
    assert first[0] != threading.get_ident()


async def test_sync_works_inside_a_running_loop():
    assert loop.run_sync(where())[1] is not asyncio.get_running_loop()


async def test_hop_awaits_from_any_loop():
    assert await loop.hop(where()) == loop.run_sync(where())


def test_hop_on_the_background_loop_stays_there():
    async def outer() -> tuple[int, asyncio.AbstractEventLoop]:
        return await loop.hop(where())

    assert loop.run_sync(outer()) == loop.run_sync(where())


def test_many_threads():
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: loop.run_sync(where()), range(40)))) == 1


def test_sync_on_the_loop_thread_is_refused_instead_of_waiting_for_ever():
    async def outer() -> None:
        loop.run_sync(where())

    with pytest.raises(UsageError, match="await the coroutine of the same name without _sync"):
        loop.run_sync(outer())


def test_timeout_cancels_the_work():
    cancelled = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(LLMTimeoutError, match=r"no answer within 0\.05 s"):
        loop.run_sync(slow(), timeout=0.05)
    assert cancelled.wait(5)


def test_a_timeout_of_the_work_itself_is_passed_on():
    async def raises() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        loop.run_sync(raises(), timeout=30)


def test_an_interrupt_of_the_waiting_thread_cancels_the_work(monkeypatch):
    cancelled = threading.Event()
    started = threading.Event()

    async def slow() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(futures, timeout=None):
        assert started.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.concurrent.futures, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run_sync(slow())
    assert cancelled.wait(5)


def test_an_interrupt_waits_until_the_work_has_put_its_things_away(monkeypatch):
    began, put_away, waits = threading.Event(), [], []
    wait = loop.concurrent.futures.wait

    async def slow() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.to_thread(put_away.append, "journal")

    def interrupted_once(futures, timeout=None):
        waits.append(timeout)
        if len(waits) == 1:
            assert began.wait(5)
            raise KeyboardInterrupt
        return wait(futures, timeout)

    monkeypatch.setattr(loop.concurrent.futures, "wait", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        loop.run_sync(slow())
    assert put_away == ["journal"]


def test_an_interrupt_reaches_the_waits_of_other_threads():
    began, waits = threading.Semaphore(0), loop.Interruptible()

    async def slow() -> None:
        began.release()
        await asyncio.sleep(60)

    def swallowing() -> None:
        for _ in range(3):
            try:
                loop.run_sync(slow())
            except Exception:  # what a row does with an LLM's error: no such error ends here
                continue

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(waits.run, swallowing) for _ in range(2)]
        assert all(began.acquire(timeout=5) for _ in running)
        waits.interrupt()
        for one in running:
            with pytest.raises(KeyboardInterrupt):
                one.result(5)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(waits.run, swallowing).result(5)
    assert loop.run_sync(where())  # no others


def test_work_that_cancels_itself_is_no_interrupt():
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError):
        loop.Interruptible().run(loop.run_sync, gives_up())


async def test_cancelling_a_hop_cancels_the_work():
    cancelled, started = threading.Event(), threading.Event()

    async def slow() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(loop.hop(slow()))
    assert await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.wait(5)


SCRIPT = """
import asyncio, os, sys
from icl_vision.llms import loop
async def answer():
    await asyncio.sleep(0)
    return 42
assert loop.run_sync(answer()) == 42
child = os.fork()
if child == 0:
    assert loop.run_sync(answer()) == 42
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
async def for_ever():
    await asyncio.sleep(3600)
import threading
threading.Thread(target=lambda: loop.run_sync(for_ever()), daemon=True).start()
print(loop.run_sync(answer()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_and_clean_end_with_work_pending():
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout.strip()) == (0, "42"), result.stderr


AT_EXIT = """
import atexit
def late():
    from icl_vision.errors import LLMUnavailableError
    async def answer(): return 1
    try:
        loop.run_sync(answer())
    except LLMUnavailableError as error:
        print(error)
atexit.register(late)
from icl_vision.llms import loop
async def answer(): return 42
loop.at_exit(lambda: print("callback"))
print(loop.run_sync(answer()))
"""


def test_a_late_call_is_refused_instead_of_waiting_for_ever():
    result = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60)
    lines = ["42", "callback", "the program is ending; no LLM can be asked any more"]
    assert (result.returncode, result.stdout.splitlines(), result.stderr) == (0, lines, "")
