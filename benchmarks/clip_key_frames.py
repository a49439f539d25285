"""Clip words beside an image tokenizer that spends as many on key frames, and beside key frames that cost nothing.

    python benchmarks/clip_key_frames.py emoji-clips-64.tar --tokenizer spae-clips-64 --image SPAE_FRAMES \
        --words 85 149 277 789 --out benchmarks/results/clip_key_frames.json

One or more key frames, blended linearly. The rows in "own pixels" are what no image tokenizer can surpass but by luck:
their key frames are exact. PSNR of a clip is that of all its pixels together; the test clips, and the half that moves
most.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.baselines import Frames, KeyFrames, blended, key_times
from icl_vision.evaluation.clips.sets import most_moving, read_clips, squared
from icl_vision.evaluation.kit.paired_means import paired_mean


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, help="a .tar or folder with clips.jsonl")
    parser.add_argument("--tokenizer", default="spae-clips-64", help="of clips; all its words are the row compared")
    parser.add_argument("--image", default=None, help="an image tokenizer; default: own pixels alone")
    parser.add_argument("--words", type=int, nargs="+", default=[], help="of it, for each key frame, row by row")
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 2, 3, 4, 5, 9], help="key frames in own pixels")
    parser.add_argument("--limit", type=int, default=None, help="at most so many test clips")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    tokenizer = ImageTokenizer.from_pretrained(options.tokenizer)
    clips = read_clips(options.clips, frames=tokenizer.frames, limit=options.limit)
    clips = squared(clips, tokenizer.preprocessing.batch)
    spent = tokenizer.layout.cumulative[-1]
    moving = most_moving(clips)
    found: dict[str, list[float]] = {f"{spent} words": []}
    for clip in clips:
        (words,) = tokenizer.encode([clip.frames])
        (made,) = tokenizer.decode([words])
        found[f"{spent} words"].append(psnr(clip.frames, np.stack([np.asarray(frame) for frame in made])))
        for keys in options.keys:
            at = key_times(len(clip.frames), keys)
            exact = blended(clip.frames[at], at, len(clip.frames))
            found.setdefault(f"{keys} key frames, own pixels", []).append(psnr(clip.frames, exact))
    if options.image is not None:
        image = KeyFrames(ImageTokenizer.from_pretrained(options.image))
        for each in options.words:
            keys = min(tokenizer.frames, spent // each)
            made_again = (image.by(keys, each)([clip.frames])[0] for clip in clips)
            values = [psnr(clip.frames, again) for clip, again in zip(clips, made_again, strict=True)]
            found[f"{keys} x {each} image words"] = values
    first = found[f"{spent} words"]
    rows = []
    for name, values in found.items():
        row: dict[str, Any] = {"row": name, "groups": {}}
        for group, chosen in groups(clips, moving).items():
            ours, theirs = ([some[number] for number in chosen] for some in (first, values))
            row["groups"][group] = {"psnr": float(np.mean(theirs)), "n": len(theirs)}
            if values is not first:
                row["groups"][group]["first minus it"] = paired_mean(ours, theirs, higher_is_better=True).to_dict()
        rows.append(row)
        print(name, {group: round(said["psnr"], 2) for group, said in row["groups"].items()}, flush=True)
    document = {"tokenizer": tokenizer.name, "image": options.image and Path(options.image).name, "rows": rows}
    write(options.out, {**header(0), **document})
    return 0


def groups(clips: list[Any], moving: set[str]) -> dict[str, list[int]]:
    """Numbers of clips by group."""
    return {
        "all": list(range(len(clips))),
        "most moving": [number for number, clip in enumerate(clips) if clip.name in moving],
    }


def psnr(clip: Frames, again: Frames) -> float:
    """Of all pixels together, dB."""
    return float(10 * np.log10(255**2 / max(1e-9, np.square(clip.astype(float) - again).mean())))


if __name__ == "__main__":
    sys.exit(main())
