"""What an exception of somebody else's says: an HTTP status, whether time or connection failed, when to ask again.

Every SDK has a place of its own for these: ``.status_code``, ``.code``, ``.http_status``, ``.status``, a response with
a status and headers, a dict as botocore's, a gRPC code, Google's error object. Some wrap another's exception and keep
none of it, so causes and contexts are looked through, the outermost first.

Knows: names and places. Refuses to know: any SDK (nothing is imported), what is done about a status.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from icl_vision.llms.remote.errors.retry_hints import hint_of
from icl_vision.llms.remote.resilience import QUOTA_CODES

MOST_LINKS = 16
"""Exceptions of one chain that are looked at."""

_STATUS_NAMES = (
    *("status_code", "http_status", "http_status_code", "httpStatusCode", "statusCode", "http_code", "error_code"),
    *("status_int", "response_code", "code", "status", "getcode", "errno"),
)
_INNER = ("last_attempt", "reason", "original_exception", "inner_exception", "orig", "original_error", "exception")
"""Attributes in which wrappers keep what they wrap: tenacity's, urllib3's, litellm's, Azure's, SQLAlchemy's."""
_HEADERS = ("headers", "response_headers", "hdrs", "HTTPHeaders")
_RESPONSES = ("response", "resp", "raw_response", "http_response")
_BODIES = ("body", "details", "error", "errors", "json_body", "error_details", "message")

# gRPC's codes (upper case, as the enum and Google's ``status`` have them) as HTTP's, of google.api_core's table.
_GRPC = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Words that stand where others have a number, and names of classes; without case, separators and "Exception", "Error".
_WORDS = {
    "ratelimit": 429,
    "ratelimited": 429,
    "ratelimitreached": 429,
    "ratelimitexceeded": 429,
    "ratelimiting": 429,
    "requestlimitexceeded": 429,
    "modelratelimit": 429,
    "resourceexhausted": 429,
    "toomanyrequests": 429,
    "throttled": 429,
    "throttling": 429,
    "throttledrequest": 429,
    "requestthrottled": 429,
    "provisionedthroughputexceeded": 429,
    "modelnotready": 429,
    "overloaded": 529,
    "serverbusy": 503,
    "serviceunavailable": 503,
    "slowdown": 503,
    "badgateway": 502,
    "gatewaytimeout": 504,
    "internalserver": 500,
    "internalfailure": 500,
    "requesttimeout": 408,
    "modeltimeout": 408,
    "authentication": 401,
    "unauthorized": 401,
    "paymentrequired": 402,
    **{re.sub(r"[^a-z]", "", code): 429 for code in QUOTA_CODES},
    "accessdenied": 403,
    "permissiondenied": 403,
    "expiredtoken": 403,
}
_TIMEOUTS = {
    "APITimeoutError",
    "ModelTimeoutError",
    "TimeoutException",
    "Timeout",
    "ReadTimeoutError",
    "ConnectTimeoutError",
}
_CONNECTIONS = {
    "APIConnectionError",
    "ModelConnectionError",
    "TransportError",
    "ConnectionError",
    "ClientConnectionError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "URLError",
    "ProtocolError",
    "RemoteDisconnected",
    "IncompleteRead",
}
# The last place to look: "Error code: 429 - {...}", "HTTP 503: ...", "429 Too Many Requests".
_IN_WORDS = re.compile(
    r"(?:\b(?:error|status|http|response)(?: ?(?:code|status|error))?(?: ?(?:of|was|is))?[ :=(/\[]{1,3}|^\(?)"
    r"(?P<status>[45]\d\d)(?=[\s:,.;)\]\-]|$)",
    re.IGNORECASE | re.ASCII,
)
# As botocore writes it: "An error occurred (ThrottlingException) when calling the InvokeModel operation".
_NAMED_IN_WORDS = re.compile(r"\ban error occurred \((?P<code>[\w.]{1,80})\)", re.IGNORECASE)
# In a sentence without a number: what surely means a limit, or a provider with too much to do.
_SENTENCES = (
    (
        re.compile(
            r"\brate[ -]?limit(?:s|ed|ing)?\b[^.]{0,40}\b(?:exceed|reach|hit|error)|\brate[ -]?limited\b"
            r"|\b(?:exceed|reach|hit)\w*\b[^.]{0,40}\brate[ -]?limit|\btoo many requests\b"
            r"|\bquota exceeded\b|\bexceeded (?:your|the)[^.]{0,30}\bquota\b|\bthrottl(?:ed|ing)\b",
            re.IGNORECASE,
        ),
        429,
    ),
    (re.compile(r"\b(?:is |are )?(?:currently |temporarily )?overloaded\b", re.IGNORECASE), 529),
)
_GRPC_IN_WORDS = re.compile(r"\b(?:RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNAVAILABLE)\b")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a foreign exception.

    status: HTTP's, or the one that stands for what it says; None where there is none. kind: "timeout", "connection" or
    "" where there is no status. link: the exception of the chain that said so. retry_after: seconds it asks to wait.
    body: the provider's error object, where one was found.
    """

    status: int | None
    kind: str
    link: BaseException
    retry_after: float | None = None
    body: object = None


def failure_of(error: BaseException) -> Failure:
    """What an exception says, or else what it was caused by."""
    links = list(chain_of(error))
    for link in links:
        status = own_status(link)
        if status is not None:
            return Failure(status, "", link, wait_of(links, status), _body_of(link))
        kind = _kind(link)
        if kind:
            return Failure(None, kind, link)
    for link in links:
        status = _status_in_words("\n".join([str(link), *map(str, _get(link, "__notes__") or ())]))
        if status is not None:
            return Failure(status, "", link, wait_of(links, status), _body_of(link))
    return Failure(None, "", error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an exception or of what caused it; None where nothing says one."""
    return failure_of(error).status


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes, the contexts it was raised in, and those a group holds; each once, outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < MOST_LINKS:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # "from None" hides a context from a reader; the status is there all the same.
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        waiting += [inner for inner in (_get(link, name) for name in _INNER) if isinstance(inner, BaseException)]
        waiting += [argument for argument in link.args if isinstance(argument, BaseException)]


