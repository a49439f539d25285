"""Does the graph compute what the torch module computes? Shared by all exporters.

Knows: names, axes, shapes, ids and ties. Refuses to know: any one tokenizer.

Ids must be equal wherever they are decided: rank r of an image is *decided* if the scores of the words at ranks
r-1, r and r+1 lie further apart than ``epsilon``. Elsewhere two words are as good as equal, float rounding may
order them either way, and a difference is counted as a tie. A tie that picks a word whose own score differs by more
than ``epsilon`` is no tie but an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor

from icl_vision.errors import ArtefactError
from icl_vision.models.words.photo import WordsEncoder
from icl_vision.tokenizers.sessions import CPU, cpu_settings

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 7)
FEATURE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """What was compared. ids: all ranks of all images at all batch sizes. undecided: ranks within ``epsilon`` of a
    neighbour. ties: of these, ranks where graph and module chose differently. mismatches: decided ranks that differ
    (0, else the export fails). feature_difference: the largest |graph - module| over all features."""

    images: int
    batches: tuple[int, ...]
    epsilon: float
    ids: int
    undecided: int
    ties: int
    mismatches: int
    feature_difference: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        return (
            f"parity on {self.images} images at batches {', '.join(map(str, self.batches))}: "
            f"{self.ids} ids, {self.mismatches} mismatches, "
            f"{self.ties} ties (of {self.undecided} undecided at epsilon {self.epsilon:g}), "
            f"features differ by {self.feature_difference:.2g} at most"
        )


def check_signature(
    session: ort.InferenceSession,
    inputs: Mapping[str, tuple[str, Sequence[int | str]]],
    outputs: Mapping[str, tuple[str, Sequence[int | str]]],
) -> None:
    """Names, types and axes of a graph; a str axis must be dynamic.

    Raises:
        ArtefactError: the graph has another signature; the message holds both.
    """
    for what, wanted, values in (("inputs", inputs, session.get_inputs()), ("outputs", outputs, session.get_outputs())):
        signature = {value.name: (value.type, value.shape) for value in values}
        if list(signature) != list(wanted):
            raise ArtefactError(f"the graph's {what} are {list(signature)}, expected {list(wanted)}")
        for name, (kind, shape) in wanted.items():
            its_kind, its_shape = signature[name]
            fits = len(its_shape) == len(shape) and all(
                isinstance(its, str) if isinstance(axis, str) else its == axis
                for its, axis in zip(its_shape, shape, strict=True)
            )
            if its_kind != kind or not fits:
                raise ArtefactError(f"the graph's {name} is {its_kind} {its_shape}, expected {kind} {list(shape)}")


def check_words(
    module: WordsEncoder,
    model: bytes,
    pixels: npt.NDArray[np.uint8],
    constants: Mapping[str, npt.NDArray[np.float32]],
    *,
    epsilon: float,
    log: bool,
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """Compare a words graph with its module on the CPU, at several batch sizes.

    Args:
        module: in evaluation mode, with the very weights the file stores.
        model: the ONNX file's bytes.
        pixels: uint8 [N,S,S,3]; all N are encoded at every batch size, the last batch may be smaller.
        constants: the other inputs.
        epsilon: scores closer than this are not told apart.
        log: compare logarithms of the scores (they are probabilities) instead of the scores.

    Raises:
        ArtefactError: ids differ where they are decided, or features by more than 1e-3.
    """
    settings = cpu_settings()
    session = ort.InferenceSession(model, settings, providers=[CPU])
    fixed: dict[str, Tensor] = {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}
    total = {"ids": 0, "undecided": 0, "ties": 0, "mismatches": 0}
    difference = 0.0
    for size in batches:
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            with torch.inference_mode():
                scores, features = module.scores(torch.from_numpy(batch), **fixed)
            ids, graph_features = session.run(["ids", "features"], {"pixels": batch, **constants})
            if ids.dtype != np.int32 or ids.shape != (len(batch), module.k):
                raise ArtefactError(f"ids are {ids.dtype} {list(ids.shape)}, expected int32 {[len(batch), module.k]}")
            counts = compare_ranks(scores.double().numpy(), np.asarray(ids), epsilon, log)
            total = {key: value + counts[key] for key, value in total.items()}
            difference = max(difference, largest_difference(graph_features, features.numpy()))
    parity = Parity(len(pixels), tuple(batches), epsilon, **total, feature_difference=difference)
    logger.info("%s", parity)
    if parity.mismatches or difference > FEATURE_TOLERANCE:
        raise ArtefactError(f"the graph does not compute what the module computes: {parity}")
    return parity


def largest_difference(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """The largest |graph - module|, 0 of nothing; infinite where either holds a NaN or an infinity, which no comparison
    of numbers would notice."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.subtract(ours, theirs, dtype=np.float64))
    return float(difference.max(initial=0.0)) if np.isfinite(difference).all() else float("inf")


def compare_ranks(scores: npt.NDArray[Any], ids: npt.NDArray[np.int32], epsilon: float, log: bool) -> dict[str, int]:
    """How many of a graph's ids are decided, tied and wrong, by the module's scores.

    scores: [B,T] of all words, higher is better. ids: [B,k], best first. epsilon, log: as for ``check_words``.
    """
    k = ids.shape[1]
    if log:
        scores = np.log(np.maximum(scores, 1e-300))
    order = np.argsort(-scores, axis=1, kind="stable")[:, : k + 1]
    ranked = np.take_along_axis(scores, order, 1)  # [B, k+1], falling
    gap = ranked[:, :-1] - ranked[:, 1:]  # [B, k or k-1]: below rank r
    below = np.pad(gap, ((0, 0), (0, k - gap.shape[1])), constant_values=np.inf)
    above = np.pad(below[:, :-1], ((0, 0), (1, 0)), constant_values=np.inf)
    undecided = np.minimum(above, below) <= epsilon
    differs = ids != order[:, :k]
    chosen = np.take_along_axis(scores, ids.astype(np.int64), 1)
    wrong = differs & (~undecided | (np.abs(chosen - ranked[:, :k]) > epsilon))
    return {
        "ids": ids.size,
        "undecided": int(undecided.sum()),
        "ties": int((differs & ~wrong).sum()),
        "mismatches": int(wrong.sum()),
    }
