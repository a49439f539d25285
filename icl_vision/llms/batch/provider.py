"""What one provider's batch endpoint must be able to do, and how talking to it is tried again.

Knows: the steps every provider has (submit, look for a lost batch, poll, fetch results), which failures leave it open
whether a batch was made. Refuses to know: wire formats (``batch.openai``, ``batch.anthropic``), files, callers.
"""

from __future__ import annotations

import contextlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from icl_vision.contracts import Completion, Prompt
from icl_vision.errors import IclVisionError, LLMError, LLMResponseError, LLMUnavailableError
from icl_vision.llms.batch.folder import Batch, Request, RequestSettings
from icl_vision.llms.redaction import quote
from icl_vision.llms.remote.guarded_http import MOST_BYTES, in_pieces
from icl_vision.llms.remote.resilience import Resilience
from icl_vision.llms.remote.transport import RemoteLLM

logger = logging.getLogger(__name__)

T = TypeVar("T")
Result = Completion | IclVisionError

DAY = 86_400
"""Seconds. A lost batch is not looked for among those made a day before it was to be made: no clock is that wrong."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch is. word: the provider's own. failure: why none of its requests was carried out."""

    ended: bool
    word: str
    failure: IclVisionError | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """Where a batch may have got to: its id; or neither found nor, with ``open``, ruled out yet."""

    id: str | None = None
    open: bool = False


class UnsureError(Exception):
    """It is open whether the provider made the batch: look for it before submitting it again."""


