"""Errors that providers and the proxies before them report inside an answer with status 200.

Knows: the forms of such error objects, and which HTTP status their codes stand for. Refuses to know: SDKs, exceptions,
what a good answer looks like beyond the fields that every one has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ANSWERS = ("choices", "output", "content", "tokens", "completion_probabilities", "data")
"""Fields of which every good answer has one that is not empty."""

_STATUS_FIELDS = ("status", "status_code", "statusCode", "http_status", "http_code", "code", "error_code")

# Words in codes and types, and the status they stand for; the first that fits counts. What is spelt RateLimitError,
# RATE_LIMIT or "rate limit" is one word here.
_WORDS: tuple[tuple[str, int], ...] = (
    ("insufficientquota|billinghardlimit|billingnotactive|creditbalance|spendlimit|quotaexceeded", 429),
    ("ratelimit|toomanyrequests|throttl|resourceexhausted|concurrencylimit|tokenlimitexceeded", 429),
    ("overload", 529),
    ("gatewaytimeout|timeout|timedout|deadline", 504),
    ("unavailable|notready|loading|capacity|busy", 503),
    ("badgateway|upstream", 502),
    ("internal|servererror|apierror|unknownerror|engineerror|serverexception|connectionerror", 500),
    ("authentication|unauthori[sz]ed|unauthenticated|invalidapikey|apikey", 401),
    ("billing|paymentrequired|insufficientbalance|insufficientcredit", 402),
    ("permission|forbidden|accessdenied", 403),
    ("notfound|doesnotexist", 404),
    ("toolarge", 413),
)
# The same in a sentence, where there is no code: only what surely passes, or surely does not.
_SENTENCES: tuple[tuple[str, int], ...] = (
    (r"rate.?limit|too many requests|throttl", 429),
    (r"overloaded", 529),
    (r"timed? ?out", 504),
    (r"temporarily|try again|unavailable|is (?:still |currently )?loading|at capacity", 503),
    (r"bad gateway|upstream", 502),
    (r"internal (?:server )?error", 500),
    (r"(?:invalid|incorrect) api key|unauthori[sz]ed", 401),
)

_NO_CODES = ("error", "failed", "failure", "fail", "incomplete")


@dataclass(frozen=True, slots=True)
class Reported:
    """An error inside an answer: the HTTP status it stands for, the provider's words, its error object."""

    status: int
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


def error_in(document: object) -> Reported | None:
    """The error that an answer with status 200 reports; None where it reports none."""
    if isinstance(document, list):  # some gateways put the one object into a list
        return error_in(document[0]) if len(document) == 1 and isinstance(document[0], Mapping) else None
    if not isinstance(document, Mapping):
        return None
    inner = document.get("error")
    if _says_something(inner):
        return _reported(inner, document)
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, Mapping) and _says_something(first.get("error")):
        return _reported(first["error"], first)
    if any(document.get(name) not in (None, [], {}, "") for name in _ANSWERS):
        return None
    if document.get("object") == "error" or document.get("type") == "error":
        return _reported(document, {})
    for name in ("errors", "detail", "details", "message", "msg", "error_message", "error_msg", "errorMessage"):
        value = document.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if _says_something(value):
            return _reported(value, document)
    return None


def _says_something(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(part not in (None, "", 0, False, [], {}) for part in value.values())
    if isinstance(value, list):
        return any(map(_says_something, value))
    return isinstance(value, str) and bool(value.strip())


def _reported(inner: Any, outer: Mapping[str, Any]) -> Reported:
    """inner: the error itself, an object or a text; outer: what it stood in, which may have the code."""
    if isinstance(inner, list):
        inner = next(filter(_says_something, inner))
    detail: dict[str, Any] = {}
    for name in (*_STATUS_FIELDS, "type"):
        if outer.get(name) is not None and not isinstance(outer[name], Mapping | list):
            detail[name] = outer[name]
    if isinstance(inner, Mapping):
        deeper = inner.get("error")
        if isinstance(deeper, Mapping | str) and _says_something(deeper):
            return _reported(deeper, {**detail, **inner})
        detail |= inner
        message = next(
            (str(inner[name]) for name in ("message", "msg", "detail", "description") if inner.get(name)), ""
        )
    else:
        message = str(inner)
    message = message or str(outer.get("message") or "") or "an error without a message"
    return Reported(status_of(detail, message), message, detail)


def status_of(detail: Mapping[str, Any], message: str = "") -> int:
    """The HTTP status that an error object stands for; 400, which is final, where nothing tells."""
    named = [detail.get(name) for name in (*_STATUS_FIELDS, "type", "kind", "reason")]
    inner = detail.get("details")
    named.append(inner.get("error_code") if isinstance(inner, Mapping) else None)
    for value in named:
        number = int(value) if isinstance(value, str) and value.strip().isdigit() else value
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number <= 599:
            return number
    for value in named:
        if isinstance(value, str):
            flat = re.sub(r"[^a-z0-9]", "", value.lower())
            for words, status in _WORDS:
                if re.search(words, flat):
                    return status
    known = [value for value in named if isinstance(value, str) and value and not value.isdigit()]
    if any(value.lower() not in _NO_CODES for value in known):
        return 400  # a code that nobody here knows is no reason to ask again
    for sentence, status in _SENTENCES:
        if re.search(sentence, message, re.IGNORECASE):
            return status
    return 400
