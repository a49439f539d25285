"""The way of one batch to the provider and back, whatever happened to it before.

Knows: the order of steps, and that a batch whose submission was cut off is looked for before it is submitted again.
Refuses to know: who asked (``batch``), wire formats (``batch.provider``), files (``batch.folder``).
"""

from __future__ import annotations

import asyncio
import logging
import time

from icl_vision.contracts import Completion
from icl_vision.errors import IclVisionError, LLMError, LLMResponseError, LLMTimeoutError, LLMUnavailableError
from icl_vision.llms.batch.folder import Batch, BatchFolder
from icl_vision.llms.batch.provider import Progress, Provider, Result, UnsureError
from icl_vision.llms.remote.resilience import is_retryable

logger = logging.getLogger(__name__)

DOWNLOADS = 3
"""Fetches of results in which lines are damaged or missing, ``poll`` apart, before those requests count as failed."""

SUBMISSIONS = 5
"""Attempts to make a batch where the one before left it open whether it was made, and none was found."""


class Courier:
    """Takes batches to the provider and brings their outcomes back into the folder.

    poll, max_wait: seconds between two looks, and for all of them.
    """

    def __init__(self, provider: Provider, folder: BatchFolder, *, poll: float, max_wait: float) -> None:
        self.provider = provider
        self.folder = folder
        self._poll = poll
        self._max_wait = max_wait

    async def hand_in(self, batch: Batch) -> None:
        """Have the provider make the batch, once.

        Raises what submitting raises. Where it is certain that the batch was not made its requests are free to be asked
        again; otherwise it stays in the folder to be looked for.
        """
        provider, folder = self.provider, self.folder
        name = provider.llm.profile.name
        unsure = batch.state == "intent"
        batch_id: str | None = None
        try:
            marker = None if unsure else await provider.marker()
            for _ in range(SUBMISSIONS):
                if unsure:
                    logger.info("batch %s may have been submitted before; looking for it", batch.name)
                    batch_id = await self._found(batch)
                    if batch_id is not None:
                        break
                    unsure = False
                lines = await asyncio.to_thread(
                    lambda: [
                        provider.line(batch.custom_id(request.key), request.body) for request in folder.requests(batch)
                    ]
                )
                uploaded = await provider.upload(batch, lines)
                await asyncio.to_thread(folder.intend, batch, marker)
                unsure = True
                try:
                    batch_id = await provider.create(batch, uploaded)
                    break
                except UnsureError as error:
                    logger.warning("it is open whether batch %s was made (%s)", batch.name, error)
                    batch.at = time.time()
                except IclVisionError:
                    unsure = False
                    raise
            if batch_id is None:
                raise LLMUnavailableError(
                    f"{name!r} made no batch in {SUBMISSIONS} attempts, each of which was cut off; ask again later"
                )
        except IclVisionError as error:
            if not unsure:
                # Certainly not made: its requests are free to be asked again.
                await asyncio.to_thread(folder.failed, batch, error)
            raise
        await asyncio.to_thread(folder.submitted, batch, batch_id)
        logger.info("batch %s submitted with %d requests as %s", batch.name, batch.count, batch_id)

    async def _found(self, batch: Batch) -> str | None:
        """The id of a batch that may have been made; None when it is certain that it was not."""
        # What was cut off may still be on its way inside the provider.
        await asyncio.sleep(min(self._poll, max(0.0, batch.at + self._poll - time.time())))
        deadline = asyncio.get_running_loop().time() + self._max_wait
        while True:
            known = {other.id for other in self.folder.all() if other.id is not None}
            search = await self.provider.find(batch, known)
            if search.id is not None or not search.open:
                return search.id
            await self._pause(deadline, f"whether batch {batch.name} was submitted is not known")

    async def bring_back(self, batch: Batch) -> dict[str, Result]:
        """Wait for a batch that the provider has; its outcomes by request, kept in the folder.

        Raises LLMTimeoutError after ``max_wait``, and what a look or a fetch raises that trying again does not mend;
        the batch stays as it is in the folder then.
        """
        progress = await self._ended(batch)
        if progress.failure is not None:
            await asyncio.to_thread(self.folder.failed, batch, progress.failure)
            return dict.fromkeys(batch.keys, progress.failure)
        outcomes = await self._fetch(batch, progress.word)
        await asyncio.to_thread(self.folder.collected, batch, outcomes)
        return outcomes

    async def _ended(self, batch: Batch) -> Progress:
        """The last look at a batch."""
        assert batch.id is not None
        deadline = asyncio.get_running_loop().time() + self._max_wait
        while True:
            try:
                progress = await self.provider.progress(batch.id)
            except LLMError as error:
                # An hour in which the provider cannot be reached is no reason to give up a day's work.
                if not (is_retryable(error) or isinstance(error, LLMResponseError)):
                    raise
                logger.warning("cannot look at batch %s (%s); trying again", batch.id, error)
            else:
                if progress.ended:
                    return progress
                logger.info("batch %s: %s", batch.id, progress.word)
            await self._pause(deadline, f"batch {batch.id} has not ended")

    async def _pause(self, deadline: float, what: str) -> None:
        if asyncio.get_running_loop().time() >= deadline:
            raise LLMTimeoutError(
                f"{what} after {self._max_wait:g} s (max_wait); it is kept in {str(self.folder.path)!r}; ask again to "
                "go on waiting"
            )
        await asyncio.sleep(self._poll)

    async def _fetch(self, batch: Batch, word: str) -> dict[str, Result]:
        """An outcome for each request of an ended batch, fetched again while something is missing."""
        assert batch.id is not None
        requests = {
            batch.custom_id(request.key): request
            for request in await asyncio.to_thread(lambda: [*self.folder.requests(batch)])
        }
        outcomes: dict[str, Result] = {}
        for download in range(DOWNLOADS):
            if download:
                # A batch may be called ended a moment before all of its results can be had.
                await asyncio.sleep(self._poll)
            fetched, unusable = await self.provider.fetch(batch.id, requests)
            # What was once an answer stays one.
            outcomes |= {
                key: outcome for key, outcome in fetched.items() if not isinstance(outcomes.get(key), Completion)
            }
            if len(outcomes) == batch.count:
                break
            logger.warning(
                "the results of batch %s lack %d of %d requests (%d unusable lines)",
                batch.id,
                batch.count - len(outcomes),
                batch.count,
                unusable,
            )
        return {key: outcomes.get(key) or self.provider.missing(word) for key in batch.keys}
