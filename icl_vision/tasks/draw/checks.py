"""What a user may pass to a task that draws, and the messages where it cannot work.

Knows: arguments. Refuses to know: what they are used for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from icl_vision.contracts import Tokenizer
from icl_vision.drawing.drawing import Query
from icl_vision.errors import UsageError
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed

TEXT_CHARACTERS = 300
"""A longer text is refused: long enough for a sentence, and every example shows its text once for each segment."""


def named(query: Query) -> tuple[str, int]:
    """The text and the number that a query's name holds."""
    return str(query.condition), int(query.name.rpartition("#")[2])


def is_list_of_pyramids(images: object) -> bool:
    """Whether examples are given as words."""
    return isinstance(images, Sequence) and len(images) > 0 and isinstance(images[0], TokenPyramid)


def as_texts(texts: object) -> list[str]:
    """The texts as a list, stripped.

    Raises:
        UsageError: not a sequence, none, or something else than one line of at most ``TEXT_CHARACTERS`` among them.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise UsageError(f"texts must be a sequence of strings; got a value of type {type(texts).__name__}")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f"a text must be a string that is not empty; texts[{place}] is {text!r}")
        if len(text.strip().splitlines()) > 1:
            # A second line would read as an example.
            raise UsageError(f"a text must be one line; texts[{place}] is {text[:80]!r}")
        characters = len(composed(text.strip()))
        if characters > TEXT_CHARACTERS:
            raise UsageError(
                f"a text may have {TEXT_CHARACTERS} characters; texts[{place}] has {characters}: {text[:80]!r}"
            )
    if not found:
        raise UsageError("there is nothing to draw: give at least one text")
    return [text.strip() for text in found]


def drawing_tokenizer(given: str | os.PathLike[str] | Tokenizer) -> Tokenizer:
    """The tokenizer of that name, or the one given.

    Raises:
        UsageError: no tokenizer, or one that cannot decode words.
    """
    from icl_vision.tokenizers import ImageTokenizer

    found = ImageTokenizer.from_pretrained(os.fspath(given)) if isinstance(given, str | os.PathLike) else given
    if not isinstance(found, Tokenizer):
        raise UsageError(f"tokenizer must be a name, a folder or a tokenizer; got {type(given).__name__}")
    if not found.can_decode or found.vocabulary is None:
        raise UsageError(
            f"the tokenizer {found.name!r} cannot decode words into pictures; use spae-digits-32 for digits, "
            "spae-photo-128 for photographs"
        )
    return found
