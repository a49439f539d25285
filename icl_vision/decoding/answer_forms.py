"""The forms in which LLMs wrap a short answer: fences, JSON, tags, list marks, "The answer is".

Knows: what stands around an answer without being part of it. Refuses to know: labels, and which of several answers
counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from icl_vision.prompting.labels import fold

MAX_READ = 4000
"""Characters of an answer that are looked at."""

EDGES = (
    " \t\"'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u2032\u2033"  # quotes
    "\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u3014\u3015\u301d\u301e\u301f"  # and of East Asia
    ".,;:!?\u00a1\u00bf\u2026\u3001\u3002*#()[]{}<>|~=-\u2013\u2014\u2022\u2023\u00b7\u25aa\u25cf\u25e6\u2192"
)
"""What may stand around an answer. (Not "_": folding makes a space of it; nor "+", as in C++.)"""

_ANSWER = (
    r"(?:outputs?|answer|labels?|class(?:ification| name)?|category|categories|prediction|result|response|choice|option"
    r"|guess|verdict|name|object|subject)"
)
_WHICH = r"(?:final|correct|best|right|predicted|most likely|likely|matching|chosen|single)"
_PICTURE = r"(?:images?|pictures?|photo(?:graph)?s?|query|input|words?|object|item|description|one)"
_BE = r"(?:is|are|was|would be|should be|must be|could be|can be|may be|might be|seems to be|appears to be|looks like)"
_SURELY = r"(?:most likely|very likely|probably|likely|definitely|clearly|certainly|surely|perhaps|maybe|possibly)"
_MARK = r"(?::|=>|->|=|\u2192|-|\u2013|\u2014)"
_OF_THIS = rf"(?: (?:for|of|in|to)(?: (?:this|the|that|these|those|given|your))+(?: {_PICTURE})?)?"

LEAD_IN = re.compile(
    # "Sure!", "Based on the words,"
    r"^(?:(?:sure|ok|okay|yes|certainly|of course|absolutely|well)\b[\s,.!:\u2013\u2014-]*)?"
    rf"(?:(?:based on|given|according to|from|looking at) (?:the|this|these|those|your)[^,:.]{{0,60}},\s*)?"
    # "I think", "I would say that"
    r"(?:(?:i think|i believe|i guess|i would say|i'd say|i would choose|i choose|i pick|i would go with|i'd go with)"
    r"(?: that)?\s*:?\s*)?"
    rf"(?:{_SURELY},?\s+)?(?:here(?:'s| is)\s+)?"
    # "The answer is:", "Final answer:", "Category -", "Label for this image:"
    rf"(?:(?:the |my |your |an? )?(?:{_WHICH}\s+)*"
    rf"{_ANSWER}{_OF_THIS}[*\"'`\s]*(?:{_MARK}|{_BE}\b\s*:?|\s)[*\"'`\s]*)?"
    # "This is", "It's", "The image shows", "This looks like"
    rf"(?:(?:this|it|that|there|(?:the|this) {_PICTURE})"
    rf"(?:'s\b|\s+(?:{_BE}|shows|depicts|contains|describes)\b)\s*:?\s*)?"
    rf"(?:{_SURELY}\s+)?"
    r"(?:(?:an?|the)\s+(?=\S))?"
)
"""What may lead in an answer, in folded text with straight apostrophes. It may match nothing."""

LIST_MARK = re.compile(
    r"^\s*(?:[-*\u2022\u2023\u00b7>]\s+|[(\[]?(?:\d{1,3}|[a-z])[.)\]:]\s*[.)]?\s+|\(?\d{1,3}\)\s*)", re.I
)

_HEADING = re.compile(r"^\s*#{1,6}[ \t]+(?=\S)")
_FENCE = re.compile(r"^\s*(?:```|~~~)[ \t]*[\w+-]*[ \t]*$")
_LANGUAGE = re.compile(r"^(?:json|text|txt|plaintext|label|answer)\s+", re.I)
_TAGGED = re.compile(
    rf"<\s*((?:final[_ -]?)?{_ANSWER})\s*>(.*?)(?:<\s*/\s*\1\s*>|$)"
    r"|\\boxed\s*\{\s*(?:\\\w+\s*\{)?([^{}]*)\}",
    re.IGNORECASE | re.DOTALL,
)
_MARKUP = re.compile(r"^<\s*(b|strong|em|i|u|code|p|span|mark)\s*>\s*(.*?)\s*<\s*/\s*\1\s*>[\s.!]*$", re.IGNORECASE)
_KEYS = re.compile(
    rf"^(?:(?:final|correct|best|predicted|image|object|the|my)?(?:{_ANSWER}|animal|thing|value|text|content|species))$"
)
_LED_JSON = re.compile(r"[^\n{}\[\]]{1,100}?[:\s]\s*+(?=\{)")
_PAIR = re.compile(r"""["']?([\w -]{1,40}?)["']?\s*:\s*(?:"([^"]*)"|'([^']*)')""")
_NEGATION = re.compile(r"\b(?:not|no|non|never|none|neither|nor|cannot|without|except|but not|unlike)\b|n't\b")
_EXCLUDED = re.compile(
    r"^[\s\"'`*_)\]}>\u2019\u201d\u00bb]*(?:"
    r"(?:[?:,;.!-]|\u2013|\u2014)*\s*(?:no|nope|false|wrong|incorrect|excluded|impossible)\s*(?:[.,;:!?]|$)"
    r"|\??\s*(?:not|never)\b"
    r"|(?:is|are|was|does|do|did|can|could|would|should|must|has|seems?|looks?|appears?)"
    r"(?:n't\b|\s+(?:(?:certainly|definitely|probably|clearly|most|likely|to|be|also|really|very|quite)\s+)*"
    r"(?:not|never|no|unlikely|wrong|incorrect|impossible|excluded|ruled|absent)\b)"
    r"|can't\b|cannot\b|won't\b)"
)


class Wrapped(NamedTuple):
    """What was inside a form. settled: the form says where the answer is, so nothing around it counts."""

    texts: tuple[str, ...]
    settled: bool


def without_heading(answer: str) -> str:
    """An answer that begins with the marks of a Markdown heading, without them."""
    return _HEADING.sub("", answer)


def straight(text: str) -> str:
    """Folded, with straight apostrophes: "It\u2019s" reads like "It's"."""
    return fold(text).replace("\u2019", "'").replace("\u02bc", "'").replace("`s ", "'s ")


def negates(text: str) -> bool:
    """Whether a folded text says that something is not so."""
    return _NEGATION.search(text) is not None


def excludes(rest: str) -> bool:
    """Whether what follows a word in a folded text takes it back: "dog is not ..", "dog? No", "dog: false"."""
    return _EXCLUDED.match(rest) is not None


def unwrap(answer: str) -> Wrapped:
    """The answer inside fences, JSON or tags, or its lines as they are, those that hold nothing left out."""
    text = "\n".join(_unfenced(answer[:MAX_READ].splitlines()))
    tagged = [(one[1] or one[2]).strip() for one in _TAGGED.findall(text)]
    if tagged:
        return Wrapped(tuple(dict.fromkeys(tagged)), True)
    for place in _json_places(text):
        found = _from_json(text[place:])
        if found is not None:
            return Wrapped(found, True)
    return Wrapped(tuple(_without_markup(line.strip()) for line in text.splitlines() if line.strip()), False)


def _unfenced(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if _FENCE.match(line):
            continue
        bare = line.strip()
        mark = bare[:3]
        yield _LANGUAGE.sub("", bare[3:].strip()).removesuffix(mark).rstrip() if mark in ("```", "~~~") else line


def _without_markup(line: str) -> str:
    for _ in range(3):
        found = _MARKUP.match(line)
        if not found:
            break
        line = found[2]
    return line


def _json_places(text: str) -> list[int]:
    """Where JSON may begin: at the start, or after a lead-in of one line."""
    place = len(text) - len(text.lstrip())
    places = [place] if text[place : place + 1] in ("{", "[") else []
    found = _LED_JSON.match(text, place)
    return [*places, found.end()] if found and not places else places


def _from_json(text: str) -> tuple[str, ...] | None:
    """The answers of a JSON document at the start of a text; () where it holds none, None where it is no JSON."""
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return _from_pairs(text)
    return tuple(dict.fromkeys(_answers(document, 3)))


def _from_pairs(text: str) -> tuple[str, ...] | None:
    """The same for what is nearly JSON: single quotes, no quotes around keys, cut off behind the answer."""
    if text[0] == "[":
        items = re.fullmatch(r"\[\s*'([^'\]]*)'\s*\]?\s*", text)
        return (items[1],) if items else None
    pairs = [(key, one or other) for key, one, other in _PAIR.findall(text)]
    return tuple(_of_mapping(dict(pairs), 1)) if pairs else None


def _answers(document: Any, depth: int) -> list[str]:
    if isinstance(document, str):
        return [document]
    if depth and isinstance(document, list):
        return [text for one in document[:20] for text in _answers(one, depth - 1)]
    if depth and isinstance(document, Mapping):
        return _of_mapping(document, depth)
    return []


def _of_mapping(document: Mapping[str, Any], depth: int) -> list[str]:
    """What stands under a key that means an answer, or under the only key there is."""
    named = {key: value for key, value in document.items() if _KEYS.match(_key(key))}
    if not named and len(document) == 1 and not any(negates(straight(key)) for key in document):
        named = dict(document)
    return [text for value in named.values() for text in _answers(value, depth - 1)]


def _key(key: str) -> str:
    return re.sub(r"[^a-z]", "", fold(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)))
