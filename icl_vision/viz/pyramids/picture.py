"""One image and its pyramid as one picture, drawn with Pillow: what the page shows, to be posted or printed.

Knows: how a look (``pyramids.look``) is composed at a fixed width. Refuses to know: how it came to be; HTML.

Text is set in the scalable font that Pillow carries, so the same look gives the same pixels wherever the same Pillow
runs. That font has the letters of Latin alphabets; others show as boxes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icl_vision._version import __version__
from icl_vision.image_words import ImageWords
from icl_vision.viz.page import percent
from icl_vision.viz.pyramids.look import beginning, command_line, decibels, gist
from icl_vision.viz.pyramids.marks import INKS, READABLE, SHADES, Cell, CloudWord, cells, cloud, cuts
from icl_vision.viz.pyramids.parts import PartLine, part_rows

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from icl_vision.viz.pyramids.look import PyramidLook, Similarity

WIDTH = 1400
_MARGIN, _GAP = 40, 24
_INNER = WIDTH - 2 * _MARGIN
_PAPER, _INK, _SOFT, _LINE = "#ffffff", "#1d2126", "#5d6670", "#dfe1dc"
_PLAIN, _PLAIN_INK = "#e9eae5", "#1d2126"
_FEW = 16  # layers of at most so many cells stand side by side
_LEAST, _EASY = 12, 14  # no text is smaller, in pixels; words are cut into lines to be this large
_CLOUD_LEAST, _CLOUD_MOST, _CLOUD_TALLEST = 15, 38, 640


def draw_pyramid(shown: PyramidLook, *, command: str | None = None) -> Image.Image:
    """The picture: original, layers with their words, clouds, reconstructions. RGB, ``WIDTH`` pixels wide.

    Args:
        shown: the image and its words.
        command: how to make the same picture again, for its foot; None makes it from the names.
    """
    from PIL import Image

    sheet = _Sheet()
    _head(sheet, shown)
    if shown.pyramid.vocabulary is None:
        _characters(sheet, shown)
    elif isinstance(shown.pyramid, ImageWords):
        _parts(sheet, shown)
    elif shown.flat:
        _ranks(sheet, shown)
    else:
        _hero(sheet, shown)
        if not shown.one_grid:
            _back(sheet, shown)
        _layers(sheet, shown)
    _foot(sheet, command or command_line([shown], out="picture.png"))
    picture = Image.new("RGB", (WIDTH, sheet.bottom + _MARGIN), _PAPER)
    for x, y, part in sheet.parts:
        picture.paste(part, (x, y))
    return picture


# What everything is made of -------------------------------------------------------------------------------------------


class _Sheet:
    """Parts placed from top to bottom; the height is known at the end."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, int, Image.Image]] = []
        self.bottom = _MARGIN

    def row(self, parts: Sequence[Image.Image], *, gap: int = _GAP, after: int = _GAP) -> None:
        """Parts beside each other."""
        x = _MARGIN
        for part in parts:
            self.parts.append((x, self.bottom, part))
            x += part.width + gap
        self.bottom += max(part.height for part in parts) + after


def _font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's font at a size, in whole pixels, ``_LEAST`` or more."""
    return _font_of(max(_LEAST, int(size)))


@functools.lru_cache(maxsize=64)  # each is read from its file anew
def _font_of(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, so no text can be drawn; install an ordinary one")
    return font


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), _PAPER)
    return image, ImageDraw.Draw(image)


def _text(text: str, size: float, *, colour: str = _INK, width: int = _INNER) -> Image.Image:
    """Text wrapped into ``width``."""
    font = _font(size)
    lines = _wrapped(text, font, width)
    step = round(size * 1.35)
    image, draw = _canvas(width, step * len(lines))
    for number, line in enumerate(lines):
        draw.text((0, number * step), line, fill=colour, font=font)
    return image


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image at another size; few pixels stay visible as such."""
    from PIL.Image import Resampling

    few = max(image.size) <= 64
    return image.resize(size, Resampling.NEAREST if few else Resampling.LANCZOS)


def _fitting(shown: PyramidLook, width: int, tallest: int) -> tuple[int, int]:
    """(width, height) of the image's shape within bounds."""
    ratio = shown.backdrop.width / shown.backdrop.height
    height = round(width / ratio)
    return (width, height) if height <= tallest else (max(1, round(tallest * ratio)), tallest)


