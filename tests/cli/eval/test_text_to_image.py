"""`icl-vision eval text-to-image`: a run on tiny random parts, gone on with, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.cli.eval import text_to_image

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from tiny_t2i import tiny_llm

from icl_vision.files.typed import to_plain
from icl_vision.text_to_image.denoisers.unet import DenoiserConfig, build_denoiser
from icl_vision.text_to_image.mapper import Mapper, MapperConfig
from icl_vision.text_to_image.parts import Parts, put_adapters, save_parts
from icl_vision.text_to_image.repadapter import AdapterConfig

ADAPTERS = AdapterConfig(blocks=1, hidden=4)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["eval", "text-to-image", *arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """--parts and --llm of tiny random parts, and everything small."""
    torch.manual_seed(0)
    llm = tiny_llm()
    llm.model.save_pretrained(tmp_path / "llm")
    llm.tokenizer.save_pretrained(tmp_path / "llm")
    config = DenoiserConfig(channels=(16, 16, 16), width=16, length=4)
    mapper = Mapper(MapperConfig(width=8, blocks=1, heads=2), inputs=32, length=4, outputs=16).eval()
    groups = put_adapters(llm, mapper, ADAPTERS)
    tensors = {name: torch.randn_like(value) * 0.3 for group in groups for name, value in group.tensors().items()}
    for group in groups:
        group.remove()
    card = {
        "name": "tiny",
        "licence": "none",
        "llm": {"spec": str(tmp_path / "llm"), "width": 32, "prompt": "{}", "blocks": 3},
        "text_encoder": {"name": "a table", "length": 4, "width": 16},
        "denoiser": to_plain(config),
        "adapters": to_plain(ADAPTERS),
        "drawing": {"sampler": "ddim", "steps": 2, "guidance": 2.0},
        "parameters": {"llm": 1000, "mapper": 90, "adapters": 10},
    }
    save_parts(tmp_path / "parts", Parts(card, mapper, build_denoiser(config).eval(), tensors))
    parts = ("--parts", str(tmp_path / "parts"), "--llm", str(tmp_path / "llm"))
    return (*parts, "--set", "id", "-n", "10", "--validation", "10", "--quiet")


def test_parts_that_draw_no_digits_are_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "parts" / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "names": ["octopus"]}))
    done = run(*files, "--out", str(tmp_path / "run"))
    assert done.exit_code != 0 and "draw pictures by their names, and digits are measured here" in done.output


def test_a_run_measures_every_row_and_goes_on(files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    again = f"again={tmp_path / 'parts'}"
    arguments = (*files, "--out", str(out), "--guidance", "1", "--guidance", "2", "--also", again, "--json")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    (one,) = results["sets"]
    assert [row["name"] for row in one["rows"]] == ["stage 1", "stage 2", "random mapper", "shuffled prompts", "again"]
    assert "left out: these parts draw from a table, not all-MiniLM-L6-v2" in done.stderr
    assert {row["read_right"]["n"] for row in one["rows"]} == {10}
    shares = {row["name"]: row["read_right"] for row in one["rows"]}
    assert shares["again"] == shares["stage 2"]  # the same parts from the same noise
    assert [trial["settings"] for trial in results["validation"]] == ["ddim-2-1", "ddim-2-2"]
    assert results["parameters"]["share_of_llm"]["adapters"] == results["parameters"]["adapters"] / 1000
    assert json.loads((out / "results.json").read_text()) == results
    assert "stage 2" in (out / "report.html").read_text()
    drawn = sorted((out / "drawn").rglob("*.png"))
    before = [path.stat().st_mtime_ns for path in drawn]
    resumed = run(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert [path.stat().st_mtime_ns for path in drawn] == before
    assert json.loads(resumed.stdout)["sets"] == results["sets"]


def test_real_digits_are_of_all_kinds_in_a_file_that_is_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr("icl_vision.models.losses.instruments.SetDistance", lambda inception: inception)
    monkeypatch.setattr(text_to_image, "REAL", 150)
    labels = np.repeat(np.arange(10), 20)
    images = np.broadcast_to((labels * 20).astype(np.uint8)[:, None, None], (200, 28, 28))
    np.savez(tmp_path / "digits.npz", x_train=images, y_train=labels)
    _, real, others = text_to_image._distance(None, tmp_path / "digits.npz", 50, 0)
    shown = [np.asarray(image)[16, 16, 0] // 20 for image in (*real, *others)]
    assert (len(real), len(others)) == (150, 50) and sorted(shown) == sorted(labels)
    assert len(set(shown[:150])) == len(set(shown[150:])) == 10
    assert real[0].size == (32, 32)
    _, real, others = text_to_image._distance(None, tmp_path / "digits.npz", 51, 0)
    assert (len(real), len(others)) == (150, 0), "too few others"


def test_mistakes_are_named(files: tuple[str, ...], tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run"))
    refused = {
        ("--set", "plane"): "set must be one of 'plain', 'bare', 'bare-id', 'trained', 'id'",
        ("--rows", "stage 3"): "there is no row 'stage 3' here; there are stage 1, stage 2",
        ("--also", "a=b"): "--also is NAME=DIR",
        ("--also", f"a/b={tmp_path}"): "--also is NAME=DIR",
    }
    for option, why in refused.items():
        done = run(*files, *out, *option)
        assert done.exit_code == 1 and why in done.stderr, done.output
    assert run(*files).exit_code == 2
