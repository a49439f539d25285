"""Messages of the library in a shell's words, and what Ctrl-C leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from icl_vision.cli import INTERRUPTED, main
from icl_vision.cli.speaking import in_options

COMMAND = click.Command(
    "c",
    params=[
        click.Option(["-k", "k"]),
        click.Option(["--shots"]),
        click.Option(["--scoring"], type=click.Choice(["auto", "parse"])),
        click.Option(["--calibration"], type=click.Choice(["none", "contextual"])),
        click.Option(["--induction/--no-induction"], default=True),
        click.Option(["--templates", "--folder", "folder"]),
    ],
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("use scoring='parse' or 'auto'", "use --scoring parse or 'auto'"),
        ("selection='nearest' needs `shots`, got None", "selection='nearest' needs --shots, got None"),
        ("k=7 words do not fill whole layers", "-k 7 words do not fill whole layers"),
        ("use calibration=None, or another LLM", "use --calibration none, or another LLM"),
        ("shots=None shows all", "no --shots shows all"),
        ("induction=False drops the line", "--no-induction drops the line"),
        ("give its folder as folder=", "give its folder as --templates"),
        ("smaller k=2.", "smaller -k 2."),
        ("http://host/?k=5&shots=2 was asked", "http://host/?k=5&shots=2 was asked"),
        ("max_k=3 and `else` stay", "max_k=3 and `else` stay"),
        ("cap is 9; scale it down or pass a larger max_pixels", "cap is 9; scale it down"),
        ("cut it, or load it with load_clip(..., limits=ClipLimits(shots=...))", "cut it"),
    ],
)
def test_arguments_become_options_and_nothing_else_does(message: str, said: str) -> None:
    assert in_options(message, COMMAND) == said


def test_a_command_names_its_options(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photo)
    result = CliRunner().invoke(main, ["tokenize", str(photo), "--tokenizer", "spae-digits-32", "-k", "7"])
    assert result.exit_code == 1
    assert "-k 7" in result.stderr and "k=7" not in result.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, grey in (("dark", 20), ("light", 230)):
        (tmp_path / "support" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(tmp_path / "support" / name / "1.png")
    return tmp_path


def test_ctrl_c_names_the_way_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("icl_vision.tasks.classify_many", interrupted)
    support = str(photos / "support")
    asked = ["classify", "--support", support, support, "--llm", "fake", "--tokenizer", "ascii", "--quiet"]
    result = CliRunner().invoke(main, [*asked, "--out", str(photos / "run")])
    assert result.exit_code == INTERRUPTED
    assert "--resume goes on from there" in result.stderr and str(photos / "run") in result.stderr


def test_ctrl_c_without_a_run_folder_promises_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("icl_vision.tasks.FewShotClassifier.classify", interrupted)
    support = str(photos / "support")
    asked = ["classify", "--support", support, support, "--llm", "fake", "--tokenizer", "ascii"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == INTERRUPTED
    assert "--resume" not in result.stderr and "interrupted" in result.stderr


def test_python_runs_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "icl_vision", "models", "list", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    described = {row["name"]: row["description"] for row in json.loads(done.stdout)["tokenizers"]}
    assert "rows of characters" in described["ascii"]  # what it does, not where it was published
