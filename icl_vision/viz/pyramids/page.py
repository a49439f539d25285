"""The page of `icl-vision show`: images through a tokenizer's eyes, layer by layer, in one file.

Knows: how looks (``pyramids.look``) are laid out as HTML. Refuses to know: how they came to be; networks.

Everything is on the page without its script: words, shades, reconstructions. The script adds the readout of the word
under pointer, finger or keyboard focus, and lights up the other cells of the same word. The page loads nothing, and
the same looks give the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from icl_vision._version import __version__
from icl_vision.errors import UsageError
from icl_vision.image_words import ImageWords
from icl_vision.viz.page import document, escape, thumbnail
from icl_vision.viz.pyramids.look import beginning, command_line, decibels, gist, in_shape
from icl_vision.viz.pyramids.marks import INKS, READABLE, SHADES, Cell, cells, cloud, cuts, width
from icl_vision.viz.pyramids.parts import STYLE as PARTS_STYLE
from icl_vision.viz.pyramids.parts import parts_html

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.viz.pyramids.look import PyramidLook, Similarity

_FEW = 16  # layers of at most so many cells stand side by side
_SMALL = 64  # an image of at most so many pixels a side is drawn with its pixels showing
_BACKDROP_SIDE = 560
_PLATE = 0.5  # width of a word's plate beyond the word, in em
_LEAST = 2.9  # font size in per cent of the board's width that a phone still shows readably
_LEAST_BROAD = 1.7  # the same on boards of 470 pixels or more


def render_pyramid_page(looks: Sequence[PyramidLook], *, command: str | None = None) -> str:
    """The whole page.

    Args:
        looks: one or more images, all through the same tokenizer.
        command: how to make the same page again, for its foot; None makes it from the images' and tokenizer's names.

    Raises:
        UsageError: no looks.
    """
    if not looks:
        raise UsageError("a page needs one image or more; got none")
    tokenizer = looks[0].tokenizer
    title = f"{looks[0].name} in {looks[0].medium}" if len(looks) == 1 else f"{len(looks)} images in {looks[0].medium}"
    style = files("icl_vision.viz.pyramids").joinpath("page.css").read_text(encoding="utf-8")
    script = files("icl_vision.viz.pyramids").joinpath("page.js").read_text(encoding="utf-8")
    body = f"<header><h1>{escape(title)}</h1>{_lead(looks[0])}{_contents(looks)}</header>"
    body += "".join(_article(shown, number, len(looks)) for number, shown in enumerate(looks, start=1))
    body += _foot(tokenizer, command or command_line(looks, out="page.html"))
    own = "".join(_backdrop_rule(shown, number) for number, shown in enumerate(looks, start=1))
    return document(title, body, style + PARTS_STYLE + shade_rules(".s") + own, script)


def shade_rules(prefix: str) -> str:
    """CSS of the shades: ``PREFIX0`` to ``PREFIX8``."""
    return "".join(
        f"{prefix}{step}{{--t:{colour};--k:{ink}}}\n"
        for step, (colour, ink) in enumerate(zip(SHADES, INKS, strict=True))
    )


def data_uri(image: Image.Image, *, exact: bool) -> str:
    """An image as a data URI: lossless (``exact``) or small."""
    if not exact:
        return thumbnail(image, max(image.size), quality=82)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=True, quality=60, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# The page around the images -------------------------------------------------------------------------------------------


def _lead(shown: PyramidLook) -> str:
    pyramid = shown.pyramid
    name = f"<b>{escape(shown.tokenizer)}</b>"
    if pyramid.vocabulary is None:
        return f"<p>The tokenizer {name} turns a picture into {pyramid.k} rows of characters.</p>"
    if isinstance(pyramid, ImageWords):
        return (
            f"<p>The tokenizer {name} describes a picture in ordinary words by part, each with the probability that it "
            "is right. A language model that reads only text can read them.</p>"
        )
    if shown.flat:
        return f"<p>The tokenizer {name} describes a picture in ordinary words, the most probable first.</p>"
    back = ", and the words back into a picture" if shown.decoded else ""
    layers = f"{pyramid.layers} layers, coarse to fine" if pyramid.layers > 1 else "one layer"
    words = f"{pyramid.k} ordinary word{'s' * (pyramid.k > 1)}"
    return (
        f"<p>The tokenizer {name} turns a picture into {words} in {layers}{back}. Each word stands "
        "for the part of the picture that it is written on. A language model that reads only text can read them.</p>"
    )


def _contents(looks: Sequence[PyramidLook]) -> str:
    if len(looks) == 1:
        return ""
    links = "".join(
        f'<li><a href="#i{number}"><img src="{data_uri(_thumb(look.backdrop), exact=False)}" alt="">'
        f"<span>{escape(look.name)}</span></a></li>"
        for number, look in enumerate(looks, start=1)
    )
    return f'<nav aria-label="images"><ul class="contents">{links}</ul></nav>'


def _foot(tokenizer: str, command: str) -> str:
    return (
        f"<footer><p>Made by icl-vision {escape(__version__)} with the tokenizer {escape(tokenizer)}. "
        "This file holds everything it shows and loads nothing. The same again:</p>"
        f"<pre>{escape(command)}</pre></footer>"
    )


# One image ------------------------------------------------------------------------------------------------------------


def _article(shown: PyramidLook, number: int, count: int) -> str:
    head = f"<h2>{escape(shown.name)}</h2>" if count > 1 else ""
    parts = [f'<article id="i{number}">{head}', _hero(shown)]
    if shown.pyramid.vocabulary is not None and not shown.flat:
        parts += ["" if shown.one_grid else _strip(shown), legend(shown.similarity)]
        layers = [_layer(shown, layer) for layer in range(1, shown.pyramid.layers + 1)]
        few = sum(count <= _FEW for count in shown.pyramid.layout.counts)
        pairs = " pairs" if few in (1, 2, 4) else ""  # two boards a row where three would leave a hole
        parts.append(f'<div class="layers{pairs}">{"".join(layers)}</div>')
    parts += [_text(shown), "</article>"]
    return "".join(parts)


def _backdrop_rule(shown: PyramidLook, number: int) -> str:
    """The backdrop is in the file once, as a variable that the boards of all layers paint themselves with."""
    backdrop = shown.backdrop.copy()
    backdrop.thumbnail((_BACKDROP_SIDE, _BACKDROP_SIDE))
    width, height = backdrop.size
    small = max(backdrop.size) <= _SMALL
    uri, rendering = data_uri(backdrop, exact=small), "pixelated" if small else "auto"
    return f"#i{number} {{ --photo: url({uri}); --ratio: {width / height:.5f}; --pixels: {rendering}; }}\n"


def _hero(shown: PyramidLook) -> str:
    original = _photo(shown, "Original", shown.framing)
    if shown.pyramid.vocabulary is None:
        drawn = f"<figure>{_art(shown)}<figcaption><b>In characters</b></figcaption></figure>"
        return f'<div class="hero">{original}{drawn}</div>'
    if isinstance(shown.pyramid, ImageWords):
        parts = parts_html(shown.pyramid, shown.used, shown.about)
        return f'<div class="hero">{original}<div>{parts}</div></div>'
    if shown.flat:
        return f'<div class="hero">{original}<div>{_ranks(shown)}{legend(shown.similarity)}</div></div>'
    words_beside = "" if shown.one_grid else _gist(shown)
    if not shown.decoded:
        return f'<div class="hero">{original}{words_beside}</div>'
    words = f"{shown.pyramid.k} word" + "s" * (shown.pyramid.k > 1)
    again = _picture(in_shape(shown, shown.decoded[-1]), f"{shown.name} made again from {words}")
    error = f" ({quality} PSNR)" if (quality := _decibels(shown, shown.pyramid.layers)) else ""
    made = f"<figure>{again}<figcaption><b>Made again</b> from nothing but its {words}{error}</figcaption></figure>"
    return f'<div class="hero{"" if shown.one_grid else " three"}">{original}{words_beside}{made}</div>'


def _gist(shown: PyramidLook) -> str:
    """The first words as running text, the coarser the larger: what stands between the image and its copy."""
    lines, left = gist(shown.pyramid)
    text = "".join(f"<p>{escape(' '.join(words))}</p>" for words in lines)
    more = f'<p class="more">and {left} more</p>' if left else ""
    count = shown.pyramid.k
    caption = f"<b>In words</b> {count} of them, coarse to fine" if count > 1 else "<b>In one word</b>"
    return f'<figure class="gist"><div class="card">{text}{more}</div><figcaption>{caption}</figcaption></figure>'


def _photo(shown: PyramidLook, title: str, note: str) -> str:
    box = f'<div class="photo" role="img" aria-label="{escape(shown.name)}"></div>'
    return f"<figure>{box}<figcaption><b>{title}</b> {escape(note)}</figcaption></figure>"


def _picture(image: Image.Image, alt: str) -> str:
    small = max(image.size) <= _SMALL
    kind = ' class="pixels"' if small else ""
    return f'<img{kind} src="{data_uri(image, exact=small)}" alt="{escape(alt)}" loading="lazy">'


def _art(shown: PyramidLook) -> str:
    """The characters, spaced so that the text has the image's shape."""
    rows = shown.pyramid.words()
    columns = max(map(len, rows))
    line = columns / len(rows) * shown.backdrop.height / shown.backdrop.width
    text = escape("\n".join(rows))
    style = f"--n:{columns};--l:{line:.3f}"
    return f'<div class="art"><pre style="{style}" role="img" aria-label="text picture">{text}</pre></div>'