def own_status(error: BaseException) -> int | None:
    """The HTTP status that an exception itself says, wherever it keeps it."""
    for holder in (error, *_responses(error)):
        status = _status_in(holder)
        if status is not None:
            return status
    status = _status_in_body(_body_of(error))
    if status is not None:
        return status
    named = next((_WORDS[word] for base in type(error).__mro__ if (word := _plain(base.__name__)) in _WORDS), None)
    if named is None and len(error.args) > 1 and isinstance(error.args[1], str | bytes | Mapping):
        return _as_status(error.args[0]) if isinstance(error.args[0], int) else None  # (429, "slow down")
    return named


def wait_of(links: list[BaseException], status: int) -> float | None:
    """Seconds that any exception of a chain asks to wait, by its headers, its error object, its words."""
    headers: list[Mapping[str, Any]] = []
    bodies: list[object] = []
    for link in links:
        own = {
            name: getattr(link, name)
            for name in ("retry_after_ms", "retry_after", "retry_delay", "retryDelay")
            if _get(link, name) is not None
        }
        if own:
            bodies.insert(0, own)
        headers += list(_headers(link))
        body = _body_of(link)
        bodies += [text for text in (body, str(link)) if text]
    asked = hint_of(status, headers, bodies)
    if asked is None:
        # An attribute is as good as a header: it counts whatever the status.
        asked = hint_of(429, (), [told for told in bodies if isinstance(told, dict) and "retry_after" in told])
    return asked


# ---- places ----


def _get(holder: object, name: str) -> Any:
    # A property of somebody else's class may do anything.
    with contextlib.suppress(Exception):
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    return None


def _responses(error: BaseException) -> Iterator[object]:
    for name in _RESPONSES:
        response = _get(error, name)
        if response is None:
            continue
        yield response
        metadata = _get(response, "ResponseMetadata") if isinstance(response, Mapping) else None  # botocore
        if isinstance(metadata, Mapping):
            yield {"status_code": metadata.get("HTTPStatusCode"), "headers": metadata.get("HTTPHeaders")}
            yield {"code": _get(response.get("Error") or {}, "Code")}


def _headers(error: BaseException) -> Iterator[Mapping[str, Any]]:
    for holder in (error, *_responses(error)):
        for headers in (_get(holder, name) for name in _HEADERS):
            if headers is not None and not isinstance(headers, Mapping):
                # email.message.Message (urllib) and lists of pairs are none.
                items = _get(headers, "items")
                with contextlib.suppress(Exception):
                    headers = dict(items() if callable(items) else headers)
            if isinstance(headers, Mapping) and headers:
                yield headers
        if isinstance(holder, Mapping) and _get(holder, "retry-after") is not None:  # httplib2: the response itself
            yield holder
    trailing = _get(error, "trailing_metadata")  # gRPC
    with contextlib.suppress(Exception):
        pairs = trailing() if callable(trailing) else trailing
        if pairs:
            metadata = {str(key): value for key, value in pairs}
            pushed = metadata.get("grpc-retry-pushback-ms")
            yield metadata | ({} if pushed is None else {"retry-after-ms": pushed})


