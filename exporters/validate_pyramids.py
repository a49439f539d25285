"""Do the graphs of a pyramid compute what the torch module computes?

Knows: ids layer by layer, ties, decoded pixels. Refuses to know: families of models, training, files, cards.

A layer's words depend on those of the layers before, so two pyramids are compared from the first layer on: where they
first differ the two words must be as good as equally near (a tie), and what follows at that image is not compared.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from icl_vision.errors import ArtefactError
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.sessions import CPU, cpu_settings

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 7)
EPSILON = 1e-3
"""Two words whose squared distances (or cosines) from the target differ by less, relative to the target's own squared
length plus one, are a tie. A net of a dozen convolutions gives vectors that differ by some 1e-5 from one library to the
next, and the target of a third word at a place has three times that."""

PIXEL_TOLERANCE = 1
"""Levels of 255 that graph and module may differ by: rounding to whole levels may go either way."""


class Spelling(Protocol):
    """What a family's module says of a batch of images, for the comparison."""

    @property
    def ids(self) -> tuple[Tensor, ...]:
        """int64 [B, h_l, w_l], one tensor per layer."""
        ...

    def waits(self, layer: int) -> bool:
        """Whether in this layer (from 1) each word depends on those before it, not on earlier layers alone."""
        ...

    def equally_good(self, image: int, layer: int, index: int, pair: list[int]) -> bool:
        """Whether two words are as good, up to rounding, at a place of that layer (from 0, raster order)."""
        ...


class PyramidEncoder(Protocol):
    """A family's encoder module, as far as a comparison needs it."""

    @property
    def layout(self) -> PyramidLayout: ...

    def spelled(self, pixels: Tensor, codebook: Tensor) -> Spelling:
        """The module's words of uint8 pixels [B,S,S,3]."""
        ...


@dataclass(frozen=True)
class PyramidParity:
    """What was compared. ids: words compared, over all images and batch sizes. ties: images at which two words were
    equally near and graph and module chose differently. skipped: words after a tie, not compared. mismatches: words
    that differ without being equally near (0, else the export fails). pixel_difference: the largest difference of
    decoded pixels, in levels of 255, over every number of layers."""

    images: int
    batches: tuple[int, ...]
    epsilon: float
    ids: int
    ties: int
    skipped: int
    mismatches: int
    pixel_difference: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        return (
            f"parity on {self.images} images at batches {', '.join(map(str, self.batches))}: {self.ids} ids, "
            f"{self.mismatches} mismatches, {self.ties} ties, {self.skipped} ids after a tie not compared; decoded "
            f"pixels differ by {self.pixel_difference} of 255 at most"
        )


def check_pyramids(
    encoder: PyramidEncoder,
    decoder: nn.Module,
    encoder_data: bytes,
    decoder_data: bytes,
    pixels: npt.NDArray[np.uint8],
    constants: Mapping[str, Tensor],
    *,
    exact: bool = True,
    batches: Sequence[int] = BATCHES,
) -> PyramidParity:
    """Compare both graphs with their modules on the CPU, at several batch sizes and every number of layers.

    Args:
        encoder, decoder: a family's modules in evaluation mode, with the very weights the files store. decoder: called
            as the graph is, (ids, layers, codebook).
        encoder_data, decoder_data: the ONNX files' bytes.
        pixels: uint8 [N,S,S,3]; all N are encoded at every batch size, the last batch may be smaller.
        constants: the encoder's further inputs by name: the codebook, fp32 [T,c], and perhaps class_bias, fp32 [C].
        exact: raise at a mismatch. False for fp16 arithmetic, whose rounding differs between torch and onnxruntime.

    Raises:
        ArtefactError: ``exact`` and words differ without a tie, or pixels by more than one level.
    """
    encode, decode = (_session(data) for data in (encoder_data, decoder_data))
    fixed, codebook = {name: value.numpy() for name, value in constants.items()}, constants["codebook"]
    totals = {"ids": 0, "ties": 0, "skipped": 0, "mismatches": 0}
    difference = 0
    layout = encoder.layout
    for size in batches:
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            ids = np.asarray(encode.run(["ids"], {"pixels": batch, **fixed})[0])
            for key, value in _compare(encoder, torch.from_numpy(batch), ids, codebook).items():
                totals[key] += value
            for layers in range(1, len(layout) + 1):
                count = np.array([layers], dtype=np.int64)
                graph_pixels = decode.run(["pixels"], {"ids": ids, "layers": count, "codebook": codebook.numpy()})[0]
                with torch.inference_mode():
                    truth = decoder(torch.from_numpy(ids), torch.from_numpy(count), codebook).numpy()
                difference = max(difference, int(np.abs(graph_pixels.astype(int) - truth.astype(int)).max()))
    parity = PyramidParity(len(pixels), tuple(batches), EPSILON, **totals, pixel_difference=difference)
    logger.info("%s", parity)
    if exact and (parity.mismatches or difference > PIXEL_TOLERANCE):
        raise ArtefactError(f"the graphs do not compute what the module computes: {parity}")
    return parity


def agreement(
    encoder_data: bytes, pixels: npt.NDArray[np.uint8], constants: Mapping[str, Tensor], truth: npt.NDArray[Any]
) -> dict[str, Any]:
    """How many of the words are those of the fp32 module: {agreement, ids}."""
    session = _session(encoder_data)
    fixed = {name: value.numpy() for name, value in constants.items()}
    words = np.concatenate(
        [
            session.run(["ids"], {"pixels": pixels[start : start + 32], **fixed})[0]
            for start in range(0, len(pixels), 32)
        ]
    )
    return {"agreement": float((words == truth).mean()), "ids": int(words.size)}


def _session(data: bytes) -> Any:
    settings = cpu_settings()
    return ort.InferenceSession(data, settings, providers=[CPU])


def _compare(encoder: PyramidEncoder, pixels: Tensor, ids: npt.NDArray[Any], codebook: Tensor) -> dict[str, int]:
    spelling = encoder.spelled(pixels, codebook)
    counts = {"ids": 0, "ties": 0, "skipped": 0, "mismatches": 0}
    layers = np.split(ids, np.cumsum(encoder.layout.counts)[:-1], axis=1)
    for image in range(len(ids)):
        tied = False
        for layer, (layer_truth, layer_ids) in enumerate(zip(spelling.ids, layers, strict=True), start=1):
            truth, said = layer_truth[image].flatten().numpy(), layer_ids[image]
            if tied:
                counts["skipped"] += truth.size
                continue
            counts["ids"] += truth.size
            for index in np.flatnonzero(truth != said).tolist():
                near = spelling.equally_good(image, layer, index, [int(truth[index]), int(said[index])])
                counts["ties" if near else "mismatches"] += 1
                tied = True  # either way the words that follow start from another one
                if spelling.waits(layer):
                    break
    return counts


def equally_near(target: Tensor, words: Tensor, normalise: bool) -> bool:
    """Whether two words' vectors [2, d] are as near to a target [d]: as distances, or as cosines (``normalise``)."""
    if normalise:
        scores = torch.nn.functional.cosine_similarity(words, target[None])
        return bool((scores[0] - scores[1]).abs() <= EPSILON)
    distances = (words - target).square().sum(1)
    return bool((distances[0] - distances[1]).abs() <= EPSILON * (1 + target.square().sum()))


def equally_likely(scores: Tensor, pair: list[int]) -> bool:
    """Whether two words are as probable, by the probabilities of all words [T]."""
    first, second = scores[pair].double().log().tolist()
    return bool(abs(first - second) <= EPSILON)
