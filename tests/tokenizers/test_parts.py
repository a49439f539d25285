"""parts.py: graphs stored without the weights that they share are the graphs they were, and nothing else passes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import icl_vision
from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError
from icl_vision.tokenizers import parts, zoo
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.vocabulary import read_card

PACKAGED = Path(icl_vision.__file__).parent / "artefacts"
WHOLE = {  # the encoders of 0.1.0, as they were stored then
    "words-photo": "12b86fb265272bc615ac14cae28fb82468db967404762cbfcf40456b1c435e00",
    "spae-photo-128": "7a70aee2e2ea3b2be12d9ed1e4adbd16fa71f6f35268003264983e90abf6405c",
}


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED / "tokenizers/words-photo", tmp_path / "mine"))


@pytest.fixture
def beside(folder: Path) -> Path:
    """A part of one's own beside the folder, with the name that its card asks for."""
    return Path(shutil.copytree(PACKAGED / "parts/efficientnet-lite0", folder.parent / "efficientnet-lite0"))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ArtefactDamagedError, match=match):
        _ = OnnxTokenizer(folder, providers="cpu").provider


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_graph_is_the_one_of_the_first_version(name: str) -> None:
    place = PACKAGED / "tokenizers" / name
    card = read_card(place)
    assert hashlib.sha256(parts.whole_graph(place, card, "encoder.onnx")).hexdigest() == WHOLE[name]
    assert {entry["name"] for entry in card["parts"].values()} <= set(parts.packaged_parts())


def test_every_packaged_part_is_used_and_runs_by_itself(photo: np.ndarray) -> None:
    from icl_vision.tokenizers.sessions import GraphSession

    used = {part["name"] for name in WHOLE for part in read_card(PACKAGED / "tokenizers" / name)["parts"].values()}
    assert used == set(parts.packaged_parts()) == {"efficientnet-lite0", "taef2-encoder"}
    pixels = OnnxTokenizer.from_pretrained("words-photo").preprocessing.batch([_picture(photo)])
    card = read_card(parts.packaged_part("efficientnet-lite0"))
    data = (parts.packaged_part("efficientnet-lite0") / parts.PART_FILE).read_bytes()
    last, features, logits = GraphSession(data, "trunk", providers="cpu").run({"pixels": pixels}, card["outputs"])
    assert (last.shape, features.shape, logits.shape) == ((1, 1280, 7, 7), (1, 1280), (1, 1000))
    embedded = OnnxTokenizer.from_pretrained("words-photo", providers="cpu").embed(photo)
    np.testing.assert_allclose(features, embedded, atol=1e-4)


def _picture(photo: np.ndarray) -> Any:
    from icl_vision.images import load_image

    return load_image(photo)


def test_who_keeps_words_by_their_tokenizer_finds_them_again(folder: Path, photo: np.ndarray) -> None:
    shared = OnnxTokenizer(folder, providers="cpu")
    words = shared.encode(photo, 64)
    card = read_card(folder)
    whole = parts.whole_graph(folder, card, "encoder.onnx")
    (folder / "encoder.onnx").write_bytes(whole)
    edit(folder, lambda card: (card["files"].update(card.pop("whole")), card.pop("parts")))
    old = OnnxTokenizer(folder, providers="cpu")  # a folder of the first version
    assert "parts" not in old.card and "parts" in shared.card
    assert old.identity == shared.identity
    # Files of the first version name the packaged one so.
    assert shared.identity == "f41e237654790fa3250015aa3b06b30e6f9c113e20a5ffb8cc83d98377e09fa4"
    assert old.encode(photo, 64) == words
    assert pickle.loads(pickle.dumps(old)).encode(photo, 64) == words  # noqa: S301  # our own bytes


def test_a_part_is_taken_from_inside_beside_or_the_package_by_its_hash(folder: Path, beside: Path) -> None:
    assert OnnxTokenizer(folder)._parts == {"efficientnet-lite0": beside}
    inside = Path(shutil.copytree(beside, folder / "efficientnet-lite0"))
    assert OnnxTokenizer(folder)._parts == {"efficientnet-lite0": inside}
    (inside / "graph.onnx").write_bytes(b"another")
    (beside / "graph.onnx").write_bytes(b"yet another")
    packaged = PACKAGED / "parts/efficientnet-lite0"
    assert OnnxTokenizer(folder)._parts == {"efficientnet-lite0": packaged}
    edit(folder, lambda card: card["parts"]["trunk"].update(hash="0" * 64))
    refused(folder, "needs the part 'efficientnet-lite0' with sha256 000000000000...: '.*mine/efficientnet-lite0' has")


