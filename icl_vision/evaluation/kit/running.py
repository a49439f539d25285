"""A measurement while it runs: items into its journal, from any thread, when to stop asking, and what it ran on.

Knows: the journal, failures in a row, how long the rest will take, the machine. Refuses to know: what an item is.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.asking.jobs import Failures
from icl_vision.contracts import Usage
from icl_vision.cores import usable_cores
from icl_vision.errors import BudgetExceededError, ImageError
from icl_vision.forks import ForkLock

if TYPE_CHECKING:
    from icl_vision.files.runs import Run

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

    def _tell_time(self) -> None:
        """How long it will take, once some seconds were measured."""
        seconds = time.monotonic() - self._began
        finished = self.asked + self.failed
        if self._told or seconds < _MEASURED or not min(_MEASURED_ITEMS, self._missing - 1) <= finished < self._missing:
            return
        self._told = True
        left = seconds / finished * (self._missing - finished)
        self._say(f"{seconds / finished:.1f} s a question so far: about {_duration(left)} to go")


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
