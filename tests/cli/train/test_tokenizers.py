"""`icl-vision train spae`: options and their mistakes, and one run of a few tiny steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main

pytest.importorskip("lightning_fabric")

TINY = """
base: spae-digits-32-guide-free
model: {grids: [1, 2], width: 8, blocks: 1, side: 16}
loss: {perceptual: 0}
data: {validation: 2}
devices: {accelerator: cpu}
log: {tensorboard: false, every: 1}
steps: 2
batch: 2
depth: {weights: null}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "spae", *arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """--config, --data and --out of a run of a second."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 14), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", x_train=pixels)
    return (
        "--config",
        str(tmp_path / "tiny.yaml"),
        "--data",
        str(tmp_path / "digits.npz"),
        "--out",
        str(tmp_path / "r"),
    )


def test_help_names_every_option_and_default() -> None:
    assert "spae" in CliRunner().invoke(main, ["train", "--help"]).stdout
    text = run("--help").stdout
    for option in (
        "--config",
        "--data",
        "--out",
        "--resume",
        "--set",
        "--steps",
        "--seed",
        "--devices",
        "--json",
        "--quiet",
    ):
        assert option in text
    assert text.count("Default:") == 5


def test_a_run_prints_one_json_document(files: tuple[str, ...]) -> None:
    result = run(*files, "--json", "--seed", "3", "--set", "batch=3")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["steps"] == 2
    assert set(document["metrics"]) == {"psnr", "psnr/1", "psnr/2"}
    folder = Path(document["folder"])
    assert document["checkpoint"] == str(folder / "checkpoints" / "step-00000002")
    saved = json.loads((folder / "run.json").read_text())
    assert (saved["seed"], saved["config"]["batch"]) == (3, 3)


def test_a_run_says_what_it_did_and_goes_on(files: tuple[str, ...]) -> None:
    result = run(*files, "--steps", "1")
    assert result.exit_code == 0, result.output
    assert "training" in result.stderr and "1 step, " in result.stdout
    assert " dB" in result.stdout
    again = run(*files, "--steps", "1", "--quiet")
    assert again.exit_code == 1 and "pass --resume" in again.stderr
    resumed = run(*files, "--steps", "1", "--resume", "--quiet")
    assert resumed.exit_code == 0 and resumed.stderr == ""


def test_skipped_files_are_named(files: tuple[str, ...], tmp_path: Path, class_folder: Path) -> None:
    import shutil

    data = tmp_path / "photos"
    shutil.copytree(class_folder, data)
    for number in range(11):
        (data / "red" / f"broken{number:02d}.png").write_bytes(b"")
    result = run("--config", files[1], "--data", str(data), "--out", str(tmp_path / "q"), "--set", "data.validation=0")
    assert result.exit_code == 0, result.output
    assert "skipped red/broken" in result.stderr
    assert "skipped 1 more file; results.json names them" in result.stderr


def test_mistakes(files: tuple[str, ...]) -> None:
    assert run("--config", "spae-digits-32").exit_code == 2
    assert run("--out", "x").exit_code == 2
    assert run(*files, "--steps", "0").exit_code == 2
    assert run(*files, "--devices", "0").exit_code == 2
    for extra, message in (
        (("--config", "spae-digit"), "did you mean 'spae-digits-32'"),
        (("--set", "loss.gann=0"), "UsageError: unknown key 'loss.gann' (did you mean 'gan'?)"),
        (("--set", "nonsense"), "an override must be KEY=VALUE"),
        (("--data", "none.npz"), "there is no training data at 'none.npz'"),
        (("--set", "codebook=none"), "no codebook 'none'"),
    ):
        result = run(*files, *extra)
        assert result.exit_code == 1, result.output
        assert message in result.stderr


def test_without_the_extra_the_install_command_is_named(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    result = run(*files)
    assert result.exit_code == 1
    assert "pip install 'icl-vision[train]'" in result.stderr
