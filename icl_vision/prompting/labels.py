"""Which strings may enter a prompt as a label or as an image's words.

Knows: characters that could break a prompt's lines or hide in them. Refuses to know: templates,
LLMs and how an answer is read (``classify.parsing`` uses ``fold`` for that).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from icl_vision.errors import LabelError, PromptError
from icl_vision.spelling import composed

MAX_LABEL_CHARS = 80
"""Longest label; the longest of the 1,000 ImageNet first names has 33 characters."""

# Explicit embeddings, overrides and isolates: they change the order in which a person reads the text.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def fold(text: str) -> str:
    """The form in which two labels count as the same: compatibility characters, case, ``_`` and spaces made equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())


def _describe(character: str) -> str:
    # These two kinds have no names of their own in Unicode.
    kind = "a lone surrogate" if unicodedata.category(character) == "Cs" else "a control character"
    return f"U+{ord(character):04X} ({unicodedata.name(character, kind)})"


def forbidden_character(text: str, *, invisible: bool = False, breaks: str = "\n\t") -> str | None:
    """The first character that must not be in a prompt, described, or None.

    Control characters other than ``breaks``, lone surrogates, line and paragraph separators and
    bidirectional controls always; with ``invisible`` every format character (zero-width ones too).
    """
    if text.isascii() and text.translate(dict.fromkeys(map(ord, breaks))).isprintable():
        return None  # nearly every prompt of thousands of words: no look at each character
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp") and character not in breaks:
            return _describe(character)
        if character in _BIDI or (invisible and category == "Cf"):
            return _describe(character)
    return None


def check_label(label: object, literals: Iterable[str] = ()) -> str:
    """A label that may enter a prompt, as a plain ``str``.

    Args:
        label: what the user gave.
        literals: fixed words of the template, which the label must not contain (any case, whole words).

    Raises:
        LabelError: not a string, empty, longer than ``MAX_LABEL_CHARS``, spaces at its ends, control,
            invisible or direction-changing characters, or one of ``literals`` inside.
    """
    if not isinstance(label, str):
        raise LabelError(f"a label must be a string; got {label!r} ({type(label).__name__}): give str(label)")
    label = str.__str__(label)
    if not label.strip():
        raise LabelError(f"a label must not be empty; got {label!r}")
    character = forbidden_character(label, invisible=True, breaks="")
    if character:
        raise LabelError(
            f"the label {_short(label)} contains {character}; control, invisible and direction-changing characters "
            "are refused: remove it"
        )
    if label != label.strip():
        raise LabelError(f"the label {_short(label)} has spaces at its ends: give label.strip()")
    spelled = label if label.isascii() else composed(label)
    characters = len(spelled)
    if characters > MAX_LABEL_CHARS:
        raise LabelError(
            f"the label {_short(label)} has {characters} characters; at most {MAX_LABEL_CHARS} are allowed: shorten it"
        )
    for literal in literals:
        if _contains(spelled, literal if literal.isascii() else composed(literal)):
            raise LabelError(
                f"the label {_short(label)} contains {literal!r}, which the template itself uses to separate its "
                "parts: rename the label"
            )
    return label


def check_labels(labels: Sequence[object], literals: Iterable[str] = ()) -> tuple[str, ...]:
    """All labels of an episode, checked one by one and against each other.

    Raises:
        LabelError: as ``check_label``; a bare string; no label at all; two labels that differ only in
            case, underscores, spaces or compatibility characters, so that an answer could not tell them apart.
    """
    if isinstance(labels, str | bytes):
        raise LabelError(f"labels must be a list of strings; got the single value {labels!r}: put it into a list")
    literals = tuple(literals)
    checked = tuple(check_label(label, literals) for label in labels)
    if not checked:
        raise LabelError("labels must hold at least one label; got none")
    seen: dict[str, str] = {}
    for label in checked:
        other = seen.get(fold(label))
        if other == label:
            raise LabelError(f"the label {label!r} is given twice: give each label once")
        if other is not None:
            raise LabelError(
                f"the labels {other!r} and {label!r} are the same up to case, underscores and spaces; "
                "an answer could not tell them apart: rename one"
            )
        seen[fold(label)] = label
    return checked


def check_words(words: object) -> str:
    """An image's words that may enter a prompt, as a plain ``str``.

    A line break is allowed only between rows of equal length, which is what ASCII art looks like; anything
    else with line breaks could pass for lines of the prompt itself.

    Raises:
        PromptError: not a string, a forbidden character, or lines of different lengths.
    """
    if not isinstance(words, str):
        raise PromptError(
            f"the words of an image must be one string; got {type(words).__name__}: join them, or use tokenizer.to_text"
        )
    words = str.__str__(words)
    character = forbidden_character(words, breaks="\n")
    if character:
        raise PromptError(f"the words {_short(words)} contain {character}: remove it")
    if "\n" in words and len({len(row) for row in composed(words).split("\n")}) > 1:
        raise PromptError(
            f"the words {_short(words)} contain a line break; only ASCII art, rows of equal length, may: "
            "join words with spaces"
        )
    return words


def check_line(text: object, what: str, most: int, literals: Iterable[str] = ()) -> str:
    """A text of a user that may enter a prompt as part of one line: a question, an answer, a caption.

    With no line break in it, it cannot end the block of the prompt in which it stands.

    Args:
        text: what the user gave.
        what: what it is, for messages: "a question".
        most: characters it may have.
        literals: fixed words of the template, as of ``check_label``.

    Raises:
        PromptError: not a string, empty, longer than ``most``, spaces at its ends, control, invisible or
            direction-changing characters, or one of ``literals`` inside.
    """
    if not isinstance(text, str):
        raise PromptError(f"{what} must be a string; got {text!r} ({type(text).__name__})")
    text = str.__str__(text)
    if not text.strip():
        raise PromptError(f"{what} must not be empty; got {text!r}")
    character = forbidden_character(text, invisible=True, breaks="")
    if character:
        raise PromptError(
            f"{what} must be one line without control, invisible and direction-changing characters; {_short(text)} "
            f"contains {character}: remove it"
        )
    if text != text.strip():
        raise PromptError(f"{what} must not have spaces at its ends; got {_short(text)}: give its strip()")
    spelled = text if text.isascii() else composed(text)
    if len(spelled) > most:
        raise PromptError(f"{what} may have {most} characters; {_short(text)} has {len(spelled)}: shorten it")
    for literal in literals:
        if _contains(spelled, literal if literal.isascii() else composed(literal)):
            raise PromptError(
                f"{what} must not contain {literal!r}, which the template itself uses to separate its parts; got "
                f"{_short(text)}: word it otherwise"
            )
    return text


def check_texts(texts: Iterable[object]) -> list[str]:
    """Several texts that may enter a prompt, each as ``check_words`` has it.

    Raises:
        PromptError: as ``check_words``.
    """
    return [check_words(text) for text in texts]


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def _contains(label: str, literal: str) -> bool:
    # Whole words only: the fixed text "is a" must not refuse the label "iris armeria".
    start = r"(?<!\w)" if literal[0].isalnum() else ""
    end = r"(?!\w)" if literal[-1].isalnum() else ""
    return re.search(start + re.escape(literal) + end, label, re.IGNORECASE) is not None
