"""Counting tokens: exact where a vocabulary is at hand, an honest estimate elsewhere, never a download or a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.llms import tokens

PROSE = Path(__file__).parents[2] / "LICENSE"


@pytest.fixture(autouse=True)
def fresh_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tokens._counter.cache_clear()


def test_exact_with_a_vocabulary_at_hand() -> None:
    pytest.importorskip("bpe_openai")
    for model in ("gpt-4o", "openai:gpt-4o"):
        assert tokens.count_tokens(" golden retriever", model) == tokens.TokenCount(3, True, "o200k_base")
    assert tokens.count_tokens("<|endoftext|>", "gpt-4o").exact  # special tokens are ordinary text


def test_estimate_for_models_nobody_knows() -> None:
    count = tokens.count_tokens("Input: dog cat\n", "anthropic:claude-opus-5-5")
    assert count == tokens.TokenCount(5, False, "estimate")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a vocabulary on disk even a known model is estimated; the network guard would fail a download."""
    monkeypatch.setattr(tokens.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    assert not tokens.count_tokens("some words", "gpt-4o").exact


def test_estimate_is_within_its_stated_error() -> None:
    bpe = pytest.importorskip("bpe_openai").get_encoding("o200k_base")
    prompt = "".join(f"###\nInput: dog puppy terrier hound leash\nOutput: golden retriever {i}\n" for i in range(9))
    for text in (PROSE.read_text(), prompt):
        true = len(bpe.encode(text))
        assert abs(tokens.estimate_tokens(text) - true) <= tokens.ESTIMATE_ERROR * true


@given(st.text())
def test_any_text_has_a_count(text: str) -> None:
    assert tokens.estimate_tokens(text) >= 0
