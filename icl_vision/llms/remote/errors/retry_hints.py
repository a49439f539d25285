"""When a provider wants to be asked again: read from its headers, its error object, or what it says in words.

Providers tell it in many forms, and one reply often holds several of them, some broken. Each form is tried in turn and
what makes no sense (NaN, infinite, negative, empty, words) hides nothing behind it:

1. ``retry-after-ms`` and ``retry-after``: seconds, a duration, or a date (without a zone it is UTC). For any status.
2. Of a limit that is used up (429, 503 and 529 only): fields of the error object (``retry_after``, Google's
   ``retryDelay: "23s"``), "try again in 38.5s" in its message, and the headers that say when a limit is filled again
   (``x-ratelimit-reset-requests: 1m3.2s``, ``anthropic-ratelimit-tokens-reset``, ``ratelimit-reset`` ...). Such headers
   stand for a wait only where their limit has nothing left.

Knows: forms of durations and dates, names of fields. Refuses to know: how long is too long (``resilience`` caps).
"""

from __future__ import annotations

import datetime
import email.utils
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

EXHAUSTED = frozenset({429, 503, 529})
"""Statuses of a limit that is used up, or of a provider with too much to do: only then is a reset a time to wait."""

EPOCH = 1e8
"""Seconds; a larger number is a moment (since 1970) and none to wait for: three years."""

MOST_DEPTH, MOST_NODES, MOST_TEXT = 8, 400, 20_000
"""So deep, so many values and so many characters of an error object are looked at: it may hold anything."""

_ASKED_MS = ("retry-after-ms", "x-ms-retry-after-ms")
_ASKED = (
    "retry-after",
    "x-retry-after",
    "x-ratelimit-retry-after",
    "ratelimit-retry-after",
    "x-amz-retry-after",
    "x-retry-in",
    "retry-in",
)

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_UNITS: dict[str, tuple[str, float]] = {
    "ms": (r"milliseconds?|millis|msecs?|ms", 1e-3),
    "us": (r"microseconds?|[u\u00b5\u03bc]s", 1e-6),
    "ns": (r"nanoseconds?|ns", 1e-9),
    "s": (r"seconds?|secs?|s", 1.0),
    "m": (r"minutes?|mins?|m", 60.0),
    "h": (r"hours?|hrs?|h", 3600.0),
    "d": (r"days?|d", 86_400.0),
}
_ANY_UNIT = "(?:" + "|".join(words for words, _ in _UNITS.values()) + ")(?![a-z])"
_AMOUNT = r"(?:\d+(?:\.\d+)?|\.\d+)"
_PART = re.compile(
    f"(?P<number>{_AMOUNT}) ?(?:{'|'.join(f'(?P<{name}>{words})' for name, (words, _) in _UNITS.items())})(?![a-z])",
    re.IGNORECASE,
)
# "1m3.2s", "2 minutes and 5 seconds". Texts are brought to single spaces first, so that no run of them costs time.
_SPAN = rf"{_AMOUNT} ?{_ANY_UNIT}(?:,? ?(?:and )?{_AMOUNT} ?{_ANY_UNIT})*"
_WHOLE_SPAN = re.compile(_SPAN, re.IGNORECASE)
_ASKS = (
    r"\b(?:try (?:it |this |your request |the request |sending )?again|retry(?:ing)?(?: (?:your|the|this) request)?"
    r"|retry[-_]?after|wait|come back|resets?|available(?: again)?|allowed|retry[-_]?delay)\b"
    r"(?: (?:later|in|after|for|at least|about|approximately|another|again|only))* ?[:=]? ?~?[\"']?"
)
# Without a unit it is seconds, where the words leave no doubt: "Retry-After: 20", "retry_after=20", "retry after 20".
_SAID = re.compile(
    rf"{_ASKS}(?P<span>{_SPAN})"
    rf"|{_ASKS}(?P<one>an?|one) (?P<unit>second|minute|hour)\b"
    rf"|\bretry[-_ ]?(?:after|in|delay)[\"']?(?: ?[:=])? ?[\"']?(?P<bare>{_AMOUNT})"
    r"(?=[.,;)\"'\]}]*(?: |$))(?! [a-z\d])"
    r"|\b(?:try again|retry(?:[-_ ]?after)?|resets?)(?: later)?(?: (?:at|after|on))?[:=]? "
    r"?(?P<date>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)",
    re.IGNORECASE,
)
_ISO_SPAN = re.compile(r"PT(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(?:(?P<h>\d{1,2}):)?(?P<m>\d{1,2}):(?P<s>\d\d(?:\.\d+)?)", re.ASCII)

