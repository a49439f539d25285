"""Errors that providers and the proxies before them report inside an answer with status 200.

Knows: the forms of such error objects, and which HTTP status their codes stand for. Refuses to know: SDKs, exceptions,
what a good answer looks like beyond the fields that every one has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ANSWERS = ("choices", "output", "content", "tokens", "completion_probabilities", "data")
"""Fields of which every good answer has one that is not empty."""

_STATUS_FIELDS = (
    *(
        "status",
        "status_code",
        "statusCode",
        "http_status",
        "http_code",
        "code",
        "error_code",
        "errorCode",
        "errorcode",
    ),
    *("Code", "__type"),
)

_MESSAGES = ("message", "msg", "detail", "description", "status_msg", "faultstring", "Message", "title")

_FINE = frozenset({"0", "200", "ok", "success", "succeeded", "none", "null"})
"""Codes of proxies that put an error object into every answer: of none."""

_AROUND = ("response", "data", "result", "body", "fault", "base_resp")
"""What some gateways put around the answer, or around its error, where there is nothing else."""

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
    answered = any(document.get(name) not in (None, [], {}, "") for name in _ANSWERS)
    inner = document.get("error") or document.get("Error")
    if _says_something(inner) and not (answered and _is_fine(inner)):
        return _reported(inner, document)
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, Mapping) and _says_something(first.get("error")) and not _is_fine(first["error"]):
        return _reported(first["error"], first)
    data = document.get("data")
    if answered and not (isinstance(data, Mapping) and _says_something(data.get("error"))):
        return None
    if document.get("object") == "error" or document.get("type") == "error":
        return _reported(document, {})
    for name in ("errors", "detail", "details", "message", "msg", "error_message", "error_msg", "errorMessage"):
        value = document.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if _says_something(value):
            return _reported(value, document)
    for name in _AROUND:
        value = document.get(name)
        if isinstance(value, Mapping):
            reported = error_in(value)
            if reported is None and name in ("fault", "base_resp") and _says_something(value) and not _is_fine(value):
                reported = _reported(value, document)
            if reported is not None:
                return reported
    if any(_number_of(document.get(name)) is not None for name in _STATUS_FIELDS):
        return _reported({"message": document.get("title") or ""}, document)  # a status, and nothing else
    return None


def _number_of(value: object) -> int | None:
    """A status of an error: 429, 429.0, "429", "E429", "429 Too Many Requests"; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        matched = re.match(r"\s*(?:[A-Za-z]{1,6}[-_ ]?)?([45]\d\d)(?!\d)", value)
        return int(matched[1]) if matched else None
    return int(value) if 400 <= value <= 599 and value == int(value) else None


def _is_fine(inner: object) -> bool:
    """Whether an error object says that there is no error."""
    if isinstance(inner, str):
        return inner.strip().lower() in _FINE
    if not isinstance(inner, Mapping):
        return False
    codes = [inner[name] for name in _STATUS_FIELDS if inner.get(name) is not None]
    if codes:
        return all(str(code).strip().lower() in _FINE for code in codes)
    return str(inner.get("message") or inner.get("msg")).strip().lower() in _FINE


def _says_something(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(part not in (None, "", 0, False, [], {}) for part in value.values())
    if isinstance(value, list):
        return any(map(_says_something, value))
    return _number_of(value) is not None or (isinstance(value, str) and bool(value.strip()))


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
        message = next((str(inner[name]) for name in _MESSAGES if isinstance(inner.get(name), str) and inner[name]), "")
        detail |= _passed_on(inner)
    else:
        message = str(inner)
        if (number := _number_of(inner)) is not None:
            detail["status"] = number
    message = message or str(outer.get("message") or "") or "an error without a message"
    return Reported(status_of(detail, message), message, detail)


def _passed_on(inner: Mapping[str, Any]) -> dict[str, Any]:
    """The status that a router was told by whom it asked, where its own error names none: OpenRouter's ``raw``."""
    metadata = inner.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if isinstance(raw, str) and len(raw) <= 100_000:
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(raw, Mapping) or any(_number_of(inner.get(name)) is not None for name in _STATUS_FIELDS):
        return {}
    reported = error_in(raw)
    return {} if reported is None else {"status": reported.status}


def status_of(detail: Mapping[str, Any], message: str = "") -> int:
    """The HTTP status that an error object stands for; 400, which is final, where nothing tells."""
    named = [detail.get(name) for name in (*_STATUS_FIELDS, "type", "kind", "reason")]
    inner = detail.get("details")
    named.append(inner.get("error_code") if isinstance(inner, Mapping) else None)
    for value in named:
        number = _number_of(value)
        if number is not None:
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
