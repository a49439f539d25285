"""What a clip of so many words has to beat: stills, an image tokenizer on key frames, files of as many bytes.

    python benchmarks/clip_baselines.py emoji-clips-64.tar --tokenizer spae-clips-64 --run RUN \
        --out benchmarks/results/clip_baselines.json

With --tokenizer all the words of a clip tokenizer are a row too, and compared clip by clip with every other row; with
--words in its place no clip tokenizer is needed. Clips are those of the test split; the ones with a near-twin among the
training clips (first frame nearer than 20 dB) and the half that moves most are summed up apart too. A --run folder
keeps finished clips: the same command goes on where it was stopped. Needs the weights of LPIPS.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.distance import FramesInOrder
from icl_vision.evaluation.clips.evaluation import ALL, ClipEvaluation
from icl_vision.evaluation.clips.measures import METRICS
from icl_vision.evaluation.clips.sets import most_moving, near_twins, read_clips, squared
from icl_vision.evaluation.kit.metrics import mean_text
from icl_vision.evaluation.kit.paired_means import paired_mean
from icl_vision.files.runs import Run

FRAMES = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, help="a .tar or folder with clips.jsonl")
    spent = parser.add_mutually_exclusive_group()
    spent.add_argument("--words", type=int, default=806, help="that may be spent (default 806)")
    spent.add_argument("--tokenizer", default=None, help="of clips: its words are a row, and may be spent")
    parser.add_argument("--image", default="spae-photo-128", help="the image tokenizer (default spae-photo-128)")
    parser.add_argument("--limit", type=int, default=None, help="at most so many test clips")
    parser.add_argument("--frechet", action="store_true", help="also the FVD-like distance of sets")
    parser.add_argument("--run", type=Path, default=None, help="a folder that keeps finished clips")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    from icl_vision.models.losses import instruments

    tokenizer = None if options.tokenizer is None else ImageTokenizer.from_pretrained(options.tokenizer)
    frames = FRAMES if tokenizer is None else tokenizer.frames
    clips = read_clips(options.clips, frames=frames, limit=options.limit)
    training = read_clips(options.clips, frames=frames, part="train", keep=1)
    if tokenizer is not None:
        clips, training = (squared(some, tokenizer.preprocessing.batch) for some in (clips, training))
    twins = near_twins(clips, training)
    names = {clip.name for clip in clips}
    image = ImageTokenizer.from_pretrained(options.image)
    evaluation = ClipEvaluation(
        clips,
        tokenizer,
        words=(options.words, len(image.vocabulary or ())),
        ks=None if tokenizer is None else tokenizer.layout.cumulative[-1:],
        image=image,
        perceptual=instruments.perceptual(),
        features=FramesInOrder(ImageTokenizer.from_pretrained("words-photo").embed, "EfficientNet-Lite0")
        if options.frechet
        else None,
        groups={"most moving": most_moving(clips), "near-twins": twins, "without near-twins": names - twins},
        batch=1,
    )
    config = {
        "clips": options.clips.name,
        "names": sorted(names),
        "tokenizer": None if tokenizer is None else tokenizer.name,
        "image": image.name,
        "words": evaluation.most,
    }
    with tempfile.TemporaryDirectory() as folder:
        with Run.open(options.run or Path(folder) / "run", "clip baselines", config, seed=0, resume=True) as run:
            evaluation.measure(run, done=lambda _: print(f"{len(run.done)} of {len(clips)} clips", file=sys.stderr))
            results = evaluation.summary(run)
            measured = dict(run.results())
    if tokenizer is not None:
        results["pairs"] = list(pairs(measured, evaluation))
    results["frechet"] = evaluation.frechet()
    for row in results["rows"]:
        cells = "  ".join(
            f"{group}: {mean_text(row['groups'][group]['psnr'], 2)} dB"
            for group in (ALL, "most moving", "without near-twins")
        )
        print(f"{row['row']:<24} {cells}  LPIPS {mean_text(row['groups'][ALL]['lpips'], 3)}")
    for pair in results["pairs"]:
        if (pair["group"], pair["metric"]) == (ALL, "psnr"):
            low, high = pair["interval"]
            print(
                f"{pair['first']} minus {pair['row']}: {pair['difference']:+.2f} dB [{low:+.2f}, {high:+.2f}], "
                f"{pair['wins']} of {pair['n']}"
            )
    document = {"tokenizer": config["tokenizer"], "image": image.name, "spent": evaluation.most, **results}
    write(options.out, {**header(0), **document})
    return 0


def pairs(measured: dict[str, Any], evaluation: ClipEvaluation) -> Iterator[dict[str, Any]]:
    """The tokenizer's words minus every other row, clip by clip, in every group."""
    first, *others = (row.name for row in evaluation.rows())
    for other in others:
        for group, members in {ALL: set(measured), **evaluation.groups}.items():
            for metric, higher in METRICS.items():
                both = [
                    (clip["rows"][first].get(metric), clip["rows"][other].get(metric))
                    for name, clip in measured.items()
                    if name in members
                ]
                # What does not move has no PSNR of its motion.
                known = [(a, b) for a, b in both if a is not None and b is not None]
                if known:
                    pair = paired_mean(*zip(*known, strict=True), higher_is_better=higher)
                    yield {"first": first, "row": other, "group": group, "metric": metric, **pair.to_dict()}


if __name__ == "__main__":
    sys.exit(main())
