"""`icl-vision tokenize` with words by part: --about, --parts, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_describe
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main
from icl_vision.tokenizers.describe import reading


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_describe.make(tmp_path_factory.mktemp("cli") / "tiny-describe")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reading, "can_read", lambda: False)
    Image.new("RGB", (30, 20), (200, 20, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tokenize", *map(str, arguments)])


def test_a_line_a_part(folder: Path, photo: Path) -> None:
    done = run(photo, "--tokenizer", folder, "-k", 2)
    assert done.exit_code == 0, done.output
    name, *lines = done.stdout.splitlines()
    assert name == str(photo)
    assert [line.split(":")[0].strip() for line in lines] == ["what", "said", "colours", "where"]
    assert lines[2] == "  colours: red" and lines[3].startswith("  where: top red ")


def test_about_and_parts(folder: Path, photo: Path) -> None:
    done = run(photo, "--tokenizer", folder, "--about", "What colour is it?", "--json")
    (row,) = json.loads(done.stdout)
    assert row["parts"][0] == "colours" and row["words"][0][0] == "red" and "what" not in row["parts"]
    assert len(row["probabilities"][0]) == len(row["words"][0]) and row["text"] == []
    done = run(photo, "--tokenizer", folder, "--parts", "said, what", "--json")
    assert json.loads(done.stdout)[0]["parts"] == ["what", "said"]


def test_a_file_of_rows(folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.jsonl"
    done = run(photo, "--tokenizer", folder, "--about", "Who is it?", "--out", out)
    assert done.exit_code == 0, done.output
    assert set(json.loads(out.read_text())["parts"]) <= {"said", "what"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokenizer", "ascii", "--about", "Who?"], "can_focus=False"),
        (["--tokenizer", "ascii", "--parts", "what"], "has no option parts"),
        (["--parts", "who"], "there is no part 'who'"),
        (["--about", "  "], "about must say"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, photo: Path, options: list[str], message: str) -> None:
    given = [*options] if "--tokenizer" in options else ["--tokenizer", str(folder), *options]
    done = run(photo, *given)
    assert done.exit_code == 1 and message in done.stderr
