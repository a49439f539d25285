"""Tokenizers that can decode as artefact folders: a SPAE, RQ or VQ checkpoint becomes two graphs and a card.

    icl-vision export CHECKPOINT --out FOLDER

Knows: what the two graphs compute, how they are compared with the module, what goes onto the card.
Refuses to know: training, how folders are written (artefact.py).

    encoder  pixels uint8 [batch, S, S, 3]; codebook float32 [T, c]; where the model names regions by classes, also
             class_bias float32 [C]
             -> ids int32 [batch, K], coarse first; features float32 [batch, c or d], the mean of the vectors before
                they become words; where regions are named, the image's unit vector among the words
    decoder  ids int32 [batch, K]; layers int64 [1]; codebook -> pixels uint8 [batch, S, S, 3]

The codebook is an input: it lives once, in a folder of its own. "fp16" as a precision means fp16 arithmetic in the
nets (weights are stored as fp16 either way); the search for words stays in fp32. Its words are compared with those
of the fp32 module and their agreement goes onto the card.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import load_image
from icl_vision.models.rounding import round_to_fp16, round_to_int8
from icl_vision.models.spae import SPAE
from icl_vision.tokenizers.artefact import CLASSES_FILE, DECODER_FILE, ENCODER_FILE
from icl_vision.tokenizers.onnx import PYRAMID
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.tokenizers.sessions import CPU, cpu_settings
from icl_vision.tokenizers.zoo import find
from icl_vision.vocabulary import Vocabulary

from . import artefact, validate_pyramids

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16"]
Weights = Literal["fp16", "int8"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class EncoderGraph(nn.Module):
    """uint8 pixels [B,S,S,3] -> ids int32 [B,K] and features fp32 [B,c or d]."""

    def __init__(self, spae: SPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spae = spae
        self.dtype = dtype

    def forward(self, pixels: Tensor, codebook: Tensor, class_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = self.images(pixels)
        ids, features = self.spae.spell(images, self.latent(images), codebook, class_bias)
        return torch.cat([layer.flatten(1) for layer in ids], 1).to(torch.int32), features

    def images(self, pixels: Tensor) -> Tensor:
        """[B,ch,S,S] in [0,1], in the nets' type."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.spae.config.channels == 1:
            images = images.mean(1, keepdim=True)
        return images.to(self.dtype)

    def latent(self, images: Tensor) -> Tensor:
        """z, fp32 [B,c or d,H,W]."""
        return self.spae.encode(images).to(torch.float32)


