"""A token pyramid as a piece of HTML: every layer's words on their grid, coarse first.

Knows: grids, words, escaping. Refuses to know: where the words come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from icl_vision.viz.page import escape

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid

_STYLE = (
    "<style>.icl-pyramid{font:13px/1.35 system-ui,sans-serif}"
    ".icl-pyramid table{border-collapse:collapse;margin:.2em 0 .9em}"
    ".icl-pyramid td{border:1px solid #8886;padding:.1em .4em;text-align:center;max-width:8em;overflow:hidden;"
    "text-overflow:ellipsis;white-space:nowrap}.icl-pyramid .frames{display:flex;flex-wrap:wrap;gap:.8em}"
    ".icl-pyramid pre{font:10px/1 ui-monospace,monospace;margin:.2em 0 .9em}</style>"
)


@dataclass(frozen=True)
class PyramidView:
    """HTML that notebooks display by themselves; ``html`` holds it for any other use."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def show_pyramid(pyramid: TokenPyramid) -> PyramidView:
    """The words of each layer laid out on their grid (video: one grid a frame), escaped.

    A flat list of words is one row; ASCII art is shown as it is, in fixed width.
    """
    parts = [_STYLE, '<div class="icl-pyramid">']
    for number, grid in enumerate(pyramid.layout.grids, start=1):
        words = pyramid.words(number)
        parts.append(f"<div>layer {number} ({'x'.join(map(str, grid))})</div>")
        if pyramid.vocabulary is None:
            parts.append(f"<pre>{escape(chr(10).join(words))}</pre>")
            continue
        rows, columns = grid[-2:]
        frames = [words[start : start + rows * columns] for start in range(0, len(words), rows * columns)]
        tables = "".join(_table(frame, columns) for frame in frames)
        parts.append(f'<div class="frames">{tables}</div>')
    return PyramidView("".join([*parts, "</div>"]))


def _table(words: list[str], columns: int) -> str:
    rows = (words[start : start + columns] for start in range(0, len(words), columns))
    cells = ("".join(f'<td title="{escape(word)}">{escape(word)}</td>' for word in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
