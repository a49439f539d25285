"""A codebook of a masked language model's own table: which words, which vectors, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from icl_vision.codebook import Codebook
from icl_vision.errors import UsageError
from icl_vision.exporters import table_codebook as exporter
from icl_vision.models.words.masked_lm import MaskedTextEncoder
from icl_vision.models.words.masked_lm_files import TextShape

PIECES = {"dog": 30, "the": 1, "cat": 20, "sea": 10, "sun": 40}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text encoder of four dimensions that knows five words, each row its token."""

    def load(source: str, layers: int | None = None, words: list[str] | None = None) -> MaskedTextEncoder:
        assert layers == 0 and words is not None
        table = torch.tensor([[float(PIECES[word])] * 4 for word in words])
        return MaskedTextEncoder(TextShape(width=4, layers=0, heads=2, inner=4, positions=4), table)

    monkeypatch.setattr(exporter, "single_pieces", lambda source, words: {w: PIECES[w] for w in words if w in PIECES})
    monkeypatch.setattr(MaskedTextEncoder, "load", staticmethod(load))


def test_the_most_frequent_words_that_say_something(model: None, tmp_path: Path) -> None:
    made = exporter.build_table_codebook(
        tmp_path / "book", text_encoder="model", name="book", words=3, licence="MIT", origin="somewhere"
    )
    assert list(made.vocabulary) == ["sea", "cat", "dog"]  # in order of their numbers; "the" says nothing
    assert np.array_equal(made.vectors[:, 0], [10, 20, 30])
    again = Codebook.load(tmp_path / "book")
    assert again.card["licence"] == "MIT" and again.card["provenance"]["text_encoder"] == "somewhere"


def test_more_words_than_there_are(model: None, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"4 words of 'portable-minilm-128' are single pieces of 'model', 5 are wanted"
    ):
        exporter.build_table_codebook(tmp_path / "book", text_encoder="model", name="book", words=5)


def test_the_command_line(model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exporter.main(["--source", "model", "--out", str(tmp_path / "small"), "--words", "2"]) == 0
    assert "small: 2 words" in capsys.readouterr().err
    assert exporter.main(["--source", "model", "--out", str(tmp_path / "x"), "--words", "9"]) == 1
    assert "error: 4 words" in capsys.readouterr().err
