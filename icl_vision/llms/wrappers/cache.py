"""A cache of LLM answers on disk: what was paid for once is not paid for again.

One SQLite file (``icl_vision.files.rows``). A row's key is the sha256 of what decides
the answer: the model's identity, the prompt, the decoding settings and the repeat index, so that
the fifth sample of a prompt is not the first one again. Never in the key: timeouts, retries,
concurrency, keys. Never in a row: errors, keys, headers, and what is no answer: an allow list (``answers``) lets in
readable text that ended by itself or by the limit of tokens, and log-probabilities that can be such.

A row that cannot be read back is logged, deleted and counts as a miss. Identical completions that
are in flight at the same time share one call. Of a scoring call that fails, what came back is kept.

Knows: keys, rows, hits. Refuses to know: how an answer is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from icl_vision.contracts import Completion, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import DroppedGuaranteeWarning, StorageError
from icl_vision.files.rows import JsonRows
from icl_vision.files.storage import cache_dir
from icl_vision.llms.answers import may_be_kept
from icl_vision.llms.base import Settings, completed, document_of, scored
from icl_vision.llms.loop import OwnThread
from icl_vision.llms.modes import CacheMode, current_mode, current_repeat
from icl_vision.llms.scores import attach, is_logprob, known_logprob, take
from icl_vision.llms.wrappers.wrapped import WrappedLLM, unknown_to_caches

logger = logging.getLogger(__name__)

FORMAT = 1


class ResponseCache(JsonRows):
    """The SQLite file of answers. Thread-safe; several processes may share it.

    path: the file; default ``responses.sqlite`` in the user's cache folder. Its folder is made with mode 0700.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(
            cache_dir() / "responses.sqlite" if path is None else path, table="responses", what="the response cache"
        )


class _AbandonedError(Exception):
    """Whoever asked was cancelled before there was an answer."""


