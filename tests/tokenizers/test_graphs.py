"""graphs.py: a graph that would read anything beside its own bytes is found, wherever that hides."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import icl_vision
from icl_vision.errors import ArtefactDamagedError
from icl_vision.evaluation.kit.digit_reader import DigitReader
from icl_vision.tokenizers.graphs import reads_beside
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.sessions import GraphSession

onnx = pytest.importorskip("onnx")
helper = onnx.helper
FLOAT, BOOL, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
PACKAGED = Path(icl_vision.__file__).parent / "artefacts"


def outside(name: str = "w", location: str = "secret.bin") -> Any:
    tensor = onnx.TensorProto(name=name, data_type=FLOAT, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def inside(name: str = "w") -> Any:
    return onnx.numpy_helper.from_array(np.zeros(2, np.float32), name)


def sparse(values: Any, indices: Any | None = None) -> Any:
    at = onnx.numpy_helper.from_array(np.array([0, 1], np.int64), "i") if indices is None else indices
    return helper.make_sparse_tensor(values, at, [4]) if indices is None else _sparse(values, at)


def _sparse(values: Any, indices: Any) -> Any:
    found = onnx.SparseTensorProto(dims=[4])
    found.values.CopyFrom(values)
    found.indices.CopyFrom(indices)
    return found


def graph(nodes: Any = (), initializer: Any = (), sparse_initializer: Any = ()) -> Any:
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [2])],
        [helper.make_tensor_value_info("y", FLOAT, [2])],
        list(initializer),
    )
    made.sparse_initializer.extend(sparse_initializer)
    return made


def model(main: Any) -> Any:
    return helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def add(name: str = "w") -> Any:
    return helper.make_node("Add", ["x", name], ["y"])


def constant(value: Any) -> Any:
    return helper.make_node("Constant", [], ["w"], value=value)


def with_function(tensor: Any) -> Any:
    made = model(graph([helper.make_node("F", ["x"], ["y"], domain="mine")]))
    made.opset_import.append(helper.make_opsetid("mine", 1))
    made.functions.append(
        helper.make_function("mine", "F", ["x"], ["y"], [constant(tensor), add()], [helper.make_opsetid("", 17)])
    )
    return made


def with_default_attribute(tensor: Any) -> Any:
    made = with_function(inside())
    made.functions[0].attribute_proto.append(helper.make_attribute("weight", tensor))
    return made


def with_training(tensor: Any) -> Any:
    made = model(graph([add()], [inside()]))
    made.training_info.add().initialization.CopyFrom(graph([], [tensor]))
    made.training_info.add().algorithm.CopyFrom(graph())
    return made


def nested(depth: int) -> Callable[[Any], Any]:
    def make(tensor: Any) -> Any:
        body = graph([add()], [tensor])
        for _ in range(depth):
            body = graph([helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=graph())])
        return model(body)

    return make


PLACES: dict[str, Callable[[Any], Any]] = {
    "initializer": lambda t: model(graph([add()], [inside("a"), t])),
    "sparse initializer, values": lambda t: model(graph([add()], [], [sparse(t)])),
    "sparse initializer, indices": lambda t: model(graph([add()], [], [sparse(inside(), t)])),
    "constant": lambda t: model(graph([constant(t), add()])),
    "attribute with several tensors": lambda t: model(
        graph([helper.make_node("Own", [], ["w"], domain="mine", values=[inside(), t])])
    ),
    "sparse constant": lambda t: model(graph([helper.make_node("Constant", [], ["w"], sparse_value=sparse(t))])),
    "branch of If": nested(1),
    "branch in a branch in a branch": nested(3),
    "body of Loop": lambda t: model(graph([helper.make_node("Loop", ["m", "c"], ["y"], body=graph([add()], [t]))])),
    "body of Scan": lambda t: model(
        graph([helper.make_node("Scan", ["x"], ["y"], body=graph([constant(t)]), num_scan_inputs=1)])
    ),
    "graphs of one attribute": lambda t: model(
        graph([helper.make_node("Own", [], ["w"], domain="mine", bodies=[graph(), graph([], [t])])])
    ),
    "function": with_function,
    "default attribute of a function": with_default_attribute,
    "training information": with_training,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_it_hides(place: str) -> None:
    assert reads_beside(PLACES[place](inside()).SerializeToString()) is None
    data = PLACES[place](outside()).SerializeToString()
    assert reads_beside(data) == "the data of a tensor, from a file beside it"
    with pytest.raises(ArtefactDamagedError, match="graph of 'mine' would read the data of a tensor.*external data"):
        GraphSession(data, "mine", providers="cpu")


def test_either_half_of_the_statement_is_enough() -> None:
    located = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    named = inside()
    named.external_data.add(key="location", value="secret.bin")
    for tensor in (located, named):
        assert reads_beside(model(graph([add()], [tensor])).SerializeToString()) is not None


def test_a_compiled_context_in_a_file_is_found() -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="a.bin")
    assert reads_beside(model(graph([node])).SerializeToString()) == "a compiled context, from a file beside it"


def test_bytes_that_other_readers_take_for_the_same_field() -> None:
    # The tag of external_data (13, length-delimited) as five bytes whose highest bits a 32-bit reader drops.
    tensor = bytes([0x6A | 0x80, 0x80, 0x80, 0x80, 0x10, 0])
    main = bytes([5 << 3 | 2, len(tensor)]) + tensor
    hidden = bytes([7 << 3 | 2, len(main)]) + main
    with pytest.raises(ValueError, match="which cannot be"):
        reads_beside(hidden)


@pytest.mark.parametrize(
    "data",
    [
        b"not a graph",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x80",
        b"\x0b",
        b"\x3a\x7f",
        b"\xff" * 20,
        b"\x00\x01\x02\x03ORTM" + b"\0" * 40,
    ],
)
def test_what_is_no_onnx_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ArtefactDamagedError, match=r"onnxruntime [\d.]+ cannot read the graph of 'mine'"):
        GraphSession(data, "mine", providers="cpu")


def test_every_truncation_of_a_graph_is_refused_or_walked(tmp_path: Path) -> None:
    data = model(graph([add()], [outside()])).SerializeToString()
    for end in range(len(data)):
        try:
            assert reads_beside(data[:end]) in (None, "the data of a tensor, from a file beside it")
        except ValueError:
            continue


def test_packaged_graphs_are_whole() -> None:
    found = list(PACKAGED.glob("**/*.onnx"))
    assert len(found) >= 6
    for path in found:
        assert reads_beside(path.read_bytes()) is None, path


def test_a_deep_graph_does_not_topple_the_check() -> None:
    data = b""
    for _ in range(2000):  # a graph in an attribute of a node of a graph ...
        for tag in (0x32, 0x2A, 0x0A):
            size, length = len(data), b""
            while True:
                length += bytes([size & 127 | (128 if size > 127 else 0)])
                size >>= 7
                if not size:
                    break
            data = bytes([tag]) + length + data
    with pytest.raises(ValueError, match="nest too deep"):
        reads_beside(b"\x3a" + bytes([len(data) & 127 | 128, len(data) >> 7 & 127 | 128, len(data) >> 14]) + data)


class TestArtefacts:
    """A folder whose hashes are all right, and whose graph takes its weights from the working directory."""

    @staticmethod
    def rewritten(folder: Path, file: str) -> None:
        proto = onnx.load(folder / file)
        tensor = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
        secret, tensor.raw_data = tensor.raw_data, b""
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret.bin")
        data = proto.SerializeToString()
        (folder / file).write_bytes(data)
        card = json.loads((folder / "card.json").read_text())
        card["files"][file] = hashlib.sha256(data).hexdigest()
        card["files"]["secret.bin"] = hashlib.sha256(secret).hexdigest()  # listed or not, it makes no difference
        (folder / "card.json").write_text(json.dumps(card))
        for place in (folder, Path.cwd()):
            (place / "secret.bin").write_bytes(secret)

    @pytest.mark.parametrize("file", ["encoder.onnx", "decoder.onnx"])
    def test_tokenizers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, photo: np.ndarray[Any, Any]
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        folder = Path(shutil.copytree(PACKAGED / "tokenizers/spae-digits-32", tmp_path / "mine"))
        pyramid = OnnxTokenizer(folder, providers="cpu").encode(photo)[0]
        self.rewritten(folder, file)
        tokenizer = OnnxTokenizer(folder, providers="cpu")
        with pytest.raises(ArtefactDamagedError, match="external data"):
            tokenizer.encode(photo) if file == "encoder.onnx" else tokenizer.decode(pyramid)

    def test_the_digit_reader(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        folder = Path(shutil.copytree(PACKAGED / "readers/digits", tmp_path / "mine"))
        self.rewritten(folder, "reader.onnx")
        with pytest.raises(ArtefactDamagedError, match="external data"):
            DigitReader(folder)
