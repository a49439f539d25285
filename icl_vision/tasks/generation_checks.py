"""What a user may pass to an image generator, and the messages where it cannot work.

Knows: arguments. Refuses to know: what they are used for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from icl_vision.contracts import Tokenizer
from icl_vision.decoding.drawing import Query
from icl_vision.errors import UsageError
from icl_vision.pyramid import TokenPyramid


def named(query: Query) -> tuple[str, int]:
    """The text and the number that a query's name holds."""
    return str(query.condition), int(query.name.rpartition("#")[2])


def is_list_of_pyramids(images: object) -> bool:
    """Whether examples are given as words."""
    return isinstance(images, Sequence) and len(images) > 0 and isinstance(images[0], TokenPyramid)


def as_texts(texts: object) -> list[str]:
    """The texts as a list, stripped.

    Raises:
        UsageError: not a sequence, none, or something else than one line of text among them.
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
    if not found:
        raise UsageError("there is nothing to draw: give at least one text")
    return [text.strip() for text in found]


def drawing_tokenizer(tokenizer: str | os.PathLike[str] | Tokenizer) -> Tokenizer:
    """The tokenizer of that name, or the one given.

    Raises:
        UsageError: no tokenizer, or one that cannot decode.
    """
    found: Tokenizer
    if isinstance(tokenizer, str | os.PathLike):
        from icl_vision.tokenizers import ImageTokenizer

        found = ImageTokenizer.from_pretrained(os.fspath(tokenizer))
    elif not callable(getattr(tokenizer, "decode", None)):
        raise UsageError(f"tokenizer must be a name, a folder or an ImageTokenizer; got {type(tokenizer).__name__}")
    else:
        found = tokenizer
    if not found.can_decode:
        raise UsageError(f"the tokenizer {found.name!r} cannot decode words into pictures; use spae-digits-32")
    return found
