"""The drawings of an `eval generation` run side by side: a panel for each row, failures outlined in red.

    python benchmarks/drawing_grids.py RUN --out drawings.png [--contexts 5]

Panels are cut from the grids of the run: one line of digits 0 to 9 for each context, the same contexts in each panel.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

LINE, COLUMNS, TITLE, GAP = 36, 3, 22, 12
"""Pixels of one context's line; panels side by side; pixels of a title and around a panel."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of an `eval generation` run")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--contexts", type=int, default=5, help="contexts of each row (default 5)")
    options = parser.parse_args()
    results = json.loads((options.run / "results.json").read_text())
    panels = []
    for row in results["rows"]:
        grid = Image.open(options.run / "grids" / f"{row['name'].replace(' ', '-')}.png").convert("RGB")
        panel = grid.crop((0, 0, grid.width, min(grid.height, LINE * options.contexts)))
        panels.append(
            (f"{row['name']}: {row['read_right']['accuracy']:.1%} of {row['read_right']['n']} read right", panel)
        )
    width, height = panels[0][1].width + 2 * GAP, LINE * options.contexts + TITLE + GAP
    sheet = Image.new("RGB", (width * COLUMNS, height * -(-len(panels) // COLUMNS) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (title, panel) in enumerate(panels):
        left, top = number % COLUMNS * width + GAP, number // COLUMNS * height
        draw.text((left, top + 4), title, fill="black", font=font)
        sheet.paste(panel, (left, top + TITLE))
    sheet.save(options.out, optimize=True)
    print(f"wrote {options.out}, {sheet.width}x{sheet.height}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
