"""A measurement while it runs: items into its journal, from any thread, when to stop asking, and what it ran on.

Knows: the journal, the threads that ask, failures in a row, how long the rest will take, why a row cannot be had, the
machine. Refuses to know: what an item is.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.asking.jobs import Failures
from icl_vision.contracts import Usage
from icl_vision.cores import usable_cores
from icl_vision.errors import BudgetExceededError, ImageError, MissingExtraError, PromptTooLongError
from icl_vision.forks import ForkLock
from icl_vision.llms.loop import Interruptible

if TYPE_CHECKING:
    from icl_vision.files.runs import Run

EXCEEDS_WINDOW = "exceeds window"
_MEASURED = 2.0
_MEASURED_ITEMS = 14  # an episode of each number of ways in all settings: short and long prompts alike


@dataclass(frozen=True, slots=True)
class Failed:
    """An item without an answer: why, and what was used before it failed."""

    error: Exception
    usage: Usage


class Keeper:
    """One call of ``run``: what is journalled, by which thread ever, and whether to go on."""

    def __init__(self, run: Run, done: Callable[[int], None], say: Callable[[str], None], missing: int) -> None:
        self.run = run
        self.asked = 0
        self.failed = 0
        self.problem = ""
        self.stopped: BaseException | None = None
        self._done = done
        self._say = say
        self._missing = missing
        self._failures = Failures((ImageError,))
        self._began = time.monotonic()
        self._told = False
        self._lock = ForkLock()

    def keep(self, item: str, document: dict[str, Any] | Failed) -> None:
        """Journal one item; returns when it is on disk."""
        with self._lock:
            if isinstance(document, Failed):
                error = document.error
                if isinstance(error, BudgetExceededError) and document.usage == Usage():
                    self.stopped = self.stopped or error  # nothing was asked, so there is nothing to journal
                    return
                self.run.record_error(item, error, document.usage)
                if isinstance(error, BudgetExceededError):
                    self.stopped = self.stopped or error
                    return
                self.failed += 1
                self.problem = self.problem or f"{item}: {type(error).__name__}: {error}"
                if self._failures.end(error):
                    self.stopped = self.stopped or error
            else:
                self.run.record(item, document)
                self._failures.none()
                self.asked += 1
            self._done(1)
            self._tell_time()

    @contextlib.contextmanager
    def working(self, concurrency: int, name: str) -> Iterator[Callable[..., concurrent.futures.Future[None]]]:
        """Threads that ask: gives what has one of them call a function. They are done, or stopped, when it is left.

        concurrency: how many there are. name: of the threads.

        Raises:
            What was raised inside, or made the keeper stop. Threads that wait for an LLM are told of a Ctrl-C.
        """
        waits = Interruptible()

        def begin(ask: Callable[..., None], *arguments: Any) -> concurrent.futures.Future[None]:
            return pool.submit(waits.run, ask, *arguments)

        with concurrent.futures.ThreadPoolExecutor(concurrency, name) as pool:
            try:
                yield begin
            except BaseException as error:
                self.stopped = self.stopped or error
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):  # Ctrl-C, of which no other thread is told
                    waits.interrupt()
                raise
        if self.stopped is not None:
            raise self.stopped

    def _tell_time(self) -> None:
        """How long it will take, once some seconds were measured."""
        seconds = time.monotonic() - self._began
        finished = self.asked + self.failed
        if self._told or seconds < _MEASURED or not min(_MEASURED_ITEMS, self._missing - 1) <= finished < self._missing:
            return
        self._told = True
        left = seconds / finished * (self._missing - finished)
        self._say(f"{seconds / finished:.1f} s a question so far: about {_duration(left)} to go")


def note_of(error: Exception) -> str:
    """What a table says where a row cannot be had."""
    if isinstance(error, PromptTooLongError):
        return EXCEEDS_WINDOW
    if isinstance(error, MissingExtraError):
        return f"not installed: pip install 'icl-vision[{error.extra}]'"
    text = str(error)
    return text if text.startswith(("not installed", "not available")) else f"not available: {text}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory and operating system; no host or user name."""
    processor, memory = platform.processor() or platform.machine(), None
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError, AttributeError):
        pass  # not Linux
    return {"processor": processor, "cores": usable_cores(), "memory_gib": memory, "system": platform.system()}
