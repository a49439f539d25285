"""When a provider wants to be asked again, in all the forms it says so."""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

import pytest

from icl_vision.llms.remote.errors.retry_hints import hint_of, parse_body, parse_reset, parse_retry_after, parse_said

NOW = 1792567680.0  # Wed, 21 Oct 2026 07:28:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "inf", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "1e999", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan, 250", "retry-after": "9"}, 0.25),
        ({"Retry-After": " 9 "}, 9.0),
        ({"RETRY_AFTER": 9}, 9.0),
        ({b"retry-after": b"9"}, 9.0),
        ({"retry-after": ["nan", "9"]}, 9.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "23s"}, 23.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, 10.0),
        ({"retry-after": "Wednesday, 21-Oct-26 07:28:10 GMT"}, 10.0),
        ({"retry-after": "Wed Oct 21 07:28:10 2026"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 -0000"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 09:28:10 +0200"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10"}, 10.0),
        ({"retry-after": "2026-10-21T07:28:10Z"}, 10.0),
        ({"retry-after": "2026-10-21T07:28:10"}, 10.0),
        ({"retry-after": "1792567690"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 99999 07:27:00 GMT"}, None),
        ({"retry-after": "next week"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, Any], seconds: float | None) -> None:
    assert parse_retry_after(headers, now=NOW) == seconds


def test_a_date_without_a_zone_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = os.environ.get("TZ")
    try:
        for place in ("Asia/Tokyo", "America/New_York", "UTC"):
            monkeypatch.setenv("TZ", place)
            time.tzset()
            assert parse_retry_after({"retry-after": "Wed Oct 21 07:28:10 2026"}, now=NOW) == 10.0
            assert parse_reset({"anthropic-ratelimit-tokens-reset": "2026-10-21T07:28:10"}, now=NOW) == 10.0
    finally:
        monkeypatch.setenv("TZ", zone) if zone is not None else monkeypatch.delenv("TZ")
        time.tzset()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "38s"}, 38.0),
        ({"x-ratelimit-reset-tokens": "1m3.2s"}, 63.2),
        ({"x-ratelimit-reset-requests": "6ms"}, 0.006),
        ({"X-RateLimit-Reset-Requests": "1h2m"}, 3720.0),
        ({"x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}, 179.56),
        # Only what is used up holds anybody back.
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "8h",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "38s",
            },
            38.0,
        ),
        ({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "38s"}, None),
        ({"x-ratelimit-remaining-requests": "-2", "x-ratelimit-reset-requests": "38s"}, 38.0),
        ({"x-ratelimit-remaining-requests": "none", "x-ratelimit-reset-requests": "38s"}, 38.0),
        ({"anthropic-ratelimit-requests-reset": "2026-10-21T07:28:38Z"}, 38.0),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-10-21T07:28:38Z",
                "anthropic-ratelimit-output-tokens-remaining": "8000",
                "anthropic-ratelimit-output-tokens-reset": "2026-10-21T08:28:38Z",
            },
            38.0,
        ),
        ({"x-ratelimit-reset": "1792567718"}, 38.0),
        ({"x-ratelimit-reset": "1792567718000", "x-ratelimit-remaining": "0"}, 38.0),
        ({"x-ratelimit-reset": "38"}, 38.0),
        ({"x-rate-limit-reset": "38"}, 38.0),
        ({"ratelimit-reset": "38"}, 38.0),
        ({"ratelimit-reset": "38", "ratelimit-remaining": "4"}, None),
        ({"x-ratelimit-reset-after": "3.5", "x-ratelimit-remaining": "0"}, 3.5),
        ({"x-ratelimit-reset-after": "3.5", "x-ratelimit-remaining": "1"}, None),
        ({"ratelimit": "limit=100, remaining=0, reset=38"}, 38.0),
        ({"ratelimit": "limit=100, remaining=7, reset=38"}, None),
        ({"ratelimit": '"default";r=0;t=38'}, 38.0),
        ({"ratelimit": '"burst";r=9;t=2, "daily";r=0;t=38'}, 38.0),
        ({"x-ratelimit-reset-requests": "nan", "x-ratelimit-reset-tokens": "38s"}, 38.0),
        ({"x-ratelimit-reset-requests": "-5", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-limit-requests": "60"}, None),
        ({}, None),
    ],
)
def test_reset_headers(headers: dict[str, str], seconds: float | None) -> None:
    found = parse_reset(headers, now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached for gpt-5.1: Limit 3, Used 3. Please try again in 38.5s. Visit https://x/y", 38.5),
        ("Please try again in 6ms.", 0.006),
        ("Try again in 300 ms", 0.3),
        ("please try again in 7m12s", 432.0),
        ("Please try again in 2 minutes", 120.0),
        ("Please try again in 1 minute and 30 seconds.", 90.0),
        ("try again in 1h2m3s", 3723.0),
        ("Please retry after 38 seconds.", 38.0),
        ("Please retry in 22.46s.", 22.46),
        ("Too many requests, please wait 30 seconds", 30.0),
        ("You have exhausted your capacity. Your quota will reset after 39s.", 39.0),
        ("The limit resets in about 45 sec", 45.0),
        ("Retry-After: 5s", 5.0),
        ("try again later", None),
        ("try again in a few seconds", None),
        ("this took 38 seconds", None),
        ("try again in 3 tries", None),
        ("try again in 5 matches", None),
        ("try again in " + " " * 100_000 + "5s", None),
        ("", None),
    ],
)
def test_what_is_said_in_words(text: str, seconds: float | None) -> None:
    found = parse_said(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


class RetryInfo:
    """As google.rpc's, a protocol buffer."""

    retry_delay = type("Duration", (), {"seconds": 23, "nanos": 500_000_000})()


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"code": 429, "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "23s"}]}}, 23.0),
        ('{"error": {"details": [{"retryDelay": "23.5s"}]}}', 23.5),
        (b'[{"error": {"details": [{"retryDelay": {"seconds": "23", "nanos": 5e8}}]}}]', 23.5),
        ([RetryInfo()], 23.5),
        ({"retry_delay": datetime.timedelta(seconds=4)}, 4.0),
        ({"retry_after": 4}, 4.0),
        ({"error": {"retry_after_ms": 4000}}, 4.0),
        ({"error": {"retryAfter": "nan", "retry_after_seconds": "4"}}, 4.0),
        ({"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1792567684000"}}}, 4.0),
        ({"error": {"message": "Rate limited. Try again in 4s"}}, 4.0),
        ({"error": {"retry_after": True, "message": "try again in 4s"}}, 4.0),
        ({"error": "busy"}, None),
        ("{not json, try again in 4s", 4.0),
        (None, None),
        (7, None),
    ],
)  # fmt: skip
def test_error_objects(body: object, seconds: float | None) -> None:
    found = parse_body(body, now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_endless_error_objects_end() -> None:
    deep: dict[str, Any] = {"retry_after": 4}
    for _ in range(10_000):
        deep = {"inner": deep}
    wide = {"rows": [{"retry_in": "soon"}] * 100_000}
    assert parse_body(deep) is None and parse_body(wide) is None


def test_only_a_limit_that_is_used_up_is_waited_for() -> None:
    headers, body = {"x-ratelimit-reset-requests": "38s"}, {"message": "try again in 7s"}
    for status in (429, 503, 529):
        assert hint_of(status, [headers]) == 38.0
        assert hint_of(status, [headers], [body]) == 7.0  # what was said about this very request
    for status in (400, 408, 409, 500, 502):
        assert hint_of(status, [headers], [body]) is None
        assert hint_of(status, [{"retry-after": "3"}], [body]) == 3.0
    assert hint_of(429, [{"retry-after": "nan"}, {"retry-after": "3"}]) == 3.0
    assert hint_of(429, [{"retry-after": "3", **headers}], [body]) == 3.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "PT1M30S"}, 90.0),
        ({"retry-after": "00:01:30"}, 90.0),
        ({"retry-after": "1:30"}, 90.0),
        ({"retry-after": "in 90 seconds"}, 90.0),
        ({"retry-after": "90; comment"}, 90.0),
        ({"retry-after": "1970/01/01 00:01:30"}, 90.0),
        ({"retry-after": "19700101T000130Z"}, 90.0),
        ({"x-ratelimit-retry-after": "90"}, 90.0),
        ({"x-retry-in": "90s"}, 90.0),
        ({"retry-after": "PT"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_less_common_forms_of_a_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert hint_of(500, [headers], now=0.0) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again later in 2 min", 120.0),
        ("Please try again in a minute.", 60.0),
        ("try again in one hour", 3600.0),
        ("Retry-After: 20", 20.0),
        ("(429) retry_after=20)", 20.0),
        ("{'retry_after': '20'}", 20.0),
        ("Expected available in 20 seconds.", 20.0),
        ("next request allowed in 20s", 20.0),
        ("limit resets at 1970-01-01T00:00:20Z", 20.0),
        ("retry after 3 attempts", None),
        ("Retry in 2 of 5", None),
        ("retry after 2026-01-01", None),
    ],
)
def test_less_common_words_for_a_wait(text: str, seconds: float | None) -> None:
    assert parse_said(text, now=0.0) == seconds


@pytest.mark.parametrize(
    "body",
    [
        {"estimated_time": 20.0, "error": "Model is currently loading"},
        {"error": {"resets_in_seconds": 20}},
        {"error": {"reset_at": "1970-01-01T00:00:20Z"}},
        {"error": {"metadata": {"raw": '{"error": {"retry_after": 20}}'}}},
        {"error": {"metadata": {"raw": '{"error": {"message": "try again in 20s"}}'}}},
    ],
)
def test_less_common_error_objects(body: object) -> None:
    assert parse_body(body, now=0.0) == 20.0
