"""Every command that writes: on a full or read-only disk it is one line and exit status 1, before anything is asked."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main
from icl_vision.llms.fake import FakeLLM

DIGITS = Path(__file__).resolve().parents[2] / "icl_vision" / "artefacts" / "examples" / "digits"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, level in (("dark", 10), ("light", 240)):
        (tmp_path / "support" / name).mkdir(parents=True)
        for number in range(6):
            picture = Image.fromarray(np.full((12, 12), level + number, np.uint8))
            picture.save(tmp_path / "support" / name / f"{number}.png")
    shutil.copy(tmp_path / "support" / "dark" / "0.png", tmp_path / "one.png")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "words.txt").write_text("a\nb\n")
    return tmp_path


FAKE = ("--llm", "fake")
COMMANDS: dict[str, tuple[str, ...]] = {
    "classify": ("classify", "one.png", "--support", "support", "--tokenizer", "ascii", *FAKE, "--out", "OUT"),
    "generate-png": ("generate", "--examples", "digits", "--query", "an image of 3", *FAKE, "--out", "OUT.png"),
    "generate": ("generate", "--examples", "digits", "--query", "an image of 3", *FAKE, "--out", "OUT"),
    "denoise": (
        "denoise",
        "one.png",
        "--task",
        "outpainting",
        "--context",
        "support/light",
        "--examples",
        "2",
        *FAKE,
        "--out",
        "OUT",
    ),
    "reconstruct": ("reconstruct", "one.png", "--out", "OUT.png"),
    "show": ("show", "one.png", "--out", "OUT.html"),
    "show-png": ("show", "one.png", "--out", "OUT.png"),
    "tokenize": ("tokenize", "one.png", "--tokenizer", "ascii", "--out", "OUT.jsonl"),
    "eval few-shot": ("eval", "few-shot", "--data", "support", "--ways", "2", *FAKE, "--out", "OUT"),
    "eval generation": ("eval", "generation", "-n", "10", *FAKE, "--out", "OUT"),
    "eval denoising": ("eval", "denoising", "--data", "support", *FAKE, "--out", "OUT"),
    "eval reconstruction": ("eval", "reconstruction", "--data", "support", "--out", "OUT"),
    "demo": ("demo", *FAKE, "--out", "OUT"),
    "export": ("export", "checkpoint", "--out", "OUT"),
    "train": ("train", "spae", "--config", "spae-digits-32", "--data", "support", "--out", "OUT"),
    "build words": ("build", "words", "--encoder", "nowhere", "--out", "OUT"),
    "build codebook": ("build", "codebook", "--from", "nowhere", "--words", "words.txt", "--out", "OUT"),
}


def run(name: str, out: str) -> Result:
    return CliRunner().invoke(main, [word.replace("OUT", out) for word in COMMANDS[name]])


def refused(done: Result, why: str) -> None:
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("Error: StorageError: ") and why in lines[0], done.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded or asked before --out was tried."""
    found: list[str] = []

    def watch(what: str) -> Any:
        return lambda *args, **options: found.append(what) or pytest.fail(f"{what} before --out was tried")

    monkeypatch.setattr("icl_vision.tokenizers.zoo.load", watch("a tokenizer"))
    monkeypatch.setattr(FakeLLM, "__init__", watch("an LLM"))
    return found


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", COMMANDS)
def test_out_is_tried_first(
    work: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("icl_vision.files.storage.tempfile.TemporaryFile", refuse)
    refused(run(name, "new/out"), os.strerror(code))
    assert not asked and not (work / "new").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_out_below_a_file(work: Path, asked: list[str], name: str) -> None:
    refused(run(name, "one.png/out"), "Not a directory")
    assert not asked


@pytest.mark.parametrize("name", ["classify", "generate", "generate-png", "denoise", "eval few-shot"])
def test_a_disk_that_fills_up_meanwhile(work: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("icl_vision.files.runs.os.replace", refuse)
    done = run(name, "out")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: StorageError: ") and "No space left on device" in last, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("models", "list"), ("--help",), ("--version",), ("eval", "--help")])
def test_output_that_nothing_takes_any_more(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", "from icl_vision.cli import main; main()", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: StorageError: what was to be printed cannot be read or written: No space left on device"
    ]
