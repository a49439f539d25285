"""A status and a time to wait, wherever somebody else's exception keeps them."""

from __future__ import annotations

import email.message
import enum
import http
import urllib.error
from types import SimpleNamespace
from typing import Any

import pytest

from icl_vision.errors import LLMStatusError, LLMTimeoutError, LLMUnavailableError
from icl_vision.llms import FakeLLM, FallbackLLM
from icl_vision.llms.remote.errors.foreign_errors import MOST_LINKS, chain_of, failure_of, status_of


class Foreign(Exception):
    """An exception with any attributes."""

    def __init__(self, text: str = "busy", /, **fields: Any) -> None:
        super().__init__(text)
        self.__dict__.update(fields)


class Response:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __bool__(self) -> bool:
        return False  # as requests' with an error status


class Code(enum.Enum):
    """As grpc.StatusCode."""

    OK = (0, "ok")
    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    UNAVAILABLE = (14, "unavailable")


class Awkward(Exception):
    """Whose properties fail, and which has a status all the same."""

    code = 429

    @property
    def status_code(self) -> int:
        raise RuntimeError("not yet")

    @property
    def response(self) -> object:
        raise ValueError("no response")


class RateLimitError(Exception):
    pass


class ThrottlingException(Exception):
    pass


def boto(status: int, code: str, headers: dict[str, str] | None = None) -> Foreign:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return Foreign("An error occurred", response={"Error": {"Code": code}, "ResponseMetadata": metadata})


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def in_context(outer: Exception, inner: Exception) -> Exception:
    outer.__context__, outer.__suppress_context__ = inner, True
    return outer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Foreign(code=429), 429),
        (Foreign(code="429"), 429),
        (Foreign(status=429), 429),
        (Foreign(status_code=429), 429),
        (Foreign(http_status=429), 429),
        (Foreign(code=http.HTTPStatus.TOO_MANY_REQUESTS), 429),
        (Foreign(code=lambda: Code.RESOURCE_EXHAUSTED), 429),
        (Foreign(code=Code.UNAVAILABLE), 503),
        (Foreign(code=lambda: Code.OK), None),
        (Foreign(status="RESOURCE_EXHAUSTED"), 429),
        (Foreign(code="rate_limit_exceeded"), 429),
        (Foreign(code="overloaded_error"), 529),
        (Foreign(response=Response(status_code=429)), 429),
        (Foreign(response=Response(status=503)), 503),
        (Foreign(resp=Response(status="429")), 429),
        (Foreign(raw_response=Response(status_code=429)), 429),
        (Foreign(response={"status_code": 429}), 429),
        (Foreign(response={"error": {"code": 429}}), None),
        (boto(429, "TooManyRequestsException"), 429),
        (boto(400, "ThrottlingException"), 400),  # what was answered beats what it is called
        (Foreign(response={"Error": {"Code": "ThrottlingException"}}), 429),
        (Foreign(body={"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}), 429),
        (Foreign(body='{"error": {"type": "rate_limit_error"}}'), 429),
        (Foreign(body=b'[{"error": {"code": 503}}]'), 503),
        (Foreign(details={"error": {"code": 429}}), 429),
        (ValueError({"message": "slow down", "code": 429}), 429),
        (Awkward("busy"), 429),
        (RateLimitError("busy"), 429),
        (ThrottlingException("busy"), 429),
        (caused(RuntimeError("model failed"), Foreign(code=429)), 429),
        (in_context(RuntimeError("model failed"), Foreign(status_code=429)), 429),
        (caused(Foreign(code=500), Foreign(code=429)), 500),
        (ExceptionGroup("both", [ValueError("x"), Foreign(code=429)]), 429),
        (RuntimeError(Foreign(code=429)), 429),
        (LLMStatusError("busy", 429), 429),
        (caused(RuntimeError("model failed"), LLMStatusError("busy", 429)), 429),
        (RuntimeError("Error code: 429 - {'error': ...}"), 429),
        (RuntimeError("HTTP 503: upstream"), 503),
        (RuntimeError("429 Too Many Requests"), 429),
        (RuntimeError("Error calling model (RESOURCE_EXHAUSTED): 429 RESOURCE_EXHAUSTED. {...}"), 429),
        (RuntimeError("500 words were asked for"), None),
        (RuntimeError("made 429 pictures"), None),
        (Foreign(code=200), None),
        (Foreign(code=True), None),
        (Foreign(code=-32000), None),
        (Foreign(code=8), None),
        (Foreign(status="failed"), None),
        (ValueError("no"), None),
        (KeyError("code"), None),
        (PermissionError("no"), None),
    ],
)
def test_status(error: Exception, status: int | None) -> None:
    assert status_of(error) == status


def test_urllib() -> None:
    headers = email.message.Message()
    headers["Retry-After"] = "7"
    with urllib.error.HTTPError("http://x", 429, "busy", headers, None) as error:
        found = failure_of(error)
    assert (found.status, found.retry_after) == (429, 7.0)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Foreign(code=429, headers={"Retry-After": "7"}), 7.0),
        (Foreign(code=429, headers=[("Retry-After", "7")]), 7.0),
        (Foreign(code=429, response=Response(headers={"x-ratelimit-reset-requests": "7s"})), 7.0),
        (Foreign(code=500, response=Response(headers={"x-ratelimit-reset-requests": "7s"})), None),
        (Foreign(code=500, response=Response(headers={"retry-after": "7"})), 7.0),
        (boto(429, "ThrottlingException", {"retry-after": "7"}), 7.0),
        (Foreign(code=429, retry_after=7), 7.0),
        (Foreign(code=500, retry_after=7), 7.0),
        (Foreign(code=429, retry_after_ms=7000), 7.0),
        (Foreign(code=429, details={"error": {"details": [{"retryDelay": "7s"}]}}), 7.0),
        (Foreign("429 RESOURCE_EXHAUSTED. Please retry in 7s.", code=429), 7.0),
        (Foreign(code=lambda: Code.RESOURCE_EXHAUSTED, trailing_metadata=lambda: (("retry-after", "7"),)), 7.0),
        (Foreign(code=lambda: Code.UNAVAILABLE, trailing_metadata=lambda: (("grpc-retry-pushback-ms", "7000"),)), 7.0),
        (caused(RuntimeError("failed"), Foreign(code=429, headers={"retry-after": "7"})), 7.0),
        (caused(Foreign(code=429), Foreign("x", headers={"retry-after": "7"})), 7.0),
        (caused(RuntimeError("failed"), LLMStatusError("busy", 429, retry_after=7.0)), 7.0),
        (Foreign(code=429), None),
    ],
)
def test_hints(error: Exception, seconds: float | None) -> None:
    assert failure_of(error).retry_after == seconds


