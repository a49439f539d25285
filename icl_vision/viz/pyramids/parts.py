"""A picture's words by part: each with its probability, those that were chosen for a question marked.

Knows: how words by part become rows, and rows a piece of HTML for pages and notebooks. Refuses to know: how words came
to be, what was chosen and why; pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icl_vision.tokenizers.describe.places import regions_of
from icl_vision.viz.page import escape, percent

if TYPE_CHECKING:
    from icl_vision.image_words import ImageWords

WHERE = "where"

# Colours come from whatever the piece stands on (currentColor), so light and dark both work.
STYLE = """.icl-parts{font:14px/1.5 system-ui,sans-serif;display:grid;gap:.7em;min-width:0}
.icl-parts .part{display:grid;grid-template-columns:5.5em minmax(0,1fr);gap:.2em .8em;align-items:baseline}
.icl-parts .name{font-weight:650}
.icl-parts ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3em .4em;margin:0;padding:0}
.icl-parts li{display:inline-flex;align-items:baseline;gap:.35em;padding:0 .5em;border-radius:.5em;max-width:100%;
overflow-wrap:anywhere;border:1px solid color-mix(in srgb,currentColor 22%,transparent);
background:linear-gradient(color-mix(in srgb,currentColor 13%,transparent) 0 0) 0 0/var(--p,0%) 100% no-repeat}
.icl-parts li small{opacity:.75;font-size:.8em;font-variant-numeric:tabular-nums}
.icl-parts li.used{border:2px solid #2a9d4a;font-weight:700}
.icl-parts .region{border-style:none;background:none;padding-right:0;font-style:italic;opacity:.85}
.icl-parts .lines{display:grid;gap:.3em}
.icl-parts p{margin:0;font-size:.85em;opacity:.85}
@media (max-width:480px){.icl-parts .part{grid-template-columns:minmax(0,1fr)}}
"""


@dataclass(frozen=True, slots=True)
class PartWord:
    """A word of a part. chance: its probability; None where nothing is known of it. used: chosen for the question."""

    word: str
    chance: float | None
    used: bool


@dataclass(frozen=True, slots=True)
class PartLine:
    """Words that stand in one line. region: the one they are of, in the part *where*; "" elsewhere."""

    words: tuple[PartWord, ...]
    region: str = ""


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part with its lines: one, or one a region."""

    name: str
    lines: tuple[PartLine, ...]


def part_rows(words: ImageWords, used: ImageWords | None = None) -> list[PartRow]:
    """The parts that have words, in their order.

    used: those of the words that were chosen for a question; None where nothing was asked.
    """
    rows = []
    for name in words.names:
        own = words.words(name)
        if not own:
            continue
        chances: Sequence[float | None] = words.chances(name) or [None] * len(own)
        chosen = set(used.words(name)) if used is not None and name in used.names else set()
        if name != WHERE:
            rows.append(PartRow(name, (PartLine(_words(own, chances, chosen)),)))
            continue
        lines = []
        for region, places in regions_of(own).items():
            inside = [own[place] for place in places]
            marked = set(inside) if region in chosen else set()
            lines.append(PartLine(_words(inside, [chances[place] for place in places], marked), region))
        rows.append(PartRow(name, tuple(lines)))
    return rows


def _words(words: Iterable[str], chances: Iterable[float | None], chosen: set[str]) -> tuple[PartWord, ...]:
    return tuple(PartWord(word, chance, word in chosen) for word, chance in zip(words, chances, strict=True))


def with_used(whole: ImageWords, shown: ImageWords, used: ImageWords) -> ImageWords:
    """The words that are shown, and after them, in each part, those that were chosen beyond them.

    whole: all there are; the others' words are among them.
    """
    places: dict[str, list[int]] = {}
    for name in whole.names:
        own = whole.words(name)
        if name == WHERE:  # a row of regions cannot be taken apart by its words: they repeat
            places[name] = list(range(len(own)))
            continue
        wanted = {
            *(shown.words(name) if name in shown.names else ()),
            *(used.words(name) if name in used.names else ()),
        }
        places[name] = [place for place, word in enumerate(own) if word in wanted]
    return whole.only(places)


def parts_html(words: ImageWords, used: ImageWords | None = None, about: str | None = None) -> str:
    """The parts as HTML that needs ``STYLE``: a row a part, a chip a word, as dark as the word is probable.

    Args:
        words: the words.
        used: those of them that were chosen for a question; they are framed.
        about: the question.
    """
    asked = "" if about is None else f"<p>For the question <b>{escape(about)}</b> the framed words were chosen.</p>"
    rows = []
    for row in part_rows(words, used):
        lines = "".join(f"<ul>{_region(line)}{''.join(map(_chip, line.words))}</ul>" for line in row.lines)
        rows.append(
            f'<div class="part"><span class="name">{escape(row.name)}</span><div class="lines">{lines}</div></div>'
        )
    if words.text:
        chosen = ' class="used"' if used is not None and used.text else ""
        strings = "".join(f"<li{chosen}>&ldquo;{escape(text)}&rdquo;</li>" for text in words.text)
        rows.append(f'<div class="part"><span class="name">text</span><ul>{strings}</ul></div>')
    known = words.probabilities is not None
    note = "<p>Per cents: how probable it is that the word is right of this picture.</p>" if known else ""
    return f'<div class="icl-parts">{asked}{"".join(rows)}{note}</div>'


def _region(line: PartLine) -> str:
    return f'<li class="region">{escape(line.region)}</li>' if line.region else ""


def _chip(word: PartWord) -> str:
    kind = ' class="used"' if word.used else ""
    if word.chance is None:
        return f"<li{kind}>{escape(word.word)}</li>"
    return (
        f'<li{kind} style="--p:{100 * word.chance:.0f}%">{escape(word.word)}<small>{percent(word.chance)}</small></li>'
    )
