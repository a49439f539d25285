"""`icl-vision denoise` and `icl-vision eval denoising` on made-up digits, with a fake LLM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main
from icl_vision.llms.fake import FakeLLM

COMMON = ("--tokenizer", "spae-digits-32", "--llm", "fake")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def stroke(number: int) -> Image.Image:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[3 + number % 3 : 24, 4 + number : 7 + number] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, numbers in (("context", range(6)), ("queries", (7, 9))):
        (tmp_path / name).mkdir()
        for number in numbers:
            stroke(number).save(tmp_path / name / f"{number}.png")
    return tmp_path / "context", tmp_path / "queries"


def test_a_folder_is_restored_and_everything_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    context, queries = folders
    out = tmp_path / "out"
    arguments = ("denoise", "--task", "outpainting", queries, "--context", context, "--out", out, "--examples", 4)
    result = run(*arguments, *COMMON, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [Path(row["image"]).name for row in document["images"]] == ["7.png", "9.png"]
    for row in document["images"]:
        assert set(row["files"]) == {"restored", "condition", "merged"}
        for file in row["files"].values():
            with Image.open(out / file) as picture:
                assert picture.size == (32, 32)
        assert len(row["words"]) == 4 and row["decided"] and not row["leaking"]
    assert json.loads((out / "results.json").read_text()) == document
    again = run(*arguments, *COMMON)
    assert again.exit_code == 1 and "already holds results; choose another folder, or --resume" in again.output
    resumed = run(*arguments, *COMMON, "--resume")
    assert resumed.exit_code == 0 and "task                outpainting, 0 pictures" not in resumed.stdout


def test_the_plan_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    context, queries = folders
    out = tmp_path / "out"
    arguments = ("denoise", "--task", "rotation", queries, "--context", context, "--out", out, "--examples", 4)
    result = run(*arguments, *COMMON, "--dry-run")
    assert result.exit_code == 0 and "2 pictures to restore" in result.output and "layer 4: 16 by" in result.output
    assert json.loads(run(*arguments, *COMMON, "--dry-run", "--json").stdout)["task"] == "rotation"
    assert not out.exists()


def test_the_papers_protocol_says_that_it_leaks(folders: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("denoise", "--task", "outpainting", folders[1] / "7.png", "--protocol", "paper", "--out",
                 tmp_path / "out", *COMMON)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "LEAKING" in result.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["leaking"]


def test_bad_input(folders: tuple[Path, Path], tmp_path: Path) -> None:
    context, queries = folders
    base = ("denoise", "--task", "outpainting", queries, "--out", tmp_path / "out", *COMMON)
    assert "--protocol leak-free needs --context DIR" in run(*base).output
    few = run(*base, "--context", context)
    assert few.exit_code == 1 and "--examples 10 examples were asked for and 6 images given" in few.output
    own = run(*base, "--context", queries, "--examples", 2)
    assert own.exit_code == 1 and "is also a context image" in own.output
    tight = run(*base, "--context", context, "--examples", 4, "--max-tokens", 100)
    assert tight.exit_code == 1 and "the budget is 100" in tight.output
    assert run("denoise", "--task", "sharpening", queries, "--out", tmp_path / "o").exit_code == 2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "digits.npz", x_test=np.stack([np.asarray(stroke(number)) for number in range(8)]))
    return tmp_path / "digits.npz"


def test_a_measured_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("eval", "denoising", "--data", data, "--tasks", "outpainting", "--n", 2, "--examples", 4, "--control",
                 "none", "--no-lpips", "--out", out)  # fmt: skip
    planned = run(*arguments, *COMMON, "--dry-run", "--json")
    assert json.loads(planned.stdout)["rows"][0]["row"] == "outpainting/llm/rows"
    result = run(*arguments, *COMMON)
    assert result.exit_code == 0, result.output
    assert "outpainting, unknown region" in result.stdout and "plurality" in result.stdout
    assert "psnr at stride rows: better than" in result.stdout
    results = json.loads((out / "results.json").read_text())
    assert results["kind"] == "denoising" and results["n"] == 2
    assert "<h2>outpainting</h2>" in (out / "report.html").read_text()
    assert "pass --resume" in run(*arguments, *COMMON).output
    again = run(*arguments, *COMMON, "--resume", "--json")
    assert json.loads(again.stdout)["rows"] == results["rows"]


def test_bad_input_of_a_measured_run(data: Path, tmp_path: Path) -> None:
    base = ("eval", "denoising", "--data", data, "--out", tmp_path / "run", *COMMON, "--no-lpips")
    few = run(*base)
    assert few.exit_code == 1 and "holds 8 pictures; 24 to restore and 10 examples need 34" in few.output
    odd = run(*base, "--stride", "half")
    assert odd.exit_code == 2 and "'half' is neither a number of words nor 'rows'" in odd.output
    tight = run(*base, "--n", 2, "--examples", 4, "--tasks", "rotation", "--max-tokens", 10)
    assert tight.exit_code == 1 and "the budget is 10" in tight.output


def test_a_measured_run_keeps_no_key(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_vision.tasks.base.connect", lambda spec: FakeLLM("no such words"))
    out = tmp_path / "run"
    spec = "openai-compatible:m@http://user:sk-canary@127.0.0.1:9/v1?key=sk-canary"
    result = run("eval", "denoising", "--data", data, "--tasks", "rotation", "--n", 1, "--examples", 2, "--control",
                 "none", "--no-lpips", "--out", out, *COMMON, "--llm", spec)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((out / "results.json").read_text())["llm"] == "openai-compatible:m@http://127.0.0.1:9/v1"
    assert not [file for file in out.rglob("*") if file.is_file() and b"sk-canary" in file.read_bytes()]


@pytest.mark.parametrize(
    ("size", "expected"), [((40, 80), (40, 80)), ((90, 30), (90, 30)), ((1000, 4000), (256, 1024))]
)
def test_pictures_come_back_in_the_photographs_own_shape(
    folders: tuple[Path, Path], tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    photo = tmp_path / "tall.png"
    stroke(7).resize(size).save(photo)
    for task in ("outpainting", "deblurring", "reconstruction"):
        out = tmp_path / task
        arguments = ("denoise", "--task", task, photo, "--context", folders[0], "--out", out, "--examples", 4)
        result = run(*arguments, *COMMON, "--json", "--quiet")
        assert result.exit_code == 0, result.output
        (row,) = json.loads(result.stdout)["images"]
        assert set(row["files"]) == {"restored", "condition"} | ({"merged"} if task == "outpainting" else set())
        for file in row["files"].values():
            with Image.open(out / file) as picture:
                assert picture.size == expected, file


def test_a_photographs_content_is_where_it_was(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = np.zeros((120, 60, 3), np.uint8)
    pixels[:30] = 255  # a white bar over the top quarter, in the half that outpainting keeps
    Image.fromarray(pixels).save(tmp_path / "tall.png")
    out = tmp_path / "out"
    arguments = ("denoise", "--task", "outpainting", tmp_path / "tall.png", "--context", folders[0], "--out", out)
    assert run(*arguments, "--examples", 4, *COMMON, "--quiet").exit_code == 0
    for name in ("tall-condition.png", "tall-merged.png"):
        with Image.open(out / name) as picture:
            found = np.asarray(picture.convert("L"))
        assert found.shape == (120, 60)
        assert found[5:22].mean() > 200 and found[38:55].mean() < 60


def test_clips_are_restored_as_animations(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import tiny_clips

    from icl_vision.clips import save_clip

    draw = np.random.default_rng(0)
    for name, count in (("context", 3), ("queries", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            clip = draw.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
            save_clip(clip, tmp_path / name / f"{number}.gif", ms=50)
    tokenizer = tiny_clips.make(tmp_path / "tiny")
    common = ("--tokenizer", tokenizer, "--llm", "fake", "--task", "prediction", "--examples", 3, "--refine", "none")
    context, out = ("--context", tmp_path / "context"), tmp_path / "out"
    result = run("denoise", tmp_path / "queries", *context, "--out", out, *common, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["images"]
    assert row["files"] == {"condition": "0-condition.webp", "restored": "0.webp", "merged": "0-merged.webp"}
    with Image.open(out / "0-merged.webp") as merged:
        assert merged.size == (16, 16) and getattr(merged, "n_frames", 1) > 1
    measured = run(
        "eval", "denoising", "--data", tmp_path / "context", "--n", 1, "--tasks", "prediction", "--control", "none",
        "--no-lpips", "--tokenizer", tokenizer, "--llm", "fake", "--examples", 2, "--refine", "none",
        "--out", tmp_path / "run", "--json", "--quiet",
    )  # fmt: skip
    assert measured.exit_code == 0, measured.output
    rows = {row["row"]: row for row in json.loads(measured.stdout)["rows"]}
    assert "extrapolated words" in rows and rows["llm"]["psnr"]["n"] == 1
    assert "image/webp" in (tmp_path / "run" / "report.html").read_text()
