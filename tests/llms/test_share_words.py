"""Words compared among themselves: one request where a score takes two, and the same choice."""

from __future__ import annotations

import asyncio
import importlib.util

import numpy as np
import pytest
from fake_llama import fake_local

from icl_vision.contracts import Prompt
from icl_vision.drawing.word_by_word import Guidance, WordByWordWriter
from icl_vision.errors import BudgetExceededError, LLMUnavailableError, UsageError
from icl_vision.llms import Budget, CachedLLM, FakeLLM, Meter, MeteredLLM, ResponseCache
from icl_vision.llms.loop import run_sync

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local (xllamacpp)"
)

PROMPT, WITHOUT = Prompt("", "7 -> gap\n3 -> ring", "3 ->"), Prompt("", "7 -> gap\n3 -> ring", "->")
WORDS = ("gap", "ring", "line", "arc")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))


def shares(values):
    logs = np.asarray(values)
    return logs - np.logaddexp.reduce(logs)


@pytest.mark.parametrize("words", [WORDS, WORDS[:2], (*WORDS, "gap")])
def test_one_request_gives_the_shares_that_a_score_gives(monkeypatch, words):
    llm, server = fake_local(monkeypatch)
    scored = llm.score_sync([(PROMPT, " " + word) for word in WORDS], terminator="")
    known = dict(zip(WORDS, scored.logprobs, strict=True))
    fresh, server = fake_local(monkeypatch)
    found = run_sync(fresh.share_words(PROMPT, words))
    assert found.usage.requests == len(server.requests) == 1
    assert shares(found.logprobs) == pytest.approx(shares([known[word] for word in words]), abs=1e-6)


@pytest.mark.parametrize("words", [("gap",), ("gap", "twofold", "ring")])
def test_a_word_alone_and_words_of_several_tokens_are_scored(monkeypatch, words):
    llm, _ = fake_local(monkeypatch)
    found = run_sync(llm.share_words(PROMPT, words))
    other, _ = fake_local(monkeypatch)
    assert found.logprobs == other.score_sync([(PROMPT, " " + word) for word in words], terminator="").logprobs


def test_a_deterministic_llm_scores(monkeypatch):
    llm, _ = fake_local(monkeypatch, deterministic=True)
    assert not llm.tells_shares
    assert run_sync(llm.share_words(PROMPT, WORDS)).method == "forced tokens"


def test_guided_words_are_the_same_at_half_the_requests(monkeypatch):
    def written(llm):
        return asyncio.run(WordByWordWriter(llm).write(PROMPT, WITHOUT, [WORDS] * 3, Guidance(2.0), 0))

    llm, server = fake_local(monkeypatch)
    words, usage = written(llm)
    assert usage.requests == len(server.requests) == 3 * 2
    with monkeypatch.context() as patch:
        patch.setattr(type(llm), "tells_shares", False)
        other, before = fake_local(patch)
        assert written(other)[0] == words
        assert len(before.requests) >= 3 * 4


def test_a_meter_books_one_request_and_stops_the_next(monkeypatch):
    llm, server = fake_local(monkeypatch)
    meter = Meter(budget=Budget(requests=1))
    metered = MeteredLLM(llm, meter)
    assert metered.tells_shares
    run_sync(metered.share_words(PROMPT, WORDS))
    assert meter.total()[0].requests == 1
    with pytest.raises(BudgetExceededError):
        run_sync(metered.share_words(WITHOUT, WORDS))
    assert len(server.requests) == 1
    other = Meter()
    server.failure = LLMUnavailableError("the server is gone")
    with pytest.raises(LLMUnavailableError):
        run_sync(MeteredLLM(llm, other).share_words(PROMPT, WORDS))
    assert other.total()[0].requests == 1


def test_a_response_cache_goes_on_keeping_scores(monkeypatch, tmp_path):
    llm, server = fake_local(monkeypatch)
    cached = CachedLLM(llm, ResponseCache(tmp_path / "responses.sqlite"))
    assert not cached.tells_shares
    first = run_sync(cached.share_words(PROMPT, WORDS))
    before = len(server.requests)
    assert run_sync(cached.share_words(PROMPT, WORDS)).logprobs == first.logprobs
    assert len(server.requests) == before


def test_any_other_llm_scores():
    llm = FakeLLM()
    found = run_sync(llm.share_words(PROMPT, WORDS))
    assert len(llm.calls) == len(WORDS) and len(found.logprobs) == len(WORDS)
    with pytest.raises(UsageError, match="score needs at least one"):
        run_sync(llm.share_words(PROMPT, []))
