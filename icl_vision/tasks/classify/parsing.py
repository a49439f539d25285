"""Reading a label out of an LLM's free answer.

Knows: the ladder of ever more tolerant readings, and that two labels which fit equally well mean
none. Refuses to know: where the answer comes from. Never returns anything outside the labels given.

The ladder, strictest first (``Rung``):

- exact: the first line of the answer, without spaces at its ends, is the label.
- folded: the same up to case, underscores, spaces and compatibility characters; then also without
  quotes, brackets and punctuation around it, without a lead-in such as "The answer is:" or "This is a", and without the
  mark of a list's item. What is inside a fence, a JSON document or an answer tag counts as such.
- prefix: the answer starts with the label and goes on with something else ("lion, because ...";
  the longest such label), provided that the line names no other label and does not take it back ("lion is not ...");
  or the answer is the cut-off beginning of exactly one label ("golden retr", three characters or more), as a small
  ``max_tokens`` gives.
- nearest: the answer resembles one label closely, and no other nearly as closely (a typing slip), and negates nothing.

The papers' own scorers are narrower: exact with end of text (Frozen, section 4), prefix (V2L Tokenizer's
script), substring (a public re-evaluation of FROMAGe); ``icl_vision.evaluation`` keeps those apart.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from icl_vision.asking.answer_forms import (
    CONCLUSION,
    EDGES,
    LEAD_IN,
    LIST_MARK,
    NEAREST_MARGIN,
    NEAREST_RATIO,
    NEXT_ONE,
    crossed_out,
    excludes,
    is_title,
    negates,
    straight,
    unwrap,
    without_heading,
    without_struck,
)
from icl_vision.errors import UsageError

Rung = Literal["exact", "folded", "prefix", "nearest"]

_MAX_ANSWER = 500
"""Characters of a line that are read; similarity takes quadratic time."""
_MIN_CUT = 3
"""Shortest answer that counts as the cut-off beginning of a label."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_MOST_LINES = 60
"""Lines after the first in which a conclusion is looked for."""
_LEADING_LINES = 3
"""Lines that may lead in an answer and hold nothing of it."""


class ParsedLabel(NamedTuple):
    """A label and the rung that found it; both None where no rung did."""

    label: str | None
    rung: Rung | None


UNREAD = ParsedLabel(None, None)


def parse_label(answer: str, labels: Sequence[str], *, threshold: float = NEAREST_RATIO) -> ParsedLabel:
    """The label that an answer means, or None.

    Args:
        answer: any text, up to a "###" that is no label's. Of fences, JSON and answer tags what is inside; of anything
            else the first line with visible characters, or the next one where that only leads in ("The answer is:").
            Where that names no label surely, a later sentence that says the answer counts ("Final answer: ..").
        labels: the labels that can be answered, distinct.
        threshold: least similarity for the nearest rung, 0 to 1; 1 switches that rung off.

    Raises:
        UsageError: ``answer`` is no string, ``labels`` is a bare string or empty, ``threshold`` out of range.
    """
    _check(answer, labels, threshold)
    answer = unicodedata.normalize("NFC", answer)
    own = {label: unicodedata.normalize("NFC", label) for label in labels}
    if not any("###" in label for label in own.values()):
        answer = _before_marks(answer)
    if not any("~~" in label or "<" in label for label in own.values()):
        answer = without_struck(answer)
    titled = is_title(next((line for line in answer.splitlines() if line.strip()), ""))
    answer = without_heading(answer)
    first = next((line.strip() for line in answer.splitlines() if line.strip()), "")[:_MAX_ANSWER]
    exact = [label for label, text in own.items() if text == first]
    if len(exact) == 1:
        return ParsedLabel(exact[0], "exact")
    inside = unwrap(answer)
    if inside.settled:
        first_read, *others = [_read(text[:_MAX_ANSWER].strip(), own, threshold) for text in inside.texts] or [UNREAD]
        if first_read.label is None or any(read.label != first_read.label for read in others):
            return UNREAD
        return first_read if first_read.rung != "exact" else ParsedLabel(first_read.label, "folded")
    for number, line in enumerate(inside.texts[:_LEADING_LINES]):
        later = inside.texts[number + 1 :]
        if _leads_in(line) or (
            titled and not number and later and not any(_bare(line) == _bare(text) for text in own.values())
        ):
            continue
        read = _of_line(line[:_MAX_ANSWER], later, own, threshold)
        return read if read.rung in ("exact", "folded") else _concluded(line, later, own) or read
    return UNREAD


def _before_marks(answer: str) -> str:
    """The answer up to a "###" that is no heading at its beginning."""
    start = len(answer) - len(answer.lstrip(" \t\r\n#"))
    return (
        answer[:start] + answer[start:].split("###")[0] if answer.lstrip().startswith("#") else answer.split("###")[0]
    )


def _concluded(line: str, later: Sequence[str], own: dict[str, str]) -> ParsedLabel | None:
    """What a sentence after the first says to be the answer, where one says so; the last of them counts.

    Up to where the LLM goes on with a next example.
    """
    sentences = _SENTENCE.split(line)[1:]
    lead = ""
    for next_line in later[:_MOST_LINES]:
        if NEXT_ONE.match(next_line):
            break
        if is_title(next_line) or (_leads_in(next_line) and CONCLUSION.match(straight(next_line).strip(" *#_"))):
            lead = "Final answer: "  # it stands in the next line
            continue
        sentences += _SENTENCE.split(lead + next_line)
        lead = ""
    said = [sentence for sentence in sentences if CONCLUSION.match(straight(sentence[:_MAX_ANSWER]).strip(EDGES))]
    if not said:
        return None
    read = _read(said[-1][:_MAX_ANSWER], own, 1.0)
    return None if read.label is None else read._replace(rung="folded")


