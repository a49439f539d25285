"""Pictures of an `eval denoising` run side by side: a line for each task and picture, a column for each row.

    python benchmarks/denoising_sheet.py RUN [RUN ...] --data PHOTOS --out denoised.jpg [--pictures 2]

Columns: the intact picture, what the LLM was shown, the LLM, random allowed words, the vote, and the ceiling. Where
part of a picture was known, that part is the condition's own pixels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from icl_vision import ImageTokenizer
from icl_vision.files.runs import read_results
from icl_vision.tasks.denoise.puzzles import pixels_of
from icl_vision.tasks.denoise.tasks import find_task

COLUMNS = {
    "intact": "", "shown": "corrupted input", "LLM": "llm/rows", "random allowed": "random allowed",
    "plurality": "plurality", "ceiling": "ceiling",
}  # fmt: skip
"""Titles, and the rows of the run."""
GAP, TITLE = 6, 20


def line(tokenizer: Any, task: str, name: str, intact: np.ndarray, results: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of one line."""
    found, whole = find_task(task), [intact]
    shown = found.degrade(intact)
    region = found.pixels(intact.shape[0])
    for row in list(COLUMNS.values())[1:]:
        if row == "corrupted input":
            whole.append(shown)
            continue
        words, made = results[f"{task}/{row}"]["pictures"][name]["words"], shown.copy()
        if words is not None:  # else nothing was made
            made[region] = np.asarray(tokenizer.decode([tokenizer.from_text(" ".join(words))])[0])[region]
        whole.append(made)
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `eval denoising` runs")
    parser.add_argument("--data", type=Path, required=True, help="the folder of photographs they were made from")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--pictures", type=int, default=2, help="photographs of each task (default 2)")
    options = parser.parse_args()
    tokenizer = ImageTokenizer.from_pretrained("spae-photo-128")
    lines = []
    for folder in options.runs:
        results = dict(read_results(folder))
        for task in dict.fromkeys(item.partition("/")[0] for item in results):
            names = list(results[f"{task}/ceiling"]["pictures"])
            for name in names[len(names) // 4 :: -(-len(names) // options.pictures)]:  # of different classes
                (intact,) = pixels_of(tokenizer, [options.data / name])
                lines.append((task, line(tokenizer, task, name, intact, results)))
    side = lines[0][1][0].shape[0] + GAP
    sheet = Image.new("RGB", (side * len(COLUMNS) + GAP, (side + 2) * len(lines) + TITLE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(COLUMNS):
        draw.text((column * side + GAP, 2), title, fill="black", font=font)
    for number, (task, pictures) in enumerate(lines):
        top = number * (side + 2) + TITLE
        for column, pixels in enumerate(pictures):
            sheet.paste(Image.fromarray(pixels), (column * side + GAP, top))
        if number == 0 or lines[number - 1][0] != task:
            draw.rectangle((GAP, top, GAP + 92, top + 16), fill="white")
            draw.text((GAP + 3, top), task, fill="black", font=font)
    sheet.save(options.out, quality=88)
    print(f"wrote {options.out}, {sheet.width}x{sheet.height}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
