"""Anthropic's batch endpoint: the requests are posted in one piece, results come as JSONL in any order.

Knows: /v1/messages/batches. Refuses to know: the requests and answers themselves (the adapter does), files of ours.

A batch there has no metadata and does not show its requests' ids before it has ended. One whose id was lost is
therefore looked for among the batches made after the newest that was there before it, of its size, by the ids in
their results; while such a batch is at work the question stays open, and nothing is submitted.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncGenerator, Container, Mapping, Sequence
from typing import Any

from icl_vision.errors import LLMError, LLMResponseError, LLMStatusError, LLMTimeoutError
from icl_vision.llms.batch.folder import Batch, RequestSettings
from icl_vision.llms.batch.provider import DAY, Progress, Provider, Result, Search, json_object, lines_of, mapping
from icl_vision.llms.remote.errors.sdk_errors import error_detail
from icl_vision.llms.remote.guarded_http import in_pieces

PAGE = 100

# HTTP statuses that go with the types of errors, which is all that a batch's results tell.
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatches(Provider):
    """See ``Provider``."""

    # "either 100,000 Message requests or 256 MB in size" (Anthropic's guide to batch processing).
    max_requests = 100_000
    max_bytes = 250_000_000

    def line(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "params": dict(body)}

    async def marker(self) -> str | None:
        newest, _ = await self._page(1, None)
        return self.text_of(newest[0], "id") if newest else None

    async def upload(self, batch: Batch, lines: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return lines

    async def create(self, batch: Batch, uploaded: Sequence[Mapping[str, Any]]) -> str:
        async def attempt(client: Any) -> Any:
            return await client.messages.batches.with_raw_response.create(
                requests=uploaded, timeout=self.transfer_timeout
            )

        return await self.made(attempt)

    async def find(self, batch: Batch, known: Container[str]) -> Search:
        at_work = False
        after: str | None = None
        while True:
            listed, more = await self._page(PAGE, after)
            for document in listed:
                batch_id = self.text_of(document, "id")
                if batch_id == batch.marker or _seconds(document.get("created_at")) < batch.at - DAY:
                    return Search(open=at_work)
                if batch_id in known or sum(_counts(document)) != batch.count:
                    continue
                if document.get("processing_status") != "ended":
                    at_work = True
                elif await self._holds(batch_id, batch):
                    return Search(batch_id)
            if not listed or not more:
                return Search(open=at_work)
            after = self.text_of(listed[-1], "id")

    async def progress(self, batch_id: str) -> Progress:
        async def attempt(client: Any) -> Any:
            return await client.messages.batches.with_raw_response.retrieve(batch_id)

        word = self.text_of(await self.json(attempt), "processing_status")
        return Progress(word == "ended", word)

    async def lines(self, client: Any, batch_id: str) -> AsyncGenerator[bytes, None]:
        batches = client.messages.batches
        async with (
            batches.with_streaming_response.results(batch_id, timeout=self.transfer_timeout) as answer,
            contextlib.aclosing(lines_of(answer)) as lines,
        ):
            async for line in lines:
                yield line

    def outcome(self, line: Mapping[str, Any], settings: RequestSettings) -> Result:
        result = mapping(line.get("result"))
        kind = result.get("type")
        if kind == "succeeded":
            return self.completion(result.get("message"), settings)
        if kind == "errored":
            detail = error_detail(result.get("error"))
            return self.status_error(STATUSES.get(str(detail.get("type")), 500), detail)
        if kind == "expired":
            return LLMTimeoutError(
                f"{self.llm.profile.name!r} did not get to this request of the batch within 24 hours; ask again to "
                "submit it in another"
            )
        if kind == "canceled":
            return LLMError(
                f"{self.llm.profile.name!r} did not answer: its batch was cancelled; ask again to submit it in another"
            )
        return LLMResponseError(
            f"{self.llm.profile.name!r} ended a request of a batch with an unknown result, {kind!r}"
        )

    def missing(self, word: str) -> LLMError:
        return LLMResponseError(
            f"{self.llm.profile.name!r}: the results of the batch hold no usable line for this request; ask again to "
            "submit it in another"
        )

    async def _page(self, limit: int, after: str | None) -> tuple[list[Mapping[str, Any]], bool]:
        """Batches, the newest first, from behind ``after`` on, and whether there are more."""

        async def attempt(client: Any) -> Any:
            place = {} if after is None else {"after_id": after}
            return await client.messages.batches.with_raw_response.list(limit=limit, **place)

        answer = await self.json(attempt)
        data = answer.get("data")
        if not isinstance(data, list):
            raise self.wrong_form("data")
        return [mapping(entry) for entry in data], answer.get("has_more") is True

    async def _holds(self, batch_id: str, batch: Batch) -> bool:
        """Whether the results of a batch are those of ``batch``; the first line tells."""

        async def attempt(client: Any) -> bool:
            with in_pieces():
                async with contextlib.aclosing(self.lines(client, batch_id)) as lines:
                    async for raw in lines:
                        line = json_object(raw)
                        if line is not None:
                            return str(line.get("custom_id")).startswith(batch.name + "-")
            return False

        try:
            return await self.ask(attempt)
        except LLMStatusError as error:
            if error.status == 404:  # archived or deleted: not one of the last day's
                return False
            raise


def _counts(document: Mapping[str, Any]) -> list[int]:
    return [value for value in mapping(document.get("request_counts")).values() if isinstance(value, int)]


def _seconds(moment: object) -> float:
    """Unix time of an RFC 3339 date; for ever where it is none, so that nothing is passed over."""
    try:
        return datetime.datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return float("inf")
