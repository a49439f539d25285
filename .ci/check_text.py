"""Checks the text files named on the command line: LF line endings, no trailing spaces, exactly one newline at the end.

Knows: bytes and lines. Refuses to know: any language. Exit 1 and one line a fault; changes nothing.
"""

import sys
from pathlib import Path


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
    return found


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in faults(Path(name))]
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(bool(lines))
