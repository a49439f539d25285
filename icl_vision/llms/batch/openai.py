"""OpenAI's batch endpoint: a JSONL file is uploaded, a batch is made of it, two files come back.

Knows: /v1/files and /v1/batches. Refuses to know: requests and answers themselves (the adapter does), files of ours.

A batch carries our name for it in its metadata, so that one whose id was lost is found in the list of batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Container, Mapping, Sequence
from typing import Any

from icl_vision.errors import IclVisionError, LLMError, LLMResponseError, LLMStatusError, LLMTimeoutError
from icl_vision.llms.batch.folder import Batch, RequestSettings
from icl_vision.llms.batch.provider import DAY, Progress, Provider, Result, Search, lines_of, mapping
from icl_vision.llms.redaction import quote
from icl_vision.llms.remote.errors.sdk_errors import error_detail

METADATA_KEY = "icl_vision_batch"
ENDED = ("completed", "failed", "expired", "cancelled")
PAGE = 100

# Nothing of such a batch was carried out because the organisation has too many tokens waiting in others.
QUEUE_FULL = "token_limit_exceeded"


class OpenAIBatches(Provider):
    """See ``Provider``."""

    # "up to 50,000 requests, and can be up to 200 MB in size" (openai 3.54, types/batch_create_params.py).
    max_requests = 50_000
    max_bytes = 195_000_000

    @property
    def endpoint(self) -> str:
        """Where the requests of a batch go."""
        return "/v1/responses" if self.llm.profile.api == "responses" else "/v1/chat/completions"

    def line(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": self.endpoint, "body": dict(body)}

    async def upload(self, batch: Batch, lines: Sequence[Mapping[str, Any]]) -> str:
        content = await asyncio.to_thread(
            lambda: b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        )

        async def attempt(client: Any) -> Any:
            file = (f"icl-vision-{batch.name}.jsonl", content, "application/jsonl")
            return await client.files.with_raw_response.create(
                file=file, purpose="batch", timeout=self.transfer_timeout
            )

        return self.text_of(await self.json(attempt), "id")

    async def create(self, batch: Batch, uploaded: str) -> str:
        async def attempt(client: Any) -> Any:
            return await client.batches.with_raw_response.create(
                input_file_id=uploaded,
                endpoint=self.endpoint,
                completion_window="24h",
                metadata={METADATA_KEY: batch.name},
                timeout=self.transfer_timeout,
            )

        return await self.made(attempt)

    async def find(self, batch: Batch, known: Container[str]) -> Search:
        after: str | None = None
        while True:

            async def attempt(client: Any, after: str | None = after) -> Any:
                page = {} if after is None else {"after": after}
                return await client.batches.with_raw_response.list(limit=PAGE, **page)

            answer = await self.json(attempt)
            data = answer.get("data")
            if not isinstance(data, list):
                raise self.wrong_form("data")
            listed = [mapping(document) for document in data]
            for document in listed:
                if mapping(document.get("metadata")).get(METADATA_KEY) == batch.name:
                    return Search(self.text_of(document, "id"))
            # The newest come first.
            too_old = any(
                isinstance(document.get("created_at"), int) and document["created_at"] < batch.at - DAY
                for document in listed
            )
            if not listed or too_old or answer.get("has_more") is not True:
                return Search()
            after = self.text_of(listed[-1], "id")

    async def progress(self, batch_id: str) -> Progress:
        document = await self._retrieve(batch_id)
        word = self.text_of(document, "status")
        if word == "failed":
            return Progress(True, word, self._failure(batch_id, document))
        return Progress(word in ENDED, word)

    async def lines(self, client: Any, batch_id: str) -> AsyncGenerator[bytes, None]:
        answer = await client.batches.with_raw_response.retrieve(batch_id)
        document = self._parse(answer.http_response.content)
        for field in ("output_file_id", "error_file_id"):
            file_id = document.get(field)
            if not isinstance(file_id, str) or not file_id:
                continue  # nothing succeeded, or nothing failed
            async with (
                client.files.with_streaming_response.content(file_id, timeout=self.transfer_timeout) as file,
                contextlib.aclosing(lines_of(file)) as lines,
            ):
                async for line in lines:
                    yield line

    def outcome(self, line: Mapping[str, Any], settings: RequestSettings) -> Result:
        response = mapping(line.get("response"))
        status = response.get("status_code")
        if status == 200:
            return self.completion(response.get("body"), settings)
        if isinstance(status, int):
            # For a request that was refused the error stands in the body, not in "error".
            return self.status_error(status, error_detail(response.get("body")))
        error = mapping(line.get("error"))
        message = quote(str(error.get("message") or "no message"), self.secrets())
        code = str(error.get("code"))
        if code == "batch_expired":
            return self._expired(message)
        if code == "batch_cancelled":
            return self.missing("cancelled")
        return LLMError(f"{self.llm.profile.name!r} failed a request of a batch ({code}): {message}")

    def missing(self, word: str) -> LLMError:
        if word == "expired":
            return self._expired("the batch's 24 hours were over")
        if word == "cancelled":
            return LLMError(
                f"{self.llm.profile.name!r} did not answer: its batch was cancelled; ask again to submit it in another"
            )
        return LLMResponseError(
            f"{self.llm.profile.name!r}: the results of the batch hold no usable line for this request; ask again to "
            "submit it in another"
        )

    def _expired(self, why: str) -> LLMTimeoutError:
        return LLMTimeoutError(
            f"{self.llm.profile.name!r} did not get to this request of the batch in time ({why}); ask again to submit "
            "it in another"
        )

    async def _retrieve(self, batch_id: str) -> dict[str, Any]:
        async def attempt(client: Any) -> Any:
            return await client.batches.with_raw_response.retrieve(batch_id)

        return await self.json(attempt)

    def _failure(self, batch_id: str, document: Mapping[str, Any]) -> IclVisionError:
        data = mapping(document.get("errors")).get("data")
        errors = [mapping(entry) for entry in data] if isinstance(data, list) else []
        first = errors[0] if errors else {}
        code = str(first.get("code") or "unknown")
        place = f" at line {first['line']}" if isinstance(first.get("line"), int) else ""
        message = quote(str(first.get("message") or "no message"), self.secrets())
        return LLMStatusError(
            f"{self.llm.profile.name!r} refused batch {batch_id}, {len(errors)} error(s), the first{place} ({code}): "
            f"{message}",
            429 if code == QUEUE_FULL else 400,
            code=code,
        )
