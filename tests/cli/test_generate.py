"""`icl-vision generate`, with an LLM that is not one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["generate", *arguments])


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    for name, columns in (("bar", (13, 16)), ("block", (6, 22))):
        for shift in range(2):
            pixels = np.zeros((28, 28), np.uint8)
            pixels[4:24, columns[0] + shift : columns[1] + shift] = 255
            (tmp_path / "shapes" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{shift}.png")
    return tmp_path / "shapes"


def test_one_query_and_a_png_give_exactly_the_decoded_picture(tmp_path: Path) -> None:
    out = tmp_path / "three.png"
    result = run("--examples", "digits", "--shots", "1", "--query", "an image of 3", "--llm", "fake", "--out", str(out))
    assert result.exit_code == 0, result.output
    with Image.open(out) as drawn:
        assert (drawn.size, drawn.format) == ((32, 32), "PNG")
        assert np.asarray(drawn)[0].max() < 60  # white on black, no border
    assert [path.name for path in tmp_path.iterdir()] == ["three.png"]
    assert "segments            37 a picture" in result.stderr
    assert result.stdout == f"{out}  an image of 3  0 repairs\n"


def test_a_folder_gets_pictures_previews_a_page_and_a_run(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    options = ["--examples", str(shapes), "--llm", "fake", "--out", str(out), "--json", "--quiet"]
    asked = ["--query", "an image of bar", "--query", "an image of bar!"]
    result = run(*options, *asked)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [Path(one["file"]).name for one in document["images"]] == ["an-image-of-bar.png", "an-image-of-bar-1-2.png"]
    names = {path.name for path in out.iterdir()}
    assert {"an-image-of-bar.gif", "drawings.html", "results.json", "run.json", "journal.jsonl"} <= names
    with Image.open(out / "an-image-of-bar.gif") as moving:
        assert moving.n_frames > 1
    again = run(*options, *asked)
    assert again.exit_code == 1 and "--resume" in again.stderr
    more = run(*options, *asked, "--query", "an image of block", "--resume")
    assert more.exit_code == 0, more.output
    assert len(json.loads(more.stdout)["images"]) == 3


def test_a_png_that_was_stopped_goes_on(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.errors import LLMUnavailableError
    from icl_vision.llms.fake import FakeLLM

    out, part = tmp_path / "drawn" / "a.png", tmp_path / "drawn" / "a.png.part"
    options = ["--examples", str(shapes), "--llm", "fake", "--query", "an image of bar", "--guidance", "1"]
    answer, asked = FakeLLM._complete, []

    async def counted(self: FakeLLM, *args: object, **settings: object) -> object:
        asked.append(1)
        if len(asked) == stop:
            raise LLMUnavailableError("gone")
        return await answer(self, *args, **settings)

    monkeypatch.setattr(FakeLLM, "_complete", counted)
    stop = 10
    first = run(*options, "--out", str(out))
    assert first.exit_code == 1 and f"kept in {part}; --resume goes on" in first.stderr and not out.exists()
    assert (part / "journal.jsonl").exists()
    again = run(*options, "--out", str(out))
    assert again.exit_code == 1 and "--resume" in again.stderr
    stop = 0
    done = run(*options, "--out", str(out), "--resume")
    assert done.exit_code == 0, done.output
    assert len(asked) == 37 + 1  # the one that failed was asked twice, and nothing else
    assert [one.name for one in out.parent.iterdir()] == ["a.png"]
    plain = run(*options, "--out", str(tmp_path / "undisturbed.png"))
    assert plain.exit_code == 0 and (tmp_path / "undisturbed.png").read_bytes() == out.read_bytes()


def test_several_of_a_text_are_sampled(shapes: Path, tmp_path: Path) -> None:
    result = run("--examples", str(shapes), "--llm", "fake", "--query", "a", "-n", "2", "--out", str(tmp_path / "o"))
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "o").glob("*.png")} == {"a.png", "a-2.png"}


def test_a_dry_run_asks_nothing(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    result = run("--examples", str(shapes), "--query", "a", "--out", str(out), "--dry-run", "--guidance", "1")
    assert result.exit_code == 0, result.output
    assert "requests            37" in result.stdout and "on two cores" in result.stdout and not out.exists()
    document = json.loads(
        run("--examples", str(shapes), "--query", "a", "--out", str(out), "--dry-run", "--json").stdout
    )
    assert document["passes"] == 37 and document["seconds_estimate"] > 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--query", "a", "--query", "b", "--out", "x.png"], 2, "is one picture; give a folder"),
        (["--query", "a", "-n", "2", "--out", "x.png"], 2, "is one picture"),
        (["--query", "a", "--out", "x", "--budget-cost", "1"], 2, "--budget-cost needs --prices"),
        (["--query", "a", "--out", "x", "--guidance", "much"], 2, "neither 'auto' nor a number"),
        (["--query", "a", "--out", "x", "--text", "a digit"], 1, "one line that holds {}"),
        (["--query", " ", "--out", "x"], 1, "must be a string that is not empty"),
        (["--query", "a\nb", "--out", "x"], 1, "a text must be one line"),
        (["--query", "a", "--out", "x", "--budget-requests", "5"], 1, "the budget is 5"),
        (["--query", "a", "--out", "x", "--examples", "nowhere"], 1, "there is no folder 'nowhere'"),
        (["--query", "a", "--out", "x", "--tokenizer", "words-photo"], 1, "cannot decode words into pictures"),
    ],
)
def test_what_cannot_work_is_said(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--examples", str(shapes), "--llm", "fake", *options)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


@pytest.mark.slow
def test_a_three_on_a_fresh_install(tmp_path: Path) -> None:
    from icl_vision.evaluation.kit.digit_reader import DigitReader

    out = tmp_path / "three.png"
    result = run("--examples", "digits", "--query", "an image of 3", "--out", str(out))
    assert result.exit_code == 0, result.output
    with Image.open(out) as drawn:
        assert DigitReader().read([drawn.convert("RGB")]) == ["3"]


def test_a_picture_that_is_there_stays_and_no_folder_is_named_as_a_file(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_bytes(b"mine")
    options = ["--examples", str(shapes), "--llm", "fake", "--query", "an image of bar"]
    refused = run(*options, "--out", str(out))
    assert refused.exit_code == 1 and "--force writes over it" in refused.stderr and out.read_bytes() == b"mine"
    named = run(*options, "--out", str(tmp_path / "a.jpg"))
    assert named.exit_code == 1 and "or a .png file, for one picture" in named.stderr
    assert not (tmp_path / "a.jpg").exists()
    assert run(*options, "--out", str(out), "--force").exit_code == 0 and out.read_bytes() != b"mine"
