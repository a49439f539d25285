"""Every file a user may hand in, in place of which something else stands: an error of ours, and never a wait."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from icl_vision.cli import main
from icl_vision.cli.build import _vocabulary
from icl_vision.codebook import Codebook
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.evaluation.drawing.items import DigitPool
from icl_vision.evaluation.few_shot.episodes.archive_entries import read_entries
from icl_vision.evaluation.few_shot.episodes.sets import load_episodes, read_episode_file
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.files.reading import read_arrays
from icl_vision.files.runs import Run, read_info
from icl_vision.images import load_image
from icl_vision.llms import connect, record
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.local.gguf import read_info as read_gguf
from icl_vision.tasks.answer.files import read_entries as read_questions
from icl_vision.tasks.classify.classifier import FewShotClassifier
from icl_vision.tasks.draw.examples import read_examples
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.tokenizers.bulk.files import tokenize_files
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.viz.benchmark.data import Results
from icl_vision.vocabulary import Vocabulary, read_card

Reader = Callable[[Path], Any]


def inside(name: str, read: Reader) -> Reader:
    """A reader of a folder, as one of the file of that name in it."""

    def read_file(path: Path) -> Any:
        folder = path.parent / f"in-{path.name}"
        folder.mkdir(exist_ok=True)
        if not os.path.lexists(folder / name):
            os.rename(path, folder / name)
        return read(folder)

    return read_file


def npz(path: Path) -> Path:
    """The same thing under a name that says what it should be."""
    named = Path(f"{path}.npz")
    if os.path.lexists(path):
        os.rename(path, named)
    return named


READERS: dict[str, Reader] = {
    "an episode file": load_episodes,
    "an episode file's head": read_episode_file,
    "an archive's entries": read_entries,
    "a price table": PriceTable.load,
    "a recording": lambda path: connect(f"replay:{path}"),
    "pictures in an npz": lambda path: list_pictures(npz(path)),
    "digits in an npz": DigitPool.read,
    "a list of words": lambda path: _vocabulary(path, None),
    "an image": load_image,
    "a GGUF": read_gguf,
    "a card": inside("card.json", read_card),
    "a vocabulary": inside("card.json", Vocabulary.load),
    "a codebook": inside("card.json", Codebook.load),
    "a tokenizer": inside("card.json", OnnxTokenizer),
    "a digit reader": inside("card.json", DigitReader),
    "a run": inside("run.json", read_info),
    "results": inside("results.json", Results.read),
    "captions": inside("captions.jsonl", read_examples),
    "questions": lambda path: read_questions(path, "question", truths=False),
    "questions in a folder": inside("questions.jsonl", lambda path: read_questions(path, "question", truths=True)),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 100)


def not_text(path: Path) -> None:
    path.write_bytes(b'{"a": "\xff"}')


def numbers(path: Path) -> None:
    path.write_text('{"a": ' + "9" * 10_000 + "}")


@pytest.mark.parametrize("put", [pipe, device, Path.mkdir, deep, binary, not_text, numbers])
@pytest.mark.parametrize("what", READERS)
def test_nothing_escapes_and_nothing_hangs(tmp_path: Path, what: str, put: Callable[[Path], Any]) -> None:
    put(tmp_path / "given")
    with pytest.raises(IclVisionError) as caught:
        READERS[what](tmp_path / "given")
    assert "given" in str(caught.value) or "in-given" in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300], ids=["null", "surrogate", "long"])
@pytest.mark.parametrize("what", READERS)
def test_paths_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, name: str) -> None:
    monkeypatch.setattr(os, "rename", lambda *names: None)
    monkeypatch.setattr(Path, "mkdir", lambda self, **options: None)  # (folders: the folder itself cannot be)
    with pytest.raises(IclVisionError):
        READERS[what](tmp_path / name)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", b"\x93NUMPY\x01\x00")


def lies(path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def pickled(path: Path) -> None:
    np.savez(path, x_test=np.array([{}], dtype=object))
    Path(f"{path}.npz").rename(path)


def cut(path: Path) -> None:
    np.savez_compressed(path, x_test=np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8))
    Path(f"{path}.npz").rename(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    path.write_bytes(data)


@pytest.mark.parametrize("put", [bomb, lies, pickled, cut])
def test_npz_files_that_lie(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "given")
    with pytest.raises(ValueError, match="."):
        read_arrays(tmp_path / "given", "x_test")
    with pytest.raises(UsageError, match="given.npz' cannot be read as an .npz file"):
        list_pictures(npz(tmp_path / "given"))


def test_an_npz_file_as_it_should_be(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(6).reshape(2, 3), y=np.float32([1.5]))
    found, names = read_arrays(tmp_path / "a.npz", "x", "z")
    assert found.keys() == {"x"} and found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert names == ["x", "y"]


WRITERS: dict[str, Callable[[str], Any]] = {
    "a codebook": lambda path: Codebook(Vocabulary(["a", "b"]), np.eye(2)).save(path),
    "a vocabulary": lambda path: Vocabulary(["a", "b"]).save(path),
    "words": lambda path: tokenize_files(AsciiTokenizer(), ["a.png"], f"{path}.jsonl"),
    "a run": lambda path: Run.open(path, "test", {}),
    "a recording": lambda path: record(FakeLLM(), path).complete_sync("x"),
    "a saved classifier": lambda path: fitted().save(path),
}


def fitted() -> FewShotClassifier:
    pixels = np.zeros((8, 8), np.uint8)
    return FewShotClassifier("fake", AsciiTokenizer(4, 4), None).fit([pixels, pixels + 100], ["x", "y"])


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["null", "surrogate"])
@pytest.mark.parametrize("what", WRITERS)
def test_nothing_is_written_to_a_path_that_cannot_be(tmp_path: Path, what: str, name: str) -> None:
    with pytest.raises(IclVisionError, match=r"null character|character that no file's name can have"):
        WRITERS[what](f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("put", [pipe, device, Path.mkdir, deep, binary, not_text, numbers])
def test_a_saved_task_that_is_none(tmp_path: Path, put: Callable[[Path], Any]) -> None:
    put(tmp_path / "given")
    with pytest.raises(IclVisionError, match="given"):
        FewShotClassifier.load(tmp_path / "given")


def test_commands_with_a_null_character(tmp_path: Path) -> None:
    for arguments in (["tokenize", "a\0b"], ["show", "a\0b", "--out", "x.html"], ["models", "info", "a\0b"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), result.exception
