"""The one background event loop of the process, and the ways onto it.

Knows: threads, event loops, forks. Refuses to know: what the coroutines do.

All LLM clients, limiters and locks live on this loop, so they may be shared by
scripts, notebooks, threads and users' own event loops alike:

- ``run_sync(coro)`` blocks the calling thread until the coroutine is done. It works inside a running loop
  (a notebook cell) too, because the work is done on another thread.
- ``hop(coro)`` is awaited from any loop and does the work on the background loop.

The thread is a daemon, started at first use. A forked child starts its own: the
parent's thread does not exist there.

Everybody's requests wait while anything blocks this loop, so no file is touched, no picture decoded and nothing planned
on it: such work goes through ``asyncio.to_thread`` or, where it may take long or must keep its order, an ``OwnThread``.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import functools
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from icl_vision.errors import LLMTimeoutError, LLMUnavailableError, UsageError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _BackgroundLoop:
    """An event loop running in a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="icl-vision-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def freeze(self, timeout: float = 1.0) -> None:
        """Let nothing more happen on the loop, without ending what is on it."""
        frozen = threading.Event()

        def block() -> None:
            frozen.set()
            threading.Event().wait()

        self.loop.call_soon_threadsafe(block)
        frozen.wait(timeout)


_lock = threading.Lock()
_current: _BackgroundLoop | None = None
_of_parents: list[_BackgroundLoop] = []
_exiting = False
_exit_callbacks: list[Callable[[], None]] = []


def _forget_after_fork() -> None:
    global _lock, _current
    _lock = threading.Lock()
    if _current is not None:
        # Kept, not freed: closing it here would touch the file descriptors shared with the parent.
        _of_parents.append(_current)
        _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def background() -> asyncio.AbstractEventLoop:
    """The process's background loop, started if need be."""
    return _background().loop


def _background() -> _BackgroundLoop:
    global _current
    if _exiting:
        raise LLMUnavailableError("the program is ending; no LLM can be asked any more")
    with _lock:
        if _current is None or not _current.thread.is_alive():
            _current = _BackgroundLoop()
        return _current


def on_background_thread() -> bool:
    """True when called from a coroutine or callback that runs on the background loop."""
    current = _current
    return current is not None and threading.current_thread() is current.thread


class _Job(Generic[T]):
    """A coroutine on the loop. result: done when the coroutine has really ended, cancelled or not."""

    def __init__(self, coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine is needed; got {coro!r}")
        self.result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, coro)

    def _begin(self, coro: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coro)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.result.cancel()
            self.result.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())

    def cancel(self) -> None:
        """Cancel the coroutine, from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())


class Interruptible:
    """Threads that wait in ``run_sync`` and can be woken from another: a pool's, when Ctrl-C reaches the main thread.

    Without it a pool ends only when the last answer has come, since Ctrl-C is told to no thread but the main one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: set[_Job[Any]] = set()
        self._interrupted = False

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` in the calling thread, whose waits ``interrupt`` ends."""
        token = _scope.set(self)
        try:
            return function(*arguments)
        finally:
            _scope.reset(token)

    def interrupt(self) -> None:
        """Cancel what is waited for. Those waits, and any that begin later, raise KeyboardInterrupt."""
        with self._lock:
            self._interrupted = True
            waits = list(self._waits)
        for job in waits:
            job.cancel()

    def begun(self, job: _Job[Any]) -> None:
        """A thread begins to wait. Raises KeyboardInterrupt after ``interrupt``."""
        with self._lock:
            if self._interrupted:
                raise KeyboardInterrupt
            self._waits.add(job)

    def ended(self, job: _Job[Any]) -> None:
        """A thread waits no longer. Raises KeyboardInterrupt where ``interrupt`` is why."""
        with self._lock:
            interrupted = self._interrupted and job in self._waits
            self._waits.discard(job)
        if interrupted and job.result.cancelled():
            raise KeyboardInterrupt


_scope: contextvars.ContextVar[Interruptible | None] = contextvars.ContextVar("icl_vision_waits", default=None)
_LAST_WAIT = 5.0
"""Seconds that a coroutine has to end after its wait was interrupted."""


def run_sync(coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine on the background loop and wait for its result.

    Args:
        coro: the coroutine; it is closed unawaited if it cannot be started.
        timeout: seconds to wait at most, None for no limit; the coroutine is cancelled when they have passed.

    Raises:
        UsageError: called on the background loop's own thread, where waiting would never end.
        LLMTimeoutError: not done within ``timeout`` seconds.
        LLMUnavailableError: the program is ending.

    An interrupt (Ctrl-C) of the waiting thread cancels the coroutine and gives it some seconds to end.
    """
    if on_background_thread():
        coro.close()
        raise UsageError(
            "a _sync method was called from code running on icl_vision's own event loop, where it would wait for "
            "itself for ever; await the coroutine of the same name without _sync instead"
        )
    scope = _scope.get()
    try:
        job = _Job(coro, background())
    except BaseException:
        coro.close()
        raise
    try:
        if scope is not None:
            scope.begun(job)
        done, _ = concurrent.futures.wait([job.result], timeout)
    except BaseException:
        # What the coroutine still has to put away (a journal, a lock) is put away before the program goes on, or ends.
        job.cancel()
        concurrent.futures.wait([job.result], _LAST_WAIT)
        raise
    finally:
        if scope is not None:
            scope.ended(job)
    if not done:
        job.cancel()
        raise LLMTimeoutError(f"no answer within {timeout} s; raise the timeout or ask for less at a time")
    return job.result.result()


async def hop(coro: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine on the background loop from any event loop; cancelling the wait cancels the work."""
    try:
        loop = background()
    except BaseException:
        coro.close()
        raise
    if asyncio.get_running_loop() is loop:
        return await coro
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coro, loop))


class OwnThread:
    """A thread for blocking work that takes its turn: a file that may be locked, writes in order.

    name: of the thread, which starts with the first work. A forked child gets another.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._pid = 0

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)``, awaited. Who is cancelled stops waiting; the work is done all the same."""
        if self._pool is None or self._pid != os.getpid():
            self._pool = concurrent.futures.ThreadPoolExecutor(1, self._name)
            self._pid = os.getpid()
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await asyncio.shield(
            loop.run_in_executor(self._pool, context.run, functools.partial(function, *arguments))
        )

    def __reduce__(self) -> tuple[type[OwnThread], tuple[str]]:
        return OwnThread, (self._name,)


def at_exit(callback: Callable[[], None]) -> None:
    """Call something when the program ends, after the loop has been frozen."""
    _exit_callbacks.append(callback)


@atexit.register
def _at_exit() -> None:
    # Requests may still be waited for, by daemon threads of the user's. Cancelling them, or stopping the servers under
    # them, would wake those threads only to print tracebacks; so the loop is frozen first, and they die asleep.
    global _exiting
    _exiting = True
    if _current is not None:
        _current.freeze()
    for callback in _exit_callbacks:
        callback()