def _of_line(line: str, later: Sequence[str], own: dict[str, str], threshold: float) -> ParsedLabel:
    read = _read(line, own, threshold)
    if read.label is not None and LIST_MARK.match(line):
        # A list of several labels names none of them.
        listed = [LIST_MARK.sub("", next_line)[:_MAX_ANSWER] for next_line in later if LIST_MARK.match(next_line)]
        if {_read(text, own, 1.0).label for text in listed} - {None, read.label}:
            return UNREAD
    return read


def _read(line: str, own: dict[str, str], threshold: float) -> ParsedLabel:
    """One line, by the ladder. own: labels and their composed forms."""
    exact = [label for label, text in own.items() if text == line]
    if len(exact) == 1:
        return ParsedLabel(exact[0], "exact")
    if crossed_out(line) and not any(map(crossed_out, own.values())):
        return UNREAD
    # Each reading changes answer and labels alike, so that a label such as "Yahoo!" still meets itself.
    mark = LIST_MARK.match(line)
    lettered = mark is not None and any(_bare(text) == _bare(mark[0]) for text in own.values())
    # "b. dog" among the labels a, b and dog: a list's mark or an answer.
    inner = LIST_MARK.match(_without_lead_in(line))
    lettered_inside = inner is not None and any(_bare(text) == _bare(inner[0]) for text in own.values())
    barred = ({_without_mark} if lettered else set()) | ({_without_inner_mark} if lettered_inside else set())
    readings = [reading for reading in _READINGS if reading not in barred]
    for reading in readings:
        named = [label for label, text in own.items() if reading(text) and reading(text) == reading(line)]
        if named:
            return ParsedLabel(named[0], "folded") if len(named) == 1 else UNREAD
    for reading in readings:
        label, certain = _prefix(reading(line), {label: reading(text) for label, text in own.items()})
        if label is not None or certain:
            return ParsedLabel(label, None if label is None else "prefix")
    nearest = _nearest(_without_mark(line), own, threshold)
    return ParsedLabel(nearest, None if nearest is None else "nearest")


def _leads_in(line: str) -> bool:
    """Whether a line is nothing but the beginning of a sentence whose end is the answer: "The answer is:"."""
    return line.rstrip(" *_\"'`").endswith((":", "\uff1a")) and not LEAD_IN.sub("", straight(line), count=1).strip(
        EDGES
    )


def _bare(text: str) -> str:
    """Folded, without quotes and punctuation at its ends."""
    return straight(text).strip(EDGES)


def _without_lead_in(text: str) -> str:
    """Bare, without "Output:", "This is a", "the" ... at the start; such words alone stay as they are."""
    bare = _bare(text)
    return LEAD_IN.sub("", bare, count=1).strip(EDGES) or bare


def _without_mark(text: str) -> str:
    """Bare, without the mark of a list's item at the start, and then without a lead-in."""
    return _without_lead_in(LIST_MARK.sub("", straight(text), count=1)) or _bare(text)


def _without_inner_mark(text: str) -> str:
    """Without a lead-in, and then without the mark of a list's item: "Answer: (b) dog"."""
    return LIST_MARK.sub("", _without_lead_in(text), count=1).strip(EDGES) or _bare(text)


_READINGS: tuple[Callable[[str], str], ...] = (straight, _bare, _without_lead_in, _without_mark, _without_inner_mark)


def _prefix(line: str, folded: dict[str, str]) -> tuple[str | None, bool]:
    """The label at the start of ``line``, and whether the matter is settled (an ambiguous start settles on None)."""
    starts = [label for label, text in folded.items() if text and _begins(line, text)]
    longer = [label for label, text in folded.items() if text.startswith(line)] if len(line) >= _MIN_CUT else []
    if starts:
        longest = max(len(folded[label]) for label in starts)
        best = [label for label in starts if len(folded[label]) == longest]
        if len(longer) == 1 and longer[0] not in best:
            return longer[0], True  # "car p": the beginning of "car park", not a "car" with something behind it
        if any(len(text) > longest and line.startswith(text) for text in folded.values()):
            return None, False  # "car parks": another label with letters behind it is nearer
        rest = line[longest:]
        others = [text for label, text in folded.items() if label not in best and text and _names(rest, text)]
        if len(best) != 1 or others or excludes(rest):
            return None, True
        return best[0], True
    if len(longer) == 1:
        return longer[0], True
    return None, False


def _begins(line: str, text: str) -> bool:
    return line.startswith(text) and not (line[len(text) :][:1].isalnum() and text[-1].isalnum())


def _names(rest: str, text: str) -> bool:
    return re.search(r"(?<!\w)" + re.escape(text) + r"(?!\w)", rest) is not None


def _nearest(line: str, labels: dict[str, str], threshold: float) -> str | None:
    if not line or threshold >= 1:
        return None
    ranked = sorted(
        (
            (difflib.SequenceMatcher(None, line, _bare(text), autojunk=False).ratio(), label)
            for label, text in labels.items()
        ),
        key=lambda pair: -pair[0],
    )
    (best, label), second = ranked[0], (ranked[1][0] if len(ranked) > 1 else 0.0)
    if negates(line) and not negates(_bare(labels[label])):
        return None  # "not dog" is no slip for "hot dog"
    return label if best >= threshold and best - second >= NEAREST_MARGIN else None


def _check(answer: object, labels: object, threshold: float) -> None:
    if not isinstance(answer, str):
        raise UsageError(f"an answer must be a string; got {type(answer).__name__}")
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence) or not labels:
        raise UsageError(f"labels must be a list of at least one string; got {labels!r}")
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold must lie between 0 and 1; got {threshold!r}")
