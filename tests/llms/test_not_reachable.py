"""A server that is not running is said at once, and once, until it answers again."""

from __future__ import annotations

import logging

import pytest

from icl_vision.errors import LLMStatusError, LLMUnavailableError
from icl_vision.llms.loop import run_sync
from icl_vision.llms.remote.resilience import Resilience, RetryPolicy


async def no_sleep(seconds: float) -> None: ...


def test_said_once_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    resilience = Resilience(RetryPolicy(attempts=4), sleep=no_sleep)
    left = [3]

    async def ask() -> str:
        if left[0]:
            left[0] -= 1
            raise LLMUnavailableError("no server at http://127.0.0.1:9")
        return "here"

    with caplog.at_level(logging.WARNING, "icl_vision"):
        assert run_sync(resilience.call(ask)) == "here"
        assert caplog.messages == ["not reachable, trying again: no server at http://127.0.0.1:9"]
        left[0] = 2
        run_sync(resilience.call(ask))
    assert len(caplog.messages) == 2


def test_a_busy_server_is_there(caplog: pytest.LogCaptureFixture) -> None:
    left = [2]

    async def ask() -> str:
        if left[0]:
            left[0] -= 1
            raise LLMStatusError("busy", 503)
        return "here"

    with caplog.at_level(logging.WARNING, "icl_vision"):
        run_sync(Resilience(sleep=no_sleep).call(ask))
    assert caplog.messages == []