# Fields of an error object, their names without case and separators, and what a bare number in them counts.
_FIELDS = {
    "retryafterms": 1e-3,
    "retryaftermilliseconds": 1e-3,
    "retryaftermillis": 1e-3,
    "retryinms": 1e-3,
    "retryafter": 1.0,
    "retryafters": 1.0,
    "retryafterseconds": 1.0,
    "retryaftersecs": 1.0,
    "retryin": 1.0,
    "retryinseconds": 1.0,
    "retrydelay": 1.0,
    "retryafterduration": 1.0,
    "waitseconds": 1.0,
    "secondstowait": 1.0,
    "secondsuntilreset": 1.0,
    "resetsinseconds": 1.0,
    "resetsin": 1.0,
    "resetin": 1.0,
    "resetseconds": 1.0,
    "resetafter": 1.0,
    "resetsat": 1.0,
    "resetat": 1.0,
    "estimatedtime": 1.0,
}


def parse_retry_after(headers: Mapping[str, Any], *, now: float | None = None) -> float | None:
    """Seconds a provider asks to wait, from its response headers; None where it does not say or says nonsense.

    headers: any mapping; the case of its names does not count. Order: ``retry-after-ms`` (milliseconds),
    ``retry-after`` as seconds, as a duration ("1m30s"), as a date (``now``: Unix time to measure it from). Never
    negative.
    """
    lowered = _lowered(headers)
    moment = time.time() if now is None else now
    for name in _ASKED_MS:
        for value in _values(lowered.get(name)):
            milliseconds = _number(value)
            if milliseconds is not None:
                return milliseconds / 1000
    for name in _ASKED:
        for value in _values(lowered.get(name)):
            seconds = _asked(value, moment)
            if seconds is not None:
                return seconds
    return None


def parse_reset(headers: Mapping[str, Any], *, now: float | None = None) -> float | None:
    """Seconds until the limits that are used up are filled again, from the headers that speak of them.

    Every header whose name speaks of a rate limit's reset counts: ``x-ratelimit-reset-requests`` (OpenAI's durations),
    ``anthropic-ratelimit-*-reset`` (RFC 3339), ``x-ratelimit-reset`` (Unix time or seconds), ``ratelimit-reset`` and
    ``ratelimit`` (IETF). One whose twin says that something is left does not. Of several, the longest.
    """
    lowered = _lowered(headers)
    moment = time.time() if now is None else now
    empty: list[float] = []  # limits known to be used up
    unsaid: list[float] = []  # limits of which nobody says how much is left
    for name, value in lowered.items():
        if name in _ASKED or not re.search(r"rate-?limit", name):
            continue
        if "reset" in name:
            pairs = [(_left(lowered, re.sub(r"reset(-after)?", "remaining", name)), value)]
        elif name in ("ratelimit", "x-ratelimit"):
            pairs = list(_structured(value))
        else:
            continue
        for left, when in pairs:
            seconds = next((due for due in (_asked(each, moment) for each in _values(when)) if due is not None), None)
            if seconds is None or (left is not None and left > 0):
                continue
            (unsaid if left is None else empty).append(seconds)
    return max(empty or unsaid, default=None)


def parse_said(text: str, *, now: float | None = None) -> float | None:
    """Seconds of "try again in 38.5s", "retry after 2 minutes", "please wait 7m12s", "try again in a minute",
    "retry_after=20", "try again at 2026-11-30T00:01:00Z" in a message; None without any."""
    for match in _SAID.finditer(" ".join(text[:MOST_TEXT].split())):
        if match["span"] is not None:
            seconds = _span(match["span"])
        elif match["unit"] is not None:
            seconds = _span(f"1 {match['unit']}")
        elif match["bare"] is not None:
            seconds = _asked(match["bare"], time.time() if now is None else now)
        else:
            seconds = _until(match["date"], time.time() if now is None else now)
        if seconds is not None:
            return seconds
    return None