def _body_of(error: BaseException) -> object:
    """The provider's error object: parsed where the exception keeps its text; None without any."""
    for value in (*(_get(error, name) for name in _BODIES), *error.args):
        document = _parsed(value)
        if document is not None:
            return document
    for response in _responses(error):
        parse = _get(response, "json")
        with contextlib.suppress(Exception):
            document = _parsed(parse()) if callable(parse) else None
            if document is not None:
                return document
        for name in ("text", "content", "body", "data", "Error"):
            document = _parsed(_get(response, name))
            if document is not None:
                return document
    # googleapiclient keeps the body's bytes as ``content`` of the exception.
    return _parsed(_get(error, "content"))


def _parsed(value: object) -> object:
    if isinstance(value, bytes):
        value = value[:1_000_000].decode("utf-8", "replace")
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value) if value.lstrip()[:1] in ("{", "[") else None
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        value = value[0] if len(value) == 1 else {"errors": value}  # Google's streams answer with a list of one
    return value if isinstance(value, Mapping) and value else None


def _status_in(holder: object) -> int | None:
    """A status among an object's attributes, or a mapping's fields."""
    if isinstance(holder, int | str):  # a response that is nothing but its status
        return _as_status(holder)
    if isinstance(holder, tuple | list) and holder:  # httplib2's (response, content), (status, headers)
        return _status_in(holder[0]) if not isinstance(holder[0], tuple | list) else None
    for name in _STATUS_NAMES:
        value = _get(holder, name)
        status = _as_status(value)
        if status is None and value is not None and not isinstance(value, str | bytes | int | float):
            # A status that is an object itself, with its number or name in a place of its own.
            status = next((code for code in map(_as_status, _inner_values(value)) if code is not None), None)
        if status is not None:
            return status
    return None


def _inner_values(value: object) -> Iterator[object]:
    for name in ("code", "status_code", "value", "name", "status"):
        inner = _get(value, name)
        yield inner[0] if isinstance(inner, tuple) and inner else inner


def _status_in_body(body: object) -> int | None:
    """A status in an error object: its own fields, those of its "error", and of the first of several."""
    for _ in range(4):
        if not isinstance(body, Mapping):
            return None
        status = _status_in(body) or _as_status(body.get("type")) or _as_status(body.get("Code"))
        if status is not None:
            return status
        body = body.get("error") or _parsed(body.get("errors"))
    return None


def _as_status(value: object) -> int | None:
    """A value as a status from 400 to 599: a number, its digits, a gRPC code, a word that everybody knows."""
    if callable(value) and not isinstance(value, type):  # gRPC's code()
        with contextlib.suppress(Exception):
            value = value()
    if isinstance(value, enum.Enum) and not isinstance(value, int):
        return _GRPC.get(value.name) or _WORDS.get(_plain(value.name))
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return int(value) if 400 <= value <= 599 else None
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[45]\d\d", text, re.ASCII):
            return int(text)
        text = text.removeprefix("StatusCode.")
        return _GRPC.get(text) or _WORDS.get(_plain(text))
    return None


def _status_in_words(text: str) -> int | None:
    text = text[:2000]
    match = _IN_WORDS.search(text)
    if match is None:
        named = _GRPC_IN_WORDS.search(text)
        if named is not None:
            return _GRPC[named[0]]
        called = _NAMED_IN_WORDS.search(text)
        if called is not None and (status := _as_status(called["code"])) is not None:
            return status
        return next((status for sentence, status in _SENTENCES if sentence.search(text)), None)
    if match.start() == match.start("status") and not re.match(r"[45]\d\d(?::| [A-Z(])", text):
        return None  # "500 words were asked for" begins with a number too
    return int(match["status"])


def _kind(error: BaseException) -> str:
    names = {base.__name__ for base in type(error).__mro__}
    if isinstance(error, TimeoutError) or names & _TIMEOUTS:
        return "timeout"
    return "connection" if isinstance(error, ConnectionError) or names & _CONNECTIONS else ""


def _plain(word: str) -> str:
    return re.sub(r"(?:error|exception)$", "", re.sub(r"[^a-z]", "", word.casefold()))
