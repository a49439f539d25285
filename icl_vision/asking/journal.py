"""What came back in one call of a task: on disk before anything is built upon it, and before anything else is asked.

Knows: run folders, failures one after the other. Refuses to know: what an item is, and what is asked about it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from icl_vision.contracts import Usage
from icl_vision.errors import LLMStatusError
from icl_vision.files.runs import Run
from icl_vision.llms.remote.resilience import QUOTA_CODES

FAILURES_IN_A_ROW = 20
"""So many inquiries in a row that the LLM could not answer, each after all its retries, and the run stops."""


class Failures:
    """Errors one after the other, and when there is no use in going on.

    own: kinds of errors that say something of their item alone.
    """

    def __init__(self, own: tuple[type[Exception], ...] = ()) -> None:
        self._own = own
        self._in_a_row = 0

    def none(self) -> None:
        """Something was answered."""
        self._in_a_row = 0

    def end(self, error: BaseException) -> bool:
        """Count an error; whether the run ends with it."""
        self._in_a_row += not isinstance(error, self._own)
        return is_final(error) or self._in_a_row >= FAILURES_IN_A_ROW


def is_final(error: BaseException) -> bool:
    """Whether every other inquiry would fail the same way: a wrong key, no money, no such model."""
    return isinstance(error, LLMStatusError) and (error.status in (401, 402, 403, 404) or error.code in QUOTA_CODES)


class Journal:
    """The journal of one call; without a run it keeps nothing.

    One thread writes, in order, so that its fsync does not hold up the event loop.

    Args:
        run: an open run folder, which the caller closes after the journal.
        own: see ``Failures``.
    """

    def __init__(self, run: Run | None, own: tuple[type[Exception], ...] = ()) -> None:
        self.run = run
        self._writer = None if run is None else concurrent.futures.ThreadPoolExecutor(1, "icl-vision-journal")
        self._failures = Failures(own)

    def results(self) -> Iterator[tuple[str, Any]]:
        """What the run had before this call: finished items with their results."""
        if self.run is not None:
            yield from self.run.results()

    async def record(self, item: str, result: dict[str, Any]) -> None:
        """Keep an item's result; returns when it is on disk."""
        if self.run is not None:
            await self._write(partial(self.run.record, item, result))
        self._failures.none()

    async def record_error(self, item: str, error: Exception, usage: Usage) -> bool:
        """Keep a failure and what it cost, to be asked again on resume; whether there is no use in going on."""
        if self.run is not None:
            await self._write(partial(self.run.record_error, item, error, usage))
        return self._failures.end(error)

    async def _write(self, write: Callable[[], None]) -> None:
        # Shielded: an answer that was paid for is written down even if another one ends the call right now.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, write))

    def close(self) -> None:
        """Wait until everything is written."""
        if self._writer is not None:
            self._writer.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
