"""The kit every page of ours is made of: a self-contained HTML document and its small parts.

Knows: HTML escaping, inline images, one style sheet for light and dark, chips, bars with whiskers, small
copies of many images within a size that a page can carry.
Refuses to know: what a page is about; networks (a page loads nothing, and its own policy forbids it).

Every function takes plain text and returns escaped HTML; nothing a label, a word or a file name holds can
become markup. Values that come out of these functions are HTML and are joined, never escaped twice.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from icl_vision.errors import ImageError

if TYPE_CHECKING:
    from icl_vision.images import ImageSource

CHIP_LIMIT = 24
"""Words shown as chips for one image; a longer list ends in "and N more"."""

# Control characters are not allowed in HTML; they would also hide what a word really is.
_CONTROL = dict.fromkeys([code for code in (*range(32), 127) if chr(code) not in "\t\n"], "\N{REPLACEMENT CHARACTER}")

STYLE = """
:root { color-scheme: light dark; --bg: #fafaf7; --card: #fff; --ink: #1d2126; --soft: #5d6670; --line: #dfe1dc;
  --accent: #2257c4; --good: #1a7f45; --bad: #c0392b; --track: #e9eae5; --chip-s: 55%; --chip-l: 91%;
  --chip-ink: 25%; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --card: #1d2125; --ink: #eceeee; --soft: #a2abb3;
  --line: #33393f; --accent: #8db2ff; --good: #5fcf8d; --bad: #ff8a7a; --track: #2b3036; --chip-s: 32%;
  --chip-l: 24%; --chip-ink: 86%; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: clamp(1.5rem, 4vw, 2.2rem); line-height: 1.2; margin: 0 0 .4em; letter-spacing: -.01em;
  text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 0; }
p { margin: .4em 0; max-width: 72ch; }
a { color: var(--accent); }
.soft { color: var(--soft); }
small, .small { font-size: .84rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin: 0; padding: 0; list-style: none; }
.chips li { font-size: .8rem; line-height: 1.45; padding: 0 .55em; border-radius: 99px; background: var(--track);
  color: var(--ink); max-width: 100%; }
.chips li.hue { background: hsl(var(--h) var(--chip-s) var(--chip-l)); color: hsl(var(--h) 45% var(--chip-ink)); }
.chips li.more { background: none; color: var(--soft); padding-left: .2em; }
.rows { font: 10px/1 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; margin: 0; overflow-x: auto; }
img { display: block; border-radius: 10px; object-fit: cover; background: var(--track); }
.bars { display: grid; grid-template-columns: max-content minmax(60px, 1fr) max-content; gap: 9px 12px;
  align-items: center; }
.bars .track { position: relative; height: 16px; border-radius: 5px; background: var(--track); }
.bars .fill { position: absolute; inset: 0 auto 0 0; border-radius: 5px; background: var(--soft); opacity: .55; }
.bars .main .fill { background: var(--accent); opacity: 1; }
.bars .whisker { position: absolute; top: 50%; height: 2px; margin-top: -1px; background: var(--ink); }
.bars .whisker::before, .bars .whisker::after { content: ""; position: absolute; width: 2px; height: 10px; top: -4px;
  background: var(--ink); }
.bars .whisker::before { left: 0; } .bars .whisker::after { right: 0; }
.bars .value { font-variant-numeric: tabular-nums; text-align: right; }
.bars strong.name, .bars .main + .value { font-weight: 650; }
details > summary { cursor: pointer; color: var(--accent); }
pre { background: var(--bg); border: 1px solid var(--line); border-radius: 10px; padding: 12px; overflow-x: auto;
  font: .82rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  margin: .7em 0; }