def test_a_part_changed_after_it_was_found(folder: Path, beside: Path) -> None:
    tokenizer = OnnxTokenizer(folder, providers="cpu")
    data = bytearray((beside / "graph.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (beside / "graph.onnx").write_bytes(data)
    with pytest.raises(ArtefactDamagedError, match="and its parts do not make the graph its card describes"):
        _ = tokenizer.provider
    (beside / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtefactDamagedError, match="cannot be made whole"):
        _ = tokenizer.provider


def huge(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(2**42)


@pytest.mark.parametrize(
    ("put", "match"),
    [
        (os.mkfifo, "it is a pipe"),
        (huge, "it has more than"),
        (lambda path: path.symlink_to("/etc/passwd"), "it is a link that leads out"),
        (Path.mkdir, "Is a directory"),
        (lambda path: None, "No such file"),
    ],
)
def test_things_in_place_of_a_parts_graph(folder: Path, beside: Path, put: Callable[[Path], Any], match: str) -> None:
    (beside / "graph.onnx").unlink()
    put(beside / "graph.onnx")
    packaged = PACKAGED / "parts/efficientnet-lite0"  # a folder of that name beside it may be anything
    assert OnnxTokenizer(folder)._parts == {"efficientnet-lite0": packaged}
    edit(folder, lambda card: card["parts"]["trunk"].update(hash="0" * 64))
    refused(folder, f"needs the part .*: graph.onnx in .* cannot be read .*{match}.*, .* has [0-9a-f]{{12}}")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(parts=["trunk"]), "must hold objects as its 'parts' and 'whole'"),
        (lambda card: card.update(whole=None), "must hold objects as its 'parts' and 'whole'"),
        (lambda card: card.update(parts={"trunk": "efficientnet-lite0"}), "must name each of its parts"),
        (lambda card: card["parts"]["trunk"].update(name="../x"), "must name each of its parts .* '../x'"),
        (lambda card: card["parts"]["trunk"].update(name=""), "must name each of its parts"),
        (lambda card: card["parts"]["trunk"].update(hash=5), "must name each of its parts"),
        (lambda card: card["parts"]["trunk"].update(name="none"), "no such folder inside or beside it, nor in"),
        (lambda card: card.update(whole={"secret": "0" * 64}), "names 'secret' under 'whole', but not under 'files'"),
        (lambda card: card.update(parts={}), "wants the tensor .* of the part 'efficientnet-lite0', and there is none"),
        (lambda card: card["whole"].update({"encoder.onnx": "0" * 64}), "the card says 000000000000..."),
        (lambda card: card.pop("whole"), "onnxruntime .* cannot read the graph"),
    ],
)
def test_cards_that_do_not_fit(folder: Path, change: Callable[[dict[str, Any]], object], match: str) -> None:
    edit(folder, change)
    refused(folder, match)


def test_a_part_is_no_tokenizer() -> None:
    with pytest.raises(ArtefactNotFoundError, match="is a part of tokenizers, not a tokenizer; available are"):
        zoo.load(PACKAGED / "parts/taef2-encoder")


class TestTexts:
    """The texts in place of tensors, in graphs made for it."""

    @staticmethod
    def model(text: str, **fields: Any) -> bytes:
        onnx = pytest.importorskip("onnx")
        tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT16, dims=[2, 3], doc_string=text, **fields)
        made: bytes = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
        return made

    @staticmethod
    def part() -> dict[str, dict[str, parts.SharedTensor]]:
        onnx = pytest.importorskip("onnx")
        values = np.array([[127, -2, 3], [0, 63.5, 8.5]], dtype=np.float16)
        tensors = [onnx.numpy_helper.from_array(values, "w"), onnx.numpy_helper.from_array(values[0], "b")]
        graph = onnx.helper.make_graph([], "g", [], [], tensors)
        return {"p": dict(parts.tensors_of(onnx.helper.make_model(graph).SerializeToString()))}

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ("same", np.array([[127, -2, 3], [0, 63.5, 8.5]], dtype=np.float16)),
            ("levels", np.array([[127, -2, 3], [0, 127, 17]], dtype=np.int8)),
            ("levels turned", np.array([[127, 0], [-2, 127], [3, 17]], dtype=np.int8)),
            ("scales", np.array([1, 0.5], dtype=np.float16)),
        ],
    )
    def test_each_form(self, form: str, expected: np.ndarray) -> None:
        onnx = pytest.importorskip("onnx")
        filled = parts.filled(self.model(f"shared p w {form}"), self.part())
        (tensor,) = onnx.load_model_from_string(filled).graph.initializer
        assert tensor.raw_data == expected.tobytes()
        assert not tensor.HasField("doc_string") and tensor.name == "w"

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("shared p x same", "wants the tensor 'x' of the part 'p'"),
            ("shared q w same", "wants the tensor 'w' of the part 'q'"),
            ("shared p", "wants the tensor '' of the part ''"),
            ("shared p w halves", "has no form 'halves'"),
            ("shared p b levels", r"a tensor \[3\] has no form 'levels'"),
        ],
    )
    def test_what_cannot_be(self, text: str, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            parts.filled(self.model(text), self.part())

    def test_many_texts_for_one_tensor_do_not_fill_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        onnx = pytest.importorskip("onnx")
        tensor = onnx.TensorProto(name="w", data_type=10, dims=[2, 3], doc_string="shared p w same")
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor] * 9)).SerializeToString()
        assert len(parts.filled(model, self.part())) < 2 * len(model)
        monkeypatch.setattr(parts, "MOST_WEIGHTS", len(model) + 80)
        with pytest.raises(ValueError, match="it would have more than"):
            parts.filled(model, self.part())

    def test_other_texts_are_left_alone(self) -> None:
        model = self.model("a comment of somebody's", raw_data=b"123456789012")
        assert parts.filled(model, self.part()) == model

    def test_a_part_gives_no_tensor_that_lies_in_a_file(self) -> None:
        onnx = pytest.importorskip("onnx")
        tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2], data_location=1)
        tensor.external_data.add(key="location", value="secret.bin")
        part = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
        assert dict(parts.tensors_of(part)) == {}

    def test_cut_bytes_are_refused_wherever_they_are_cut(self) -> None:
        model, known = self.model("shared p w same"), self.part()
        whole = parts.filled(model, known)
        for end in range(1, len(model)):
            try:
                assert parts.filled(model[:end], known) != whole
            except ValueError:
                continue


def test_rows_too_small_for_a_scale_are_zero() -> None:
    levels, scales = parts.rounded_to_int8(np.array([[1e-7, -1e-7], [127, 1]], dtype=np.float16))
    assert levels.tolist() == [[0, 0], [127, 1]] and scales.tolist() == [0.0, 1.0]
