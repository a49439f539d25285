"""describe-photo through the exporter, on a toy trunk with random heads: the same words, honest failures, its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from safetensors.torch import save_file

from icl_vision.codebook import Codebook
from icl_vision.errors import ArtefactError, StorageError, UnknownWordError, UsageError
from icl_vision.exporters import describe as exporter
from icl_vision.models.words.describe import DescribeHeads, SaidHead
from icl_vision.tokenizers.parts import whole_graph
from icl_vision.tokenizers.sessions import GraphSession
from icl_vision.vocabulary import Vocabulary, read_card

F, C, S, T, WIDTH = 20, 12, 7, 90, 16
NAMES = [[f"class {index}", f"kind {index}"] for index in range(C)]
NOUNS = [
    first + second
    for first in "bcdfghklm"
    for second in ("at", "in", "op", "ug", "ed", "ash", "ill", "ock", "ain", "ent")
]


class ToyTrunk(torch.nn.Module):
    """Mean colours of 7 x 7 cells, a matrix, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, F, 1)
        self.classifier = torch.nn.Linear(F, C)

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        last = torch.relu(self.layer(torch.nn.functional.avg_pool2d(pixels / 64, 32)))
        features = last.mean((2, 3))
        return self.classifier(features), features, last


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Codebook:
    vectors = np.random.default_rng(0).standard_normal((T, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codebook = Codebook(Vocabulary(NOUNS), vectors, name="toy-codebook")
    return codebook.save(tmp_path_factory.mktemp("describe") / "toy-codebook")


def modules() -> tuple[ToyTrunk, DescribeHeads]:
    torch.manual_seed(1)
    trunk = ToyTrunk()
    vectors = torch.nn.functional.normalize(torch.randn(C, WIDTH))
    heads = DescribeHeads(trunk.classifier.weight, vectors, SaidHead(F, C, S, rank=5), rank=6)
    heads.said.ids.copy_(torch.arange(5, 5 + S))
    heads.calibration.copy_(torch.tensor([0.3, 0.8, -0.2]))
    heads.sayable.normal_()
    return trunk, heads


def pictures(count: int = 8) -> np.ndarray:
    coarse = np.random.default_rng(4).integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(32, 1).repeat(32, 2)


def export(out: Path, book: Codebook, **changes: Any) -> dict[str, Any]:
    trunk, heads = modules()
    options: dict[str, Any] = {"said": NOUNS[5 : 5 + S], "class_names": NAMES, "trunk": trunk, "pixels": pictures()}
    return exporter.export_describe(heads, out, codebook=book, **(options | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, book: Codebook) -> Path:
    out = tmp_path_factory.getbasetemp() / "exported" / "toy"
    export(out, book, name="toy", card={"licence": "MIT", "data": "noise", "metrics": {"in five": 0.5}})
    return out


@pytest.mark.slow
def test_the_graph_says_what_the_module_says(folder: Path, book: Codebook) -> None:
    trunk, heads = modules()
    module = exporter.rounding.round_to_fp16(exporter.DescribeGraph(trunk, heads)).eval()
    constants = {"codebook": np.array(book.vectors), "class_bias": np.zeros(C, np.float32)}
    session = GraphSession(
        whole_graph(folder, read_card(folder), "encoder.onnx"), "toy", constants=constants, providers="cpu"
    )
    made = dict(zip(exporter.OUTPUTS, session.run({"pixels": pictures(3)}, exporter.OUTPUTS), strict=True))
    with torch.inference_mode():
        tensors = {key: torch.from_numpy(value) for key, value in constants.items()}
        truth = dict(zip(exporter.OUTPUTS, module(torch.from_numpy(pictures(3)), **tensors), strict=True))
    assert {key: value.shape for key, value in made.items()} == {
        "what": (3, 64),
        "what_probabilities": (3, 64),
        "said_probabilities": (3, S),
        "regions": (3, 5, 8),
        "region_probabilities": (3, 5, 8),
        "features": (3, F),
    }
    for key, value in made.items():
        if value.dtype == np.int32:
            assert (value == truth[key].numpy()).mean() > 0.95, key  # what is no tie is compared at export
        elif key != "features":
            assert 0 <= value.min() <= value.max() <= 1
    np.testing.assert_allclose(made["said_probabilities"], truth["said_probabilities"], atol=1e-5)
    np.testing.assert_allclose(made["features"], truth["features"], atol=1e-5)


@pytest.mark.slow
def test_the_card_says_what_was_compared_and_what_belongs(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert set(card["files"]) == {"encoder.onnx", "classes.txt", "said.txt"}
    assert (card["kind"], card["name"], card["k_max"], card["features"]) == ("describe", "toy", 64, F)
    assert card["said"] == {"file": "said.txt", "words": S}
    assert card["regions"] == ["top", "bottom", "left", "right", "centre"]
    assert (card["licence"], card["data"], card["metrics"]["in five"]) == ("MIT", "noise", 0.5)
    parity = card["metrics"]["parity"]
    compared = 8 * 3 * 2  # pictures, at three sizes of batches, with and without withheld classes
    assert (parity["what"]["ids"], parity["regions"]["ids"]) == (64 * compared, 5 * 8 * compared)
    assert parity["what"]["mismatches"] == parity["regions"]["mismatches"] == 0
    assert "parts" not in card  # a toy shares nothing with the packaged trunk
    assert (folder / "said.txt").read_text().split() == NOUNS[5 : 5 + S]
    assert (folder / "classes.txt").read_text().splitlines()[1] == "class 1; kind 1"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["said.up.weight", "region_up.weight", "class_vectors", "calibration"])
def test_a_graph_of_other_weights_is_found_out(folder: Path, book: Codebook, part: str) -> None:
    trunk, heads = modules()
    with torch.no_grad():
        heads.get_parameter(part).mul_(-1.5) if "weight" in part else heads.get_buffer(part).mul_(-1.5)
    module = exporter.rounding.round_to_fp16(exporter.DescribeGraph(trunk, heads)).eval()
    constants = {"codebook": np.array(book.vectors), "class_bias": np.zeros(C, np.float32)}
    with pytest.raises(ArtefactError, match="does not compute what the module computes"):
        exporter.check_describe(module, (folder / "encoder.onnx").read_bytes(), pictures(7), constants, batches=(7,))


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, book: Codebook) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnknownWordError, match="zebra"):
        export(out, book, said=["zebra", *NOUNS[: S - 1]])
    with pytest.raises(UsageError, match="the head gives 7 words, and 6 are named, 6 of them different"):
        export(out, book, said=NOUNS[:6])
    with pytest.raises(UsageError, match="7 are named, 6 of them different"):
        export(out, book, said=[NOUNS[1], *NOUNS[: S - 1]])
    with pytest.raises(UsageError, match="the heads know 12 classes with vectors of 16; there are names of 11"):
        export(out, book, class_names=NAMES[1:])
    turned = [NOUNS[5], *NOUNS[11:5:-1]]
    with pytest.raises(UsageError, match="word 2 of said is 'cin', and the head's is number 6 of the codebook 'toy-c"):
        export(out, book, said=turned)
    assert not out.exists()


def test_a_folder_of_something_else_is_refused_before_any_work(tmp_path: Path, book: Codebook) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists and is no artefact of kind 'describe'"):
        exporter.export_describe(None, tmp_path, said=[], codebook=book)  # type: ignore[arg-type]  # never looked at
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (["data"], r"must hold a JSON object with what is known for the card; got \['data'\]"),
        (
            {"seed": 0, "codebook": "portable-minilm-128", "words": 734, "data": "captions", "name": "x"},
            r"says 'codebook', 'name', which the exporter says itself; the card would not be read. Facts for the card "
            r"are description \(a text\), .*data \(a text\).*recipe \(an object\)",
        ),
        ({"recipe": "build describe"}, "recipe must be an object; got 'build describe'"),
        ({"metrics": [0.5]}, "metrics must be an object"),
        ({"data": {"captions": 3}}, "data must be a text"),
        ({"captions": "flickr"}, "captions must be a list; got 'flickr'"),
        ({"notes": "x" * 2_200_000}, r"would take [\d,]+ bytes of the card, which has room for 2,097,152"),
    ],
)
def test_facts_that_no_card_can_hold_are_refused_before_any_work(facts: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(facts))
    nothing = tmp_path / "nothing"
    with pytest.raises(UsageError, match=message):
        exporter.build_describe_photo(tmp_path / "out", nothing, nothing, facts=tmp_path / "recipe.json")
    with pytest.raises(UsageError, match=message):
        exporter.export_describe(None, tmp_path / "out", said=[], codebook=None, card=facts)  # type: ignore[arg-type]  # never looked at


