"""What a clip of so many words has to beat: stills, an image tokenizer on key frames, files of as many bytes.

    python benchmarks/clip_baselines.py emoji-clips-64.tar --words 549 --out benchmarks/results/clip_baselines.json

No clip tokenizer is needed. Clips are those of the test split; the ones with a near-twin among the training clips
(first frame nearer than 20 dB) and the half that moves most are summed up apart too. Needs the weights of LPIPS.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.distance import FramesInOrder
from icl_vision.evaluation.clips.evaluation import ALL, ClipEvaluation
from icl_vision.evaluation.clips.sets import most_moving, near_twins, read_clips
from icl_vision.evaluation.kit.metrics import mean_text
from icl_vision.files.runs import Run

FRAMES = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, help="a .tar or folder with clips.jsonl")
    parser.add_argument("--words", type=int, default=549, help="that may be spent (default 549)")
    parser.add_argument("--image", default="spae-photo-128", help="the image tokenizer (default spae-photo-128)")
    parser.add_argument("--limit", type=int, default=None, help="at most so many test clips")
    parser.add_argument("--frechet", action="store_true", help="also the FVD-like distance of sets")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    from icl_vision.models.losses import instruments

    clips = read_clips(options.clips, frames=FRAMES, limit=options.limit)
    twins = near_twins(clips, read_clips(options.clips, frames=FRAMES, part="train"))
    names = {clip.name for clip in clips}
    image = ImageTokenizer.from_pretrained(options.image)
    evaluation = ClipEvaluation(
        clips,
        words=(options.words, len(image.vocabulary or ())),
        image=image,
        perceptual=instruments.perceptual(),
        features=FramesInOrder(ImageTokenizer.from_pretrained("words-photo").embed, "EfficientNet-Lite0")
        if options.frechet
        else None,
        groups={"most moving": most_moving(clips), "near-twins": twins, "without near-twins": names - twins},
    )
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "run", "clip baselines", {}, seed=0) as run:
        evaluation.measure(run)
        results = evaluation.summary(run)
    results["frechet"] = evaluation.frechet()
    for row in results["rows"]:
        cells = "  ".join(
            f"{group}: {mean_text(row['groups'][group]['psnr'], 2)} dB"
            for group in (ALL, "most moving", "without near-twins")
        )
        print(f"{row['row']:<24} {cells}  LPIPS {mean_text(row['groups'][ALL]['lpips'], 3)}")
    write(options.out, {**header(0), "image": image.name, "words": options.words, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
