"""One clip as a tokenizer of clips sees it: its words over time, the clip made again at each depth, and the page of it.

Knows: which frames a word stands for, how clips are laid out as HTML and as a sheet of frames. Refuses to know: how
words are made, how a single picture is shown (``page.py``, whose pieces are used).

The page moves without a script: its clips are animated WebP files inside of it. Where a reader asked for less motion,
each is one still frame instead.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from icl_vision._version import __version__
from icl_vision.clips import seconds_of
from icl_vision.clips.opening import Frames
from icl_vision.clips.saving import MS, clip_bytes
from icl_vision.errors import UsageError
from icl_vision.tokenizers.taking import TakesClips, Taking
from icl_vision.viz.page import document, escape
from icl_vision.viz.pyramids.look import Similarity, beginning, gist, measure
from icl_vision.viz.pyramids.marks import READABLE, cells
from icl_vision.viz.pyramids.page import board, cloud_html, data_uri, legend, shade_rules

if TYPE_CHECKING:
    from icl_vision.clips import ClipSource
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tokenizers import ImageTokenizer

_SMALL = 96  # frames of at most so many pixels a side are drawn with their pixels showing
_NARROW = 4  # columns of words that can be read on a board of a quarter of the page
_SHEET = 96  # pixels of a frame's side on a sheet, about


@dataclass(frozen=True, eq=False)
class ClipLook:
    """One clip as a tokenizer sees it.

    name: what to call the clip. tokenizer: its name. seen: exactly the frames that the tokenizer takes, uint8 [T, S, S,
    3]. size: width and height of the clip's own frames. ms: milliseconds that a frame stands. decoded: the clip from
    the first n layers, n = ``draws_from``, ``draws_from + 1`` ...; empty where there is none. psnr: how near each of
    those comes to ``seen``, in dB, over all pixels of all frames; empty where nobody measured it. motion_layer: which
    layer, from 1, says how the clip moves; 0 for none.
    """

    name: str
    tokenizer: str
    pyramid: TokenPyramid
    seen: Frames
    size: tuple[int, int]
    ms: float
    similarity: Similarity | None
    decoded: tuple[Frames, ...] = ()
    psnr: tuple[float, ...] = field(default=())
    draws_from: int = 1
    motion_layer: int = 0

    def decibels(self, layers: int) -> str:
        """The PSNR from so many layers as text; "" where it was not measured."""
        if not self.psnr:
            return ""
        value = self.psnr[layers - self.draws_from]
        return f"{value:.1f} dB" if np.isfinite(value) else "no difference"


def look_at_clip(
    source: ClipSource, tokenizer: ImageTokenizer, *, k: int | None = None, name: str = "clip"
) -> ClipLook:
    """Encode one clip and gather what there is to show of it.

    Args:
        source: whatever ``load_clip`` takes.
        tokenizer: one of clips; what it cannot do (decode, embed) is left out.
        k: words, as for ``ImageTokenizer.encode``; None for the tokenizer's default.
        name: what to call the clip.

    Raises:
        ImageError: the clip cannot be used.
        PyramidError: the tokenizer has no such ``k``.
        UsageError: a tokenizer of images.
    """
    if tokenizer.modality != "clip":
        raise UsageError(f"the tokenizer {tokenizer.name!r} takes images, not clips")
    clip = cast(Frames, tokenizer.takes.load(source))
    (pyramid,) = tokenizer.encode([clip], k)
    first = int(tokenizer.card.get("draws_from", 1))
    decoded: tuple[Frames, ...] = ()
    if tokenizer.can_decode and first <= pyramid.layers:
        made: list[Any] = tokenizer.decode([pyramid.truncate(n) for n in range(first, pyramid.layers + 1)])
        decoded = tuple(np.stack([np.asarray(frame) for frame in frames]) for frames in made)
    rule = tokenizer.preprocessing
    seen = clip if rule is None else rule.clip(clip)
    height, width = clip.shape[1:3]
    similarity = measure(pyramid, tokenizer, [clip])
    if similarity is not None:
        similarity = replace(similarity, reference=similarity.reference.replace("image", "clip"))
    return ClipLook(
        name,
        tokenizer.name,
        pyramid,
        seen,
        (width, height),
        frame_ms(source, len(clip), tokenizer.takes),
        similarity,
        decoded,
        draws_from=first,
        motion_layer=_motion_layer(tokenizer.card),
    )


def _motion_layer(card: Mapping[str, Any]) -> int:
    model = card.get("model")
    layer = model.get("motion_layer", 0) if isinstance(model, Mapping) else 0
    return layer if isinstance(layer, int) else 0


def frame_ms(source: ClipSource, frames: int, takes: Taking | None = None) -> float:
    """Milliseconds that each of so many frames of a clip stands, so that it lasts as long as it did, or as what is
    read of it does. takes: which frames are read; None for all of its time."""
    seconds = takes.seconds(source) if isinstance(takes, TakesClips) else seconds_of(source)
    return MS if seconds is None else min(max(round(1000 * seconds / frames, 3), 20.0), 2000.0)


def render_clip_page(looks: Sequence[ClipLook], *, command: str | None = None) -> str:
    """The whole page.

    Args:
        looks: one or more clips, all through the same tokenizer.
        command: how to make the same page again, for its foot; None makes it from the clips' and tokenizer's names.

    Raises:
        UsageError: no looks.
    """
    if not looks:
        raise UsageError("a page needs one clip or more; got none")
    title = f"{looks[0].name} in words" if len(looks) == 1 else f"{len(looks)} clips in words"
    own = files("icl_vision.viz.pyramids")
    style = own.joinpath("page.css").read_text(encoding="utf-8") + own.joinpath("clips.css").read_text(encoding="utf-8")
    script = own.joinpath("page.js").read_text(encoding="utf-8")
    body = f"<header><h1>{escape(title)}</h1>{_lead(looks[0])}</header>"
    body += "".join(_article(shown, number, len(looks)) for number, shown in enumerate(looks, start=1))
    again = command or shlex.join(
        ["icl-vision", "show", *(look.name for look in looks), "--tokenizer", looks[0].tokenizer, "--out", "page.html"]
    )
    body += (
        f"<footer><p>Made by icl-vision {escape(__version__)} with the tokenizer {escape(looks[0].tokenizer)}. "
        f"This file holds everything it shows and loads nothing. The same again:</p><pre>{escape(again)}</pre></footer>"
    )
    return document(title, body, style + shade_rules(".s"), script)


def clip_uri(frames: Frames, ms: float) -> str:
    """A clip as a data URI of an animated WebP: lossless where it is small."""
    exact = max(frames.shape[1:3]) <= _SMALL
    data = clip_bytes(frames, "WEBP", ms=ms, quality=None if exact else 82)
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def sheet(shown: ClipLook) -> Image.Image:
    """The clip and what came back of it as one picture: a column a frame, a row a depth, the original on top."""
    rows = [("original", shown.seen)]
    for layers, frames in enumerate(shown.decoded, start=shown.draws_from):
        words = shown.pyramid.layout.cumulative[layers - 1]
        said = f"{words} word{'s' * (words > 1)}"
        rows.append((f"{said}  {shown.decibels(layers)}".strip(), frames))
    height, width = shown.seen.shape[1:3]
    times = max(1, round(_SHEET / max(height, width)))
    wide, high, gap, label = width * times, height * times, 4, 22
    picture = Image.new("RGB", (len(shown.seen) * (wide + gap) + gap, len(rows) * (high + label + gap) + gap), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for row, (said, frames) in enumerate(rows):
        top = gap + row * (high + label + gap)
        draw.text((gap, top + 2), said, fill="black", font=font)
        for column, frame in enumerate(frames):
            large = Image.fromarray(frame).resize((wide, high), Image.Resampling.NEAREST)
            picture.paste(large, (gap + column * (wide + gap), top + label))
    return picture


# The page -------------------------------------------------------------------------------------------------------------


def _lead(shown: ClipLook) -> str:
    pyramid = shown.pyramid
    back = ", and the words back into a clip" if shown.decoded else ""
    layers = f"{pyramid.layers} layers, coarse to fine" if pyramid.layers > 1 else "one layer"
    return (
        f"<p>The tokenizer <b>{escape(shown.tokenizer)}</b> turns a clip of {len(shown.seen)} frames into "
        f"{_words(pyramid.k)} in {layers}{back}. Each word stands for a part of the picture over some of the frames. "
        "A language model that reads only text can read them.</p>"
    )


def _article(shown: ClipLook, number: int, count: int) -> str:
    head = f"<h2>{escape(shown.name)}</h2>" if count > 1 else ""
    width, height = shown.size
    side = shown.seen.shape[1]
    seconds = len(shown.seen) * shown.ms / 1000
    note = f"{len(shown.seen)} frames over {seconds:.1f} s"
    note += "" if (width, height) == (side, side) else f", {width} x {height} pixels taken as {side} x {side}"
    hero = _moving(shown.seen, shown, shown.name, f"<b>Original</b> {escape(note)}") + _gist(shown)
    if shown.decoded:
        error = f" ({quality} PSNR)" if (quality := shown.decibels(shown.pyramid.layers)) else ""
        said = f"<b>Made again</b> from nothing but its {_words(shown.pyramid.k)}{escape(error)}"
        hero += _moving(shown.decoded[-1], shown, f"{shown.name} made again", said)
    parts = [f'<article id="i{number}" class="clip">{head}<div class="hero three">{hero}</div>', _strip(shown)]
    parts += [legend(shown.similarity)]
    layers = "".join(_layer(shown, layer) for layer in range(1, shown.pyramid.layers + 1))
    parts.append(f'<div class="layers pairs">{layers}</div>')
    return "".join([*parts, _frames(shown), _text(shown), "</article>"])


def _moving(frames: Frames, shown: ClipLook, alt: str, caption: str) -> str:
    """An animation; one frame of it for those who asked for less motion."""
    small = max(frames.shape[1:3]) <= _SMALL
    still = data_uri(Image.fromarray(frames[len(frames) // 2]), exact=small)
    kind = ' class="pixels"' if small else ""
    return (
        f'<figure><picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img{kind} src="{clip_uri(frames, shown.ms)}" alt="{escape(alt)}"></picture>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _gist(shown: ClipLook) -> str:
    lines, left = gist(shown.pyramid)
    text = "".join(f"<p>{escape(' '.join(words))}</p>" for words in lines)
    more = f'<p class="more">and {left} more</p>' if left else ""
    caption = f"<b>In words</b> {shown.pyramid.k} of them, coarse to fine"
    return f'<figure class="gist"><div class="card">{text}{more}</div><figcaption>{caption}</figcaption></figure>'


def _strip(shown: ClipLook) -> str:
    """What comes back from the first 1, 2, ... layers, beside what went in; all move together."""
    if not shown.decoded:
        return ""
    figures = []
    for layers, frames in enumerate(shown.decoded, start=shown.draws_from):
        said = _words(shown.pyramid.layout.cumulative[layers - 1])
        error = f", {quality}" if (quality := shown.decibels(layers)) else ""
        caption = f"<b>{said}</b> {layers} layer{'s' * (layers > 1)}{escape(error)}"
        figures.append(_moving(frames, shown, f"from {said}", caption))
    figures.append(_moving(shown.seen, shown, f"{shown.name}, the frames that went in", "<b>Original</b>"))
    unit = " <small>dB is PSNR over all frames, the higher the nearer to the original</small>" if shown.psnr else ""
    note = f"<p class='small soft'>{escape(text)}</p>" if (text := beginning(shown)) else ""
    strip = f'<div class="strip">{"".join(figures)}</div>'
    return f'<section class="back"><h3>Back from words{unit}</h3>{strip}{note}</section>'


def _layer(shown: ClipLook, layer: int) -> str:
    """A layer's boards, one for each span of time, over the frame in the middle of the span."""
    grid = shown.pyramid.layout.grids[layer - 1]
    tiles = cells(shown.pyramid, layer, shown.similarity)
    times, rows, columns = (1, *grid)[-3:]
    each = rows * columns
    total = len(shown.seen)
    figures = []
    for time in range(times):
        first, last = time * total // times + 1, (time + 1) * total // times
        behind = data_uri(Image.fromarray(shown.seen[(first + last - 1) // 2]), exact=True)
        span = f"frame {first}" if first == last else f"frames {first} to {last}"
        part = tiles[time * each : (time + 1) * each]
        drawn = board(part, (rows, columns), f"layer {layer}, {span}, on {shown.name}", 1.0)
        figures.append(
            f'<figure style="--photo:url({behind});--ratio:1;--pixels:pixelated">{drawn}'
            f"<figcaption>{span}</figcaption></figure>"
        )
    over = f"{times} spans of time, " if times > 1 else "all of the time, "
    heading = f"<h3>Layer {layer} <small>{over}{columns} x {rows}, {_words(len(tiles))}</small></h3>"
    if shown.similarity is not None:
        verdict = shown.similarity.verdict(layer).replace("the image", "the clip").capitalize()
        if layer == shown.motion_layer:
            verdict = "How the clip moves; what it shows, the other layers say"
        heading += f'<p class="small soft">{escape(verdict)}</p>'
    side = cloud_html(tiles) if each > READABLE or times * each > READABLE else ""
    size = "few" if times == 1 and each <= READABLE else "some"  # two of few words stand side by side
    kind = " one" if times == 1 else " broad" if columns > _NARROW else ""
    boards = f'<div class="spans{kind}">{"".join(figures)}</div>'
    return f'<section class="layer card time {size}">{heading}{boards}{side}</section>'


def _frames(shown: ClipLook) -> str:
    """Every frame at every depth, standing still."""
    if not shown.decoded:
        return ""
    image = sheet(shown)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=True, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    picture = f'<img src="{uri}" alt="every frame at every depth" width="{image.width}" height="{image.height}">'
    return f'<details open><summary>Frame by frame</summary><div class="sheet">{picture}</div></details>'


def _text(shown: ClipLook) -> str:
    layers = "".join(
        f"<p class='small soft'>Layer {layer}</p><pre>{escape(' '.join(shown.pyramid.words(layer)))}</pre>"
        for layer in range(1, shown.pyramid.layers + 1)
    )
    return f"<details><summary>All {shown.pyramid.k} words as text</summary>{layers}</details>"


def _words(count: int) -> str:
    return f"{count} word{'s' * (count > 1)}"


def psnr_of(seen: npt.NDArray[np.uint8], decoded: Sequence[npt.NDArray[np.uint8]]) -> tuple[float, ...]:
    """The PSNR of each clip against the first, over all pixels of all frames, in dB; endless where they are equal."""
    errors = [float(np.mean((seen.astype(np.float64) - made) ** 2)) for made in decoded]
    return tuple(float("inf") if error == 0 else float(10 * np.log10(255**2 / error)) for error in errors)
