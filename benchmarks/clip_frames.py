"""Single frames of the training clips as pictures: what an image tokenizer learns from that is compared with clips.

    python benchmarks/clip_frames.py emoji-clips-64.tar --each 4 --out FRAMES
    icl-vision train spae --config spae-frames-64 --data FRAMES --set pretrained=TAEF2 --out RUN

The middle frame of each clip and others drawn by a seed, as PNG. No clip of the test part is among them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from icl_vision.evaluation.clips.sets import read_clips


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, help="a .tar or folder with clips.jsonl")
    parser.add_argument("--frames", type=int, default=16, help="of a clip (default 16)")
    parser.add_argument("--each", type=int, default=4, help="pictures of each clip (default 4)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    for number, clip in enumerate(read_clips(options.clips, frames=options.frames, part="train")):
        middle = len(clip.frames) // 2
        others = np.random.default_rng([16, number]).permutation([at for at in range(len(clip.frames)) if at != middle])
        for at in [middle, *others[: options.each - 1].tolist()]:
            Image.fromarray(clip.frames[at]).save(options.out / f"{number:04}-{at:02}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