def _ranks(shown: PyramidLook) -> str:
    """A flat list, best first, with its similarities as bars."""
    items = []
    for cell in cells(shown.pyramid, 1, shown.similarity):
        bar = ""
        if cell.cosine is not None:
            bar = f'<i class="s{cell.shade}" style="width:{max(0.0, cell.cosine):.1%}"></i>'
            bar += f"<small>{cell.cosine:.3f}</small>"
        items.append(f'<li class="it" {_tip(cell, flat=True)}><b>{escape(cell.word)}</b> <span>{bar}</span></li>')
    return f'<h3>{len(items)} word{"s" * (len(items) > 1)}, best first</h3><ol class="ranks rove">{"".join(items)}</ol>'


def legend(similarity: Similarity | None) -> str:
    """What the colours mean."""
    if similarity is None:
        return '<p class="soft small">This tokenizer has no word vectors, so nothing is said about similarity.</p>'
    scale = "".join(f'<i class="s{step}"></i>' for step in range(len(SHADES)))
    return (
        f'<p class="legend small"><span class="scale" role="img" aria-label="colours from least to most similar">'
        f"<span>{similarity.low:.2f}</span>{scale}<span>{similarity.high:.2f}</span></span> "
        f"<span>Colour is similarity: the cosine of a word's vector with {escape(similarity.reference)}; "
        f"the mean of all {len(similarity.vocabulary):,} words is {similarity.chance:.2f}. "
        "Point at, tap or focus a word for its place and number (arrow keys move).</span></p>"
    )


