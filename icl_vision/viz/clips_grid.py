"""A page of clips made again: a row for each way, moving, and how each row's frames fare over time.

Knows: how animations and numbers are laid out. Refuses to know: how they came to be; it is handed plain values.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.clips.saving import clip_bytes
from icl_vision.viz.page import document, escape, picture
from icl_vision.wording import counted

SIDE = 96
MS = 90
"""Milliseconds a frame is shown."""

GRID = """
.grid { overflow-x: auto; margin: 12px 0 20px; }
.grid table { border-collapse: collapse; }
.grid th { text-align: left; font-weight: 600; padding: 3px 14px 3px 0; min-width: 13em; vertical-align: top; }
.grid th small { display: block; font-weight: 400; color: var(--soft); }
.grid td { padding: 2px; }
.grid img { border-radius: 4px; image-rendering: pixelated; }
.better { color: var(--good); } .worse { color: var(--bad); }
"""
"""The style of a grid of pictures with a name before each row, and of differences."""

STYLE = """
.grid th { min-width: min(15em, 36vw); }
.scroll { overflow-x: auto; }
.grid td small { display: block; max-width: 96px; color: var(--soft); }
.numbers { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6em 0; }
.numbers td, .numbers th { padding: 2px 14px 2px 0; text-align: left; white-space: nowrap; }
"""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One way to make clips again. clips: uint8 [T, S, S, 3], in the order of the columns."""

    name: str
    what: str
    clips: Sequence[npt.NDArray[np.uint8]]


def clips_page(title: str, lead: Sequence[str], names: Sequence[str], rows: Sequence[ClipRow], tables: str) -> str:
    """The page.

    Args:
        lead: paragraphs below the title. names: of the columns. tables: HTML of ``table`` and ``differences``.
    """
    head = f"<h1>{escape(title)}</h1>" + "".join(f"<p>{escape(text)}</p>" for text in lead)
    labels = "<tr><th></th>" + "".join(f"<td><small>{escape(name)}</small></td>" for name in names) + "</tr>"
    body = "".join(
        f'<tr><th scope="row">{escape(row.name)}<small>{escape(row.what)}</small></th>'
        + "".join(f"<td>{picture(animated(clip), row.name, SIDE)}</td>" for clip in row.clips)
        + "</tr>"
        for row in rows
    )
    return document(title, f'{head}<div class="grid"><table>{labels}{body}</table></div>{tables}', GRID + STYLE)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Numbers as a table."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="scroll"><table class="numbers"><tr>{top}</tr>{body}</table></div>'


def differences(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Paired differences as a table: a row of the tokenizer minus another row."""
    lines = []
    for pair in pairs:
        low, high = pair["interval"]
        mark = {True: "better", False: "worse"}.get(pair["better"], "")
        lines.append(
            f"<tr><td>{escape(pair['k'])} words</td><td>{escape(pair['second'])}</td><td>{escape(pair['group'])}</td>"
            f"<td>{escape(pair['metric'].upper())}</td><td class='{mark}'>{pair['difference']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] {mark or 'no difference shown'}</td>"
            f"<td>{escape(pair['wins'])} of {counted(pair['n'], 'clip')}</td></tr>"
        )
    top = "<tr><th></th><th>minus</th><th>clips</th><th>metric</th><th>difference, 95%</th><th>won</th></tr>"
    return (
        f'<details><summary>paired differences</summary><div class="scroll"><table class="numbers">{top}'
        f"{''.join(lines)}</table></div></details>"
    )


def animated(clip: npt.NDArray[np.uint8]) -> str:
    """A clip, uint8 [T, S, S, 3], as the data URI of an animation."""
    data = clip_bytes(clip, "WEBP", ms=MS)
    return "data:image/webp;base64," + base64.b64encode(data).decode()
