"""`icl-vision paint` and `icl-vision train text-to-image`, on tiny parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("diffusers")

from tiny_t2i import tiny_llm, tiny_parts

from icl_vision.cli import main
from icl_vision.errors import ArtefactNotFoundError
from icl_vision.models.words.text_embedding import minilm_folder
from icl_vision.text_to_image.parts import save_parts


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    """The tiny LLM as transformers saves it."""
    made = tiny_llm()
    made.model.save_pretrained(tmp_path / "llm")
    made.tokenizer.save_pretrained(tmp_path / "llm")
    return tmp_path / "llm"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return save_parts(tmp_path / "parts", tiny_parts())


def test_a_text_becomes_a_png(parts: Path, llm: Path, tmp_path: Path):
    out = tmp_path / "seven.png"
    named = ("--parts", str(parts), "--llm", str(llm))
    done = run("paint", "draw seven", "--out", str(out), *named, "--seed", "3")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n" and f"the parts in {parts}, which listen to {llm}" in done.stderr
    with Image.open(out) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (32, 32))
        pixels = np.asarray(drawn)
    again = run("paint", "draw seven", "--out", str(tmp_path / "again.png"), *named, "--seed", "3", "--json", "--quiet")
    document = json.loads(again.stdout)
    assert document["text"] == "draw seven" and document["seed"] == 3 and document["size"] == [32, 32]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again.png")), pixels) and not again.stderr
    large = run("paint", "draw seven", "--out", str(tmp_path / "large.png"), *named, "--seed", "3", "--scale", "4")
    assert large.exit_code == 0
    with Image.open(tmp_path / "large.png") as enlarged:
        assert np.array_equal(np.asarray(enlarged)[::4, ::4], pixels)


def test_what_stands_in_the_way_is_said_first(parts: Path, llm: Path, tmp_path: Path):
    out = tmp_path / "seven.png"
    out.write_bytes(b"mine")
    named = ("--parts", str(parts), "--llm", str(llm))
    refused = run("paint", "seven", "--out", str(out), *named)
    assert refused.exit_code == 1 and "--force" in refused.stderr and out.read_bytes() == b"mine"
    assert run("paint", "seven", "--out", str(out), *named, "--force").exit_code == 0
    empty = run("paint", " ", "--out", str(tmp_path / "empty.png"), *named)
    assert empty.exit_code == 1 and "1 to 300 characters" in empty.stderr and not (tmp_path / "empty.png").exists()
    none = run("paint", "seven", "--out", str(tmp_path / "x.png"), "--parts", str(tmp_path / "none"))
    assert none.exit_code == 1 and "ArtefactNotFoundError: there is no folder" in none.stderr


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("icl_vision.text_to_image.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    done = run("paint", "seven", "--out", str(tmp_path / "x.png"))
    assert done.exit_code == 1 and "MissingExtraError" in done.stderr and "icl-vision[t2i]" in done.stderr


def test_training_leaves_parts_that_paint_takes(llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    try:
        minilm_folder()
    except ArtefactNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    labels = np.repeat(np.arange(10), 140)
    pixels = np.random.default_rng(0).integers(0, 255, (len(labels), 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", x_train=pixels, y_train=labels)
    small = {
        "llm": llm,
        "captions.templates": 2,
        "captions.foreign": 0,
        "denoiser.channels": "[16,16,16]",
        "mapper.kind": "queries",
        "mapper.width": 8,
        "adapters.blocks": 1,
        "loss.weights": "none",
        "loss.pictures": 2,
        **{f"stage{number}.{key}": 2 for number in range(3) for key in ("steps", "batch")},
    }
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    command = (
        "train",
        "text-to-image",
        "--config",
        "digits",
        "--data",
        str(tmp_path / "digits.npz"),
        "--out",
        str(out),
    )
    options += ["--until", "stage2"]
    done = run(*command, *options, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["parts"] == str(out / "parts")
    assert "denoiser 2 steps of 2, stage1 2 steps of 2, stage2 2 steps of 2" in done.stderr
    drawn = run(
        "paint", "seven", "--out", str(tmp_path / "seven.png"), "--parts", str(out / "parts"), "--llm", str(llm)
    )
    assert drawn.exit_code == 0, drawn.output
    again = run(*command, *options)
    assert again.exit_code == 1 and "--resume" in again.stderr
    resumed = run(*command, *options, "--resume")
    assert resumed.exit_code == 0 and f"parts: {out / 'parts'}" in resumed.stdout


def test_a_configuration_that_is_none():
    done = run("train", "text-to-image", "--config", "digit")
    assert done.exit_code == 1 and "did you mean 'digits'" in done.stderr
