"""The page of an evaluation of text to image: a table and a sheet of drawings for each set, failures outlined.

Knows: how drawings are laid out. Refuses to know: how they were made or measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icl_vision.evaluation.drawing.page import STYLE, grid
from icl_vision.evaluation.text_to_image.evaluation import BATCH, pictures_of
from icl_vision.evaluation.text_to_image.summary import Drawings
from icl_vision.viz.drawing_page import png_uri
from icl_vision.viz.page import accuracy_bars, document, escape, picture

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

SHOWN = 100
"""Drawings of each row on its sheet, the first ones: none are chosen."""
ACROSS = 20


def sheet(folder: Path, name: str, row: str, drawings: Sequence[Mapping[str, Any]], most: int = SHOWN) -> Image.Image:
    """The first drawings of a row on a set; a wrong one has an edge in red."""
    shown = list(drawings[:most])
    images: list[Image.Image | None] = []
    for start in range(0, len(shown), BATCH):
        number = min(BATCH, len(drawings) - start)
        images += pictures_of(folder, f"{name}/{row}/{start // BATCH:03d}", number)
    images = images[: len(shown)]
    lines = range(0, len(shown), ACROSS)
    return grid(
        [images[start : start + ACROSS] for start in lines],
        [[drawing["right"] for drawing in shown[start : start + ACROSS]] for start in lines],
    )


def render_page(results: Mapping[str, Any], drawings: Drawings, folder: Path) -> str:
    """The whole page as HTML that loads nothing."""
    chosen = results["settings"]
    said = f"Guidance {chosen['guidance']:g}, {chosen['sampler']}, {chosen['steps']} steps."
    looks = f"The first {SHOWN} drawings of each row, none chosen, each row from the same noise; red: read as another."
    parts = [f'<h1>{escape(results["title"])}</h1><p class="soft">{escape(f"{looks} {said}")}</p>']
    for one in results["sets"]:
        bars = accuracy_bars([(row["name"], row["read_right"]) for row in one["rows"]])
        cards = []
        for row in one["rows"]:
            shown = sheet(folder, one["name"], row["name"], drawings[one["name"]][row["name"]])
            alt = f"drawings of {row['name']}"
            head = f'<h2>{escape(row["name"])}</h2><p class="small soft">{escape(row["meaning"])}</p>'
            image = picture(png_uri(shown), alt, shown.width, shown.height)
            cards.append(f'<section class="card">{head}{image}</section>')
        parts.append(
            f'<h2>{escape(one["name"])}</h2><div class="card">{bars}</div><div class="grids">{"".join(cards)}</div>'
        )
    parts.append(f"<footer><p>{escape(results['attribution'])}</p></footer>")
    return document(results["title"], "".join(parts), STYLE)
