"""From what an LLM wrote to an answer: cut, bare, in the spelling that the examples use.

Knows: line ends, marks around an answer, yes and no, numbers as words and as digits. Refuses to know: pictures, LLMs,
which of several answers is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from icl_vision.asking.answer_forms import EDGES, NEXT_ONE, unwrap
from icl_vision.prompting.labels import fold

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
"""Numbers as words, each at its own place."""

COLOURS = (
    "white", "black", "red", "blue", "green", "yellow", "brown", "gray", "orange", "pink", "purple",
)  # fmt: skip
"""The basic colour terms of English (Berlin and Kay 1969), most usual in photographs first."""

YES, NO = "yes", "no"
_YES = frozenset(("yes", "yeah", "yep", "yup", "true"))
_NO = frozenset(("no", "nope", "false"))

_FORMS = {word: str(value) for value, word in enumerate(NUMBERS)} | {"none": "0"}
_SENTENCE_END = re.compile(r"(?<=[a-z0-9\"')])[.!?](?=\s|$)", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_WHETHER = re.compile(
    r"^(?:is|are|was|were|am|do|does|did|can|could|has|have|had|will|would|should|may|might|must)(?:n't)?\b"
)
_COUNT = re.compile(r"\bhow many\b|\bwhat (?:is the )?number of\b|\bcount the\b")
_COLOUR = re.compile(r"\b(?:what|which)\b[^?]*\bcolou?rs?\b|^colou?r\b")
_TEXT = re.compile(
    r"\bwh(?:at|ich)\b[^?]*\b(?:says?|said|reads?|written|spells?|spelled|printed|engraved)\b"
    r"|\b(?:what|which|the) (?:text|letters?|words?|writing|inscription)\b|^read\b"
)
_ALL_TEXT = re.compile(r"\b(?:it|(?:the|this) (?:sign|text|writing|inscription|picture|image|photo|photograph))\b")
_OR = re.compile(r"\bor\b")


def kind_of(question: str | None) -> str:
    """What kind of answer an English question asks for: "whether", "number", "colour", or "open" for any other."""
    text = fold(question or "")
    if _COUNT.search(text):
        return "number"
    if _COLOUR.search(text):
        return "colour"
    if _WHETHER.match(text) and not _OR.search(text):
        return "whether"
    return "open"


def asks_for_text(question: str | None) -> bool:
    """Whether an English question asks for text that stands in the picture, as "what does it say?" does: by its wording
    alone, so that "what brand is it?", which a thing's looks may answer as well, does not."""
    return kind_of(question) == "open" and _TEXT.search(fold(question or "")) is not None


def asks_for_all_text(question: str | None) -> bool:
    """Whether a question that asks for text names no thing that it stands on: "what does it say?", "read the sign"."""
    return _ALL_TEXT.search(fold(question or "")) is not None


def is_number(text: str) -> bool:
    """Whether an answer is a number, as a word or in digits."""
    return normal_form(text).isdecimal()


def normal_form(text: str) -> str:
    """The form in which two answers count as the same: folded, without marks and articles, numbers in digits, every
    yes and no alike."""
    bare = _ARTICLE.sub("", fold(text).strip(EDGES)).strip(EDGES)
    if bare in _YES:
        return YES
    if bare in _NO:
        return NO
    return _FORMS.get(bare, bare)


def first_line(text: str, most: int) -> str:
    """The first line that holds anything, without spaces and quotes around it; of a caption all that is wanted.

    most: characters; a longer line is cut after a word.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) > 1 and line[0] in "\"'\u201c" and line[-1] in "\"'\u201d":
        line = line[1:-1].strip()
    line = _printable(line)
    return line if len(line) <= most else line[: most + 1].rsplit(" ", 1)[0][:most]


def short_answer(text: str, known: Iterable[str] = (), *, most: int) -> str:
    """The answer in what an LLM wrote: the first line that is one, its first sentence, without marks around it.

    known: answers whose spelling is taken where the same is meant: "two" for "2" where the examples say "two".
    most: characters; something longer is no answer, and "" is given.
    """
    lines = [line for line in unwrap(text).texts if line.strip() and not NEXT_ONE.match(line)]
    line = _printable(lines[0]) if lines else ""
    if line.casefold().startswith("a:"):
        line = line[2:].strip()  # a chat that answers in the prompt's own form
    bare = _SENTENCE_END.split(line, maxsplit=1)[0].strip(EDGES)
    return in_known_spelling(bare, known) if len(bare) <= most else ""


def in_known_spelling(answer: str, known: Iterable[str]) -> str:
    """An answer as the known ones spell it; yes and no plain; else as it is."""
    form = normal_form(answer)
    for text in known:
        if normal_form(text) == form:
            return text
    return form if form in (YES, NO) else answer


def distinct(answers: Iterable[str]) -> list[str]:
    """Each answer once, in its first spelling; empty ones left out."""
    seen: dict[str, str] = {}
    for answer in answers:
        form = normal_form(answer)
        if form:
            seen.setdefault(form, answer)
    return list(seen.values())


def numbers_like(answers: Sequence[str]) -> list[str]:
    """Numbers that could be answered, up to twelve, as words where the known answers write words, else in digits."""
    in_words = any(fold(answer) in _FORMS for answer in answers)
    in_digits = any(answer.strip().isdecimal() for answer in answers)
    if in_words and not in_digits:
        return list(NUMBERS[1:13])
    return [str(value) for value in range(13)] if in_digits else list(NUMBERS[1:13])


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()
