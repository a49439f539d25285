"""Rates of words: packaged lists, for the encoder they were measured with and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from icl_vision.tokenizers import likely
from icl_vision.tokenizers.rates import LEAST, word_rates


def tokenizer(name: str, encoder: str) -> Any:
    return SimpleNamespace(name=name, card={"files": {"encoder.onnx": encoder}})


def test_rates_hold_for_one_encoder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "artefacts" / "word_rates"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("# measured somewhere\n# encoder.onnx abc\n0.5 dog\n0.0121 cat\n")
    monkeypatch.setattr(likely, "files", lambda package: tmp_path)
    likely.packaged_list.cache_clear()
    try:
        assert word_rates(tokenizer("mine", "abc")) == {"dog": 0.5, "cat": 0.0121}
        assert word_rates(tokenizer("mine", "another")) == {} == word_rates(tokenizer("other", "abc"))
        assert word_rates(tokenizer("../mine", "abc")) == {} == word_rates(SimpleNamespace(name="mine", card={}))
    finally:
        likely.packaged_list.cache_clear()


def test_packaged_rates_are_rates() -> None:
    from icl_vision.tokenizers import zoo

    for name in zoo.available():
        known = word_rates(zoo.load(name)) if name != "ascii" else {}
        assert all(LEAST <= rate < 1 and word == word.strip() for word, rate in known.items())


def test_the_packaged_tokenizers_that_tell_probabilities_have_rates() -> None:
    from icl_vision.tokenizers import zoo

    names = [name for name in zoo.available() if name.startswith("describe")]
    for name in names:
        assert word_rates(zoo.load(name)), f"measure them again: benchmarks/word_rates.py {name}"
