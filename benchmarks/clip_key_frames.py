"""Clip words beside an image tokenizer that spends as many on key frames, and beside key frames that cost nothing.

    python benchmarks/clip_key_frames.py emoji-clips-64.tar --tokenizer spae-clips-64 --image-run RUN \
        --words 21 85 149 213 341 789 --pretrained TAEF2 --out benchmarks/results/clip_key_frames.json

RUN is a training run of images at the clips' size, spae-frames-64's for one (benchmarks/clip_frames.py).
One or more key frames, blended linearly. The rows in "own pixels" are what no image tokenizer can surpass but by luck:
their key frames are exact. With --pretrained, the folder of TAEF2's weight files, so is what its latents alone make of
every frame: no words of them can be better. PSNR of a clip is that of all its pixels together; the test clips, and the
half that moves most.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import header, write

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.baselines import Frames, blended, key_times
from icl_vision.evaluation.clips.sets import most_moving, read_clips, squared
from icl_vision.evaluation.kit.paired_means import paired_mean


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, help="a .tar or folder with clips.jsonl")
    parser.add_argument("--tokenizer", default="spae-clips-64", help="of clips; all its words are the row compared")
    parser.add_argument("--image-run", type=Path, default=None, help="of an image SPAE; default: own pixels alone")
    parser.add_argument("--words", type=int, nargs="+", default=[], help="of it, for each key frame, row by row")
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 2, 3, 4, 5, 9], help="key frames in own pixels")
    parser.add_argument(
        "--pretrained", type=Path, default=None, help="TAEF2's folder: its latents are a row; default: not"
    )
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
    image = None if options.image_run is None else FramesOfARun(options.image_run)
    for each in options.words if image is not None else ():
        assert image is not None  # no words are looked at without it
        keys = min(tokenizer.frames, spent // each)
        at = key_times(tokenizer.frames, keys)
        found[f"{keys} x {each} image words"] = [
            psnr(clip.frames, blended(image.again(clip.frames[at], each), at, len(clip.frames))) for clip in clips
        ]
    if options.pretrained is not None:
        found["TAEF2's latents, no words"] = [
            psnr(clip.frames, again) for clip, again in ceilings(clips, options.pretrained)
        ]
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
    document = {"tokenizer": tokenizer.name, "image": image and image.name, "rows": rows}
    write(options.out, {**header(0), **document})
    return 0


class FramesOfARun:
    """Frames through the image SPAE of a training run, in torch."""

    def __init__(self, run: Path) -> None:
        from icl_vision.training.building import find_checkpoint, load_model

        checkpoint = find_checkpoint(run)
        self.name = f"{checkpoint.state['config'].get('family', 'spae')} of {run.name}, step {checkpoint.step}"
        self.model = load_model(run)

    def again(self, frames: Frames, words: int) -> Frames:
        """uint8 [m, S, S, 3] from so many words each."""
        import torch

        with torch.inference_mode():
            ids = self.model.encode_ids(tensor_of(frames))
            made = self.model.decode_ids(ids[: self.model.layout.layers_for(words)])
        return pixels_of(made)


def ceilings(clips: list[Any], folder: Path) -> Iterator[tuple[Any, Frames]]:
    """Each clip, and its frames from TAEF2's latents of them."""
    import torch

    from icl_vision.models.nets.taef2 import load_taef2

    encoder, decoder = (net.eval() for net in load_taef2(folder))
    for clip in clips:
        with torch.inference_mode():
            made = decoder(encoder(tensor_of(clip.frames))).clamp(0, 1)
        yield clip, pixels_of(made)


def tensor_of(frames: Frames) -> Any:
    """uint8 [m, S, S, 3] -> a float tensor [m, 3, S, S] in [0, 1]."""
    import torch

    return torch.from_numpy(frames).movedim(-1, 1).float() / 255


def pixels_of(made: Any) -> Frames:
    """A float tensor [m, 3, S, S] in [0, 1] -> uint8 [m, S, S, 3]."""
    pixels: Frames = (made * 255).round().byte().movedim(1, -1).numpy()
    return pixels


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
