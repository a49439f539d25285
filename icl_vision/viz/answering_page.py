"""Questions and captions to be looked at: the picture, its words, the examples shown, what was answered, what is true.

Knows: how answers that somebody else got are laid out, and a table of rows beside them. Refuses to know: how an LLM was
asked, how an answer is judged; it is handed plain values. A picture is on the page only where it is handed one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from icl_vision.files.storage import write_text
from icl_vision.viz.page import chips, document, escape, percent, picture, thumbnail

if TYPE_CHECKING:
    from icl_vision.images import ImageSource

SIDE = 240
EXAMPLE_SIDE = 72
WORDS_SHOWN = 48
"""Words of a part on the page; a longer list ends in "and N more"."""

GIVEN = "Bold words were given to the LLM for this question."
WEIGHED = "Bold words were weighed as answers; the LLM was shown none of them."
"""What the marked words are."""

MARK = 214
"""Colour of the words that were used for the question, on the colour wheel; they are bold as well."""

Parts = Sequence[tuple[str, Sequence[str]]]
"""A picture's words by part: (name, words), in order. A picture without parts has one, called ""."""


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example as the LLM was shown it.

    words: its picture in words, as text. answer: what was said to be right. question: None for a caption. image: where
    its picture is, None for none on the page.
    """

    words: str
    answer: str
    question: str | None = None
    image: ImageSource | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What one way of asking answered to a question. right: None where nobody judged it. note: one line about it."""

    name: str
    answer: str | None
    right: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AnswerTile:
    """One question about one picture.

    answer: None where there is none, and ``note`` says why. question: None for a caption. truth: answers that are
    right, as far as they are known. right: None where nobody judged it. image: None for none on the page. parts: all
    words of the picture. used: those that were used for this question, as ``legend`` says; None where all were.
    probability: of the answer, 0 to 1, None where not known. method: how it was found. others: what other ways of
    asking answered. prompt: as it was sent, "" to leave it out.
    """

    answer: str | None
    question: str | None = None
    truth: Sequence[str] = ()
    right: bool | None = None
    image: ImageSource | None = None
    parts: Parts = ()
    used: Parts | None = None
    examples: Sequence[ShownExample] = ()
    probability: float | None = None
    method: str = ""
    note: str = ""
    others: Sequence[Said] = ()
    prompt: str = ""
    legend: str = GIVEN


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of a table: a name, what it is, and a number with its interval, in the unit that the page names.

    value: None where it could not be had; ``note`` says why. n: of how many. notes: further cells, one a column.
    """

    name: str
    meaning: str
    value: float | None
    interval: tuple[float, float]
    n: int
    cells: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows compared. measure: what the number is, as in "exact". most: the largest that it can be, for its bar; a share
    of 1 is printed as per cents. columns: the names of ``Measured.cells``. verdicts: differences, in words."""

    measure: str
    rows: Sequence[Measured]
    most: float = 1.0
    columns: Sequence[str] = ()
    verdicts: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnsweringPage:
    """Everything on the page. lead: a sentence under the title. facts: name -> value, for its foot. attribution: whose
    pictures these are."""

    title: str
    tiles: Sequence[AnswerTile]
    lead: str = ""
    table: RowTable | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    attribution: str = ""


