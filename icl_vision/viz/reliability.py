"""Reliability diagrams: how often answers were right against how sure they were, and the table beside them.

Knows: the "reliability" of a cell of results.json, HTML, SVG. Refuses to know: how any of it was measured.

A bar for every bin of answers: its height is the share that was right, and the hatched piece up to (or down from) the
diagonal is what the probabilities promised too much (or too little). Below it, how many answers the bin holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icl_vision.viz.page import escape, percent

_LEFT, _TOP, _SIDE, _GAP, _COUNTS, _BOTTOM, _RIGHT = 42, 10, 240, 8, 46, 38, 18
_WIDTH = _LEFT + _SIDE + _RIGHT
_HEIGHT = _TOP + _SIDE + _GAP + _COUNTS + _BOTTOM

HEADS = (
    *("row", "setting", "probabilities", "n", "right", "mean probability"),
    *("calibration error", "95% interval", "if perfect", "Brier score"),
)

STYLE = """
svg.reliability { display: block; width: 100%; max-width: 340px; height: auto; }
svg.reliability text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  fill: var(--soft); }
svg.reliability .grid { stroke: var(--line); stroke-width: 1; }
svg.reliability .diagonal { stroke: var(--ink); stroke-dasharray: 4 4; stroke-width: 1.2; }
svg.reliability .right { fill: var(--accent); } svg.reliability .count { fill: var(--soft); }
svg.reliability .gap { stroke: var(--bad); stroke-width: 1.3; } svg.reliability .gap rect { fill: none; }
.reliability-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 340px)); gap: 12px;
  margin: 8px 0; }
"""


def reliability_diagram(fit: Mapping[str, Any], *, title: str) -> str:
    """One diagram as an ``svg`` element.

    Args:
        found: as ``probabilities.Reliability.to_dict`` gives it.
        title: what it shows, for the screen reader.
    """
    parts = []
    base = _TOP + _SIDE
    for step in range(0, 101, 20):
        at = _SIDE * step / 100
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _SIDE}" y1="{base - at:.1f}" y2="{base - at:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{base - at + 4:.1f}" text-anchor="end">{step}</text>'
            f'<text x="{_LEFT + at:.1f}" y="{base + _GAP + _COUNTS + 15}" text-anchor="middle">{step}</text>'
        )
    most = max((bin_["n"] for bin_ in fit["bins"]), default=0) or 1
    for bin_ in fit["bins"]:
        if bin_["n"]:
            parts.append(_bar(bin_, base, most))
    parts.append(
        f'<line class="diagonal" x1="{_LEFT}" y1="{base}" x2="{_LEFT + _SIDE}" y2="{_TOP}"/>'
        f'<text x="{_LEFT + _SIDE / 2}" y="{_HEIGHT - 6}" text-anchor="middle">probability given (%)</text>'
        f'<text x="12" y="{_TOP + _SIDE / 2}" text-anchor="middle" transform="rotate(-90 12 {_TOP + _SIDE / 2})">right '
        f'(%)</text><text x="{_LEFT - 6}" y="{base + _GAP + _COUNTS}" text-anchor="end">n</text>'
    )
    spoken = "; ".join(_spoken(bin_) for bin_ in fit["bins"] if bin_["n"])
    label = escape(f"{title}. {summary(fit)}. {spoken}")
    return (
        f'<svg class="reliability" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _bar(bin_: Mapping[str, Any], base: float, most: int) -> str:
    left, width = _LEFT + _SIDE * bin_["low"] + 1, _SIDE * (bin_["high"] - bin_["low"]) - 2
    right, sure = _SIDE * bin_["accuracy"], _SIDE * bin_["confidence"]
    top, height = base - max(right, sure), abs(right - sure)
    deep = _COUNTS * bin_["n"] / most
    hatch = "".join(
        f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{top + at:.1f}" y2="{top + at:.1f}"/>'
        for at in range(3, int(height), 4)
    )
    return (
        f"<g><title>{escape(_spoken(bin_))}</title>"
        f'<rect class="right" x="{left:.1f}" y="{base - right:.1f}" width="{width:.1f}" height="{right:.1f}" '
        f'opacity=".8"/><g class="gap"><rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>{hatch}</g>'
        f'<rect class="count" x="{left:.1f}" y="{base + _GAP:.1f}" width="{width:.1f}" '
        f'height="{max(deep, 1):.1f}"/></g>'
    )


def _spoken(bin_: Mapping[str, Any]) -> str:
    predictions = "1 answer" if bin_["n"] == 1 else f"{bin_['n']:,} answers"
    return (
        f"{predictions} with {percent(bin_['low'])} to {percent(bin_['high'])} (mean "
        f"{percent(bin_['confidence'], 1)}): {percent(bin_['accuracy'], 1)} right"
    )


def summary(fit: Mapping[str, Any]) -> str:
    """The figures in a line."""
    low, high = fit["interval"]
    brier = "" if fit.get("brier") is None else f", Brier score {fit['brier']:.3f}"
    return (
        f"calibration error {fit['ece']:.3f} (95% {low:.3f} to {high:.3f}; perfect probabilities would give "
        f"{fit['perfect']['mean']:.3f}), mean probability {percent(fit['confidence'], 1)} at "
        f"{percent(fit['accuracy'], 1)} right, n = {fit['n']:,}{brier}"
    )


def reliability_section(cells: Sequence[tuple[str, str, Mapping[str, Any]]], *, diagrams: int = 6) -> str:
    """The part of a page on probabilities: diagrams of the first cells and a table of all; "" where there are none.

    Args:
        cells: (row, setting, reliability), the most telling first.
        diagrams: so many of them are drawn.
    """
    if not cells:
        return ""
    figures = "".join(
        f'<figure class="card"><figcaption>{escape(row)}, {escape(setting)}<small class="soft"> '
        f"{escape(fit.get('probabilities', ''))}</small></figcaption>"
        f'{reliability_diagram(fit, title=f"{row}, {setting}")}<p class="small soft">{escape(summary(fit))}</p>'
        "</figure>"
        for row, setting, fit in cells[:diagrams]
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(row)}</th><td>{escape(setting)}</td>'
        f"<td>{escape(fit.get('probabilities', ''))}</td><td>{fit['n']:,}</td><td>{percent(fit['accuracy'], 1)}"
        f"</td><td>{percent(fit['confidence'], 1)}</td><td>{fit['ece']:.3f}</td>"
        f"<td>{fit['interval'][0]:.3f} to {fit['interval'][1]:.3f}</td><td>{fit['perfect']['mean']:.3f}</td>"
        f"<td>{'-' if fit.get('brier') is None else format(fit['brier'], '.3f')}</td></tr>"
        for row, setting, fit in cells
    )
    head = "".join(f"<th scope=col>{name}</th>" for name in HEADS)
    return (
        '<section id="probabilities"><h2>Do the probabilities mean what they say?</h2><p class="small soft">Answers by '
        "the probability of the label given, in ten bins: bars, the share that was right; dashes, where they would "
        "reach if the probabilities were right on average; hatched, the difference. Below, how many answers a bin "
        f'holds.</p><div class="reliability-figures">{figures}</div>'
        "<details open><summary>All rows and settings</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="probabilities"><table class="plain numbers"><thead>'
        f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="small soft">Calibration error: the difference, averaged over answers; interval: bootstrap; if '
        "perfect: what perfectly calibrated probabilities would give with so few answers. Brier score: squared error "
        "over all labels, 0 to 2, less is better.</p></details></section>"
    )
