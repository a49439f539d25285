"""How numbers of things read in what a person is told.

Knows: one and many. Refuses to know: what is counted.
"""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``number`` with its noun: "1 picture", "2 pictures", "1,200 pictures"; ``many`` where it is not ``one`` + "s"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