STYLE = """
.asked { margin-top: 16px; display: grid; grid-template-columns: 240px minmax(0, 1fr); gap: 18px; align-items: start; }
.asked.blind { grid-template-columns: minmax(0, 1fr); }
.asked.wrong { border-color: var(--bad); }
.asked > img { width: 100%; height: auto; max-height: 320px; }
.asked h2 { font-size: 1.1rem; margin: 0 0 .3em; }
.verdict { font-size: 1.15rem; font-weight: 650; line-height: 1.35; margin: 0 0 10px; }
.verdict small { display: block; font-weight: 400; color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
.part { display: grid; grid-template-columns: 5.4em minmax(0, 1fr); gap: 2px 10px; align-items: baseline;
  margin-top: 5px; }
.part > .name { color: var(--soft); font-size: .84rem; }
.part .chips li.hue { font-weight: 650; }
.part .chips li:not(.hue) { opacity: .75; }
.asked details { margin-top: 10px; }
.example { display: grid; grid-template-columns: minmax(0, 1fr); gap: 2px 10px; margin-top: 8px; padding-top: 8px;
  border-top: 1px solid var(--line); font-size: .86rem; }
.example.seen { grid-template-columns: 72px minmax(0, 1fr); }
.example p { margin: 0; } .example .said { font-weight: 650; }
.scroll { overflow-x: auto; }
.measures, .others { border-collapse: collapse; font-size: .88rem; }
.measures { width: 100%; min-width: 560px; } .measures th, .measures td { padding: 5px 12px 5px 0; text-align: left;
  vertical-align: top; border-top: 1px solid var(--line); }
.measures th { font-weight: 400; color: var(--soft); border-top: 0; white-space: nowrap; }
.measures td:first-child, .measures td.number { white-space: nowrap; }
.measures td.number { font-variant-numeric: tabular-nums; }
.measures .track { position: relative; display: block; width: 120px; height: 12px; margin-top: 4px; border-radius: 4px;
  background: var(--track); }
.measures .fill { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--accent); opacity: .7; }
.measures .whisker { position: absolute; top: 5px; height: 2px; background: var(--ink); }
.others td { padding: 2px 14px 2px 0; vertical-align: top; }
.card > details { margin-top: 12px; }
.verdicts { margin: 14px 0 0; padding-left: 1.1em; } .verdicts li { margin: 3px 0; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; } dl.facts dd { margin: 0; }
@media (max-width: 640px) { .asked { grid-template-columns: minmax(0, 1fr); } .asked > img { max-height: 240px; }
  .part { grid-template-columns: minmax(0, 1fr); } dl.facts { grid-template-columns: minmax(0, 1fr); }
  dl.facts dt { font-weight: 650; } .measures { min-width: 0; }
  .measures th:nth-child(3), .measures td:nth-child(3) { display: none; } }
"""


def render_page(page: AnsweringPage) -> str:
    """The whole page as HTML that loads nothing."""
    lead = f'<p class="soft">{escape(page.lead)}</p>' if page.lead else ""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts.items())
    attribution = f"<p>{escape(page.attribution)}</p>" if page.attribution else ""
    foot = f'<footer><dl class="facts">{facts}</dl>{attribution}</footer>' if facts or attribution else ""
    table = "" if page.table is None else _table(page.table)
    body = f"<h1>{escape(page.title)}</h1>{lead}{table}{''.join(map(_tile, page.tiles))}{foot}"
    return document(page.title, body, STYLE)


def write_page(target: Path, page: AnsweringPage) -> None:
    """``render_page`` as a file, whole or not at all."""
    write_text(target, render_page(page))


def _tile(tile: AnswerTile) -> str:
    outline = " wrong" if tile.right is False else ""
    blind = "" if tile.image is not None else " blind"
    asked = tile.question if tile.question is not None else "a caption"
    photograph = "" if tile.image is None else picture(thumbnail(tile.image, SIDE), f"photograph: {asked}", SIDE)
    heading = f"<h2>{escape(tile.question)}</h2>" if tile.question is not None else ""
    return (
        f'<article class="card asked{outline}{blind}">{photograph}<div>{heading}{_verdict(tile)}{_words(tile)}'
        f"{_others(tile)}{_examples(tile)}{_prompt(tile)}</div></article>"
    )


def _mark(right: bool | None) -> str:
    if right is None:
        return ""
    return '<span class="good">&#10003;</span> ' if right else '<span class="bad">&#10007;</span> '


def _verdict(tile: AnswerTile) -> str:
    remarks = []
    if tile.truth:
        remarks.append(("right: " if tile.right is False else "true: ") + " / ".join(dict.fromkeys(tile.truth)))
    if tile.probability is not None:
        remarks.append(f"probability {percent(tile.probability)}")
    remarks += [text for text in (tile.method, tile.note) if text]
    small = f"<small>{escape('; '.join(remarks))}</small>" if remarks else ""
    said = escape(tile.answer) if tile.answer else '<span class="soft">no answer</span>'
    return f'<p class="verdict">{_mark(tile.right)}{said}{small}</p>'


def _hue(marked: Collection[str], word: str) -> int | None:
    return MARK if word in marked else None


