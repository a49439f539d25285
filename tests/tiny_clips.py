"""An artefact of clips that is made in a moment: each word is a colour, that of a block of the clip.

Eight frames of 16 x 16 on layers of 1x1x1, 1x2x2, 2x4x4 and 4x8x8 words. The graphs have the inputs and outputs of
trained ones (see ``tokenizers/onnx.py``); what comes back from the first n layers is layer n, in blocks.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from icl_vision.codebook import Codebook
from icl_vision.vocabulary import FORMAT_VERSION, Vocabulary

SIZE, FRAMES, LEVELS = 16, 8, 4
GRIDS = ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8))


def make(folder: Path, *, change: dict[str, Any] | None = None) -> Path:
    """Write the folder. change: entries of the card to replace."""
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    words = Vocabulary([word for word in Codebook.load().vocabulary.words if word.isalpha()][: LEVELS**3], name="tiny")
    steps = np.linspace(0, 1, LEVELS)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    codebook = Codebook(words, colours, name="tiny-colours").save(folder / "tiny-colours")

    node, value = helper.make_node, helper.make_tensor_value_info
    video = ["n", FRAMES, SIZE, SIZE, 3]
    held: dict[str, np.ndarray] = {
        "scale": np.array(255, np.float32),
        "half": np.array(0.5, np.float32),
        "two": np.array([2]),
        "inner": np.array([2, 4, 6]),
        "over": np.array([1, 2, 3]),
    }
    nodes = [node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT), node("Div", ["floats", "scale"], ["light"])]
    nodes += [node("ReduceMean", ["light", "over"], ["features"], keepdims=0)]
    for layer, (t, h, w) in enumerate(GRIDS):
        held[f"blocks{layer}"] = np.array([-1, t, FRAMES // t, h, SIZE // h, w, SIZE // w, 3])
        held[f"flat{layer}"] = np.array([0, -1, 3])
        nodes += [
            node("Reshape", ["light", f"blocks{layer}"], [f"cut{layer}"]),
            node("ReduceMean", [f"cut{layer}", "inner"], [f"mean{layer}"], keepdims=0),
            node("Reshape", [f"mean{layer}", f"flat{layer}"], [f"row{layer}"]),
        ]
    nodes += [
        node("Concat", [f"row{layer}" for layer in range(len(GRIDS))], ["rows"], axis=1),
        node("Transpose", ["codebook"], ["columns"], perm=[1, 0]),
        node("MatMul", ["rows", "columns"], ["products"]),
        node("Mul", ["codebook", "codebook"], ["squares"]),
        node("ReduceSum", ["squares", "last"], ["lengths"], keepdims=0),
        node("Mul", ["lengths", "half"], ["halves"]),
        node("Sub", ["products", "halves"], ["scores"]),
        node("ArgMax", ["scores"], ["which"], axis=2, keepdims=0),
        node("Cast", ["which"], ["ids"], to=TensorProto.INT32),
    ]
    held["last"] = np.array([1])
    total = sum(int(np.prod(grid)) for grid in GRIDS)
    table = value("codebook", TensorProto.FLOAT, [LEVELS**3, 3])
    encoder = _graph(
        nodes,
        [value("pixels", TensorProto.UINT8, video), table],
        [value("ids", TensorProto.INT32, ["n", total]), value("features", TensorProto.FLOAT, ["n", 3])],
        {name: numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()},
    )

    nodes, held, start = [node("Gather", ["codebook", "ids"], ["rows"], axis=0)], {}, 0
    for layer, (t, h, w) in enumerate(GRIDS):
        count = t * h * w
        held |= {
            f"from{layer}": np.array([start]),
            f"to{layer}": np.array([start + count]),
            f"grid{layer}": np.array([-1, t, 1, h, 1, w, 1, 3]),
            f"wide{layer}": np.array([1, t, FRAMES // t, h, SIZE // h, w, SIZE // w, 3]),
        }
        nodes += [
            node("Slice", ["rows", f"from{layer}", f"to{layer}", "axis"], [f"part{layer}"]),
            node("Reshape", [f"part{layer}", f"grid{layer}"], [f"blocks{layer}"]),
            node("Expand", [f"blocks{layer}", f"wide{layer}"], [f"filled{layer}"]),
            node("Reshape", [f"filled{layer}", "clip"], [f"clip{layer}"]),
        ]
        start += count
    held |= {
        "axis": np.array([1]),
        "one": np.array(1),
        "clip": np.array([-1, 1, *video[1:]]),
        "shape": np.array([-1, *video[1:]]),
        "scale": np.array(255, np.float32),
    }
    nodes += [
        node("Concat", [f"clip{layer}" for layer in range(len(GRIDS))], ["clips"], axis=1),
        node("Sub", ["layers", "one"], ["deepest"]),
        node("Gather", ["clips", "deepest"], ["chosen"], axis=1),
        node("Reshape", ["chosen", "shape"], ["light"]),
        node("Mul", ["light", "scale"], ["floats"]),
        node("Round", ["floats"], ["whole"]),
        node("Cast", ["whole"], ["pixels"], to=TensorProto.UINT8),
    ]
    decoder = _graph(
        nodes,
        [value("ids", TensorProto.INT32, ["n", total]), value("layers", TensorProto.INT64, [1]), table],
        [value("pixels", TensorProto.UINT8, video)],
        {name: numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()},
    )

    files = {"encoder.onnx": encoder, "decoder.onnx": decoder}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    card = {
        "format_version": FORMAT_VERSION,
        "name": "tiny-clips",
        "kind": "pyramid",
        "modality": "clip",
        "frames": FRAMES,
        "layout": {"grids": [list(grid) for grid in GRIDS]},
        "features": 3,
        "vocabulary": codebook.vocabulary.hash,
        "codebook": {"name": codebook.name, "hash": codebook.hash},
        "opset": 20,
        "preprocessing": {"size": SIZE, "resize": "squash", "filter": "bilinear"},
        "description": "For tests.",
        "licence": "Apache-2.0",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    (folder / "card.json").write_text(json.dumps(card | (change or {})))
    return folder


def _graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], held: dict[str, Any]) -> bytes:
    from onnx import helper

    used = {name for made in nodes for name in made.input}
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [tensor for name, tensor in held.items() if name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def square(frames: int = FRAMES, *, side: int = 32, step: int = 3) -> np.ndarray[Any, Any]:
    """A red square on blue that goes from left to right, uint8 [frames, side, side, 3]."""
    clip = np.zeros((frames, side, side, 3), np.uint8)
    clip[..., 2] = 170
    for index in range(frames):
        clip[index, side // 4 : side // 2, step * index : step * index + side // 4] = (255, 0, 0)
    return clip