def _stacked(parts: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Parts below each other."""
    image, _ = _canvas(max(part.width for part in parts), sum(part.height for part in parts) + gap * (len(parts) - 1))
    y = 0
    for part in parts:
        image.paste(part, (0, y))
        y += part.height + gap
    return image


def _colours(shade: int | None) -> tuple[str, str]:
    return (_PLAIN, _PLAIN_INK) if shade is None else (SHADES[shade], INKS[shade])


# Parts ----------------------------------------------------------------------------------------------------------------


def _head(sheet: _Sheet, shown: PyramidLook) -> None:
    pyramid = shown.pyramid
    sheet.row([_text(f"{shown.name} in {shown.medium}", 40)], after=6)
    unit = "rows of characters" if pyramid.vocabulary is None else "words" if pyramid.k > 1 else "word"
    layers = f" in {pyramid.layers} layers, coarse to fine" if pyramid.layers > 1 else ""
    back = ", and back" if shown.decoded else ""
    sheet.row([_text(f"{pyramid.k} {unit}{layers}{back}: tokenizer {shown.tokenizer}", 22, colour=_SOFT)])


def _hero(sheet: _Sheet, shown: PyramidLook) -> None:
    """Image, words, image: what the whole sheet is about. Without words where one grid below shows them all."""
    width = (_INNER - _GAP) // 2 if shown.one_grid else _INNER * 10 // 27 - _GAP
    size = _fitting(shown, width, 560)
    parts = [_titled("Original", "", _scaled(shown.backdrop, size))]
    if not shown.one_grid:
        beside = _INNER - (size[0] + _GAP) * (2 if shown.decoded else 1)
        note = f"{shown.pyramid.k}, coarse to fine" if shown.pyramid.layers > 1 else f"{shown.pyramid.k}"
        parts.append(_titled("In words", note, _gist(shown, min(beside, 640), size[1])))
    if shown.decoded:
        note = "from its words alone"
        if quality := decibels(shown, shown.pyramid.layers):
            note = f"{note}, {quality}" if size[0] >= 400 else f"{quality} PSNR"
        parts.append(_titled("Made again", note, _scaled(shown.decoded[-1], size)))
    sheet.row(parts)


def _gist(shown: PyramidLook, width: int, height: int) -> Image.Image:
    """The first words as running text, the coarser the larger, as many as there is room for."""
    image, draw = _canvas(width, max(height, 120))
    lines, left = gist(shown.pyramid)
    y, step = 0, 26
    for number, words in enumerate(lines):
        font = _font((40, 27, 21, 17)[min(number, 3)])
        step = round(font.size * 1.3)
        rows = _wrapped(" ".join(words), font, width)
        for place, row in enumerate(rows):
            if y + step > image.height - 26:  # the last line says how many there is no room for
                left += sum(len(row.split()) for row in rows[place:]) + sum(map(len, lines[number + 1 :]))
                draw.text((0, y), f"and {left} more", fill=_SOFT, font=_font(17))
                return image
            draw.text((0, y), row, fill=_INK, font=font)
            y += step
        y += 6
    if left:
        draw.text((0, y), f"and {left} more", fill=_SOFT, font=_font(17))
    return image


def _legend(similarity: Similarity) -> Image.Image:
    font = _font(17)
    image, draw = _canvas(_INNER, 26)
    x = 0
    for step, text in ((None, f"{similarity.low:.2f} "), *enumerate(SHADES), (None, f" {similarity.high:.2f}")):
        if step is None:
            draw.text((x, 2), text, fill=_SOFT, font=font)
            x += round(font.getlength(text)) + 4
        else:
            draw.rectangle((x, 3, x + 23, 22), fill=text)
            x += 24
    said = f"colour: cosine of a word's vector with {similarity.reference}; all words average {similarity.chance:.2f}"
    draw.text((x + 18, 2), said, fill=_SOFT, font=font)
    return image


def _foot(sheet: _Sheet, command: str) -> None:
    sheet.row([_text(f"Made by icl-vision {__version__}: {command}", 15, colour=_SOFT)], after=0)


def _board(shown: PyramidLook, layer: int, size: tuple[int, int]) -> Image.Image:
    """The cells of one layer over the image: with their words, or as shades alone."""
    from PIL import Image, ImageDraw

    found = cells(shown.pyramid, layer, shown.similarity)
    rows, columns = shown.pyramid.layout.grids[layer - 1]
    boxes = [
        (
            size[0] * (cell.column - 1) // columns,
            size[1] * (cell.row - 1) // rows,
            size[0] * cell.column // columns - 1,
            size[1] * cell.row // rows - 1,
        )
        for cell in found
    ]
    tint = Image.new("RGB", size)
    paint = ImageDraw.Draw(tint)
    for cell, box in zip(found, boxes, strict=True):
        paint.rectangle(box, fill=_colours(cell.shade)[0])
    readable = len(found) <= READABLE
    image = Image.blend(_scaled(shown.backdrop, size), tint, 0.22 if readable else 0.6)
    if readable:
        draw = ImageDraw.Draw(image)
        for cell, box in zip(found, boxes, strict=True):
            draw.rectangle(box, outline="#ffffff")
            _label(draw, cell, box)
    return image


def _label(draw: ImageDraw.ImageDraw, cell: Cell, box: tuple[int, int, int, int]) -> None:
    """A word on a plate in the middle of its cell, on as few lines as a readable size allows."""
    width, height = (box[2] - box[0]) * 0.94, (box[3] - box[1]) * 0.9
    largest = min(44.0, (box[2] - box[0]) * 0.2 + 4)

    def size(lines: Sequence[str]) -> float:
        broadest = max(_font(100).getlength(line) for line in lines) / 100
        return min(largest, width / (broadest + 0.4), height / (1.15 * len(lines) + 0.2))

    ways = list(cuts(cell.word))
    lines = next((way for way in ways if size(way) >= _EASY), max(ways, key=size))
    font = _font(size(lines))
    step = font.size * 1.12
    plate_width = max(font.getlength(line) for line in lines) + 0.4 * font.size
    plate_height = step * len(lines) + 0.16 * font.size
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    fill, ink = _colours(cell.shade)
    plate = (x - plate_width / 2, y - plate_height / 2, x + plate_width / 2, y + plate_height / 2)
    draw.rounded_rectangle(plate, radius=font.size * 0.25, fill=fill)
    for number, line in enumerate(lines):
        middle = y + (number - (len(lines) - 1) / 2) * step
        draw.text((x, middle), line, fill=ink, font=font, anchor="mm")


def _cloud(words: Sequence[CloudWord], width: int, tallest: int) -> Image.Image:
    """Words as plates in rows, larger where more cells say them; what does not fit is counted."""
    image, draw = _canvas(width, tallest)
    x, y, line = 0, 0, 0
    for number, word in enumerate(words):
        font = _font(_CLOUD_LEAST + word.size * (_CLOUD_MOST - _CLOUD_LEAST))
        wide, high = round(font.getlength(word.word) + font.size * 0.7), round(font.size * 1.36)
        if x and x + wide > width:
            x, y, line = 0, y + line + 5, 0
        line = line or high
        if y + line + 28 > tallest:
            draw.text((0, y + 4), f"and {len(words) - number} more words", fill=_SOFT, font=_font(17))
            line = 28
            break
        fill, ink = _colours(word.shade)
        top = y + (line - high) // 2
        draw.rounded_rectangle((x, top, x + wide, top + high), radius=6, fill=fill)
        draw.text((x + wide / 2, top + high / 2), word.word, fill=ink, font=font, anchor="mm")
        x += wide + 6
    return image.crop((0, 0, width, min(tallest, y + line)))


def _titled(title: str, note: str, part: Image.Image) -> Image.Image:
    font, small = _font(22), _font(17)
    head, draw = _canvas(part.width, 30)
    draw.text((0, 0), title, fill=_INK, font=font)
    draw.text((font.getlength(title) + 10 * bool(title), 4), note, fill=_SOFT, font=small)
    return _stacked([head, part], gap=6)


def _layers(sheet: _Sheet, shown: PyramidLook) -> None:
    """The layers of few words in rows of two or three; deeper ones with their cloud beside them."""
    if shown.similarity is not None:
        sheet.row([_legend(shown.similarity)])
    counts = shown.pyramid.layout.counts
    few = [layer for layer, count in enumerate(counts, start=1) if count <= _FEW]
    tall = shown.backdrop.width < 0.8 * shown.backdrop.height
    columns = (4 if tall else 2) if len(few) in (1, 2, 4) else 3
    size = _fitting(shown, (_INNER - (columns - 1) * _GAP) // columns, 660)
    tiles = [_layer_tile(shown, layer, _board(shown, layer, size)) for layer in few]
    for start in range(0, len(tiles), columns):
        sheet.row(tiles[start : start + columns])
    for layer, count in enumerate(counts, start=1):
        if layer in few:
            continue
        part = 11 if count <= READABLE else 9
        board = _board(shown, layer, _fitting(shown, _INNER * part // 20, 900 if count <= READABLE else 620))
        distinct = cloud(cells(shown.pyramid, layer, shown.similarity))
        words = _cloud(distinct, _INNER - board.width - _GAP, max(board.height, _CLOUD_TALLEST))
        different = f"{len(distinct)} different; size: cells that say it"
        sheet.row([_layer_tile(shown, layer, board), _titled("Its words", different, words)])


def _layer_tile(shown: PyramidLook, layer: int, board: Image.Image) -> Image.Image:
    """A layer's board with its number, its size, and how near its words are to the image."""
    tile = _titled(*_heading(shown, layer), board)
    if shown.similarity is None:
        return tile
    return _stacked([tile, _text(shown.similarity.verdict(layer).capitalize(), 16, colour=_SOFT, width=board.width)], 4)


def _heading(shown: PyramidLook, layer: int) -> tuple[str, str]:
    rows, columns = shown.pyramid.layout.grids[layer - 1]
    count = rows * columns
    return f"Layer {layer}", f"{columns} x {rows}, {count} word{'s' * (count > 1)}"


def _photo(shown: PyramidLook, title: str, width: int) -> Image.Image:
    return _titled(title, "", _scaled(shown.backdrop, _fitting(shown, width, 560)))


def _back(sheet: _Sheet, shown: PyramidLook) -> None:
    """What comes back from the first 1, 2, ... layers, the pixels that went in at the end."""
    if not shown.decoded:
        return
    unit = "Back from words" + ("; dB is PSNR, the higher the nearer to the original" if shown.psnr else "")
    sheet.row([_text(" ".join(filter(None, (f"{unit}.", beginning(shown)))), 20)], after=8)
    first = shown.draws_from
    counts = shown.pyramid.layout.cumulative[first - 1 :]
    named = []
    for layers, (count, image) in enumerate(zip(counts, shown.decoded, strict=True), start=first):
        quality = f", {decibels(shown, layers)}" if shown.psnr else ""
        named.append((f"{count} word{'s' * (count > 1)}{quality}", image))
    named.append(("original", shown.seen))
    for start in range(0, len(named), 7):
        group = named[start : start + 7]
        each = min(300, (_INNER - 14 * (min(len(named), 7) - 1)) // min(len(named), 7))
        size = _fitting(shown, each, 400)
        sheet.row([_titled("", name, _scaled(image, size)) for name, image in group], gap=14)


def _ranks(sheet: _Sheet, shown: PyramidLook) -> None:
    """The image, and the words beside it, best first."""
    photo = _photo(shown, "Original", _INNER * 11 // 20)
    width = _INNER - photo.width - 2 * _GAP
    found = cells(shown.pyramid, 1, shown.similarity)
    if len(found) > 12:
        ranked = sorted(cloud(found), key=lambda word: word.cells[0].column)
        words: Image.Image = _cloud(ranked, width, max(photo.height, 60 + 14 * len(found)))
    else:
        font, small = _font(30), _font(19)
        words, draw = _canvas(width, 62 * len(found))
        for number, cell in enumerate(found):
            y = 62 * number
            draw.text((0, y), f"{number + 1}. {cell.word}", fill=_INK, font=font)
            if cell.cosine is not None:
                long = max(2, round(max(0.0, cell.cosine) * (width - 90)))
                draw.rounded_rectangle((0, y + 40, long, y + 52), radius=4, fill=_colours(cell.shade)[0])
                draw.text((long + 8, y + 34), f"{cell.cosine:.3f}", fill=_SOFT, font=small)
    sheet.row([photo, _titled("Words", "best first", words)], gap=2 * _GAP)


def _parts(sheet: _Sheet, shown: PyramidLook) -> None:
    """The image, and its words by part beside it; those chosen for a question on dark plates."""
    words = shown.pyramid
    assert isinstance(words, ImageWords)  # draw_pyramid saw to it
    photo = _photo(shown, "Original", _INNER * 9 // 20)
    width = _INNER - photo.width - 2 * _GAP
    blocks = [] if shown.about is None else [_text(f"Asked: {shown.about}", 24, width=width)]
    for row in part_rows(words, shown.used):
        lines = [_plates(line, width) for line in row.lines]
        blocks.append(_titled(row.name, "", _stacked(lines, 6)))
    if words.text:
        quoted = " ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}" for text in words.text)
        blocks.append(_titled("text", "read in the picture", _text(quoted, 22, width=width)))
    said = "Per cents: how probable it is that the word is right of this picture."
    said += " Dark: chosen for the question." if shown.used is not None else ""
    blocks.append(_text(said, 16, colour=_SOFT, width=width))
    sheet.row([photo, _stacked(blocks, 14)], gap=2 * _GAP)


def _plates(line: PartLine, width: int) -> Image.Image:
    """Words of a line, each on a plate with its probability, in as many rows as they need."""
    font, small = _font(20), _font(14)
    image, draw = _canvas(width, 40 * (len(line.words) + 1))
    x, y = 0, 0
    if line.region:
        draw.text((0, 4), line.region, fill=_SOFT, font=font)
        x = 90
    for word in line.words:
        share = "" if word.chance is None else percent(word.chance)
        long = font.getlength(word.word)
        wide = round(long + (small.getlength(share) + 8 if share else 0) + 20)
        if x and x + wide > width:
            x, y = 0, y + 38
        fill, ink, soft = (_INK, "#ffffff", "#d5d8dc") if word.used else (_PLAIN, _PLAIN_INK, _SOFT)
        draw.rounded_rectangle((x, y, x + wide, y + 32), radius=7, fill=fill)
        draw.text((x + 10, y + 16), word.word, fill=ink, font=font, anchor="lm")
        if share:
            draw.text((x + 18 + long, y + 17), share, fill=soft, font=small, anchor="lm")
        x += wide + 8
    return image.crop((0, 0, width, y + 34))


def _characters(sheet: _Sheet, shown: PyramidLook) -> None:
    """The image, and its rows of characters beside it, each character in a cell of its own."""
    photo = _photo(shown, "Original", (_INNER - _GAP) // 2)
    rows = shown.pyramid.words()
    columns = max(map(len, rows))
    width = _INNER - photo.width - _GAP
    step_x, step_y = width / columns, (photo.height - 36) / len(rows)
    font = _font(min(step_x * 1.5, step_y * 1.1))
    image, draw = _canvas(width, photo.height - 36)
    for number, row in enumerate(rows):
        for place, character in enumerate(row):
            at = ((place + 0.5) * step_x, (number + 0.5) * step_y)
            draw.text(at, character, fill=_INK, font=font, anchor="mm")
    sheet.row([photo, _titled("In characters", f"{len(rows)} rows", image)])