footer { margin-top: 40px; color: var(--soft); font-size: .84rem; }
@media (max-width: 640px) { main { padding: 18px 14px 40px; } .card { padding: 14px; } }
"""


def escape(text: object) -> str:
    """Any value as HTML text, quotes included; control characters are made visible."""
    return html.escape(str(text).translate(_CONTROL), quote=True)


def thumbnail(source: ImageSource, side: int, *, quality: int = 78) -> str:
    """An image as a data URI, re-encoded as WebP so that nothing of the original file but its picture remains.

    Args:
        source: whatever ``load_image`` takes.
        side: the longer side is at most this many pixels.
        quality: WebP quality, 1 to 100.
    """
    from icl_vision.images import load_image

    image = load_image(source).copy()
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(uri: str, alt: str, width: int, height: int | None = None) -> str:
    """An ``img`` element of fixed size, so that the page does not jump."""
    return f'<img src="{escape(uri)}" alt="{escape(alt)}" width="{width}" height="{height or width}" loading="lazy">'


def chips(words: Sequence[str], hue: Callable[[str], int | None] = lambda word: None, limit: int = CHIP_LIMIT) -> str:
    """Words as small rounded labels, in order.

    Args:
        words: one entry per word. Entries that hold line-drawing rather than words (a space, or no letter
            or digit at all) turn the whole list into a block of rows.
        hue: colour of a word, degrees on the colour wheel, or None for plain.
        limit: how many to show.
    """
    if any(" " in word or not any(letter.isalnum() for letter in word) for word in words):
        return f'<pre class="rows" role="img" aria-label="text picture">{escape(chr(10).join(words))}</pre>'
    shown = []
    for word in words[:limit]:
        colour = hue(word)
        style = "" if colour is None else f' class="hue" style="--h:{int(colour)}"'
        shown.append(f"<li{style}>{escape(word)}</li>")
    if len(words) > limit:
        shown.append(f'<li class="more">and {len(words) - limit} more</li>')
    return f'<ul class="chips">{"".join(shown)}</ul>'


def percent(share: float | None, digits: int = 0) -> str:
    """A share as per cents, "-" for None."""
    return "-" if share is None else f"{share:.{digits}%}"


def accuracy_bars(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Accuracy objects as horizontal bars with their 95% intervals as whiskers; the first row is the headline.

    Args:
        rows: (name, {accuracy, n, interval, scorer}).
    """
    parts = []
    for index, (name, row) in enumerate(rows):
        low, high = row["interval"]
        share = row["accuracy"] or 0.0
        tag, kind = ("strong", " main") if index == 0 else ("span", "")
        spoken = (
            f"{name}: {percent(row['accuracy'])}, 95% interval {percent(low, 1)} to {percent(high, 1)}, n = {row['n']}"
        )
        parts.append(
            f'<{tag} class="name">{escape(name)}</{tag}>'
            f'<div class="track{kind}" role="img" aria-label="{escape(spoken)}" title="{escape(spoken)}">'
            f'<span class="fill" style="width:{share:.2%}"></span>'
            f'<span class="whisker" style="left:{low:.2%};width:{high - low:.2%}"></span></div>'
            f'<span class="value">{percent(row["accuracy"])}</span>'
        )
    return f'<div class="bars">{"".join(parts)}</div>'


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole HTML page that loads nothing from anywhere.

    Args:
        title: plain text.
        body: HTML made by the functions of this kit.
        style: CSS after the shared style sheet (trusted, ours).
        script: JavaScript at the end of the page (trusted, ours, the same for every page). The page's policy lets
            this text run, by its hash, and no other.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        body += f"\n<script>{script}</script>"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


logger = logging.getLogger(__name__)

# (at most so many images, longer side in pixels, WebP quality): together they stay near 6 MB on the page.
SIZES: tuple[tuple[int, int, int], ...] = ((600, 112, 72), (2000, 80, 66), (5000, 64, 55), (12000, 48, 45))
SMALLEST = (40, 35)


def size_for(count: int) -> tuple[int, int]:
    """(longer side in pixels, WebP quality) for a page with ``count`` images."""
    return next(((side, quality) for most, side, quality in SIZES if count <= most), SMALLEST)


def thumbnails(folder: Path | None, names: Sequence[str]) -> Iterator[str]:
    """A small WebP copy of each image as base64, "" where there is none to show.

    Args:
        folder: where the images lie; None = nowhere.
        names: paths inside ``folder``. One that leads out of it is not followed: a run folder may come from others.

    Yields:
        One string per name, in order; one image is in memory at a time.
    """
    side, quality = size_for(len(names))
    missing = 0
    for name in names:
        path = None if folder is None else _inside(folder, name)
        try:
            if path is None:
                raise ImageError(f"{name!r} is no path inside the image folder")
            yield thumbnail(path, side, quality=quality).partition(",")[2]
        except ImageError as error:
            missing += 1
            logger.debug("no thumbnail: %s", error)
            yield ""
    if missing:
        logger.warning(
            "%d of %d images were not found or cannot be read; the page shows their words", missing, len(names)
        )


def _inside(folder: Path, name: str) -> Path | None:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        return None
    return folder / name
