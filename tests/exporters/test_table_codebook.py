"""A codebook of a masked language model's own table: which words or all rows, which vectors, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_masked_lm
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


@pytest.mark.parametrize(("kind", "called"), [("roberta", {4: "<mask>", 5: "a"}), ("bert", {4: "[MASK]", 11: "##s"})])
def test_every_row_of_a_table_by_the_command(
    kind: str, called: dict[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_masked_lm.saved(tmp_path / "model", kind)
    assert exporter.main(["--source", str(tmp_path / "model"), "--out", str(tmp_path / "book"), "--all"]) == 0
    assert "book: 60 words" in capsys.readouterr().err
    book = Codebook.load(tmp_path / "book")
    table = model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(torch.tensor(book.vectors), table, atol=1e-3, rtol=1e-3)
    assert {row: book.vocabulary.word(row) for row in called} == called
    assert book.vocabulary.word(59) == "<row-59>"  # the table has more rows than the tokenizer pieces
    assert book.card["rows"] == "all" and len(set(book.vocabulary)) == 60


def test_a_piece_that_cannot_be_a_word_is_called_by_its_number() -> None:
    pieces = {0: "cat", 1: "\u200b", 2: "cat", 4: "x" * 129}
    assert exporter._row_names(pieces, 5) == ["cat", "<row-1>", "<row-2>", "<row-3>", "<row-4>"]


def test_all_rows_and_a_number_of_words_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exporter.main(["--source", "model", "--out", str(tmp_path / "x"), "--all", "--words", "3"])
    assert "not allowed with" in capsys.readouterr().err
