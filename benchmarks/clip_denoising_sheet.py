"""What rows of `icl-vision eval denoising` made of clips, as one picture: a block a task and clip, a line a row.

    python benchmarks/clip_denoising_sheet.py mnist.npz RUN --tasks prediction filling outpainting --out sheet.jpg

RUN is a run folder; of a task whose LLM row is there the first clips are shown, not chosen ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from icl_vision import ImageTokenizer
from icl_vision.evaluation.clips.sets import read_clips
from icl_vision.tasks.denoise.clip_tasks import task_for
from icl_vision.tasks.denoise.puzzles import pixels_of_decoded

ROWS = {
    "ceiling": "right words, all",
    "condition words": "condition's words",
    "plurality": "plurality",
    "random allowed": "random allowed",
    "llm/rows": "the LLM",
}
FRAMES = (1, 5, 7, 8, 10, 12, 14)
SIDE, GAP, LABEL = 64, 4, 170


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("digits", type=Path, help="mnist.npz")
    parser.add_argument("run", type=Path, help="run folder of eval denoising")
    parser.add_argument("--tokenizer", default="spae-clips-64")
    parser.add_argument("--tasks", nargs="+", default=["prediction", "filling", "outpainting"])
    parser.add_argument("--clips", type=int, default=2, help="of each task (default 2)")
    parser.add_argument("--out", type=Path, required=True, help=".jpg or .png")
    options = parser.parse_args()
    tokenizer = ImageTokenizer.from_pretrained(options.tokenizer)
    lines = map(json.loads, (options.run / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    made = {line["id"]: line["result"]["pictures"] for line in lines}
    blocks = []
    for clip in read_clips(options.digits, frames=tokenizer.frames, limit=options.clips):
        for name in options.tasks:
            task = task_for(name, clips=True)
            rows = [("intact", clip.frames), (f"{name}: shown", task.degrade(clip.frames))]
            for row, said in ROWS.items():
                words = made[f"{name}/{row}"][clip.name]["words"]
                rows.append((said, pixels_of_decoded(tokenizer.decode(tokenizer.from_text(" ".join(words)))[0])))
            blocks.append(block(rows))
    wide, high = blocks[0].size
    sheet = Image.new("RGB", (wide * options.clips, high * len(options.tasks)), "white")
    for number, picture in enumerate(blocks):
        sheet.paste(picture, (number // len(options.tasks) * wide, number % len(options.tasks) * high))
    sheet.save(options.out, quality=88)
    return 0


def block(rows: list[tuple[str, npt.NDArray[np.uint8]]]) -> Image.Image:
    """A line a row: what it is, then some of its frames."""
    size = (LABEL + len(FRAMES) * (SIDE + GAP) + 3 * GAP, len(rows) * (SIDE + GAP) + 30)
    picture, font, small = Image.new("RGB", size, "white"), ImageFont.load_default(14), ImageFont.load_default(12)
    draw = ImageDraw.Draw(picture)
    for column, frame in enumerate(FRAMES):
        draw.text((LABEL + column * (SIDE + GAP), 4), f"frame {frame + 1}", fill="grey", font=small)
    for line, (said, frames) in enumerate(rows):
        top = 24 + line * (SIDE + GAP)
        draw.text((GAP, top + SIDE // 2 - 8), said, fill="black", font=font)
        for column, frame in enumerate(FRAMES):
            picture.paste(Image.fromarray(frames[frame]), (LABEL + column * (SIDE + GAP), top))
    return picture


if __name__ == "__main__":
    sys.exit(main())