class CachedLLM(WrappedLLM):
    """Any TextLLM behind a ResponseCache: only what is not stored yet is asked.

    llm: the LLM that answers misses. cache: where answers are kept. Completions are stored one by one, scores pair by
    pair, so that a larger question re-uses the parts of an earlier one. Usage of a hit is zero: nothing was spent. The
    LLM is closed with it; the cache is its maker's, and others may use it. An LLM that cannot be told from another (a
    LangChain model with a field whose value shows nothing of itself) is asked every time, with one warning.
    """

    def __init__(self, llm: TextLLM, cache: ResponseCache) -> None:
        super().__init__(llm)
        self.cache = cache
        # The file may be locked by another process: that must not hold up anybody else's requests.
        self._thread = OwnThread("icl-vision-cache")
        self._in_flight: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._warned = False
        self._mode()  # what cannot be cached is told where the cache is asked for

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_in_flight": {}}  # who waits, waits in this process

    def __repr__(self) -> str:
        return f"CachedLLM({self.llm!r}, hits={self.cache.hits}, misses={self.cache.misses})"

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        key = await self._key_of("complete", prompt, document_of(settings))
        spent = Usage()

        async def ask() -> dict[str, Any]:
            nonlocal spent
            answer = await completed(self.llm, prompt, **settings)
            spent = answer.usage
            body = {"text": answer.text, "finish_reason": answer.finish_reason, "usage": answer.usage.to_dict()}
            return body if answer.logprob is None else body | {"logprob": answer.logprob}

        body = await self._cached(key, ask)
        # No logprob in rows of before it was kept.
        logprob = known_logprob(body.get("logprob"))
        return Completion(str(body["text"]), str(body["finish_reason"]), spent, {}, logprob)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        mode = self._mode()
        identity = await self._thread.run(self._identity) if mode != "off" else ""
        keys = [
            self._key(identity, "score", prompt, {"continuation": text, "terminator": terminator})
            for prompt, text in pairs
        ]
        known: dict[str, float] = {}
        missing: dict[str, tuple[Prompt, str]] = {}
        stored = await self._thread.run(self._rows, dict.fromkeys(keys)) if mode == "on" else {}
        for key, pair in zip(keys, pairs, strict=True):
            value = stored[key].get("logprob") if key in stored else None
            if value is not None and is_logprob(value):
                known[key] = min(float(value), 0.0)
            else:
                missing[key] = pair
        usage, method = Usage(), "cached"
        if missing:
            try:
                scores = await scored(self.llm, list(missing.values()), terminator=terminator)
            except Exception as error:
                # What came back before it is paid for: kept here, and handed on with what was known already.
                partial = take(error)
                asked = list(missing)
                known |= {asked[index]: value for index, value in partial.logprobs.items()}
                came = {asked[index]: value for index, value in partial.logprobs.items()}
                await self._store_scores(came, partial.method)
                answered = {index: known[key] for index, key in enumerate(keys) if key in known}
                attach(error, replace(partial, logprobs=answered))
                raise
            usage, method = scores.usage, scores.method
            new = dict(zip(missing, scores.logprobs, strict=True))
            known |= new
            await self._store_scores(new, method)
        return Scores(tuple(known[key] for key in keys), usage, method)

    def _rows(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The rows there are."""
        rows = {key: self.cache.get(key) for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    async def _store_scores(self, logprobs: Mapping[str, float], method: str) -> None:
        rows = {key: {"logprob": value} for key, value in logprobs.items() if is_logprob(value, method)}
        if self._mode() != "off" and rows:
            await self._store(rows)

    async def _cached(self, key: str, ask: Any) -> dict[str, Any]:
        mode = self._mode()
        if mode == "off":
            body: dict[str, Any] = await ask()
            return body
        if mode == "on":
            stored = await self._thread.run(self.cache.get, key)
            # What an older version kept though nothing was answered is a miss, and replaced.
            if stored is not None and may_be_kept(stored.get("text"), stored.get("finish_reason")):
                return stored
            while (running := self._in_flight.get(key)) is not None:
                try:
                    return await asyncio.shield(running)
                except _AbandonedError:
                    continue  # one of those who waited asks in its stead, the others wait for that one
                except Exception:
                    break  # the first asker failed; its error is its own. Ask for ourselves.
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            body = await ask()
            future.set_result(body)  # before it is stored: whoever waits need not wait for the disk
            if may_be_kept(body["text"], body["finish_reason"]):
                await self._store({key: body})
            return body
        except BaseException as error:
            if not future.done():
                future.set_exception(error if isinstance(error, Exception) else _AbandonedError())
                future.exception()  # marked as seen: nobody may be waiting
            raise
        finally:
            if self._in_flight.get(key) is future:
                del self._in_flight[key]

    async def _store(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        try:
            await self._thread.run(self.cache.put_all, rows)
        except StorageError as error:
            # A full disk: the answer is paid for, and whoever asked still wants it.
            logger.warning("an answer is not kept: %s", error)

    def _mode(self) -> CacheMode:
        """How this call uses the cache: not at all where answers cannot be told from those of another LLM."""
        mode = current_mode()
        if mode != "off" and (why := unknown_to_caches(self.llm)):
            if not self._warned:
                self._warned = True
                warnings.warn(f"answers are not cached: {why}", DroppedGuaranteeWarning, stacklevel=2)
            return "off"
        return mode

    def _identity(self) -> str:
        # Not on the event loop: an LLM may read its model's whole file for it.
        return self.identity

    async def _key_of(self, kind: str, prompt: Prompt, settings: dict[str, Any]) -> str:
        identity = await self._thread.run(self._identity) if self._mode() != "off" else ""
        return self._key(identity, kind, prompt, settings)

    def _key(self, identity: str, kind: str, prompt: Prompt, settings: dict[str, Any]) -> str:
        document = [
            FORMAT,
            kind,
            identity,
            [prompt.instruction, prompt.context, prompt.query],
            settings,
            current_repeat(),
        ]
        return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
