"""The 14 settings of the few-shot tables of the Frozen, LQAE and SPAE papers, and any others by name.

Knows: ways, inner shots, repeats, task induction, and their short names. Refuses to know: images, prompts, answers.

A table has seven columns for 2-way and seven for 5-way (LQAE, arXiv 2302.00902, table 2; SPAE, arXiv 2306.17842,
tables 1 and 2): without task induction once, with it for 1, 3 and 5 inner shots, and for 1, 3 and 5 repeats of a single
shot. "repeats r" shows every example r + 1 times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from icl_vision import checks
from icl_vision.errors import UsageError

_ID = re.compile(r"(?:(?P<ways>\d+)w-)?(?P<shots>\d+)s-(?P<repeats>\d+)r-(?P<induction>[in])")

COLUMNS: tuple[tuple[bool, int, int], ...] = (
    (False, 1, 0),
    (True, 1, 0),
    (True, 3, 0),
    (True, 5, 0),
    (True, 1, 1),
    (True, 1, 3),
    (True, 1, 5),
)
"""(task induction, inner shots, repeats) of the papers' seven columns, in their order."""

WAYS = (2, 5)
"""The ways of the papers' tables."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One cell of the table: how many classes, how many examples of each, how often shown, announced or not.

    ways: classes, 2 or more. shots: inner shots, examples of each class, 1 or more. repeats: how many times more each
    example is shown, 0 or more. induction: the prompt begins by naming the labels (task induction).

    >>> Setting(5, 1).id
    '5w-1s-0r-i'
    """

    ways: int
    shots: int
    repeats: int = 0
    induction: bool = True

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("repeats", 0)):
            checks.count(f"{name} of a setting", getattr(self, name), least=least)

    @property
    def id(self) -> str:
        """``5w-1s-0r-i``: 5 ways, 1 inner shot, 0 repeats, with task induction (``-n``: without)."""
        return f"{self.ways}w-{self.column}"

    @property
    def column(self) -> str:
        """The id without the ways: which of the columns it is."""
        return f"{self.shots}s-{self.repeats}r-{'i' if self.induction else 'n'}"

    @property
    def images(self) -> int:
        """Images in a prompt: ways x shots x (repeats + 1) examples and the query."""
        return self.ways * self.shots * (self.repeats + 1) + 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {id, ways, shots, repeats, induction}."""
        return {
            "id": self.id,
            "ways": self.ways,
            "shots": self.shots,
            "repeats": self.repeats,
            "induction": self.induction,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Setting:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: a field is missing or has a value that cannot work.
        """
        try:
            return cls(document["ways"], document["shots"], document["repeats"], bool(document["induction"]))
        except KeyError as error:
            raise UsageError(f"not a setting: {error} is missing in {dict(document)!r}") from error

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The setting of an ``id``.

        Raises:
            UsageError: not an id.
        """
        match = _ID.fullmatch(text.strip())
        if match is None or match["ways"] is None:
            raise UsageError(f"{text!r} is no setting; write WAYSw-SHOTSs-REPEATSr-i (or -n), as in '5w-1s-0r-i'")
        return cls(int(match["ways"]), int(match["shots"]), int(match["repeats"]), match["induction"] == "i")

    def __str__(self) -> str:
        return self.id


def settings_of(ways: int) -> tuple[Setting, ...]:
    """The seven columns for one number of ways, in the papers' order."""
    return tuple(Setting(ways, shots, repeats, induction) for induction, shots, repeats in COLUMNS)


SETTINGS: tuple[Setting, ...] = tuple(setting for ways in WAYS for setting in settings_of(ways))
"""The 14 settings of the papers, in their order: seven 2-way, seven 5-way."""


def parse_settings(texts: Iterable[str], ways: Iterable[int] = WAYS) -> tuple[Setting, ...]:
    """The settings that a user names.

    Args:
        texts: "all" (the seven columns), ids ("5w-1s-0r-i"), or columns without ways ("1s-0r-i"), which stand for one
            setting per number of ways.
        ways: the numbers of ways of "all" and of columns; an id with other ways than these is refused.

    Returns:
        The settings, each once: ways in the order given, inside them the papers' columns first, in their order, then
        others in the order named.

    Raises:
        UsageError: a text that names no setting, none at all, or ways that are no use.
    """
    numbers = tuple(dict.fromkeys(ways))
    if not numbers:
        raise UsageError("give at least one number of ways, for instance 2 and 5")
    settings: list[Setting] = []
    for text in texts:
        name = text.strip()
        if name == "all":
            settings.extend(setting for number in numbers for setting in settings_of(number))
            continue
        match = _ID.fullmatch(name)
        if match is None:
            raise UsageError(
                f"{text!r} is no setting; write 'all', WAYSw-SHOTSs-REPEATSr-i as in '5w-1s-0r-i' (-n: without task "
                "induction), or a column as in '1s-0r-i'"
            )
        if match["ways"] is not None and int(match["ways"]) not in numbers:
            listed = ", ".join(map(str, numbers))
            raise UsageError(f"the setting {name!r} has {match['ways']} ways, but the run has {listed}: change ways")
        for number in (int(match["ways"]),) if match["ways"] else numbers:
            settings.append(Setting(number, int(match["shots"]), int(match["repeats"]), match["induction"] == "i"))
    if not settings:
        raise UsageError("give at least one setting, or 'all'")
    columns = [Setting(2, shots, repeats, induction).column for induction, shots, repeats in COLUMNS]

    def order(setting: Setting) -> tuple[int, int]:
        known = columns.index(setting.column) if setting.column in columns else len(columns)
        return numbers.index(setting.ways), known

    return tuple(sorted(dict.fromkeys(settings), key=order))
