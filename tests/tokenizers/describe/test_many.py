"""Words by part of many files: rows, both formats, questions, resuming, processes that read."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_describe
from PIL import Image

from icl_vision import ImageTokenizer, ImageWords
from icl_vision.errors import ImageError, RunMismatchError, UsageError
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.tokenizers.bulk.encoding import encode_files
from icl_vision.tokenizers.bulk.files import manifest, read_all, tokenize_files, unfinished
from icl_vision.tokenizers.describe.tokenizer import DescribePhoto
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache

ASKED = "What colour is the ball?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_describe.make(tmp_path_factory.mktemp("many") / "tiny-describe")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    where = tmp_path_factory.mktemp("photos")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 40)).save(where / f"{number:02}.png")
    (where / "99.png").write_bytes(b"no image")
    return [*map(str, sorted(where.iterdir()))]


@pytest.fixture
def tokenizer(folder: Path) -> DescribePhoto:
    return DescribePhoto(folder, providers="cpu", threads=1, reader=tiny_describe.Reader("STOP"))


@pytest.mark.parametrize("about", [None, ASKED])
@pytest.mark.parametrize("workers", [0, 1])
def test_files_give_what_encode_gives(
    tokenizer: DescribePhoto, paths: list[str], about: str | None, workers: int
) -> None:
    expected = tokenizer.encode(paths[:-1], 3, about=about)
    found = [result for _, result in encode_files(tokenizer, paths, 3, about=about, workers=workers)]
    assert found[:-1] == expected and isinstance(found[-1], ImageError)
    assert all(isinstance(words, ImageWords) and words.text == (() if about else ("STOP",)) for words in found[:-1])


def test_a_cache_of_words_is_asked_too(tokenizer: DescribePhoto, paths: list[str], tmp_path: Path) -> None:
    cached = CachedTokenizer(tokenizer, WordsCache(tmp_path / "words.sqlite"))
    found = [result for _, result in encode_files(cached, paths[:5], 3, about=ASKED)]
    assert found == tokenizer.encode(paths[:5], 3, about=ASKED)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("about", [None, ASKED])
def test_rows_hold_parts_probabilities_and_text(
    tokenizer: DescribePhoto, paths: list[str], tmp_path: Path, suffix: str, about: str | None
) -> None:
    if suffix == "parquet" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("needs pyarrow")
    out = tmp_path / f"words.{suffix}"
    report = tokenize_files(tokenizer, paths, out, 3, about=about)
    assert (report.images, report.bad) == (40, 1)
    rows = list(read_all(report, paths))
    for words, row in zip(tokenizer.encode(paths[:-1], 3, about=about), rows[:-1], strict=True):
        assert isinstance(words, ImageWords)
        assert row["parts"] == list(words.names) and row["k"] == words.k and row["text"] == list(words.text)
        assert row["words"] == [words.words(name) for name in words.names]
        assert [chance for part in row["probabilities"] for chance in part] == pytest.approx(words.probabilities)
    assert rows[-1]["error"] == "ImageFormatError"
    made_with = json.loads(manifest(out).read_text())["config"]
    assert made_with["parts"] == ["what", "said", "colours", "where"] and made_with.get("about") == about
    if suffix == "parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(out)
        vocabulary = tokenizer.vocabulary
        first = table.to_pylist()[0]
        assert [vocabulary.ids(part).tolist() for part in first["words"]] == first["ids"]


def test_another_question_is_another_run(tokenizer: DescribePhoto, paths: list[str], tmp_path: Path) -> None:
    out = tmp_path / "words.jsonl"
    tokenize_files(tokenizer, paths[:3], out, about=ASKED)
    assert tokenize_files(tokenizer, paths[:3], out, about=ASKED, resume=True).resumed == 3
    with pytest.raises(RunMismatchError, match="about"):
        tokenize_files(tokenizer, paths[:3], out, about="Who is it?", resume=True)
    with pytest.raises(RunMismatchError):
        tokenize_files(tokenizer, paths[:3], out, resume=True)


def test_a_question_that_cannot_be_is_told_before_the_work(tokenizer: DescribePhoto, tmp_path: Path) -> None:
    for asked, about, message in ((AsciiTokenizer(), ASKED, "can_focus=False"), (tokenizer, " ", "about must say")):
        out = tmp_path / "words.jsonl"
        with pytest.raises(UsageError, match=message):
            tokenize_files(asked, ["no-such-file.png"], out, about=about)
        assert not unfinished(out).exists()


def test_rows_of_other_tokenizers_are_what_they_were(paths: list[str], tmp_path: Path) -> None:
    plain: ImageTokenizer = AsciiTokenizer(4, 3)
    out = tmp_path / "art.jsonl"
    tokenize_files(plain, paths[:1], out)
    assert [*json.loads(out.read_text())] == ["image", "k", "words"]
    assert set(json.loads(manifest(out).read_text())["config"]) == {
        "tokenizer", "tokenizer_hash", "k", "files", "files_hash", "shard", "chunk",
    }  # fmt: skip
