"""Photographs and what tokenizers make of them again, side by side: a line for each photograph, a column for each.

    python benchmarks/reconstruction_sheet.py PHOTO [PHOTO ...] --tokenizers NAME[:WORDS] ... --out sheet.jpg

The first column is the photograph as the first tokenizer takes it. NAME is a packaged tokenizer or an artefact folder;
without WORDS all of its words are used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from icl_vision import ImageTokenizer
from icl_vision.tasks.denoise.puzzles import pixels_of

GAP, TITLE = 6, 20


def sheet(photographs: list[Path], wanted: list[str], side: int) -> Image.Image:
    """The page; every picture is drawn ``side`` pixels wide."""
    columns: list[tuple[str, list[Image.Image]]] = []
    for text in wanted:
        name, colon, words = text.rpartition(":")
        counted = bool(colon) and words.isdigit()
        tokenizer = ImageTokenizer.from_pretrained(name if counted else text)
        if not columns:
            columns.append(("photograph", [Image.fromarray(each) for each in pixels_of(tokenizer, photographs)]))
        found = tokenizer.encode(photographs, int(words) if counted else None)
        columns.append((f"{tokenizer.name}, {len(found[0].words())} words", tokenizer.decode(found)))
    cell = side + GAP
    page = Image.new("RGB", (cell * len(columns) + GAP, cell * len(photographs) + TITLE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for column, (title, pictures) in enumerate(columns):
        draw.text((column * cell + GAP, 3), title, fill="black", font=font)
        for line, picture in enumerate(pictures):
            tile = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            page.paste(tile, (column * cell + GAP, line * cell + TITLE))
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="+", help="picture files")
    parser.add_argument("--tokenizers", nargs="+", required=True, metavar="NAME[:WORDS]", help="one column each")
    parser.add_argument("--side", type=int, default=160, help="pixels of each picture on the page (default 160)")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    options = parser.parse_args()
    page = sheet(options.photographs, options.tokenizers, options.side)
    page.save(options.out, quality=88)
    print(f"wrote {options.out}, {page.width}x{page.height}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
