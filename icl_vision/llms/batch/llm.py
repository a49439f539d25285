"""The providers' batch endpoints, half the price and up to a day's wait, behind the same call as any LLM.

``BatchLLM`` gathers the ``complete`` calls that arrive within a short window, submits them as batches, waits, and
gives each caller its own answer or its own error. ``submit`` and ``collect`` do the same in two steps.

Everything that matters is in a folder (``batch.folder``) before it is waited for. A process that is killed at any
moment finds its batches again, and a request that is under way or answered is never submitted a second time.
What failed, expired or was cancelled is never kept as an answer: asking again submits it anew.

Knows: callers and gathering. Refuses to know: how a batch gets to the provider and back (``batch.courier``), wire
formats (``batch.provider``), what is written where (``batch.folder``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import (
    CapabilityError,
    IclVisionError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.llms.answers import respelled
from icl_vision.llms.base import Settings, check_prompt, check_settings
from icl_vision.llms.batch.courier import Courier
from icl_vision.llms.batch.folder import Batch, BatchFolder, Request, RequestSettings, rebuilt
from icl_vision.llms.batch.provider import Provider, Result
from icl_vision.llms.connecting import connect
from icl_vision.llms.loop import OwnThread, hop, run_sync
from icl_vision.llms.modes import current_repeat
from icl_vision.llms.remote.resilience import Resilience, RetryPolicy
from icl_vision.llms.remote.transport import RemoteLLM
from icl_vision.llms.wrappers.cache import CachedLLM
from icl_vision.llms.wrappers.fallback import FallbackLLM
from icl_vision.llms.wrappers.metered import MeteredLLM
from icl_vision.llms.wrappers.wrapped import WrappedLLM

logger = logging.getLogger(__name__)

FORMAT = 1
POLICY = RetryPolicy(attempts=6, attempt_timeout=900.0, total_timeout=3600.0)
"""For talking about batches. A batch may be 200 MB in one piece: fifteen minutes are 2 Mbit/s."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A request that somebody waits for, or that is about to be submitted.

    kept: submit it even if nobody waits. reserved: what it may cost at the most, while the meter holds that for it.
    """

    waiters: list[asyncio.Future[Completion]] = field(default_factory=list)
    kept: bool = False
    reserved: Usage = field(default_factory=Usage)


@dataclass(slots=True, eq=False)
class _Work:
    """What is going on for one batch. accepted: done when the provider has it."""

    task: asyncio.Task[None]
    accepted: asyncio.Future[None]


class BatchLLM(WrappedLLM):
    """An LLM whose requests go out in batches.

    Args:
        llm: an LLM of a provider with a batch endpoint, as an object or as a string for ``connect``. One with a budget
            or a meter is fine: what is submitted here is booked there. To cache answers too, wrap this in
            ``CachedLLM``, not the other way round.
        folder: where batches are kept track of; made if missing, resumed if there. One folder belongs to one LLM with
            its options, and to one process at a time. It holds the prompts and the answers, no keys.
        poll: seconds between two looks at a batch.
        max_wait: seconds to wait for a batch. Its callers get LLMTimeoutError afterwards; the batch goes on, and asking
            again, here or in another process, waits for the same one. The default leaves an hour after the 24 hours
            in which providers end every batch.
        size: requests in one batch at most; None for the provider's limit.
        window: seconds in which requests are gathered, from the first of a batch on.
        resilience: for submitting, polling and fetching; the LLM's own is not used for these.

    ``complete`` raises, beside what every LLM raises: LLMTimeoutError (expired, or ``max_wait``), LLMError (cancelled),
    RunMismatchError (the folder belongs to another LLM), RunLockedError (another process has it open).
    Usage is counted once: of several callers with the same request one gets it, and an answer from the folder costs 0.
    Cancelling a caller cancels no batch; a request that nobody waits for any more before it was sent is left out.
    """

    def __init__(
        self,
        llm: TextLLM | str,
        folder: str | os.PathLike[str],
        *,
        poll: float = 15.0,
        max_wait: float = 90_000.0,
        size: int | None = None,
        window: float = 2.0,
        resilience: Resilience | None = None,
    ) -> None:
        self._poll = checks.number("poll (seconds)", poll, above=0)
        self._max_wait = checks.number("max_wait (seconds)", max_wait, above=0)
        self._window = checks.number("window (seconds)", window, least=0)
        if isinstance(llm, CachedLLM):
            raise UsageError("BatchLLM goes inside the cache: CachedLLM(BatchLLM(llm, folder), cache)")
        super().__init__(connect(llm))
        self._metered = self.llm if isinstance(self.llm, MeteredLLM) else None
        inner = self.llm if self._metered is None else self._metered.llm
        self._provider = _provider(inner, resilience or Resilience(POLICY))
        self._written_off: set[str] = set()
        most = self._provider.max_requests
        size = checks.count("size", size, most=most, of="requests", none="the provider's limit")
        self.folder = os.fspath(folder)
        self._size = most if size is None else size
        self._thread = OwnThread("icl-vision-batch")
        self._opening: asyncio.Task[BatchFolder] | None = None
        self._gathered: dict[str, Request] = {}
        self._gathered_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._entries: dict[str, _Entry] = {}
        self._work: dict[Batch, _Work] = {}
        self._spellings: dict[str, Constraint] = {}
        self._closed = False

    @property
    def profile(self) -> Profile:
        """The LLM's own, without what batches have not: scores, and requests that fill the prefix cache for others."""
        return replace(self.llm.profile, scores_text=False, prefix_cache=False)

    # ---- in two steps ----

    async def submit(
        self,
        prompts: Iterable[Prompt | str],
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
    ) -> tuple[str, ...]:
        """Submit what is neither answered nor under way; done when the provider has all of it and the folder says so.

        prompts and settings: as for ``complete``. Returns a request id per prompt, the same for the same question, for
        ``collect``. Raises what ``complete`` raises where a batch could not be submitted.
        """
        checked = [check_prompt(prompt) for prompt in prompts]
        settings = check_settings(
            self.profile, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, constraint=constraint
        )
        keys = await hop(self._submit(checked, RequestSettings(**settings)))
        if constraint is not None:
            self._spellings.update(dict.fromkeys(keys, constraint))
        return keys

    async def collect(self, ids: Iterable[str] | None = None, *, wait: bool = True) -> dict[str, Result]:
        """Answers by request id, in the order asked; an error stands in an answer's place.

        ids: of ``submit``; None for every request of the folder, also of earlier processes. wait: False looks once and
        leaves out what is still under way. Usage is what each answer cost, whenever that was.

        Raises UsageError for an id that this folder does not know.
        """
        outcomes = await hop(self._collect(None if ids is None else list(ids), wait))
        return {
            key: respelled(outcome, self._spellings[key])
            if isinstance(outcome, Completion) and key in self._spellings
            else outcome
            for key, outcome in outcomes.items()
        }

    def submit_sync(
        self,
        prompts: Iterable[Prompt | str],
        *,
        max_tokens: int = 16,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        constraint: Constraint | None = None,
    ) -> tuple[str, ...]:
        """``submit`` for code that does not await."""
        return run_sync(
            self.submit(
                prompts, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, constraint=constraint
            )
        )

    def collect_sync(self, ids: Iterable[str] | None = None, *, wait: bool = True) -> dict[str, Result]:
        """``collect`` for code that does not await."""
        return run_sync(self.collect(ids, wait=wait))

    # ---- callers ----

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        folder = await self._open()
        request = self._request(prompt, RequestSettings(**settings))
        stored = await self._stored(folder, request.key)
        if stored is not None:
            return replace(stored, usage=Usage())
        entry = self._entry(folder, request, await self._reserve(folder, prompt, request))
        waiter: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            entry.waiters.remove(waiter)
            if (
                not entry.waiters
                and not entry.kept
                and self._entries.get(request.key) is entry
                and request.key in self._gathered
            ):
                del self._gathered[request.key]
                del self._entries[request.key]
                self._gathered_bytes -= self._bytes(request)
                self._book(entry, Usage())
            raise

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        raise CapabilityError(
            f"{self.llm.profile.name!r} gives no log-probabilities of a given text through its batch endpoint"
        )

    async def _submit(self, prompts: Sequence[Prompt], settings: RequestSettings) -> tuple[str, ...]:
        folder = await self._open()
        requests = [self._request(prompt, settings) for prompt in prompts]
        for prompt, request in zip(prompts, requests, strict=True):
            if await self._stored(folder, request.key) is None:
                self._entry(folder, request, await self._reserve(folder, prompt, request)).kept = True
        self._send(folder)
        if self._sending:
            await asyncio.gather(*map(asyncio.shield, self._sending))
        for batch in {batch for request in requests if (batch := folder.batch_of(request.key)) is not None}:
            await asyncio.shield(self._follow(folder, batch).accepted)
        return tuple(request.key for request in requests)

    async def _collect(self, ids: list[str] | None, wait: bool) -> dict[str, Result]:
        folder = await self._open()
        self._send(folder)
        if self._sending:
            await asyncio.wait(self._sending)  # a failure belongs to those who asked
        known = folder.keys()
        wanted = known if ids is None else ids
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise UsageError(
                f"{self.folder!r} holds no request {unknown[0]!r} ({len(unknown)} unknown in all); ids come from "
                "submit()"
            )
        broken: dict[Batch, IclVisionError] = {}
        for batch in dict.fromkeys(batch for key in wanted if (batch := folder.batch_of(key)) is not None):
            try:
                if wait or (batch.id is not None and (await self._provider.progress(batch.id)).ended):
                    await asyncio.shield(self._follow(folder, batch).task)
            except IclVisionError as error:
                broken[batch] = error
        return await self._thread.run(_outcomes, folder, wanted, broken)

    async def _stored(self, folder: BatchFolder, key: str) -> Completion | None:
        """The answer in the folder, read in its thread; what came back while it was read is read too."""
        place = folder.place_of(key)
        while place is not None:
            answer = await self._thread.run(folder.answer, key)
            before, place = place, folder.place_of(key)
            if answer is not None or place is before:
                return answer
        return None

    def _request(self, prompt: Prompt, settings: RequestSettings) -> Request:
        document = [
            FORMAT,
            self.identity,
            [prompt.instruction, prompt.context, prompt.query],
            settings.to_dict(),
            current_repeat(),
        ]
        key = hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        return Request(key, self._provider.body(prompt, settings), settings)

    # ---- gathering ----

    async def _reserve(self, folder: BatchFolder, prompt: Prompt, request: Request) -> Usage:
        """Have the meter hold what a new request may cost; nothing for one that is on its way.

        Raises BudgetExceededError where it would pass the budget.
        """
        if self._metered is None or request.key in self._entries or folder.batch_of(request.key) is not None:
            return Usage()
        settings = request.settings
        most = await asyncio.to_thread(
            self._metered.estimate, prompt, max_tokens=settings.max_tokens, constraint=settings.constraint
        )
        if request.key in self._entries or folder.batch_of(request.key) is not None:
            return Usage()  # somebody else was faster
        self._metered.meter.reserve(self._metered.name, most)
        return most

    def _book(self, entry: _Entry, spent: Usage) -> None:
        """Put what a request cost in the place of what was held for it."""
        if self._metered is not None:
            self._metered.meter.settle(self._metered.name, entry.reserved, spent)
            entry.reserved = Usage()

    def _bytes(self, request: Request) -> int:
        """The size of a request in a batch's file, about."""
        return len(json.dumps(self._provider.line("x" * 57, request.body), ensure_ascii=False).encode()) + 2

    def _entry(self, folder: BatchFolder, request: Request, reserved: Usage) -> _Entry:
        """The one entry of a request: on its way already, or gathered now. reserved: what the meter holds for it."""
        entry = self._entries.get(request.key)
        batch = folder.batch_of(request.key)
        if entry is not None:
            return entry
        entry = self._entries[request.key] = _Entry()
        if batch is not None:  # of an earlier process, or one whose callers gave up
            self._follow(folder, batch)
            return entry
        entry.reserved = reserved
        size = self._bytes(request)
        if self._gathered_bytes + size > self._provider.max_bytes:
            self._send(folder)
        self._gathered[request.key] = request
        self._gathered_bytes += size
        if len(self._gathered) >= self._size:
            self._send(folder)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._send, folder)
        return entry

    def _send(self, folder: BatchFolder) -> None:
        """Make a batch of what is gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered, self._gathered_bytes = self._gathered, {}, 0
        if not gathered:
            return

        async def send() -> None:
            try:
                # A file of up to 200 MB: not on the loop that serves every other LLM.
                batch = await asyncio.to_thread(folder.add, list(gathered.values()))
                self._follow(folder, batch)
            except BaseException as error:
                self._fail(gathered, error)
                raise

        task = asyncio.get_running_loop().create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        task.add_done_callback(_seen)

    # ---- one batch ----

    def _follow(self, folder: BatchFolder, batch: Batch) -> _Work:
        """The work on a batch, started unless it is going on."""
        work = self._work.get(batch)
        if work is None:
            self._check_open()
            accepted = asyncio.get_running_loop().create_future()
            task = asyncio.get_running_loop().create_task(self._carry_through(folder, batch, accepted))
            work = self._work[batch] = _Work(task, accepted)
            task.add_done_callback(_seen)
            accepted.add_done_callback(_seen)
        return work

    async def _carry_through(self, folder: BatchFolder, batch: Batch, accepted: asyncio.Future[None]) -> None:
        try:
            courier = Courier(self._provider, folder, poll=self._poll, max_wait=self._max_wait)
            if batch.id is None:
                await courier.hand_in(batch)
            accepted.set_result(None)
            outcomes = await courier.bring_back(batch)
        except BaseException as error:
            # The batch stays in the folder as it is: whoever asks again waits for it anew.
            self._work.pop(batch, None)
            if not accepted.done():
                if isinstance(error, Exception):
                    accepted.set_exception(error)
                else:
                    accepted.cancel()
            self._fail(batch.keys, error, sent=batch.state in ("intent", "submitted"))
            if self._closed and isinstance(error, asyncio.CancelledError):
                raise self._interrupted() from None  # for collect(): it was not its caller that was cancelled
            raise
        self._work.pop(batch, None)
        for key, outcome in outcomes.items():
            self._settle(key, outcome)

    # ---- answering ----

    def _settle(self, key: str, outcome: Result) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if key in self._written_off:
            self._written_off.discard(key)
        else:
            # What failed in a batch is not charged, but for answers that are none.
            known = outcome.usage if isinstance(outcome, Completion) else getattr(outcome, "usage", None)
            self._book(entry, known if isinstance(known, Usage) else Usage(requests=1))
        waiting = [waiter for waiter in entry.waiters if not waiter.done()]
        for number, waiter in enumerate(waiting):
            if isinstance(outcome, Completion):
                waiter.set_result(outcome if number == 0 else replace(outcome, usage=Usage()))
            else:
                waiter.set_exception(_copy(outcome))

    def _fail(self, keys: Iterable[str], error: BaseException, *, sent: bool = False) -> None:
        """End the waiting for requests. sent: they may be on their way, and have to be paid for."""
        if isinstance(error, asyncio.CancelledError):
            error = self._interrupted()
        for key in keys:
            entry = self._entries.pop(key, None)
            if entry is not None:
                if sent and entry.reserved.requests:
                    self._written_off.add(key)
                self._book(entry, entry.reserved if sent else Usage())
            for waiter in () if entry is None else entry.waiters:
                if not waiter.done():
                    waiter.set_exception(_copy(error))

    def _interrupted(self) -> LLMUnavailableError:
        return LLMUnavailableError(
            f"waiting for a batch was ended; it is kept in {self.folder!r}, ask again to go on waiting"
        )

    # ---- opening and closing ----

    async def _open(self) -> BatchFolder:
        self._check_open()
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.get_running_loop().create_task(self._opened())
            self._opening.add_done_callback(_seen)
        folder = await asyncio.shield(self._opening)
        self._check_open()  # again: it may have been closed meanwhile
        return folder

    def _check_open(self) -> None:
        if self._closed:
            raise LLMUnavailableError(f"this BatchLLM of {self.folder!r} was closed; make another")

    async def _opened(self) -> BatchFolder:
        folder = await self._thread.run(BatchFolder.open, self.folder, self.identity)
        try:
            await self._thread.run(folder.load)
        except BaseException:
            await self._thread.run(folder.close)
            raise
        return folder

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sending:
            await asyncio.wait(self._sending)
        tasks = [work.task for work in self._work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        unsent = LLMUnavailableError(f"this BatchLLM of {self.folder!r} was closed before the request was submitted")
        self._fail(list(self._entries), unsent)
        if self._opening is not None:
            await asyncio.wait([self._opening])
            if not self._opening.cancelled() and self._opening.exception() is None:
                await self._thread.run(self._opening.result().close)
        await super()._close()


def _provider(llm: TextLLM, resilience: Resilience) -> Provider:
    name = llm.profile.name
    if isinstance(llm, RemoteLLM) and llm.profile.batch:
        if llm.sdk == "openai":
            from icl_vision.llms.batch.openai import OpenAIBatches

            return OpenAIBatches(llm, resilience)
        if llm.sdk == "anthropic":
            from icl_vision.llms.batch.anthropic import AnthropicBatches

            return AnthropicBatches(llm, resilience)
    if isinstance(llm, WrappedLLM):
        kind = type(llm).__name__
        raise CapabilityError(
            f"a {kind} answers requests one by one; put it around the batches, {kind}(BatchLLM(llm, folder), ...), and "
            f"give BatchLLM the LLM that is in it, {llm.llm.profile.name!r}"
        )
    if isinstance(llm, FallbackLLM):
        raise CapabilityError(
            f"{name!r} asks several LLMs, and a batch goes to one; give BatchLLM one of them, and let FallbackLLM hold "
            "the BatchLLM"
        )
    raise CapabilityError(
        f"{name!r} has no batch endpoint that this library knows; use 'openai:MODEL' or 'anthropic:MODEL' with a model "
        "whose profile says batch=True"
    )


def _outcomes(folder: BatchFolder, keys: Sequence[str], broken: Mapping[Batch, IclVisionError]) -> dict[str, Result]:
    """How each request ended, of those that have; read from the folder's files."""
    outcomes: dict[str, Result] = {}
    for key in keys:
        batch = folder.batch_of(key)
        outcome = broken.get(batch) if batch is not None else folder.answer(key) or folder.error(key)
        if outcome is not None:
            outcomes[key] = outcome
    return outcomes


def _seen(done: asyncio.Future[Any]) -> None:
    """Mark a failure as seen: its callers were told, or there are none."""
    if not done.cancelled():
        done.exception()


def _copy(error: BaseException) -> BaseException:
    """An error of its own for each caller: one that many raise would collect all their tracebacks."""
    if isinstance(error, IclVisionError):
        return rebuilt(type(error), str(error), vars(error))
    return error
