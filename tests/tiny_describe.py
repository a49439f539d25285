"""An artefact of the kind "describe" that is made in a moment: its words depend on the mean colours of a picture.

The graph has the inputs and outputs of the real one (``exporters/describe.py``), and nothing of its sense.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from icl_vision.codebook import Codebook
from icl_vision.vocabulary import FORMAT_VERSION

SIZE, WORDS, PER_REGION = 32, 64, 8
SAID = tuple("man woman dog ball two three street running standing red umbrella child grass sky water sign".split())
CLASSES = ("tench; Tinca tinca", "umbrella")


class Reader:
    """Reads the same in every picture; an instance of it can be pickled."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.sizes: list[tuple[int, int]] = []

    @property
    def identity(self) -> str:
        return f"tests {self.texts}"

    def read(self, images: list[Any]) -> list[Any]:
        from icl_vision.tokenizers.describe.reading import ReadText

        self.sizes += [image.size for image in images]
        return [tuple(ReadText(text, 0.9) for text in self.texts) for _ in images]


def make(folder: Path, *, change: dict[str, Any] | None = None) -> Path:
    """Write the folder. change: entries of the card to replace."""
    folder.mkdir(parents=True, exist_ok=True)
    codebook = Codebook.load()
    files = {
        "encoder.onnx": graph(codebook),
        "said.txt": ("\n".join(SAID) + "\n").encode(),
        "classes.txt": ("\n".join(CLASSES) + "\n").encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    card = {
        "format_version": FORMAT_VERSION,
        "name": "tiny-describe",
        "kind": "describe",
        "k_max": WORDS,
        "default_k": 10,
        "features": 3,
        "vocabulary": codebook.vocabulary.hash,
        "codebook": {"name": codebook.name, "hash": codebook.hash},
        "opset": 20,
        "preprocessing": {"size": SIZE, "resize": "squash", "filter": "bilinear"},
        "said": {"file": "said.txt", "words": len(SAID)},
        "regions": ["top", "bottom", "left", "right", "centre"],
        "description": "For tests.",
        "licence": "Apache-2.0",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    (folder / "card.json").write_text(json.dumps(card | (change or {})))
    return folder


def graph(codebook: Codebook) -> bytes:
    """Means of colours, through fixed random matrices, to words."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(3)
    third = SIZE * 3 // 7
    middle = (SIZE - third) // 2
    boxes = {
        "top": ((0, 0), (third, SIZE)),
        "bottom": ((SIZE - third, 0), (SIZE, SIZE)),
        "left": ((0, 0), (SIZE, third)),
        "right": ((0, SIZE - third), (SIZE, SIZE)),
        "centre": ((middle, middle), (middle + third, middle + third)),
    }
    constants: dict[str, np.ndarray] = {
        "over": np.array([1, 2]),
        "one": np.array([1]),
        "last": np.array([0]),
        "scale": np.array(255, np.float32),
        "project": random.normal(0, 2, (3, codebook.dimension)).astype(np.float32),
        "say": random.normal(0, 3, (3, len(SAID))).astype(np.float32),
        "nothing": np.array(0, np.float32),
        "k": np.array([WORDS]),
        "k_region": np.array([PER_REGION]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        node("Div", ["floats", "scale"], ["light"]),
        node("ReduceMean", ["light", "over"], ["features"], keepdims=0),
        node("Transpose", ["codebook"], ["words"], perm=[1, 0]),
        node("MatMul", ["features", "project"], ["place"]),
        node("MatMul", ["place", "words"], ["scores"]),
        node("TopK", ["scores", "k"], ["best", "which"], axis=1),
        node("Cast", ["which"], ["what"], to=TensorProto.INT32),
        node("Sigmoid", ["best"], ["what_probabilities"]),
        node("ReduceSum", ["class_bias", "last"], ["bias"], keepdims=0),
        node("Mul", ["bias", "nothing"], ["no_bias"]),
        node("MatMul", ["features", "say"], ["said_scores"]),
        node("Add", ["said_scores", "no_bias"], ["said_logits"]),
        node("Sigmoid", ["said_logits"], ["said_probabilities"]),
    ]
    for name, (start, end) in boxes.items():
        constants |= {f"{name}_start": np.array(start), f"{name}_end": np.array(end)}
        nodes += [
            node("Slice", ["light", f"{name}_start", f"{name}_end", "over"], [f"{name}_box"]),
            node("ReduceMean", [f"{name}_box", "over"], [f"{name}_mean"], keepdims=0),
            node("Unsqueeze", [f"{name}_mean", "one"], [f"{name}_row"]),
        ]
    nodes += [
        node("Concat", [f"{name}_row" for name in boxes], ["boxes"], axis=1),
        node("MatMul", ["boxes", "project"], ["region_place"]),
        node("MatMul", ["region_place", "words"], ["region_scores"]),
        node("TopK", ["region_scores", "k_region"], ["region_best", "region_which"], axis=2),
        node("Cast", ["region_which"], ["regions"], to=TensorProto.INT32),
        node("Sigmoid", ["region_best"], ["region_probabilities"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3]),
        value("codebook", TensorProto.FLOAT, [len(codebook), codebook.dimension]),
        value("class_bias", TensorProto.FLOAT, [len(CLASSES)]),
    ]
    outputs = [
        value("what", TensorProto.INT32, ["n", WORDS]),
        value("what_probabilities", TensorProto.FLOAT, ["n", WORDS]),
        value("said_probabilities", TensorProto.FLOAT, ["n", len(SAID)]),
        value("regions", TensorProto.INT32, ["n", 5, PER_REGION]),
        value("region_probabilities", TensorProto.FLOAT, ["n", 5, PER_REGION]),
        value("features", TensorProto.FLOAT, ["n", 3]),
    ]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "describe", inputs, outputs, held),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    content: bytes = model.SerializeToString()
    return content