def _words(tile: AnswerTile) -> str:
    """All words by part; where only some were used for the question, those are marked."""
    used = None if tile.used is None else {name: set(words) for name, words in tile.used if words}
    parts = []
    for name, words in tile.parts:
        if not words:
            continue
        marked = set() if used is None else used.get(name, set())
        shown = chips(words, partial(_hue, marked), WORDS_SHOWN)
        label = f'<span class="name">{escape(name)}</span>' if name else '<span class="name">words</span>'
        parts.append(f'<div class="part">{label}<div>{shown}</div></div>')
    if not parts:
        return ""
    legend = f'<p class="small soft">{escape(tile.legend)}</p>' if used else ""
    return f'<div class="words">{"".join(parts)}{legend}</div>'


def _others(tile: AnswerTile) -> str:
    if not tile.others:
        return ""
    rows = "".join(
        f"<tr><td>{escape(said.name)}</td><td>{_mark(said.right)}{escape(said.answer or 'no answer')}</td>"
        f'<td class="soft">{escape(said.note)}</td></tr>'
        for said in tile.others
    )
    table = f'<div class="scroll"><table class="others">{rows}</table></div>'
    return f"<details><summary>What the other rows say</summary>{table}</details>"


def _examples(tile: AnswerTile) -> str:
    if not tile.examples:
        return ""
    shown = "".join(_example(example) for example in tile.examples)
    count = len(tile.examples)
    return f"<details><summary>{count} example{'s' * (count != 1)} shown before it</summary>{shown}</details>"


def _example(example: ShownExample) -> str:
    seen, photograph = "", ""
    if example.image is not None:
        seen = " seen"
        photograph = picture(thumbnail(example.image, EXAMPLE_SIDE), "photograph of an example", EXAMPLE_SIDE)
    question = f"<p>{escape(example.question)}</p>" if example.question is not None else ""
    words = f'<p class="soft">{escape(example.words)}</p>' if example.words else ""
    return (
        f'<div class="example{seen}">{photograph}<div>{words}{question}<p class="said">{escape(example.answer)}</p>'
        "</div></div>"
    )


def _prompt(tile: AnswerTile) -> str:
    if not tile.prompt:
        return ""
    return f"<details><summary>The prompt, as sent</summary><pre>{escape(tile.prompt)}</pre></details>"


def _table(table: RowTable) -> str:
    extra = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    head = f"<tr><th>row</th><th>{escape(table.measure)}</th><th></th><th>n</th>{extra}<th></th></tr>"
    rows = "".join(_measured(row, table) for row in table.rows)
    verdicts = "".join(f"<li>{escape(verdict)}</li>" for verdict in table.verdicts)
    told = f'<ul class="verdicts">{verdicts}</ul>' if verdicts else ""
    notes = "".join(f'<p class="small soft">{escape(note)}</p>' for note in table.notes)
    legend = "".join(f"<dt>{escape(row.name)}</dt><dd>{escape(row.meaning)}</dd>" for row in table.rows)
    body = f'<div class="scroll"><table class="measures">{head}{rows}</table></div>'
    meant = f'<details><summary>What each row is</summary><dl class="facts small">{legend}</dl></details>'
    return f'<section class="card">{body}{told}{meant}{notes}</section>'


def _measured(row: Measured, table: RowTable) -> str:
    cells = "".join(f'<td class="number">{escape(cell)}</td>' for cell in row.cells)
    cells += "<td></td>" * (len(table.columns) - len(row.cells))
    note = f'<td class="soft">{escape(row.note)}</td>'
    if row.value is None:
        return f"<tr><td>{escape(row.name)}</td><td>-</td><td></td><td></td>{cells}{note}</tr>"

    def said(value: float) -> str:
        return percent(value, 1) if table.most == 1.0 else f"{value:.3f}"

    def share(value: float) -> float:
        return min(1.0, max(0.0, value / table.most)) if table.most > 0 else 0.0

    low, high = row.interval
    spoken = f"{row.name}: {said(row.value)}, 95% interval {said(low)} to {said(high)}, n = {row.n}"
    bar = (
        f'<span class="track" role="img" aria-label="{escape(spoken)}" title="{escape(spoken)}">'
        f'<span class="fill" style="width:{share(row.value):.2%}"></span>'
        f'<span class="whisker" style="left:{share(low):.2%};width:{share(high) - share(low):.2%}"></span></span>'
    )
    number = f"{said(row.value)} [{said(low)}, {said(high)}]"
    return (
        f'<tr><td>{escape(row.name)}</td><td class="number">{number}</td><td>{bar}</td>'
        f'<td class="number">{row.n:,}</td>{cells}{note}</tr>'
    )