def parse_body(body: object, *, now: float | None = None) -> float | None:
    """Seconds an error object asks for: a field that says so, wherever it stands, else its words.

    body: JSON values as they were parsed, or their text; objects with ``retry_delay`` (Google's) count too.
    """
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        if body.lstrip()[:1] in ("{", "["):
            try:
                return parse_body(json.loads(body), now=now)
            except (ValueError, RecursionError):
                pass
        return parse_said(body, now=now)
    moment = time.time() if now is None else now
    texts: list[str] = []
    for name, value in _walk(body):
        plain = re.sub(r"[^a-z]", "", name.casefold())
        if plain in _FIELDS:
            seconds = _field(value, _FIELDS[plain], moment)
            if seconds is not None:
                return seconds
        elif plain.endswith("headers") and isinstance(value, Mapping):
            seconds = parse_retry_after(value, now=moment)
            seconds = parse_reset(value, now=moment) if seconds is None else seconds
            if seconds is not None:
                return seconds
        elif isinstance(value, str):
            texts.append(value)
    return next((hint for hint in (_of_text(text, moment) for text in texts) if hint is not None), None)


def _of_text(text: str, now: float) -> float | None:
    """Of a text in an error object: its words, or those of the error object that somebody handed on as text."""
    if text.lstrip()[:1] == "{" and len(text) <= MOST_TEXT:
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            return parse_said(text, now=now)
        hints = [parse_said(leaf, now=now) for _, leaf in _walk(inner) if isinstance(leaf, str)]
        fields = [
            _field(leaf, _FIELDS[plain], now)
            for name, leaf in _walk(inner)
            if (plain := re.sub(r"[^a-z]", "", name.casefold())) in _FIELDS
        ]
        return next((leaf for leaf in [*fields, *hints] if leaf is not None), None)
    return parse_said(text, now=now)


def hint_of(
    status: int, headers: Iterable[Mapping[str, Any]] = (), bodies: Iterable[object] = (), *, now: float | None = None
) -> float | None:
    """Seconds to wait before asking again after ``status``, by everything a reply says; None where it says nothing.

    headers: mappings, the most telling first. bodies: error objects, messages.
    """
    headers, bodies = list(headers), list(bodies)
    asked = next((wait for wait in (parse_retry_after(each, now=now) for each in headers) if wait is not None), None)
    if asked is not None or status not in EXHAUSTED:
        return asked
    said = next((hint for hint in (parse_body(each, now=now) for each in bodies) if hint is not None), None)
    if said is not None:
        return said
    return next((wait for wait in (parse_reset(each, now=now) for each in headers) if wait is not None), None)


# ---- forms ----


def _asked(value: str, now: float) -> float | None:
    """A wait: seconds to go, or since 1970 (milliseconds too); a duration; a date."""
    number = _number(value)
    if number is None:
        seconds = _whole_span(value)
        return _until(value, now) if seconds is None else seconds
    if number < EPOCH:
        return number
    while number > EPOCH * 1000:  # milliseconds, microseconds ...
        number /= 1000
    return max(0.0, number - now)


def _field(value: object, unit: float, now: float) -> float | None:
    """What a field of an error object says."""
    if isinstance(value, datetime.timedelta):
        return _sane(value.total_seconds())
    if isinstance(value, str):
        number = _number(value)
        return _asked(value, now) if number is None else number * unit
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _sane(float(value))
        return None if seconds is None else seconds * unit
    # Protocol buffers' durations, as messages or as JSON.
    get = value.get if isinstance(value, Mapping) else lambda name, default=None: getattr(value, name, default)
    whole, rest = get("seconds", None), get("nanos", 0)
    if isinstance(whole, int | float | str) and not isinstance(whole, bool):
        number = _number(str(whole))
        part = _number(str(rest))
        return None if number is None else number + (part or 0.0) / 1e9
    return None


