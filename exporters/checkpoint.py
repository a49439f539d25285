"""A training run, of whatever family, becomes an artefact folder.

    icl-vision export CHECKPOINT --out FOLDER

Knows: what a user may wish for, what is known of a checkpoint, how a module becomes a graph with small weights.
Refuses to know: what a family's graphs compute (``spae.py``), how folders are written (``artefact.py``).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from icl_vision.checks import choice
from icl_vision.codebook import Codebook, packaged_codebooks
from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import load_image
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.onnx import PYRAMID
from icl_vision.tokenizers.pixels import Preprocessing
from icl_vision.vocabulary import Vocabulary

from . import artefact

logger = logging.getLogger(__name__)

CLIPS = "clip reconstruction"
"""The kind of a results.json that was measured on clips."""
Precision = Literal["fp32", "fp16"]
Weights = Literal["fp16", "int8"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Export:
    """What is exported, and what is said about it.

    name: the tokenizer's. codebook: the words it was trained with; saved where the artefact finds it. preprocessing:
    how any image becomes the square the net takes. pixels: uint8 [N,S,S,3], N >= 7, pictures to compare graphs and
    module on; of clips [N,T,S,S,3]. card: description, licence, data, recipe, metrics ... precision: of the nets'
    arithmetic. weights: how kernels and matrices are stored; "int8" rounds them to 255 levels a channel, all else is
    stored as fp16 either way.
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
        square = self.pixels.ndim in (4, 5) and self.pixels.shape[-3:] == (side, side, 3)
        if self.pixels.dtype != np.uint8 or not square or len(self.pixels) < 7:
            raise UsageError(
                f"pixels must be uint8 [N, {side}, {side}, 3] with N >= 7 (of clips frames after N); got "
                f"{self.pixels.dtype} {list(self.pixels.shape)}"
            )
        choice("precision", self.precision, get_args(Precision))
        choice("weights", self.weights, get_args(Weights))
        if (self.precision, self.weights) == ("fp16", "int8"):
            raise UsageError("weights of int8 are computed with in fp32: set precision to fp32, or weights to fp16")


def graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    dynamic: Mapping[str, Any],
    export: Export,
    layout: PyramidLayout,
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file's bytes, and the facts that stand in its metadata and belong onto the card.

    Args:
        module, inputs, outputs, dynamic: see ``artefact.to_onnx``; an input without dynamic axes may be left out there.
        export: how weights are stored (the module has them rounded), and what is said.
        layout: of the words.
    """
    model = artefact.to_onnx(module, inputs, outputs, {name: dynamic.get(name, {}) for name in inputs})
    if export.weights == "int8":
        logger.info("%d weights stored as int8", artefact.store_int8(model))
    stored, left = artefact.store_fp16(model)
    logger.info("%d weights stored as fp16, %d left as fp32", stored, left)
    facts = {
        "name": export.name,
        "kind": PYRAMID,
        "vocabulary": export.codebook.vocabulary.hash,
        "codebook": {"name": export.codebook.name, "hash": export.codebook.hash},
    }
    grids = [list(grid) for grid in layout.grids]
    artefact.set_metadata(model, {**facts, "grids": grids, "licence": export.card.get("licence", "unknown")})
    return model.SerializeToString(deterministic=True), facts


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
        StorageError, ArtefactError, UsageError: as ``training.building.load_model`` and the family's exporter.
    """
    from icl_vision.training.building import find_checkpoint, load_codebook, load_model, saved_config
    from icl_vision.training.families import family_named

    wishes = wishes or Wishes()
    opened = find_checkpoint(checkpoint)
    config = saved_config(opened, codebook=wishes.codebook, trust=wishes.trust)
    model = load_model(opened.folder, ema=wishes.ema, codebook=wishes.codebook, trust=wishes.trust)
    name = out.absolute().name if wishes.name is None else wishes.name
    codebook = _beside(out, name, model.learned_codebook, load_codebook(config))
    side = config.model.side
    preprocessing = Preprocessing(
        side, wishes.resize, short=side if wishes.resize == "crop" else 0, margin=wishes.margin
    )
    export = Export(
        name,
        codebook,
        preprocessing,
        _pictures(wishes.pictures, preprocessing, getattr(config.model, "frames", None)),
        {
            "licence": wishes.licence,
            "data": wishes.data,
            **({"limits": wishes.limits} if wishes.limits else {}),
            "recipe": {"config": config.without_paths(), "step": opened.step, "ema": wishes.ema},
            "metrics": {} if wishes.metrics is None else {"reconstruction": _measured(wishes.metrics)},
        },
        wishes.precision,
        wishes.weights,
    )
    return family_named(config.family).load_exporter()(model, out, export)


def _beside(out: Path, name: str, learned: Tensor | None, codebook: Codebook | None) -> Codebook:
    """The codebook as the artefact will find it: packaged, or written beside ``out``."""
    if learned is None:
        if codebook is None:
            raise UsageError("the run names no codebook and its model has learned none: name its words with codebook")
        if codebook.name in packaged_codebooks():
            return codebook
    else:
        vectors = learned.detach().float().numpy()
        words = Codebook.load().vocabulary.words
        if len(vectors) > len(words):
            raise UsageError(f"a learned codebook of {len(vectors)} has more ids than the {len(words)} packaged words")
        vocabulary = Vocabulary(words[: len(vectors)], name=f"{name}-ids")
        codebook = Codebook(vocabulary, vectors, name=f"{name}-codebook")
    return codebook.save(out.absolute().parent / codebook.name, card={**codebook.card})


def _pictures(
    source: Path | None, preprocessing: Preprocessing, frames: int | None, count: int = 32
) -> npt.NDArray[np.uint8]:
    """uint8 [N,S,S,3] to compare on; of a model of clips [N,T,S,S,3]."""
    if frames is not None:
        from .clips import parity_clips

        return parity_clips(preprocessing, frames, source)
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
    if not isinstance(document, dict) or document.get("kind") not in ("reconstruction", CLIPS):
        raise UsageError(f"{str(results)!r} is no results.json of icl-vision eval reconstruction")
    if document["kind"] == CLIPS:
        rows = [
            {key: row[key] for key in ("row", "k", "groups")}
            for row in document["rows"]
            if row["k"] or row["row"] == "mean frame"
        ]
        return {
            "data": document["config"]["data"],
            "rows": rows,
            **{key: document[key] for key in ("n", "groups", "words")},
        }
    return {"data": document["config"]["data"], **{key: document[key] for key in ("n", "layers", "originals", "words")}}