# One layer ------------------------------------------------------------------------------------------------------------


def _layer(shown: PyramidLook, layer: int) -> str:
    tiles = cells(shown.pyramid, layer, shown.similarity)
    rows, columns = shown.pyramid.layout.grids[layer - 1]
    readable = len(tiles) <= READABLE
    size = "few" if len(tiles) <= _FEW else "some" if readable else "many"
    heading = f"<h3>Layer {layer} <small>{columns} x {rows}, {len(tiles)} word{'s' * (len(tiles) > 1)}</small></h3>"
    if shown.similarity is not None:
        heading += f'<p class="small soft">{escape(shown.similarity.verdict(layer).capitalize())}</p>'
    ratio = shown.backdrop.width / shown.backdrop.height
    drawn = board(tiles, (rows, columns), f"layer {layer} on {shown.name}", ratio)
    side = "" if size == "few" else cloud_html(tiles)
    return f'<section class="layer card {size}">{heading}<div class="pair">{drawn}{side}</div></section>'


def board(tiles: Sequence[Cell], grid: tuple[int, int], label: str, ratio: float) -> str:
    """The cells over the image: with their words, or as shades alone."""
    rows, columns = grid
    readable = len(tiles) <= READABLE
    room = (100 / columns, 100 / ratio / rows)
    lines = []
    for start in range(0, len(tiles), columns):
        row = "".join(_written(cell, room) if readable else _shaded(cell) for cell in tiles[start : start + columns])
        lines.append(f'<div role="row">{row}</div>')
    kind = "words" if readable else "shades"
    return (
        f'<div class="board {kind} rove" role="grid" aria-label="{escape(label)}" data-columns="{columns}" '
        f'style="--c:{columns};--r:{rows}">{"".join(lines)}</div>'
    )