class Provider(ABC):
    """One provider's batch endpoint, spoken to with an LLM's own client and key.

    llm: the LLM whose requests are batched. resilience: for submitting, polling and fetching, apart from the LLM's own.
    """

    max_requests: ClassVar[int]
    max_bytes: ClassVar[int]
    """Of one batch; a little below what the provider names."""

    def __init__(self, llm: RemoteLLM, resilience: Resilience) -> None:
        self.llm = llm
        self.resilience = resilience

    # ---- for providers ----

    @abstractmethod
    def line(self, custom_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One request as it stands in a batch."""

    async def marker(self) -> str | None:
        """The newest batch there is, where a lost one can only be found among all that came after it."""
        return None

    @abstractmethod
    async def upload(self, batch: Batch, lines: Sequence[Mapping[str, Any]]) -> Any:
        """What has to be with the provider before the batch is made, and may be there twice."""

    @abstractmethod
    async def create(self, batch: Batch, uploaded: Any) -> str:
        """Make the batch, once; its id. Raises UnsureError where it is open whether it was made."""

    @abstractmethod
    async def find(self, batch: Batch, known: Container[str]) -> Search:
        """Look for a batch that may have been made. known: ids of other batches of ours."""

    @abstractmethod
    async def progress(self, batch_id: str) -> Progress:
        """Look at a batch."""

    @abstractmethod
    def lines(self, client: Any, batch_id: str) -> AsyncGenerator[bytes, None]:
        """The lines of what came back, in any order."""

    @abstractmethod
    def outcome(self, line: Mapping[str, Any], settings: RequestSettings) -> Result:
        """What a line of the results says."""

    @abstractmethod
    def missing(self, word: str) -> LLMError:
        """The error of a request that no line speaks of, in a batch that ended so."""

    # ---- for BatchLLM ----

    def body(self, prompt: Prompt, settings: RequestSettings) -> dict[str, Any]:
        """A request as the endpoint takes it: plain JSON."""
        params = self.llm.request_params(
            prompt,
            max_tokens=settings.max_tokens,
            stop=settings.stop,
            temperature=settings.temperature,
            seed=settings.seed,
            constraint=settings.constraint,
            logprobs=settings.logprobs,
        )
        extra = params.pop("extra_body", None)  # the SDKs' name for fields they do not know
        return params | dict(extra or {})

    async def fetch(self, batch_id: str, requests: Mapping[str, Request]) -> tuple[dict[str, Result], int]:
        """Outcomes by key, and how many lines could not be used. requests: by custom id."""

        async def attempt(client: Any) -> tuple[dict[str, Result], int]:
            results: dict[str, list[Result]] = {}
            number = unusable = 0
            with in_pieces():
                async with contextlib.aclosing(self.lines(client, batch_id)) as lines:
                    async for raw in lines:
                        number += 1
                        line = json_object(raw)
                        request = None if line is None else requests.get(str(line.get("custom_id")))
                        if line is None or request is None:
                            unusable += 1
                            shown = quote(raw[:200], self.secrets())
                            said = "line %d of the results of batch %s cannot be used: %s"
                            logger.warning(said, number, batch_id, shown)
                        else:
                            results.setdefault(request.key, []).append(self.outcome(line, request.settings))
            return {key: self.settled(outcomes) for key, outcomes in results.items()}, unusable

        return await self.ask(attempt)

    def settled(self, outcomes: Sequence[Result]) -> Result:
        """What counts where results speak of a request several times: an answer before errors, the first of equal ones.

        Where answers differ, one may be another request's, and nothing tells which: none is taken.
        """
        answers = [answer for answer in outcomes if isinstance(answer, Completion)]
        if len({answer.text for answer in answers}) > 1:
            logger.warning("%s: the results of a batch hold different answers to one request", self.llm.profile.name)
            return LLMResponseError(
                f"{self.llm.profile.name!r}: the results of the batch hold {len(answers)} answers to this request that "
                "differ, so none is taken; ask again to submit it in another"
            )
        return answers[0] if answers else outcomes[0]

    async def ask(self, attempt: Callable[[Any], Awaitable[T]]) -> T:
        """The result of ``attempt(client)`` in errors of our tree, tried again where that can help."""

        async def guarded(client: Any) -> T:
            try:
                return await attempt(client)
            except Exception as error:
                # While results are streamed, the transport's own errors come through the SDK.
                if not type(error).__module__.startswith("httpx"):
                    raise
                detail = f"{type(error).__name__}: {quote(str(error), self.secrets())}"
            raise LLMUnavailableError(f"{self.llm.profile.name!r}: the connection was cut ({detail})")

        return await self.llm.call(guarded, self.resilience)

    async def json(self, attempt: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
        """The JSON object in a raw response of the SDK."""

        async def parsed(client: Any) -> dict[str, Any]:
            return self._parse((await attempt(client)).http_response.content)

        return await self.ask(parsed)

    async def once(self, attempt: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
        """Like ``json``, for what must not be done twice: only a clear refusal is followed by another attempt.

        Raises the refusal where the provider has not done it, UnsureError where it may have.
        """
        unsure = False

        async def guarded(client: Any) -> dict[str, Any]:
            nonlocal unsure
            if unsure:  # the attempt before this one ended in silence
                raise UnsureError
            unsure = True
            try:
                answer = await attempt(client)
            except Exception as error:
                status = getattr(error, "status_code", None)
                unsure = not (isinstance(status, int) and 400 <= status < 500 and status not in (408, 409))
                raise
            return self._parse(answer.http_response.content)

        try:
            return await self.ask(guarded)
        except IclVisionError as error:
            if not unsure:
                raise
            raise UnsureError(str(error)) from error

    # ---- shared by providers ----

    @property
    def transfer_timeout(self) -> float:
        """Seconds for one upload or download; the client's own limit is that of a short question."""
        return self.resilience.policy.attempt_timeout

    async def made(self, attempt: Callable[[Any], Awaitable[Any]]) -> str:
        """The id of the batch that ``attempt`` makes. Raises as ``once``."""
        document = await self.once(attempt)
        try:
            return self.text_of(document, "id")
        except LLMResponseError as error:
            raise UnsureError(str(error)) from error

    def secrets(self) -> list[str]:
        """What must not show in a message."""
        return self.llm.secrets()

    def completion(self, answer: Any, settings: RequestSettings) -> Result:
        """The provider's answer to one request, read by the LLM's own adapter."""
        try:
            self.llm.check_answer(answer, "")
            if not isinstance(answer, Mapping):
                return LLMResponseError(
                    f"{self.llm.profile.name!r} answered a request with a JSON {type(answer).__name__}, expected an "
                    "object"
                )
            return self.llm.completion_of(answer, stop=settings.stop, constraint=settings.constraint)
        except IclVisionError as error:
            return error

    def status_error(self, status: int, detail: Mapping[str, Any]) -> IclVisionError:
        """The error of one request in our tree, as the adapter would have raised it."""
        message = str(detail.get("message") or "no message")
        failure = self.llm.translator.status_error(status, detail, message, self.secrets(), "")
        return failure if isinstance(failure, IclVisionError) else LLMError(str(failure))

    def wrong_form(self, what: str) -> LLMResponseError:
        """The error of an answer about a batch that lacks ``what``."""
        return LLMResponseError(f"{self.llm.profile.name!r} answered a question about a batch without {what}")

    def text_of(self, document: Mapping[str, Any], field: str) -> str:
        """A string that must be there."""
        value = document.get(field)
        if not isinstance(value, str) or not value:
            raise self.wrong_form(field)
        return value

    def _parse(self, content: bytes) -> dict[str, Any]:
        document = json_object(content)
        if document is None:
            shown = quote(content[:200], self.secrets())
            raise LLMResponseError(f"{self.llm.profile.name!r} answered {shown!r}, expected a JSON object")
        return document


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object in some bytes, None where there is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a JSON object, an empty one otherwise."""
    return value if isinstance(value, Mapping) else {}


async def lines_of(answer: Any) -> AsyncGenerator[bytes, None]:
    """Lines of an SDK's streamed answer, without their ends and without empty ones; the last may lack its end.

    Split at line feeds only: a JSON text may hold other line separators of Unicode. Whoever may leave before the last
    one closes it (``contextlib.aclosing``), which closes what it reads from, too: generators within generators that are
    left to the garbage collector are ended by two threads at once.

    Raises:
        LLMResponseError: a line longer than any answer.
    """
    rest: list[bytes] = []
    length = 0
    # Not the SDK's own iterator, which does not close the one below it.
    async with contextlib.aclosing(answer.http_response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            *whole, last = chunk.split(b"\n")
            for line in whole:
                rest.append(line)
                joined = b"".join(rest)
                rest, length = [], 0
                if joined.strip():
                    yield joined
            rest.append(last)
            length += len(last)
            if length > MOST_BYTES:
                raise LLMResponseError(f"the results of a batch hold a line of more than {MOST_BYTES // 2**20} MB")
    if (joined := b"".join(rest)).strip():
        yield joined
