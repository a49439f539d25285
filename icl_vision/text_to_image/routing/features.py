"""From a line that anybody may have written to the word and character n-grams that are counted.

Knows: characters, words, what is cut. Refuses to know: routes and counts.

A line is anything: a word, a pasted book, control characters, halves of surrogate pairs. All of it becomes a few
thousand features at most: of a long line only the beginning and the end are read, which is where an instruction stands.
"""

from __future__ import annotations

import re
import unicodedata

HEAD, TAIL = 400, 200
"""Characters that are read of the beginning and of the end of a longer line."""
WORDS = (1, 2)
"""Words in a row that make a feature, at least and at most."""
CHARACTERS = (3, 5)
"""Characters in a row, within a word and its two ends."""
WORD_WEIGHT, CHARACTER_WEIGHT = 4, 1
"""What one feature of each kind counts: a word has a dozen n-grams of characters, which say the same thing again."""
MOST_FEATURE = 96
"""Characters of a feature; a longer one (of a word without end) is no feature."""

_START, _END, _EDGE = "<", ">", "_"
# A character of a script without spaces is a word of its own, and so is each mark; "_" is the edge of a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\d+|[^\W\d_]+|[^\w\s]")


def readable(line: str) -> str:
    """A line as it may enter a prompt: on one line, composed, without control characters or halves of characters; of a
    long one the beginning and the end, with "..." between."""
    if len(line) > HEAD + TAIL:
        line = f"{line[:HEAD]} ... {line[-TAIL:]}"
    text = "".join(" " if _unreadable(character) else character for character in line)
    return " ".join(unicodedata.normalize("NFC", text).split())


def features(line: str) -> dict[str, int]:
    """The features of a line, each with its weight; none of an empty line."""
    text = unicodedata.normalize("NFKC", readable(line)).casefold()
    words = ["0" if word.isdigit() else word for word in _WORD.findall(text)]
    if not words:
        return {}
    found: dict[str, int] = {}
    row = [_START, *words, _END]
    for length in range(WORDS[0], WORDS[1] + 1):
        for place in range(len(row) - length + 1):
            some = row[place : place + length]
            if length > 1 or some[0] not in (_START, _END):
                found["w:" + " ".join(some)] = WORD_WEIGHT
    for word in words:
        edged = f"{_EDGE}{word}{_EDGE}"
        for length in range(CHARACTERS[0], CHARACTERS[1] + 1):
            for place in range(len(edged) - length + 1):
                found["c:" + edged[place : place + length]] = CHARACTER_WEIGHT
    return {name: weight for name, weight in found.items() if len(name) <= MOST_FEATURE}


def _unreadable(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("C") or category in ("Zl", "Zp")