def _written(cell: Cell, room: tuple[float, float]) -> str:
    """A cell with its word: on one line where there is room, else cut into two or three, on narrow screens sooner.

    room: width and height of a cell in per cent of the board's width, the unit of the font sizes too.
    """

    def size(lines: Sequence[str]) -> float:
        broadest = max(map(width, lines)) + _PLATE
        return min(room[0] * 0.96 / broadest, room[0] * 0.24, room[1] * 0.97 / (1.12 * len(lines) + 0.2), 12.0)

    ways = list(cuts(cell.word))
    narrow = next((lines for lines in ways if size(lines) >= _LEAST), max(ways, key=size))
    whole = size([cell.word]) >= _LEAST_BROAD
    broad, kind = (
        (size([cell.word]), "") if whole else (min(size(narrow), 2.2), " cut")
    )  # not larger than the whole words beside it
    text = "<wbr>".join(map(escape, narrow))
    return (
        f'<div role="gridcell" class="it{_shade(cell)}{kind}" {_tip(cell)} '
        f'style="--f:{size(narrow):.2f};--w:{broad:.2f}"><b>{text}</b></div>'
    )


def _shaded(cell: Cell) -> str:
    return f'<div role="gridcell" class="it{_shade(cell)}" {_tip(cell)}></div>'


def cloud_html(tiles: list[Cell]) -> str:
    """A layer's words, the more often said the larger."""
    words = cloud(tiles)
    items = "".join(
        f'<li class="it{_shade(word)}" data-w="{word.id}" title="{escape(word.describe(len(tiles)))}" '
        f'style="--z:{word.size:.2f}">{escape(word.word)}</li>'
        for word in words
    )
    said = f"{len(words)} different word{'s' * (len(words) > 1)}; size is how many cells say it"
    return f'<div class="cloud"><p class="small soft">{said}</p><ul class="rove">{items}</ul></div>'


def _shade(shaded: object) -> str:
    shade = getattr(shaded, "shade", None)
    return "" if shade is None else f" s{shade}"


def _tip(cell: Cell, *, flat: bool = False) -> str:
    return f'data-w="{cell.id}" title="{escape(cell.describe(flat=flat))}"'


# Reconstructions and text ---------------------------------------------------------------------------------------------


def _strip(shown: PyramidLook) -> str:
    """What comes back from the first 1, 2, ... layers, beside the pixels that went in."""
    if not shown.decoded:
        return ""
    first = shown.draws_from
    counts = shown.pyramid.layout.cumulative[first - 1 :]
    figures = []
    for layers, (count, image) in enumerate(zip(counts, shown.decoded, strict=True), start=first):
        words = f"{count} word{'s' * (count > 1)}"
        error = f", {quality}" if (quality := _decibels(shown, layers)) else ""
        caption = f"<b>{words}</b> {layers} layer{'s' * (layers > 1)}{error}"
        again = _picture(in_shape(shown, image), f"from {words}")
        figures.append(f"<figure>{again}<figcaption>{caption}</figcaption></figure>")
    seen = _picture(in_shape(shown, shown.seen), f"{shown.name}, the pixels that went in")
    figures.append(f"<figure>{seen}<figcaption><b>Original</b> {escape(_size(shown.seen))}</figcaption></figure>")
    unit = " <small>dB is PSNR, the higher the nearer to the original</small>" if shown.psnr else ""
    note = f"<p class='small soft'>{escape(text)}</p>" if (text := beginning(shown)) else ""
    strip = f'<div class="strip">{"".join(figures)}</div>'
    return f'<section class="back"><h3>Back from words{unit}</h3>{strip}{note}</section>'


def _decibels(shown: PyramidLook, layers: int) -> str:
    return decibels(shown, layers).replace(" ", "\N{NO-BREAK SPACE}")


def _text(shown: PyramidLook) -> str:
    """Every word as text to copy."""
    if shown.pyramid.vocabulary is None:
        return ""
    if isinstance(shown.pyramid, ImageWords):
        words = escape((shown.pyramid if shown.used is None else shown.used).to_text())
        return f"<details><summary>The words as text</summary><pre>{words}</pre></details>"
    if shown.flat:
        words = escape(" ".join(shown.pyramid.words()))
        return f"<details><summary>The words as text</summary><pre>{words}</pre></details>"
    layers = "".join(
        f"<p class='small soft'>Layer {layer}</p><pre>{escape(' '.join(shown.pyramid.words(layer)))}</pre>"
        for layer in range(1, shown.pyramid.layers + 1)
    )
    return f"<details><summary>All {shown.pyramid.k} words as text</summary>{layers}</details>"


def _size(image: Image.Image) -> str:
    return f"{image.size[0]} x {image.size[1]} pixels"


def _thumb(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((96, 96))
    return small
