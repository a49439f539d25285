"""A token pyramid as a piece of HTML for notebooks: every layer's words on their grid, coarse first.

Knows: grids, words, escaping, styles that touch nothing else on a notebook's page.
Refuses to know: where the words come from.

No script is needed: hovering gives a cell's word, place and similarity by the browser's own bubble.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icl_vision.image_words import ImageWords
from icl_vision.viz.page import escape
from icl_vision.viz.pyramids.look import Similarity, check_single_image, frame, is_flat, measure
from icl_vision.viz.pyramids.marks import READABLE, Cell, cells, cloud, width
from icl_vision.viz.pyramids.page import data_uri, shade_rules
from icl_vision.viz.pyramids.parts import STYLE as PARTS_STYLE
from icl_vision.viz.pyramids.parts import parts_html

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.images import ImageSource
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tokenizers import ImageTokenizer

_CLOUD = 60  # distinct words of a deep layer that are written out
_SIDE = 300  # of the image behind the words, in pixels
_WIDE = 600  # of boards with words in many cells

# Colours come from the notebook (currentColor), so both its light and its dark theme work.
_STYLE = """.icl-pyramid{font:13px/1.35 system-ui,sans-serif;display:flex;flex-wrap:wrap;gap:0 1.2em}
.icl-pyramid .note{flex-basis:100%}
.icl-pyramid table{border-collapse:collapse;margin:.2em 0 .9em;width:auto;font-size:13px}
.icl-pyramid td{border:1px solid #8886;padding:.1em .4em;text-align:center;max-width:8em;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap;background:var(--t,none);color:var(--k,inherit)}
.icl-pyramid .deep td{width:13px;height:13px;min-width:0;padding:0}
.icl-pyramid .frames,.icl-pyramid .layer{display:flex;flex-wrap:wrap;gap:.3em .8em;align-items:flex-start}
.icl-pyramid .cloud{margin:.2em 0;max-width:46em}
.icl-pyramid .cloud span{display:inline-block;border-radius:.4em;padding:0 .4em;margin:1px;
font-size:calc(12px + var(--z)*13px);background:var(--t,#8883);color:var(--k,inherit)}
.icl-pyramid .over{table-layout:fixed;background-size:100% 100%}
.icl-pyramid .over td{background:color-mix(in srgb,var(--t,#555) 30%,transparent);padding:0;max-width:none;
overflow:visible}
.icl-pyramid .over td span{background:var(--t,#555);color:var(--k,#fff);border-radius:.3em;padding:0 .25em;
display:inline-block;max-width:100%;overflow:hidden;text-overflow:ellipsis;vertical-align:middle}
.icl-pyramid .deep .over td{background:color-mix(in srgb,var(--t,#555) 60%,transparent)}
.icl-pyramid pre{font:10px/1 ui-monospace,monospace;margin:.2em 0 .9em}
"""


@dataclass(frozen=True)
class PyramidView:
    """HTML that notebooks display by themselves; ``html`` holds it for any other use."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


@dataclass(frozen=True)
class _Backdrop:
    """The image behind the cells: the class that paints it, its size."""

    name: str
    width: int
    height: int
    rule: str

    def wider(self, width: int) -> _Backdrop:
        return dataclasses.replace(self, width=width, height=round(self.height * width / self.width))


def show_pyramid(
    pyramid: TokenPyramid, *, image: ImageSource | None = None, tokenizer: ImageTokenizer | None = None
) -> PyramidView:
    """The words of each layer laid out on their grid (video: one grid a frame), escaped.

    A flat list of words is one row; ASCII art is shown as it is, in fixed width; a layer of many cells is a cloud of
    its words (size by count) and a grid of cells to hover over.

    Args:
        pyramid: the words.
        image: the image they are of, to be drawn behind them.
        tokenizer: the one that made them: colours the words by similarity, and frames the image as it sees it.

    Raises:
        PyramidError: an image for a pyramid of several frames, or a pyramid that is not the tokenizer's.
        VocabularyError: a pyramid of another vocabulary than the tokenizer's.
        ImageError: the image cannot be used.
    """
    if tokenizer is not None:
        tokenizer.to_text(pyramid)  # for its check that the pyramid is one of its own
    picture: Image.Image | None = None
    if image is not None:
        from icl_vision.images import load_image

        check_single_image(pyramid.layout.grids, "this pyramid")
        picture = load_image(image)
    if isinstance(pyramid, ImageWords):
        return PyramidView(_by_part(pyramid, picture, tokenizer))
    similarity = None if tokenizer is None else measure(pyramid, tokenizer, picture)
    behind = None if picture is None else _backdrop(picture, tokenizer)
    style = _STYLE + ("" if similarity is None else shade_rules(".icl-pyramid .s")) + (behind.rule if behind else "")
    parts = [f'<style>{style}</style><div class="icl-pyramid">']
    if behind is not None and (pyramid.vocabulary is None or is_flat(pyramid)):
        parts.append(f'<table class="over {behind.name}" style="{_size(behind)}"></table>')
    if similarity is not None:
        said = f"{similarity.low:.2f} (dark) to {similarity.high:.2f} (light), similarity to {similarity.reference}"
        parts.append(f'<div class="note">{escape(said)}</div>')
    parts += [_layer(pyramid, layer, similarity, behind) for layer in range(1, pyramid.layers + 1)]
    return PyramidView("".join([*parts, "</div>"]))


def _by_part(words: ImageWords, picture: Image.Image | None, tokenizer: ImageTokenizer | None) -> str:
    """Words by part, the image above them where there is one."""
    behind = None if picture is None else _backdrop(picture, tokenizer)
    rule, photo = "", ""
    if behind is not None:
        rule = behind.rule + ".icl-pyramid .over{background-size:100% 100%}"
        photo = f'<div class="icl-pyramid"><div class="over {behind.name}" style="{_size(behind)}"></div></div>'
    return f"<style>{PARTS_STYLE}{rule}</style>{photo}{parts_html(words)}"


def _backdrop(image: Image.Image, tokenizer: ImageTokenizer | None) -> _Backdrop:
    _, backdrop, _ = frame(image, tokenizer)
    small = backdrop.copy()
    small.thumbnail((_SIDE, _SIDE))
    times = max(1, _SIDE // max(small.size))
    uri = data_uri(small, exact=times > 1)
    name = "icl-" + hashlib.sha256(uri.encode()).hexdigest()[:12]
    rendering = "pixelated" if times > 1 else "auto"
    rule = f".icl-pyramid .{name}{{background-image:url({uri});image-rendering:{rendering}}}"
    return _Backdrop(name, small.width * times, small.height * times, rule)


def _layer(pyramid: TokenPyramid, layer: int, similarity: Similarity | None, behind: _Backdrop | None) -> str:
    grid = pyramid.layout.grids[layer - 1]
    head = f"<div>layer {layer} ({'x'.join(map(str, grid))})</div>"
    if pyramid.vocabulary is None:
        return f"<div>{head}<pre>{escape(chr(10).join(pyramid.words(layer)))}</pre></div>"
    flat = is_flat(pyramid)
    if flat:
        behind = None  # ranks have no place on the image
    found = cells(pyramid, layer, similarity)
    rows, columns = grid[-2:]
    deep = rows * columns > READABLE and not flat
    frames = [found[start : start + rows * columns] for start in range(0, len(found), rows * columns)]
    tables = "".join(_table(frame, columns, deep=deep, flat=flat, behind=behind) for frame in frames)
    words = _cloud(found) if deep else ""
    return f'<div>{head}<div class="layer"><div class="frames{" deep" * deep}">{tables}</div>{words}</div></div>'


def _table(found: list[Cell], columns: int, *, deep: bool, flat: bool, behind: _Backdrop | None) -> str:
    kind, style, room = "", "", 0.0
    if behind is not None:
        if len(found) > 16 and not deep:
            behind = behind.wider(_WIDE)
        kind = f' class="over {behind.name}"'
        style, room = f' style="{_size(behind)}"', behind.width / columns
    rows = (found[start : start + columns] for start in range(0, len(found), columns))
    body = "".join(f"<tr>{''.join(_cell(cell, deep=deep, flat=flat, room=room) for cell in row)}</tr>" for row in rows)
    return f"<table{kind}{style}>{body}</table>"


def _cell(cell: Cell, *, deep: bool, flat: bool, room: float) -> str:
    """room: the cell's width over the image, in pixels; 0 where there is no image."""
    word = "" if deep else escape(cell.word)
    if word and room:
        word = (
            f'<span style="font-size:{max(8.0, min(15.0, 0.96 * room / (width(cell.word) + 0.5))):.1f}px">{word}</span>'
        )
    return f'<td{_shade(cell.shade)} title="{escape(cell.describe(flat=flat))}">{word}</td>'


def _shade(shade: int | None) -> str:
    return "" if shade is None else f' class="s{shade}"'


def _cloud(found: list[Cell]) -> str:
    words = cloud(found)
    items = "".join(
        f"<span{'' if word.shade is None else f' class={chr(34)}s{word.shade}{chr(34)}'} "
        f'title="{escape(word.describe(len(found)))}" style="--z:{word.size:.2f}">{escape(word.word)}</span>'
        for word in words[:_CLOUD]
    )
    more = f" and {len(words) - _CLOUD} more" if len(words) > _CLOUD else ""
    return f'<div class="cloud">{items}{more}</div>'


def _size(behind: _Backdrop) -> str:
    return f"width:{behind.width}px;height:{behind.height}px"