def test_kinds() -> None:
    class ReadTimeout(Exception):
        pass

    class TimeoutException(Exception):
        pass

    class Slow(TimeoutException):
        pass

    assert failure_of(Slow()).kind == failure_of(TimeoutError()).kind == "timeout"
    assert failure_of(caused(RuntimeError("failed"), ConnectionResetError())).kind == "connection"
    assert failure_of(urllib.error.URLError(ConnectionRefusedError())).kind == "connection"
    assert failure_of(ValueError("no")).kind == ""
    # The outermost that says anything counts.
    assert failure_of(caused(TimeoutError(), Foreign(code=429))).kind == "timeout"


def test_chains_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert list(chain_of(first)) == [first, second]
    error: Exception = ValueError("0")
    for _ in range(100):
        error = caused(ValueError("n"), error)
    assert len(list(chain_of(error))) == MOST_LINKS


@pytest.mark.parametrize("error", [Foreign(code=429), TimeoutError(), caused(RuntimeError("x"), ConnectionError())])
def test_a_fallback_knows_other_peoples_errors(error: Exception) -> None:
    def fails(prompt: str) -> str:
        raise error

    assert FallbackLLM([FakeLLM(fails), FakeLLM("cat")]).complete_sync("x").text == "cat"


def test_a_fallback_hides_no_mistake() -> None:
    def fails(prompt: str) -> str:
        raise Foreign(code=401)

    with pytest.raises(Foreign):
        FallbackLLM([FakeLLM(fails), FakeLLM("cat")]).complete_sync("x")


def test_when_nobody_can_answer_the_errors_are_named() -> None:
    def slow(prompt: str) -> str:
        raise TimeoutError("slow")

    def busy(prompt: str) -> str:
        raise Foreign("busy", code=429)

    with pytest.raises(LLMTimeoutError, match="TimeoutError: slow"):
        FallbackLLM([FakeLLM(slow), FakeLLM(slow)]).complete_sync("x")
    with pytest.raises(LLMUnavailableError, match="Foreign: busy"):
        FallbackLLM([FakeLLM(busy), FakeLLM(slow)]).complete_sync("x")


def noted(note: str) -> Exception:
    error = Foreign()
    error.add_note(note)
    return error


@pytest.mark.parametrize(
    "error",
    [
        Foreign(http_code=429),
        Foreign(error_code="429"),
        Foreign(status_int=429),
        Foreign(getcode=lambda: 429),
        Foreign(status=SimpleNamespace(code=429)),
        Foreign(status={"code": 429}),
        Foreign(code=SimpleNamespace(value=429)),
        Foreign(code="StatusCode.RESOURCE_EXHAUSTED"),
        Foreign(response=(429, {})),
        Foreign(response=SimpleNamespace(json=lambda: {"error": {"code": 429}})),
        Foreign(original_exception=Foreign(code=429)),
        Foreign(inner_exception=Foreign(code=429)),
        RuntimeError(429, "slow down"),
        RuntimeError("An error occurred (ThrottlingException) when calling the InvokeModel operation: too many tokens"),
        RuntimeError("Rate limit exceeded, please come back later"),
        RuntimeError("You have hit your rate limit"),
        RuntimeError("Too Many Requests"),
        RuntimeError("Quota exceeded for metric requests"),
        RuntimeError("(429)\nReason: Too Many Requests"),
        ExceptionGroup("several", [ValueError("x"), ExceptionGroup("more", [Foreign(code=429)])]),
        noted("HTTP 429 Too Many Requests"),
    ],
    ids=repr,
)
def test_throttling_wherever_it_is_kept(error: Exception) -> None:
    assert status_of(error) == 429


@pytest.mark.parametrize("text", ["the limit of tokens", "rate the image", "no quota was given", "an error occurred"])
def test_words_that_tell_of_no_limit(text: str) -> None:
    assert status_of(RuntimeError(text)) is None


def test_headers_under_other_names_are_read() -> None:
    for name in ("response_headers", "hdrs"):
        assert failure_of(Foreign(code=429, **{name: {"Retry-After": "7"}})).retry_after == 7.0
