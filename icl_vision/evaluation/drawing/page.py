"""The page of drawings: a grid for each row, context by context, failures outlined.

Knows: how drawings are laid out. Refuses to know: how they were made or measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icl_vision.evaluation.drawing.evaluation import COPY, images_of
from icl_vision.evaluation.drawing.rows import MEANINGS
from icl_vision.evaluation.drawing.summary import Drawings, verdict
from icl_vision.viz.drawing_page import png_uri
from icl_vision.viz.page import accuracy_bars, document, escape, picture

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer

SHOWN = 20
"""Contexts shown of each row, the first ones: none are chosen."""
WRONG = (224, 60, 44)
EDGE = 2

STYLE = """
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(384px, 1fr)); gap: 16px; margin-top: 18px; }
.grids img { image-rendering: pixelated; border-radius: 4px; width: 100%; height: auto; }
.grids h2 { font-size: 1rem; margin-bottom: 2px; }
"""


def grid(images: Sequence[Sequence[Image.Image | None]], right: Sequence[Sequence[bool]]) -> Image.Image:
    """Drawings side by side, a line for each context; a wrong one has an edge in red, a missing one is red."""
    from PIL import Image

    side = next((image.width for line in images for image in line if image is not None), 32)
    cell = side + 2 * EDGE
    sheet = Image.new("RGB", (cell * max(len(line) for line in images), cell * len(images)), (60, 60, 60))
    for row, line in enumerate(images):
        for column, image in enumerate(line):
            box = (column * cell, row * cell)
            if not right[row][column]:
                sheet.paste(Image.new("RGB", (cell, cell), WRONG), box)
            if image is not None:
                sheet.paste(image.convert("RGB"), (box[0] + EDGE, box[1] + EDGE))
    return sheet


def row_grid(by_context: Mapping[int, Sequence[Mapping[str, Any]]], tokenizer: Tokenizer, most: int) -> Image.Image:
    """The first contexts of a row as a grid."""
    lines = [drawings for _, drawings in sorted(by_context.items())][:most]
    return grid(
        [images_of(tokenizer, line) for line in lines], [[drawing["right"] for drawing in line] for line in lines]
    )


def render_page(results: Mapping[str, Any], drawings: Drawings, tokenizer: Tokenizer, attribution: str) -> str:
    """The whole page as HTML that loads nothing."""
    rows = sorted(results["rows"], key=lambda row: list(MEANINGS).index(row["name"]))
    cards = []
    for row in rows:
        sheet = row_grid(drawings[row["name"]], tokenizer, SHOWN)
        accuracy = row["read_right"]
        note = f"{accuracy['accuracy']:.1%} of {accuracy['n']} read right; {row['copies']} copies (nearer than {COPY})"
        shown = picture(png_uri(sheet), f"drawings of {row['name']}", sheet.width, sheet.height)
        cards.append(
            f'<section class="card"><h2>{escape(row["name"])}</h2><p class="small soft">{escape(row["meaning"])}. '
            f"{escape(note)}</p>{shown}</section>"
        )
    bars = accuracy_bars([(row["name"], row["read_right"]) for row in rows])
    verdicts = "".join(f"<p>{escape(verdict(pair))}</p>" for pair in results["comparisons"])
    title = f"Digits drawn by {results['llm']}"
    body = (
        f'<h1>{escape(title)}</h1><p class="soft">A column is a question, a line a context of examples; the first '
        f"{SHOWN} contexts, none chosen. Red: read as another digit.</p>"
        f'<div class="card">{bars}</div>{verdicts}<div class="grids">{"".join(cards)}</div>'
        f"<footer><p>{escape(attribution)}</p></footer>"
    )
    return document(title, body, STYLE)