def _number(value: object) -> float | None:
    """A number of 0 or more, and finite."""
    text = str(value).strip().strip('"') if value is not None else ""
    return _sane(float(text)) if _NUMBER.fullmatch(text) else None


def _left(headers: Mapping[str, str], name: str) -> float | None:
    """What is left of a limit; None where it is not said. Less than nothing is nothing."""
    text = headers.get(name, "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _whole_span(value: str) -> float | None:
    text = " ".join(value.strip().strip('"').split())
    text = re.sub(r"(?i)^in |;.*$", "", text)
    if _WHOLE_SPAN.fullmatch(text):
        return _span(text)
    if (number := _number(text)) is not None and number < EPOCH:
        return number
    parts = _ISO_SPAN.fullmatch(text) or _CLOCK.fullmatch(text)
    if parts is None or not any(parts.groups()):
        return None
    return _sane(float(parts["h"] or 0) * 3600 + float(parts["m"] or 0) * 60 + float(parts["s"] or 0))


def _span(text: str) -> float | None:
    """Seconds of a duration with units."""
    total = 0.0
    for part in _PART.finditer(text):
        total += float(part["number"]) * next(seconds for name, (_, seconds) in _UNITS.items() if part[name])
    return _sane(total)


def _until(value: str, now: float) -> float | None:
    """Seconds until a date of HTTP (in any of its three forms) or RFC 3339; 0 for one that has passed."""
    text = value.strip().strip('"')
    text = re.sub(r"^(\d{4})/(\d\d)/(\d\d)(?=\D|$)", r"\1-\2-\3", text)
    text = re.sub(r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", r"\1-\2-\3T\4:\5:\6", text)
    iso = re.match(r"\d{4}-\d\d-\d\d", text)  # Python takes more as ISO 8601 than a provider may mean: "20261128"
    try:
        moment = datetime.datetime.fromisoformat(text) if iso else email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:  # asctime's form, "-0000": the time of HTTP is UTC, wherever this machine stands
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return _sane(max(0.0, moment.timestamp() - now))
    except (OverflowError, ValueError, OSError):
        return None


def _structured(value: str) -> Iterator[tuple[float | None, str]]:
    """(what is left, when it is filled again) of the IETF's one header, in its older form and in its newer one."""
    for policy in value.split(",") if ";" in value else [value]:
        fields = dict(re.findall(r"([a-z]+)\s*=\s*([^;,\s]+)", policy.casefold()))
        when = fields.get("reset") or fields.get("t")
        if when is not None:
            yield _left(fields, "remaining" if "remaining" in fields else "r"), when


def _sane(seconds: float) -> float | None:
    # NaN and infinities are floats too; "wait for ever" is no answer.
    return seconds if 0 <= seconds < math.inf else None


# ---- where they stand ----


def _lowered(headers: Mapping[str, Any]) -> dict[str, str]:
    lowered: dict[str, str] = {}
    for name, value in headers.items():
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, bytes):
            value = value.decode("latin-1")
        plain = name.decode("latin-1") if isinstance(name, bytes) else str(name)
        lowered[plain.casefold().replace("_", "-")] = str(value)
    return lowered


def _values(value: str | None) -> list[str]:
    """A header's value, and the values it was joined from where it was sent twice."""
    if value is None or not value.strip():
        return []
    parts = [part.strip() for part in value.split(",")]
    return [value, *parts] if len(parts) > 1 else [value]


def _walk(body: object) -> Iterator[tuple[str, object]]:
    """Names and values in an error object, outer ones first; so deep and so many, then no more."""
    level: list[tuple[str, object]] = [("", body)]
    seen = 0
    for _ in range(MOST_DEPTH):
        below: list[tuple[str, object]] = []
        for name, value in level:
            seen += 1
            if seen > MOST_NODES:
                return
            yield name, value
            if isinstance(value, Mapping):
                below.extend((str(key), child) for key, child in value.items())
            elif isinstance(value, list | tuple):
                below.extend((name, child) for child in value)
            elif not isinstance(value, str | bytes | int | float | None):
                delay = getattr(value, "retry_delay", None)  # google.rpc.RetryInfo
                if delay is not None:
                    below.append(("retry_delay", delay))
        level = below