@pytest.mark.slow
def test_what_the_exporter_says_is_all_that_it_says(folder: Path) -> None:
    card = set(read_card(folder))
    assert card <= {*exporter.OWN, *exporter.FACTS}
    assert {*exporter.OWN} - card == {"parts", "whole"}  # a toy shares nothing


def test_a_graph_that_computes_no_numbers_is_no_equal_of_its_module() -> None:
    one, other = np.array([0.25, 1.0], np.float32), np.array([0.5, 1.0], np.float32)
    assert exporter.validate.largest_difference(one, other) == 0.25
    assert exporter.validate.largest_difference(one[:0], other[:0]) == 0
    for odd in (np.nan, np.inf, -np.inf):
        assert exporter.validate.largest_difference(one * odd, one * odd) == np.inf
        assert exporter.validate.largest_difference(np.array([odd, 0.25]), np.array([0.25, 0.25])) == np.inf


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "said.txt").write_text("dog\n")
    (tmp_path / "heads.safetensors").write_bytes(b"not weights")
    call = ["--weights", str(tmp_path / "heads.safetensors"), "--said", str(tmp_path / "said.txt"), "--out", "x"]
    assert exporter.main(call) == 1
    assert "is not a safetensors file" in capsys.readouterr().err
    save_file({"other": torch.zeros(3)}, tmp_path / "heads.safetensors")
    assert exporter.main(call) == 1
    assert "these are not the weights of describe-photo's heads" in capsys.readouterr().err
    save_file(
        {key: value.contiguous() for key, value in modules()[1].state_dict().items()}, tmp_path / "heads.safetensors"
    )
    assert exporter.main(call) == 1
    assert "the head gives 7 words, and 1 are named" in capsys.readouterr().err
    assert exporter.main([*call, "--facts", str(tmp_path / "none.json")]) == 1
    assert "none.json' cannot be read (No such file" in capsys.readouterr().err
    for text in ("{", '{"data": NaN}', "[" * 100 + "]" * 100):
        (tmp_path / "facts.json").write_text(text)
        assert exporter.main([*call, "--facts", str(tmp_path / "facts.json")]) == 1
        assert "facts.json' cannot be read (" in capsys.readouterr().err
    (tmp_path / "said.txt").write_bytes(b"d\xf6g\n")
    assert exporter.main(call) == 1
    assert "said.txt' cannot be read ('utf-8' codec" in capsys.readouterr().err
    (tmp_path / "said.txt").unlink()
    assert exporter.main(call) == 1
    assert "said.txt' cannot be read (No such file" in capsys.readouterr().err
