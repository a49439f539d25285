"""A page of restored pictures: a grid for each task, a row for each way to restore, and the paired differences.

Knows: how pictures and numbers are laid out. Refuses to know: how they came to be; it is handed plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_vision.viz.clips_grid import GRID, animated
from icl_vision.viz.page import document, escape, picture, thumbnail
from icl_vision.wording import counted

SIDE = 96
SHOWN = 48
"""Pictures a row shows at most; a page of all of thousands would not open."""

STYLE = """
.pairs { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6em 0; }
.pairs td, .pairs th { padding: 2px 12px 2px 0; text-align: left; }
.leak { color: var(--bad); font-weight: 650; }
.none { display: block; width: 96px; color: var(--bad); font-size: .8rem; }
"""


@dataclass(frozen=True, slots=True)
class GridRow:
    """One way to restore. pictures: uint8 [S, S, 3] (of clips [T, S, S, 3]), None where it failed, in the order of the
    columns."""

    name: str
    what: str
    pictures: Sequence[npt.NDArray[np.uint8] | None]


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task. decided: a line a layer. pairs: paired differences as ``evaluation.denoising`` gives them."""

    name: str
    decided: Sequence[str]
    rows: Sequence[GridRow]
    pairs: Sequence[Mapping[str, Any]]


def page_of(results: Mapping[str, Any], views: Sequence[TaskView]) -> str:
    """The page.

    Args:
        results: tokenizer, llm, n, protocol, leaking ("" or why), methods, usage, notes.
    """
    usage = results["usage"]
    leak = f'<p class="leak">LEAKING: {escape(results["leaking"])}</p>' if results["leaking"] else ""
    head = (
        "<h1>Denoising through words</h1>"
        f"<p>{counted(results['n'], 'picture')} a task, tokenizer {escape(results['tokenizer'])}, LLM "
        f"{escape(results['llm'])}, protocol {escape(results['protocol'])}. Measured on the unknown region only. Every "
        f"picture is shown, failures included.</p>{leak}"
    )
    notes = "".join(f"<p>{escape(name)}: {escape(text)}</p>" for name, text in results["notes"].items())
    foot = (
        f"<footer>{counted(usage['requests'], 'request')}, {counted(usage['prompt_tokens'], 'prompt token')}, "
        f"{escape(usage['completion_tokens'])} written. Intervals: {escape(results['methods']['interval'])}.</footer>"
    )
    return document("Denoising through words", head + notes + "".join(map(_task, views)) + foot, GRID + STYLE)


def _task(view: TaskView) -> str:
    decided = "<br>".join(map(escape, view.decided))
    rows = "".join(
        f'<tr><th scope="row">{escape(row.name)}<small>{escape(row.what)}</small></th>'
        + "".join(f"<td>{_tile(pixels, row.name)}</td>" for pixels in row.pictures[:SHOWN])
        + "</tr>"
        for row in view.rows
    )
    more = max((len(row.pictures) for row in view.rows), default=0) - SHOWN
    rest = f"<p class='soft'>and {more} more pictures, in the journal</p>" if more > 0 else ""
    return (
        f'<section class="card"><h2>{escape(view.name)}</h2><p class="soft small">{decided}</p>'
        f'<div class="grid"><table>{rows}</table></div>{rest}{_pairs(view.pairs)}</section><br>'
    )


def _tile(pixels: npt.NDArray[np.uint8] | None, name: str) -> str:
    if pixels is None:
        return '<span class="none">failed</span>'
    if pixels.ndim == 4:
        return picture(animated(pixels), name, SIDE)
    return picture(thumbnail(pixels, max(pixels.shape[:2]), quality=80), name, SIDE)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The differences as a table: the LLM minus each other row."""
    lines = []
    for pair in pairs:
        low, high = pair["interval"]
        mark = {True: "better", False: "worse"}.get(pair["better"], "")
        lines.append(
            f"<tr><td>{escape(pair['metric'].upper())}</td><td>stride {escape(pair['stride'])}</td>"
            f"<td>{escape(pair['second'])}</td><td class='{mark}'>{pair['difference']:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"{mark or 'no difference shown'}</td><td>{escape(pair['wins'])} of {escape(pair['n'])}</td></tr>"
        )
    head = "<tr><th>metric</th><th></th><th>the LLM minus</th><th>difference, 95%</th><th>pictures won</th></tr>"
    table = f'<table class="pairs">{head}{"".join(lines)}</table>'
    return f"<details><summary>paired differences</summary>{table}</details>"
