"""Reading a label out of an LLM's free answer.

Knows: the ladder of ever more tolerant readings, and that two labels which fit equally well mean
none. Refuses to know: where the answer comes from. Never returns anything outside the labels given.

The ladder, strictest first (``Rung``):

- exact: the first line of the answer, without spaces at its ends, is the label.
- folded: the same up to case, underscores, spaces and compatibility characters; then also without
  quotes, brackets and punctuation around it, and without a lead-in such as "Output:" or "This is a".
- prefix: the answer starts with the label and goes on with something else ("lion, because ...";
  the longest such label), provided that the line names no other label; or the answer is the cut-off
  beginning of exactly one label ("golden retr", three characters or more), as a small ``max_tokens`` gives.
- nearest: the answer resembles one label closely, and no other nearly as closely (a typing slip).

The papers' own scorers are narrower: exact with end of text (Frozen, section 4), prefix (V2L Tokenizer's
script), substring (a public re-evaluation of FROMAGe); ``icl_vision.evaluation`` keeps those apart.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from icl_vision.errors import UsageError
from icl_vision.prompting.labels import fold

Rung = Literal["exact", "folded", "prefix", "nearest"]

NEAREST_RATIO = 0.85
"""Least similarity (difflib) for the nearest rung: "lionn" and "dogs" pass, "lionel" and "house" for "mouse" do not."""
NEAREST_MARGIN = 0.05
"""How much nearer the best label must be than the second."""

_MAX_ANSWER = 500
"""Characters of the first line that are read; similarity takes quadratic time."""
_MIN_CUT = 3
"""Shortest answer that counts as the cut-off beginning of a label."""
_EDGES = " \t\"'`\u00b4\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb.,;:!?*#()[]{}<>|~-\u2013\u2014"
_LEAD_IN = re.compile(
    r"^(?:(?:the )?(?:final )?(?:output|answer|label|class|category)(?:\s*:\s*|(?: is)?\s+))?"
    r"(?:(?:this|it|that)(?: is|'s)\s+)?(?:(?:an?|the)\s+)?"
)


class ParsedLabel(NamedTuple):
    """A label and the rung that found it; both None where no rung did."""

    label: str | None
    rung: Rung | None


def parse_label(answer: str, labels: Sequence[str], *, threshold: float = NEAREST_RATIO) -> ParsedLabel:
    """The label that an answer means, or None.

    Args:
        answer: any text. Only its first line with visible characters is read, up to a "###".
        labels: the labels that can be answered, distinct.
        threshold: least similarity for the nearest rung, 0 to 1; 1 switches that rung off.

    Raises:
        UsageError: ``answer`` is no string, ``labels`` is a bare string or empty, ``threshold`` out of range.
    """
    _check(answer, labels, threshold)
    line = next((part.strip() for part in answer.split("###")[0].splitlines() if part.strip()), "")[:_MAX_ANSWER]
    if not line:
        return ParsedLabel(None, None)
    if line in labels:
        return ParsedLabel(line, "exact")
    # Each reading changes answer and labels alike, so that a label such as "Yahoo!" still meets itself.
    for reading in _READINGS:
        found = [label for label in labels if reading(label) and reading(label) == reading(line)]
        if len(found) == 1:
            return ParsedLabel(found[0], "folded")
        if found:
            return ParsedLabel(None, None)
    for reading in _READINGS:
        label, certain = _prefix(reading(line), {label: reading(label) for label in labels})
        if label is not None or certain:
            return ParsedLabel(label, None if label is None else "prefix")
    nearest = _nearest(_bare(line), labels, threshold)
    return ParsedLabel(nearest, None if nearest is None else "nearest")


def _bare(text: str) -> str:
    """Folded, without quotes and punctuation at its ends."""
    return fold(text).strip(_EDGES)


def _without_lead_in(text: str) -> str:
    """Bare, without "Output:", "This is a", "the" ... at the start; such words alone stay as they are."""
    bare = _bare(text)
    return _LEAD_IN.sub("", bare, count=1).strip(_EDGES) or bare


_READINGS: tuple[Callable[[str], str], ...] = (fold, _bare, _without_lead_in)


def _prefix(line: str, folded: dict[str, str]) -> tuple[str | None, bool]:
    """The label at the start of ``line``, and whether the matter is settled (an ambiguous start settles on None)."""
    starts = [label for label, text in folded.items() if text and _begins(line, text)]
    if starts:
        longest = max(len(folded[label]) for label in starts)
        best = [label for label in starts if len(folded[label]) == longest]
        rest = line[longest:]
        others = [text for label, text in folded.items() if label not in best and text and _names(rest, text)]
        return (best[0], True) if len(best) == 1 and not others else (None, True)
    if len(line) >= _MIN_CUT:
        longer = [label for label, text in folded.items() if text.startswith(line)]
        if len(longer) == 1:
            return longer[0], True
    return None, False


def _begins(line: str, text: str) -> bool:
    return line.startswith(text) and not (line[len(text) :][:1].isalnum() and text[-1].isalnum())


def _names(rest: str, text: str) -> bool:
    return re.search(r"(?<!\w)" + re.escape(text) + r"(?!\w)", rest) is not None


def _nearest(line: str, labels: Sequence[str], threshold: float) -> str | None:
    if not line or threshold >= 1:
        return None
    ranked = sorted(
        ((difflib.SequenceMatcher(None, line, _bare(label), autojunk=False).ratio(), label) for label in labels),
        key=lambda pair: -pair[0],
    )
    (best, label), second = ranked[0], (ranked[1][0] if len(ranked) > 1 else 0.0)
    return label if best >= threshold and best - second >= NEAREST_MARGIN else None


def _check(answer: object, labels: object, threshold: float) -> None:
    if not isinstance(answer, str):
        raise UsageError(f"an answer must be a string; got {type(answer).__name__}")
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence) or not labels:
        raise UsageError(f"labels must be a list of at least one string; got {labels!r}")
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold must lie between 0 and 1; got {threshold!r}")