class DecoderGraph(nn.Module):
    """ids int32 [B,K] and how many layers of them count -> uint8 pixels [B,S,S,3]."""

    def __init__(self, spae: SPAE, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spae = spae
        self.dtype = dtype

    def forward(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        return (self.images(ids, layers, codebook) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def images(self, ids: Tensor, layers: Tensor, codebook: Tensor) -> Tensor:
        """fp32 [B,3,S,S] in [0,1]."""
        layout = self.spae.layout
        parts = torch.split(ids, list(layout.counts), 1)
        grids = [part.reshape(-1, *grid) for part, grid in zip(parts, layout.grids, strict=True)]
        latent = self.spae.quantizer.decode_ids(grids, layers.reshape(()), codebook)
        images = self.spae.decode(latent.to(self.dtype)).to(torch.float32).clamp(0, 1)
        return images.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Export:
    """What is exported, and what is said about it.

    name: the tokenizer's. codebook: the words it was trained with; saved where the artefact finds it. preprocessing:
    how any image becomes the square the net takes. pixels: uint8 [N,S,S,3], N >= 7, pictures to compare graphs and
    module on. card: description, licence, data, recipe, metrics ... precision: of the nets' arithmetic. weights: how
    kernels and matrices are stored; "int8" rounds them to 255 levels a channel, all else is stored as fp16 either way.
    """

    name: str
    codebook: Codebook
    preprocessing: Preprocessing
    pixels: npt.NDArray[np.uint8]
    card: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "fp32"
    weights: Weights = "fp16"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"a tokenizer's name is made of letters, digits, '.', '_' and '-'; got {self.name!r}")
        side = self.preprocessing.size
        if self.pixels.dtype != np.uint8 or self.pixels.shape[1:] != (side, side, 3) or len(self.pixels) < 7:
            raise UsageError(
                f"pixels must be uint8 [N, {side}, {side}, 3] with N >= 7; got {self.pixels.dtype} "
                f"{list(self.pixels.shape)}"
            )
        if self.precision not in ("fp32", "fp16"):
            raise UsageError(f"precision must be 'fp32' or 'fp16'; got {self.precision!r}")
        if self.weights not in ("fp16", "int8"):
            raise UsageError(f"weights must be 'fp16' or 'int8'; got {self.weights!r}")
        if (self.precision, self.weights) == ("fp16", "int8"):
            raise UsageError("weights of int8 are computed with in fp32: set precision to fp32, or weights to fp16")


def export_spae(spae: SPAE, out: Path, job: Export) -> dict[str, Any]:
    """Round, export, compare and write one artefact folder; it appears only when everything holds.

    Args:
        spae: trained; its weights are rounded in place (kept as fp32): to fp16, kernels and matrices perhaps to int8.
        out: the folder.
        job: what to say about it.

    Returns:
        The card.

    Raises:
        ArtefactError: a graph does not compute what the module computes.
        UsageError: the codebook or pictures do not fit the model, or a weight exceeds the range of fp16.
    """
    if job.codebook.dimension != spae.config.dim or job.preprocessing.size != spae.config.side:
        raise UsageError(
            f"the model has words of width {spae.config.dim} and images of {spae.config.side} px; the codebook "
            f"{job.codebook.name!r} has width {job.codebook.dimension}, the preprocessing {job.preprocessing.size} px"
        )
    round_to_fp16(spae.eval())
    if job.weights == "int8":
        round_to_int8(spae)
    codebook = torch.from_numpy(np.array(job.codebook.vectors))
    pixels = torch.from_numpy(job.pixels)
    constants = {"codebook": codebook}
    if spae.regions is not None:
        constants["class_bias"] = torch.zeros(len(spae.regions.class_vectors))
    reference = EncoderGraph(spae).eval()
    with torch.inference_mode():
        found = [reference(part, **constants) for part in torch.split(pixels, 32)]
    truth, width = torch.cat([ids for ids, _ in found]), found[0][1].shape[1]
    dtype = torch.float16 if job.precision == "fp16" else torch.float32
    if job.precision == "fp16":
        spae = spae.half()  # the quantizer computes in fp32 whatever its inputs are
    encoder, decoder = EncoderGraph(spae, dtype).eval(), DecoderGraph(spae, dtype).eval()
    batch = torch.export.Dim("batch")
    encoder_data, facts = _graph(
        encoder, {"pixels": pixels[:2], **constants}, ["ids", "features"], {"pixels": {0: batch}}, job, spae
    )
    layers = torch.tensor([len(spae.layout)])
    decoder_data, _ = _graph(
        decoder,
        {"ids": truth[:2], "layers": layers, "codebook": codebook},
        ["pixels"],
        {"ids": {0: batch}},
        job,
        spae,
    )
    _check_signatures(encoder_data, decoder_data, spae, constants, width)
    parity = validate_pyramids.check_pyramids(
        encoder, decoder, encoder_data, decoder_data, pixels.numpy(), constants, exact=job.precision == "fp32"
    )
    metrics = {"parity": parity.to_dict(), **job.card.get("metrics", {})}
    if job.precision == "fp16":
        metrics["fp16_agreement"] = validate_pyramids.agreement(encoder_data, pixels.numpy(), constants, truth.numpy())
    whole = {
        **facts,
        "layout": spae.layout.to_dict(),
        "features": width,
        "opset": artefact.OPSET,
        "preprocessing": job.preprocessing.to_dict(),
        "precision": job.precision,
        "weights": job.weights,
        "draws_from": spae.config.region_layers + 1,
        "model": spae.config.to_dict(),
        **job.card,
        "metrics": metrics,
        "versions": artefact.versions(),
    }
    with artefact.writing(out, kind=PYRAMID) as folder:
        (folder / ENCODER_FILE).write_bytes(encoder_data)
        (folder / DECODER_FILE).write_bytes(decoder_data)
        if spae.regions is not None:  # the classes are those of words-photo, whose trunk and vectors these are
            shutil.copyfile(find("words-photo") / CLASSES_FILE, folder / CLASSES_FILE)
        return artefact.write_card(folder, whole)


def _graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    dynamic: Mapping[str, Any],
    job: Export,
    spae: SPAE,
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file's bytes, and the facts that also stand in its metadata."""
    model = artefact.to_onnx(module, inputs, outputs, {name: dynamic.get(name, {}) for name in inputs})
    if job.weights == "int8":
        logger.info("%d weights stored as int8", artefact.store_int8(model))
    stored, left = artefact.store_fp16(model)
    logger.info("%d weights stored as fp16, %d left as fp32", stored, left)
    facts = {
        "name": job.name,
        "kind": PYRAMID,
        "vocabulary": job.codebook.vocabulary.hash,
        "codebook": {"name": job.codebook.name, "hash": job.codebook.hash},
    }
    grids = [list(grid) for grid in spae.layout.grids]
    artefact.set_metadata(model, {**facts, "grids": grids, "licence": job.card.get("licence", "unknown")})
    return model.SerializeToString(deterministic=True), facts


def _check_signatures(encoder: bytes, decoder: bytes, spae: SPAE, constants: Mapping[str, Tensor], width: int) -> None:
    from .validate import check_signature

    side, words = spae.config.side, spae.layout.cumulative[-1]
    fixed = {name: ("tensor(float)", list(value.shape)) for name, value in constants.items()}
    check_signature(
        ort.InferenceSession(encoder, cpu_settings(), providers=[CPU]),
        {"pixels": ("tensor(uint8)", ["batch", side, side, 3]), **fixed},
        {"ids": ("tensor(int32)", ["batch", words]), "features": ("tensor(float)", ["batch", width])},
    )
    book = fixed["codebook"]
    check_signature(
        ort.InferenceSession(decoder, cpu_settings(), providers=[CPU]),
        {"ids": ("tensor(int32)", ["batch", words]), "layers": ("tensor(int64)", [1]), "codebook": book},
        {"pixels": ("tensor(uint8)", ["batch", side, side, 3])},
    )


@dataclass(frozen=True)
class Wishes:
    """What a user may say about an export; the rest is known from the checkpoint.

    name: None takes the folder's. licence: of the weights. data: what they were trained on, for the card. limits: what
    a user should know before believing it, for the card. precision: of the nets' arithmetic. resize: how images become
    squares. margin: black border around a squashed image. pictures: folder or .npz to compare graphs and module on;
    None takes packaged photographs. metrics: results.json of ``icl-vision eval reconstruction`` on this very tokenizer,
    for the card. ema: export the averaged weights. weights: how kernels and matrices are stored, see ``Export``.
    codebook: where the run's codebook is. trust: else take one that is not packaged from where the checkpoint says.
    """

    name: str | None = None
    licence: str = "unknown"
    data: str = "unknown"
    limits: str = ""
    precision: Precision = "fp32"
    resize: Literal["squash", "crop"] = "squash"
    margin: int = 0
    pictures: Path | None = None
    metrics: Path | None = None
    ema: bool = True
    weights: Weights = "fp16"
    codebook: Path | None = None
    trust: bool = False


def export_checkpoint(checkpoint: Path, out: Path, wishes: Wishes | None = None) -> dict[str, Any]:
    """Make an artefact of a training run or one of its checkpoints. Returns the card.

    A codebook that is not packaged is written beside ``out``, under its name; a learned one gets the packaged words as
    names of its ids, in order, so that its images can be written as text at all (the words mean nothing there).

    Raises:
        StorageError, ArtefactError, UsageError: as ``training.building.load_model`` and ``export_spae``.
    """
    from icl_vision.training.building import find_checkpoint, load_codebook, load_model, saved_config

    wishes = wishes or Wishes()
    found = find_checkpoint(checkpoint)
    config = saved_config(found, codebook=wishes.codebook, trust=wishes.trust)
    spae = load_model(found.folder, ema=wishes.ema, codebook=wishes.codebook, trust=wishes.trust)
    name = out.absolute().name if wishes.name is None else wishes.name
    codebook = None if config.model.learned else load_codebook(config)
    codebook = _beside(out, name, spae, codebook)
    side = config.model.side
    preprocessing = Preprocessing(
        side, wishes.resize, short=side if wishes.resize == "crop" else 0, margin=wishes.margin
    )
    job = Export(
        name,
        codebook,
        preprocessing,
        _pictures(wishes.pictures, preprocessing),
        {
            "description": f"Images as pyramids of words, {spae.layout.cumulative[-1]} at most, and back.",
            "licence": wishes.licence,
            "data": wishes.data,
            **({"limits": wishes.limits} if wishes.limits else {}),
            "recipe": {"config": _without_places(config.to_dict()), "step": found.step, "ema": wishes.ema},
            "metrics": {} if wishes.metrics is None else {"reconstruction": _measured(wishes.metrics)},
        },
        wishes.precision,
        wishes.weights,
    )
    return export_spae(spae, out, job)


def _beside(out: Path, name: str, spae: SPAE, codebook: Codebook | None) -> Codebook:
    """The codebook as the artefact will find it: packaged, or written beside ``out``."""
    if codebook is not None and codebook.name in packaged_codebooks():
        return codebook
    if codebook is None:
        vectors = spae.quantizer.codebook.detach().float().numpy()
        words = Codebook.load().vocabulary.words
        if len(vectors) > len(words):
            raise UsageError(f"a learned codebook of {len(vectors)} has more ids than the {len(words)} packaged words")
        vocabulary = Vocabulary(words[: len(vectors)], name=f"{name}-ids")
        codebook = Codebook(vocabulary, vectors, name=f"{name}-codebook")
    return codebook.save(out.absolute().parent / codebook.name, card={**codebook.card})


def _pictures(source: Path | None, preprocessing: Preprocessing, count: int = 32) -> npt.NDArray[np.uint8]:
    """uint8 [N,S,S,3] to compare on."""
    from .words import parity_pixels

    if source is None:
        return parity_pixels(preprocessing)
    chosen = list_pictures(source, limit=count)
    return preprocessing.batch([load_image(picture.image) for picture in chosen])


def _measured(results: Path) -> dict[str, Any]:
    """What ``eval reconstruction`` found, without where and when."""
    try:
        document = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(results)!r} cannot be read as a result file: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "reconstruction":
        raise UsageError(f"{str(results)!r} is no results.json of icl-vision eval reconstruction")
    return {"data": document["config"]["data"], **{key: document[key] for key in ("n", "layers", "originals", "words")}}


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without where things lay on the machine that trained: that is nobody's business."""
    data = {**config["data"], "path": None}
    return {**config, "data": data, "pretrained": None, "lpips": None, "init": None}
