"""Line charts as inline SVG, with intervals, readable in light and dark, and to a screen reader.

Knows: axes, marks, colours by number. Refuses to know: what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from icl_vision.viz.page import escape, percent

SERIES_LIMIT = 6
"""Lines that a chart can tell apart by colour, dash and mark."""

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 12, 40
_DODGE = 5.0  # pixels between the series of one x, so that their intervals do not cover each other

STYLE = """
:root { --s0: #2257c4; --s1: #c2560a; --s2: #1a7f45; --s3: #a32a86; --s4: #7a5a00; --s5: #5d6670; }
@media (prefers-color-scheme: dark) { :root { --s0: #8db2ff; --s1: #ffa15e; --s2: #5fcf8d; --s3: #f08bd8;
  --s4: #e2c15a; --s5: #a2abb3; } }
svg.plot { display: block; width: 100%; height: auto; }
svg.plot text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  fill: var(--soft); }
svg.plot .grid { stroke: var(--line); stroke-width: 1; } svg.plot .level { stroke: var(--soft);
  stroke-dasharray: 2 4; }
svg .s0 { --c: var(--s0); } svg .s1 { --c: var(--s1); } svg .s2 { --c: var(--s2); } svg .s3 { --c: var(--s3); }
svg .s4 { --c: var(--s4); } svg .s5 { --c: var(--s5); }
svg .s0 .path, svg .s0 { stroke-dasharray: none; }
svg .path { fill: none; stroke: var(--c); stroke-width: 2; }
svg .s1 .path { stroke-dasharray: 7 3; } svg .s2 .path { stroke-dasharray: 2 3; }
svg .s3 .path { stroke-dasharray: 9 3 2 3; } svg .s4 .path { stroke-dasharray: 4 4; }
svg .s5 .path { stroke-dasharray: 1 4; }
svg .whisker { stroke: var(--c); stroke-width: 1.3; opacity: .65; }
svg .mark { fill: var(--c); stroke: var(--card); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 8px 0 0; padding: 0; list-style: none;
  font-size: .86rem; }
.legend li { display: flex; gap: 7px; align-items: center; } .legend svg { width: 34px; height: 12px; flex: none; }
"""


@dataclass(frozen=True, slots=True)
class Point:
    """x; the share (0 to 1); its interval, or None where none is known; n for the spoken text, None if unknown."""

    x: float
    share: float
    interval: tuple[float, float] | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A named line; its points by rising x."""

    name: str
    points: Sequence[Point]


def line_chart(series: Sequence[Series], *, title: str, axis: str, level: float | None = None) -> str:
    """Shares against a number, as one ``svg`` element.

    Args:
        series: at most ``SERIES_LIMIT`` lines; the same place in the list has the same colour in every chart.
        title: what the chart shows, for the screen reader.
        axis: what x is.
        level: a horizontal line, for instance chance.
    """
    ticks = sorted({point.x for line in series for point in line.points})
    low, high = ticks[0], ticks[-1]

    def across(x: float) -> float:
        room = _WIDTH - _LEFT - _RIGHT - 44
        return _LEFT + 22 + (room * (x - low) / (high - low) if high > low else room / 2)

    def up(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = []
    for step in range(0, 101, 20):
        y = up(step / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{step}</text>')
    if level is not None:
        y = up(level)
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for tick in ticks:
        parts.append(f'<text x="{across(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(axis)}</text>'
    )
    for place, line in enumerate(series):
        shift = (place - (len(series) - 1) / 2) * _DODGE
        spots = [(across(point.x) + shift, up(point.share), point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
        drawn = [f'<polyline class="path" points="{path}"/>']
        for x, y, point in spots:
            if point.interval is not None:
                top, bottom = up(point.interval[1]), up(point.interval[0])
                drawn.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
            drawn.append(f"<g><title>{escape(_spoken(line.name, axis, point))}</title>{_mark(place, x, y)}</g>")
        parts.append(f'<g class="s{place % SERIES_LIMIT}">{"".join(drawn)}</g>')
    spoken = "; ".join(_spoken(line.name, axis, point) for line in series for point in line.points)
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}. {spoken}")}">'
        f"{''.join(parts)}</svg>"
    )


def legend(names: Sequence[str]) -> str:
    """Which line is which, as a list; places as in ``line_chart``."""
    items = "".join(
        f'<li><svg viewBox="0 0 34 12" aria-hidden="true"><g class="s{place % SERIES_LIMIT}">'
        f'<line class="path" x1="0" x2="34" y1="6" y2="6"/>{_mark(place, 17, 6)}</g></svg>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _spoken(name: str, axis: str, point: Point) -> str:
    text = f"{name} at {point.x:g} {axis}: {percent(point.share, 1)}"
    if point.interval is not None:
        text += f", 95% interval {percent(point.interval[0], 1)} to {percent(point.interval[1], 1)}"
    return text if point.n is None else f"{text}, n = {point.n}"


def _mark(place: int, x: float, y: float) -> str:
    """A shape of its own for every place, so that colour is never the only difference."""
    shape = place % SERIES_LIMIT
    if shape == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    if shape == 1:
        return f'<rect class="mark" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    corners = {
        2: ((0, -5.5), (5, 4), (-5, 4)),
        3: ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        4: ((0, 5.5), (5, -4), (-5, -4)),
        5: ((-5, -2), (5, -2), (5, 2), (-5, 2)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="mark" points="{points}"/>'
