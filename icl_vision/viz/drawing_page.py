"""Drawings to be looked at: an animated preview of each, and a page of several.

Knows: frames, GIF files, how a page of drawings is laid out. Refuses to know: how they were drawn; it is handed
pictures and plain values.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.errors import UsageError
from icl_vision.files.storage import atomic_path, write_text
from icl_vision.viz.page import chips, document, escape, picture

if TYPE_CHECKING:
    from PIL import Image

SIDE = 192
"""Least width of a preview: small pictures are enlarged by a whole factor, so that their pixels stay visible."""
FRAME_MS = 120
LAST_MS = 1600
CLIP_MS = 100


@dataclass(frozen=True, slots=True)
class DrawingTile:
    """One drawing on a page.

    text: what it is of. image: the finished picture. frames: on its way, for the animation. layers: its words, a list
    per layer. note: one line about it. wrong: outlined as a failure. clip: the frames are those of a clip.
    """

    text: str
    image: Image.Image
    frames: Sequence[Image.Image] = ()
    layers: Sequence[Sequence[str]] = ()
    note: str = ""
    wrong: bool = False
    clip: bool = False


@dataclass(frozen=True, slots=True)
class DrawingPage:
    """A page of drawings. facts: name -> value, for its foot. attribution: whose pictures the examples are."""

    title: str
    tiles: Sequence[DrawingTile]
    facts: Mapping[str, object] = field(default_factory=dict)
    attribution: str = ""


STYLE = """
.drawings { display: grid; grid-template-columns: repeat(auto-fill, minmax(216px, 1fr)); gap: 12px; margin-top: 18px; }
.drawing.wrong { border-color: var(--bad); }
.drawing img { image-rendering: pixelated; width: 100%; height: auto; max-width: 192px; }
.drawing h2 { margin: 10px 0 2px; font-size: 1rem; }
.drawing .chips { margin: 6px 0 0; } .drawing .chips li { font-size: .72rem; padding: 0 .45em; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; } dl.facts dd { margin: 0; }
"""


def gif_bytes(frames: Sequence[Image.Image], *, frame_ms: int = FRAME_MS, last_ms: int = LAST_MS) -> bytes:
    """An endless animation of frames of equal size, the last one shown longer.

    Raises:
        UsageError: no frames, or frames of different sizes.
    """
    if not frames:
        raise UsageError("an animation needs at least one frame; got none")
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        raise UsageError(f"the frames of an animation must be of one size; got {sizes}")
    large = [enlarged(frame) for frame in frames]
    buffer = io.BytesIO()
    large[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=large[1:],
        duration=[frame_ms] * (len(large) - 1) + [last_ms],
        loop=0,
    )
    return buffer.getvalue()


def write_gif(target: Path, frames: Sequence[Image.Image]) -> None:
    """``gif_bytes`` as a file, whole or not at all."""
    data = gif_bytes(frames)
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def enlarged(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The picture by the smallest whole factor that makes it at least ``side`` wide; its pixels stay square."""
    from PIL import Image

    factor = max(1, -(-side // image.width))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def render_page(page: DrawingPage) -> str:
    """The whole page as HTML that loads nothing."""
    tiles = "".join(_tile(tile) for tile in page.tiles)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts.items())
    body = (
        f'<h1>{escape(page.title)}</h1><div class="drawings">{tiles}</div>'
        f'<footer><dl class="facts">{facts}</dl><p>{escape(page.attribution)}</p></footer>'
    )
    return document(page.title, body, STYLE)


def write_page(target: Path, page: DrawingPage) -> None:
    """``render_page`` as a file, whole or not at all."""
    write_text(target, render_page(page))


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a picture for a page that loads nothing."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_uri(image: Image.Image) -> str:
    """A picture, pixel for pixel."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "png")


def _tile(tile: DrawingTile) -> str:
    times = {"frame_ms": CLIP_MS, "last_ms": CLIP_MS} if tile.clip else {}
    moving = data_uri(gif_bytes(tile.frames, **times), "gif") if tile.frames else png_uri(tile.image)
    shown = enlarged(tile.image)
    words: list[Any] = [chips(layer) for layer in tile.layers]
    outline = " wrong" if tile.wrong else ""
    return (
        f'<article class="card drawing{outline}">{picture(moving, tile.text, shown.width, shown.height)}'
        f'<h2>{escape(tile.text)}</h2><p class="small soft">{escape(tile.note)}</p>{"".join(words)}</article>'
    )
