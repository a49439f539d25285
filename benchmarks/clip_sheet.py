"""Clips and what a clip tokenizer makes of them again, moving side by side: a line for each clip, a column a depth.

    python benchmarks/clip_sheet.py CLIP [CLIP ...] --tokenizer spae-clips-64 --words 294 550 806 --out sheet.webp

The first column is the clip as the tokenizer takes it. The picture written moves (a WebP that loses a little, to be
small); --still writes beside it, as a JPEG, four moments of it one under the other, for whoever cannot see it move.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from icl_vision import ImageTokenizer
from icl_vision.clips import load_clip

GAP, TITLE, MOMENTS, QUALITY = 4, 16, 4, 85


def sheet(paths: list[Path], name: str, words: list[int], scale: int) -> list[Image.Image]:
    """One page a frame."""
    tokenizer = ImageTokenizer.from_pretrained(name)
    clips = [load_clip(path, frames=int(tokenizer.card["frames"])) for path in paths]
    columns = [("clip", [[Image.fromarray(frame) for frame in clip] for clip in clips])]
    for count in words:
        columns.append((f"{count} words", tokenizer.decode(tokenizer.encode(clips, count))))
    side = columns[-1][1][0][0].width * scale
    cell, font = side + GAP, ImageFont.load_default(11)
    pages = []
    for frame in range(len(columns[0][1][0])):
        page = Image.new("RGB", (cell * len(columns) - GAP, cell * len(clips) + TITLE), "white")
        draw = ImageDraw.Draw(page)
        for column, (title, made) in enumerate(columns):
            draw.text((column * cell, 1), title, fill="black", font=font)
            for line, clip in enumerate(made):
                tile = clip[frame].convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
                page.paste(tile, (column * cell, line * cell + TITLE))
        pages.append(page)
    return pages


def moments(pages: list[Image.Image]) -> Image.Image:
    """A few of the pages, one under the other."""
    chosen = [pages[len(pages) * moment // MOMENTS] for moment in range(MOMENTS)]
    return Image.fromarray(np.concatenate([np.asarray(page) for page in chosen]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+", help="animations")
    parser.add_argument("--tokenizer", default="spae-clips-64", help="name or folder (default: spae-clips-64)")
    parser.add_argument("--words", type=int, nargs="+", required=True, help="a column each; whole layers")
    parser.add_argument("--scale", type=int, default=1, help="how many times larger each clip is drawn (default 1)")
    parser.add_argument("--ms", type=int, default=80, help="of each frame (default 80)")
    parser.add_argument("--still", action="store_true", help="write moments of it as a JPEG too")
    parser.add_argument("--out", type=Path, required=True, help="animation to write")
    options = parser.parse_args()
    pages = sheet(options.clips, options.tokenizer, options.words, options.scale)
    first, *others = pages
    first.save(options.out, save_all=True, append_images=others, duration=options.ms, loop=0, quality=QUALITY)
    if options.still:
        moments(pages).save(options.out.with_suffix(".jpg"), quality=QUALITY)
    print(f"wrote {options.out}, {pages[0].width}x{pages[0].height}, {len(pages)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
