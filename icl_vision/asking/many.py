"""Many items into a run folder: every answer is on disk before the next inquiry takes its place.

Killed at any moment and called again with the run reopened, it goes on: items with an answer in the journal are not
asked about again, so at most those in flight are. An error is journalled as an error and asked again.

Items are taken a few hundred at a time: while one lot is asked about, the next is read.

Knows: items, their order, when to stop. Refuses to know: what an item is, how it is read and asked about, the journal's
format (``files.runs``).
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from icl_vision.asking.jobs import Journal
from icl_vision.contracts import Usage
from icl_vision.errors import BudgetExceededError, PromptError, UnknownAnswerError
from icl_vision.files.runs import Run
from icl_vision.llms.loop import run_sync

LOT = 256
"""Items that are read together: enough to keep the LLM busy meanwhile, few enough for a small memory."""

Source = TypeVar("Source")
Lot = TypeVar("Lot")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    folder: the run's. rows: one per item, in the order given, as the task tells them; those that failed have an
    ``error``. answered: items asked about in this call; kept: known from before; failed: with an error. usage: of all
    answers in the run.
    """

    folder: Path
    rows: list[dict[str, Any]]
    answered: int
    kept: int
    failed: int
    usage: Usage


class Result(Protocol):
    """What a task says of one item: an answer, or the error in its place."""

    @property
    def error(self) -> Exception | None: ...

    @property
    def usage(self) -> Usage: ...

    def to_dict(self) -> dict[str, Any]: ...


OnResult = Callable[[int, Any], Awaitable[None]]
"""Told of one ``Result`` of a lot, by its number there; returns when it is on disk."""


@dataclass(slots=True)
class Work(Generic[Source, Lot]):
    """One call: many items asked about, their results kept.

    identify: from an item's name and source, its id in the journal, and the source in a form that can be read again.
    read: a lot of items, in a thread of its own: everything that comes before the LLM. ask: about such a lot; to tell
    of each result at once. done: told how many items are finished. own: kinds of errors that say something of their
    item alone. known: results by id, at first those from before; errors: of this call, by id; items: the ids, in the
    order given.
    """

    run: Run
    identify: Callable[[str, Source], tuple[str, Source]]
    read: Callable[[list[Source]], Lot]
    ask: Callable[[Lot, OnResult], Awaitable[object]]
    done: Callable[[int], None] = lambda count: None
    own: tuple[type[Exception], ...] = ()
    known: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    answered: int = 0
    kept: int = 0
    _seen: set[str] = field(default_factory=set)
    _stopped: Exception | None = None

    def all(self, sources: Sequence[tuple[str, Source]], at_once: int) -> None:
        """Ask about every item that has no answer yet.

        Args:
            sources: items with their names.
            at_once: calls that may be in flight together.

        Raises:
            BudgetExceededError: the budget does not allow the next inquiry. Everything answered is kept.
            LLMError: the LLM refuses for good (a wrong key, an account without money, no such model), or failed
                ``FAILURES_IN_A_ROW`` times in a row. Everything answered is kept.
        """
        # With a batch API thousands are in flight at once: a lot must not be smaller than that.
        size = max(LOT, at_once)
        lots = [sources[start : start + size] for start in range(0, len(sources), size)]
        with (
            Journal(self.run, (PromptError, UnknownAnswerError, *self.own)) as journal,
            concurrent.futures.ThreadPoolExecutor(1, "icl-vision-words") as reader,
        ):
            upcoming = reader.submit(self._read, lots[0]) if lots else None
            for number, _ in enumerate(lots, start=1):
                assert upcoming is not None
                ids, lot = upcoming.result()
                upcoming = reader.submit(self._read, lots[number]) if number < len(lots) else None
                try:
                    run_sync(self._ask(ids, lot, journal))
                    if self._stopped is not None:
                        raise self._stopped
                except BaseException:
                    if upcoming is not None:
                        upcoming.cancel()
                    raise

    @property
    def usage(self) -> Usage:
        """Of all answers there are."""
        return sum((_usage(self.known.get(item)) for item in dict.fromkeys(self.items)), Usage())

    def _read(self, sources: Sequence[tuple[str, Source]]) -> tuple[list[str], Lot]:
        """The items that have no answer yet: their ids, and the lot of them."""
        new: dict[str, Source] = {}
        for name, source in sources:
            item, source = self.identify(name, source)
            self.items.append(item)
            if item in self._seen:
                self.done(1)  # given twice: asked once
            elif item in self.known:
                self.kept += 1
                self.done(1)
            else:
                self._seen.add(item)
                new[item] = source
        return list(new), self.read(list(new.values()))

    async def _ask(self, ids: Sequence[str], lot: Lot, journal: Journal) -> None:
        async def keep(number: int, result: Result) -> None:
            await self._keep(ids[number], result, journal)

        await self.ask(lot, keep)

    async def _keep(self, item: str, result: Result, journal: Journal) -> None:
        """Journal one result; returns when it is on disk."""
        error = result.error
        if error is None:
            document = result.to_dict()
            del document["error"]
            await journal.record(item, document)
            self.known[item] = document
            self.answered += 1
        elif isinstance(error, BudgetExceededError):
            # Nothing was asked, so there is nothing to journal; what is in flight may still be answered.
            self._stopped = error
            return
        else:
            ends = await journal.record_error(item, error, result.usage)
            self.errors[item] = f"{type(error).__name__}: {error}"
            if ends:
                raise error
        self.done(1)


def _usage(result: Any) -> Usage:
    told = result.get("usage") if isinstance(result, Mapping) else None
    names = Usage().to_dict()
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), int) for name in names):
        return Usage()
    return Usage(**{name: told[name] for name in names})
