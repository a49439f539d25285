"""Writing an artefact folder: whole or not at all, every file with its sha256.

Knows: the folder's form, how weights are stored as fp16, ONNX metadata. Refuses to know: what the graph computes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from icl_vision.errors import StorageError, UsageError
from icl_vision.files.storage import sha256_file, write_json
from icl_vision.vocabulary import CARD_FILE, FORMAT_VERSION, read_card

logger = logging.getLogger(__name__)

OPSET = 20
_SMALL = 16  # tensors up to this size stay fp32: nothing to gain


def to_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], dynamic: Mapping[str, Any]
) -> onnx.ModelProto:
    """Export a module in evaluation mode as one ONNX model, without external data.

    Args:
        module: what to export; rounded by ``models.rounding`` where its weights shall be stored small.
        inputs: example tensors by the name of forward's argument, which becomes the name of the graph's input.
        outputs: names for the graph's outputs.
        dynamic: torch ``dynamic_shapes`` by input name ({} for a fixed shape).
    """
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")  # torch's own deprecations, many a release; nothing a user could act upon
        program = torch.onnx.export(
            module.eval(),
            args=(),
            kwargs=dict(inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dict(dynamic),
        )
    if program is None:
        raise UsageError("torch.onnx.export gave no program; use torch 2.6 or later")
    model: onnx.ModelProto = program.model_proto
    _forget_paths(model)
    return model


def store_fp16(model: onnx.ModelProto) -> tuple[int, int]:
    """Store each fp32 weight that fp16 holds exactly as fp16, followed by a cast back to fp32, in place.

    Nothing is rounded here: a module rounded beforehand computes the very same. onnxruntime folds the casts when
    the session starts. Returns (weights stored as fp16, large weights left as fp32).
    """
    nodes, stored, left = [], 0, 0
    for tensor in _weights(model):
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            left += 1
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_fp16"))
        nodes.append(helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
        stored += 1
    _put_first(model, nodes)
    return stored, left


def store_int8(model: onnx.ModelProto) -> int:
    """Store each fp32 kernel or matrix of 255 levels a channel as int8 and a scale, multiplied at the start, in place.

    As ``store_fp16``, nothing is rounded here: see ``models.rounding.round_to_int8``. (A cast and a product, which
    onnxruntime folds into a constant; a DequantizeLinear it would keep and run every time.) Returns how many.
    """
    nodes, stored = [], 0
    for tensor in _weights(model):
        value = numpy_helper.to_array(tensor)
        rounded = _levels(value)
        if rounded is None:
            continue
        levels, scale = rounded
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(levels, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        nodes += [
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_levels"], name=f"{name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_levels", f"{name}_scale"], [name], name=f"{name}_scaled"),
        ]
        stored += 1
    _put_first(model, nodes)
    return stored


def _weights(model: onnx.ModelProto) -> list[TensorProto]:
    """The fp32 initializers worth storing smaller."""
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    return [tensor for tensor in weights if np.prod(tensor.dims, dtype=np.int64) > _SMALL]


def _levels(value: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]] | None:
    """Whole levels and an fp16 scale per channel whose product is the value exactly; None where there are none.

    Channels are rows, or columns where the exporter has turned a matrix.
    """
    for axis in range(min(value.ndim, 2) if value.ndim in (2, 4, 5) else 0):
        others = tuple(each for each in range(value.ndim) if each != axis)
        scale = (np.abs(value).max(axis=others, keepdims=True) / np.float32(127)).astype(np.float16)
        levels = np.rint(value / np.maximum(scale.astype(np.float32), np.float32(1e-12)))
        if np.abs(levels).max() <= 127 and np.array_equal(levels * scale.astype(np.float32), value):
            return levels.astype(np.int8), scale
    return None


def _put_first(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    nodes = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)


def set_metadata(model: onnx.ModelProto, facts: Mapping[str, Any]) -> None:
    """Replace the model's metadata_props: strings as they are, everything else as JSON."""
    del model.metadata_props[:]
    texts = {key: fact if isinstance(fact, str) else json.dumps(fact, sort_keys=True) for key, fact in facts.items()}
    helper.set_model_props(model, texts)


@contextlib.contextmanager
def writing(folder: Path, *, kind: str) -> Iterator[Path]:
    """A temporary folder beside ``folder`` to fill; it takes its place when the block ends well, else it is removed.

    Raises:
        StorageError: ``folder`` holds something that is no artefact of this kind, or cannot be written.
    """
    folder = folder.absolute()
    check_replaceable(folder, kind=kind)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"{str(folder)!r} cannot be written ({error.strerror})") from error
    old = temporary.with_name(temporary.name + "-old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            os.replace(folder, old)  # a folder cannot replace a full folder in one step
        os.replace(temporary, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for rest in (temporary, old):
            shutil.rmtree(rest, ignore_errors=True)


def check_replaceable(folder: Path, *, kind: str) -> None:
    """Whether ``writing`` may put an artefact of this kind at ``folder``, to be asked before the work.

    Raises:
        StorageError: it holds something that is no artefact of this kind.
    """
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        if not (folder / CARD_FILE).is_file() or read_card(folder).get("kind") != kind:
            raise StorageError(f"{str(folder)!r} exists and is no artefact of kind {kind!r}; choose another folder")


def write_card(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``card.json`` with the sha256 of every other file of the folder under "files"; returns the whole card."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != CARD_FILE}
    whole = {"format_version": FORMAT_VERSION, **card, "files": files}
    write_json(folder / CARD_FILE, whole)
    return whole


def versions(*packages: str) -> dict[str, str]:
    """Versions of python and of the packages that decide an export's bytes."""
    always = ("icl-vision", "torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")
    installed = {"python": platform.python_version()}
    for name in dict.fromkeys([*always, *packages]):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter logs every folded constant, and that torchvision is missing, which is not needed."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in noisy]
    for each in noisy:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(noisy, levels, strict=True):
            each.setLevel(level)


def _forget_paths(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they hold this machine's paths and change the file's hash."""
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = ""
