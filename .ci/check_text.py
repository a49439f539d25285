"""Checks the text files named on the command line: LF line endings, no trailing spaces, exactly one newline at the end;
and in Python that whoever tells mypy or ruff to look away says why, in words on the same line.

Knows: bytes, lines, and what a comment of Python is. Refuses to know: whether a reason is a good one. Exit 1 and one
line a fault; changes nothing.
"""

import io
import re
import sys
import tokenize
from pathlib import Path

# What mypy and ruff read in a comment; whatever else stands there is for people.
_LOOKS_AWAY = re.compile(
    r"#\s*(?:type:\s*ignore(?:\s*\[[^\]]*\])?|(?:ruff:\s*)?noqa(?::\s*[A-Z]+\d+(?:[\s,]+[A-Z]+\d+)*)?)"
)
_A_WORD = re.compile(r"[^\W\d_]{2,}")


def faults(path: Path) -> list[str]:
    data = path.read_bytes()
    if b"\0" in data or not data:
        return []
    found = []
    if b"\r" in data:
        found.append(f"{path}: has carriage returns; lines end in LF here")
    if not data.endswith(b"\n") or data.endswith(b"\n\n"):
        found.append(f"{path}: must end in exactly one newline")
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line != line.rstrip():
            found.append(f"{path}:{number}: trailing spaces")
    if path.suffix == ".py":
        found += [
            f"{path}:{number}: {text!r} gives no reason; say why on the line" for number, text in unreasoned(data)
        ]
    return found


def unreasoned(source: bytes) -> list[tuple[int, str]]:
    """Lines of Python that tell mypy or ruff to look away without a word of why: (line from 1, the comment)."""
    return [
        (token.start[0], token.string)
        for token in tokenize.tokenize(io.BytesIO(source).readline)
        if token.type == tokenize.COMMENT
        and _LOOKS_AWAY.search(token.string)
        and not _A_WORD.search(_LOOKS_AWAY.sub(" ", token.string))
    ]


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in faults(Path(name))]
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(bool(lines))
