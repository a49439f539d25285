"""How much of a picture its words keep: encode, decode from more and more layers, compare.

Knows: which numbers are reported for each number of words, and how they are summed up.
Refuses to know: torch, where pictures come from, how a page looks. What needs torch (LPIPS, guidance scores, a
Frechet distance) is handed in (``models/losses/instruments.py`` has it).

A picture is compared with itself as the tokenizer takes it (resized to the tokenizer's square), not with the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.image_metrics import psnr, ssim
from icl_vision.evaluation.kit.metrics import Accuracy, RunningMean

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.evaluation.kit.digit_reader import Reader
    from icl_vision.evaluation.kit.pictures import Picture
    from icl_vision.files.runs import Run
    from icl_vision.tokenizers.onnx import OnnxTokenizer

Pixels = npt.NDArray[np.uint8]
"""uint8 [N, S, S, 3]."""


class SetDistance(Protocol):
    """A distance between two sets of pictures, e.g. FID."""

    name: str

    def gather(self, batches: Iterable[Pixels]) -> Any:
        """Statistics of a set."""

    def distance(self, real: Any, made: Any) -> float:
        """Between the statistics of two sets."""
        ...

    def score(self, made: Any) -> float | None:
        """Of one set alone, e.g. the Inception Score; None where there is none."""


@dataclass(frozen=True, slots=True)
class Instruments:
    """Optional measures.

    perceptual: (originals, reconstructions) -> distance of each pair, e.g. LPIPS. guidance: originals -> similarity to
    every word of the vocabulary, [N, T]. frechet: of whole sets. reader: names pictures; needs labels.
    """

    perceptual: Callable[[Pixels, Pixels], npt.NDArray[Any]] | None = None
    guidance: Callable[[Pixels], npt.NDArray[Any]] | None = None
    frechet: SetDistance | None = None
    reader: Reader | None = None


@dataclass(slots=True)
class ReconstructionEvaluation:
    """Measures a tokenizer that can decode.

    Args:
        tokenizer: one with ``can_decode``.
        ks: numbers of words to decode from; None for every layer count.
        instruments: optional measures.
        batch: pictures in memory at once.

    Raises:
        UsageError: the tokenizer cannot decode.
        PyramidError: a ``k`` that does not fill whole layers.
    """

    tokenizer: OnnxTokenizer
    ks: Sequence[int] | None = None
    instruments: Instruments = field(default_factory=Instruments)
    batch: int = 32

    def __post_init__(self) -> None:
        self.ks = checked_counts(self.tokenizer, self.ks)

    def measure(self, pictures: Sequence[Picture], run: Run, *, done: Callable[[int], object] | None = None) -> None:
        """Journal every picture that the run does not hold yet.

        done: called with the number of pictures finished after each batch.
        """
        left = [picture for picture in pictures if picture.name not in run.done]
        for start in range(0, len(left), self.batch):
            part = left[start : start + self.batch]
            for picture, row in zip(part, self._rows(part), strict=True):
                run.record(picture.name, row)
            if done is not None:
                done(len(part))

    def _rows(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        from icl_vision.images import load_image

        loaded = [load_image(picture.image) for picture in pictures]
        pyramids = self.tokenizer.encode(loaded)
        truth = self.tokenizer.preprocessing.batch(loaded)
        rows: list[dict[str, Any]] = [
            {"label": picture.label, "ids": [layer.ravel().tolist() for layer in pyramid.ids], "at": {}}
            for picture, pyramid in zip(pictures, pyramids, strict=True)
        ]
        reader, perceptual, guidance = (
            self.instruments.reader, self.instruments.perceptual, self.instruments.guidance,
        )  # fmt: skip
        if reader is not None:
            for row, label in zip(rows, reader.read(_images(truth)), strict=True):
                row["read"] = label
        if guidance is not None:
            for row, scores in zip(rows, guidance(truth), strict=True):
                row["guidance"] = _guidance(np.asarray(scores), row["ids"])
        for k in self.ks or ():
            layers = self.tokenizer.layout.layers_for(k)
            decoded = self.tokenizer.decode([pyramid.truncate(layers) for pyramid in pyramids])
            pixels = np.stack([np.asarray(image) for image in decoded])
            columns: dict[str, Any] = {"psnr": psnr(truth, pixels), "ssim": ssim(truth, pixels)}
            if perceptual is not None:
                columns["lpips"] = perceptual(truth, pixels)
            if reader is not None:
                columns["read"] = reader.read(decoded)
            for index, row in enumerate(rows):
                row["at"][str(k)] = {name: _plain(values[index]) for name, values in columns.items()}
        return rows

    def summary(self, run: Run) -> dict[str, Any]:
        """Sum up a finished run, streaming its journal: {n, layers: [...], words: [...], guidance, originals}."""
        layout, vocabulary = self.tokenizer.layout, self.tokenizer.vocabulary
        sums: dict[tuple[int, str], RunningMean] = {}
        read: dict[int, list[int]] = {k: [0, 0] for k in (0, *(self.ks or ()))}
        counts = [np.zeros(len(vocabulary), dtype=np.int64) for _ in layout.counts]
        guided = [RunningMean() for _ in layout.counts]
        n = 0
        for _, row in run.results():
            n += 1
            for count, ids in zip(counts, row["ids"], strict=True):
                np.add.at(count, np.asarray(ids), 1)
            for total, score in zip(guided, row.get("guidance", ()), strict=False):
                total.add(score)
            _count(read[0], row)
            for k in self.ks or ():
                values = row["at"][str(k)]
                _count(read[k], {"read": values.get("read"), "label": row["label"]})
                for name in ("psnr", "ssim", "lpips"):
                    if name in values:
                        sums.setdefault((k, name), RunningMean()).add(values[name])
        scorer = "" if self.instruments.reader is None else self.instruments.reader.name
        layers = [
            {
                "k": k,
                "layers": layout.layers_for(k),
                **{name: sums.get((k, name), RunningMean()).to_dict() for name in ("psnr", "ssim", "lpips")},
                "read": Accuracy.count(read[k][0], read[k][1], scorer).to_dict() if read[k][1] else None,
            }
            for k in self.ks or ()
        ]
        return {
            "n": n,
            "layers": layers,
            "originals": {"read": Accuracy.count(read[0][0], read[0][1], scorer).to_dict() if read[0][1] else None},
            "words": [word_usage(number, count) for number, count in enumerate(counts, start=1)],
            "guidance": [total.to_dict() for total in guided],
        }

    def frechet(self, pictures: Sequence[Picture], run: Run) -> dict[str, Any] | None:
        """Distance of the sets of originals and reconstructions at every k, from the journalled words."""
        tool = self.instruments.frechet
        if tool is None:
            return None
        rows = {name: row["ids"] for name, row in run.results()}
        known = [picture for picture in pictures if picture.name in rows]
        real = tool.gather(self._originals(known))
        distances, scores = {}, {}
        for k in self.ks or ():
            decoded = tool.gather(self._decoded(known, rows, self.tokenizer.layout.layers_for(k)))
            distances[str(k)], scores[str(k)] = tool.distance(real, decoded), tool.score(decoded)
        return {"name": tool.name, "n": len(known), "at": distances, "score": scores}

    def _originals(self, pictures: Sequence[Picture]) -> Iterator[Pixels]:
        from icl_vision.images import load_image

        for start in range(0, len(pictures), self.batch):
            part = pictures[start : start + self.batch]
            yield self.tokenizer.preprocessing.batch([load_image(picture.image) for picture in part])

    def _decoded(self, pictures: Sequence[Picture], rows: dict[str, Any], layers: int) -> Iterator[Pixels]:
        from icl_vision.pyramid import TokenPyramid

        layout = self.tokenizer.layout
        for start in range(0, len(pictures), self.batch):
            pyramids = [
                TokenPyramid(
                    tuple(np.reshape(ids, grid) for ids, grid in zip(rows[picture.name], layout.grids, strict=True)),
                    layout,
                    self.tokenizer.vocabulary,
                ).truncate(layers)
                for picture in pictures[start : start + self.batch]
            ]
            yield np.stack([np.asarray(image) for image in self.tokenizer.decode(pyramids)])


def _images(pixels: Pixels) -> list[Image.Image]:
    from PIL import Image

    return [Image.fromarray(picture) for picture in pixels]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _count(pair: list[int], row: dict[str, Any]) -> None:
    """pair: [right, all]; rows without a label or a reading do not count."""
    if row.get("read") is not None and row.get("label") is not None:
        pair[0] += row["read"] == row["label"]
        pair[1] += 1


def _guidance(scores: npt.NDArray[Any], ids: Sequence[Sequence[int]]) -> list[float]:
    """Mean similarity of each layer's words, min-max normalised over the vocabulary as in eq. (4) of SPAE."""
    low, high = float(scores.min()), float(scores.max())
    scaled = (scores - low) / max(high - low, 1e-12)
    return [float(scaled[np.asarray(layer)].mean()) for layer in ids]


def word_usage(layer: int, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """{layer, distinct, perplexity} of how often each word of a vocabulary was used on a layer."""
    share = counts[counts > 0] / max(1, counts.sum())
    return {
        "layer": layer,
        "distinct": int((counts > 0).sum()),
        "perplexity": float(np.exp(-(share * np.log(share)).sum())) if share.size else 0.0,
    }


def checked_counts(tokenizer: OnnxTokenizer, ks: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of words that are decoded, in order; None: those of every depth.

    Raises UsageError where the tokenizer cannot decode, PyramidError where it has no such number.
    """
    if not tokenizer.can_decode:
        raise UsageError(f"the tokenizer {tokenizer.name!r} cannot decode, so nothing can be reconstructed")
    counts = tuple(sorted({*(ks or tokenizer.layout.cumulative)}))
    for k in counts:
        tokenizer.layout.layers_for(k)
    return counts
