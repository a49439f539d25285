"""One text in several spellings: accents as characters of their own, or one with their letter.

Knows: Unicode's composed form. Refuses to know: which texts need it.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path


def composed(text: str) -> str:
    """A text in composed characters (NFC): folders of some file systems spell "é" as an "e" and an accent, which an
    LLM reads as another text."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def by_name(path: Path) -> tuple[list[str], Path]:
    """A key to sort paths by: as people spell them, whichever characters a file system keeps them in."""
    return [composed(part) for part in path.parts], path
