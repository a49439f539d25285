"""`icl-vision eval reconstruction` with a tokenizer of clips: every row, the page, going on, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnx")

import tiny_clips
from grey_clips import clips

from icl_vision.cli import main
from icl_vision.clips import save_clip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", "reconstruction", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    lines = []
    for number, clip in enumerate(clips(4)):
        save_clip(np.asarray(clip), tmp_path / "set" / f"{number}.png", ms=50)
        lines.append({"file": f"{number}.png", "name": f"clip {number}", "split": "test" if number < 3 else "train"})
    (tmp_path / "set" / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "set"


def test_clips_are_measured_beside_stills_and_files(folder: Path, tmp_path: Path) -> None:
    tokenizer = tiny_clips.make(tmp_path / "tiny")
    arguments: tuple[Any, ...] = (
        "--data",
        folder,
        "--tokenizer",
        tokenizer,
        "--beside",
        "none",
        "--out",
        tmp_path / "run",
    )
    result = run(*arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "run" / "results.json").read_text())
    assert document["kind"] == "clip reconstruction" and document["n"] == 3
    assert {"middle frame", "mean frame"} < {row["row"] for row in document["rows"]}
    assert document["groups"]["near-twins"] + document["groups"]["without near-twins"] == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<img") == 3 * (1 + len(document["rows"])) and "clip 0" in page
    told = run(*arguments, "--resume")
    assert told.exit_code == 0, told.output
    assert "minus mean frame" in told.output and "most moving: 2 clips" in told.output and "perplexity" in told.output


def test_twins_are_compared_at_the_same_moment(folder: Path, tmp_path: Path) -> None:
    # Noise that changes from frame to frame, longer than the tokenizer looks at: only the first frame taken is alike.
    noise = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    for number in (0, 3):  # one of the test part, and the training part's
        save_clip(noise, folder / f"{number}.png", ms=50)
    tokenizer = tiny_clips.make(tmp_path / "tiny")
    result = run("--data", folder, "--tokenizer", tokenizer, "--beside", "none", "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    assert document["groups"]["near-twins"] == 1


def test_measures_of_pictures_are_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = tiny_clips.make(tmp_path / "tiny")
    result = run("--data", folder, "--tokenizer", tokenizer, "--measure", "reader", "--out", tmp_path / "run")
    assert result.exit_code == 1 and "--measure reader is for pictures" in result.output
