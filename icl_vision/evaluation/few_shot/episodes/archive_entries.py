"""One object of a public archive's JSON file, read with suspicion.

Knows: which file and place a field stands at, and that an image must lie inside its folder.
Refuses to know: which archive it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.files.reading import read_json


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a JSON file. file, place (from 1): where it stands. fields: the object.

    Every method raises UsageError, naming file, place and key, where a field is missing or of another kind.
    """

    file: Path
    place: int
    fields: Mapping[str, Any]

    def wrong(self, what: str) -> UsageError:
        """An error about this object, to be raised."""
        return UsageError(f"{str(self.file)!r}, entry {self.place}: {what}")

    @property
    def number(self) -> int:
        """The archive's own number, else the place."""
        own = self.fields.get("question_id", self.fields.get("id"))
        return int(own) if isinstance(own, int | str) and str(own).isdecimal() else self.place

    def text(self, key: str) -> str:
        """A field that is a text and not empty."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{key!r} must be a text; got {value!r}")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A field that is a text, or a list of one or more."""
        value = self.fields.get(key)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values or not all(isinstance(value, str) and value for value in values):
            raise self.wrong(f"{key!r} must be a text or a list of them; got {value!r}")
        return tuple(values)

    def answers(self) -> tuple[str, ...]:
        """``answer`` as texts: VL-ICL also has numbers, and a list where the right one depends on the query."""
        value = self.fields.get("answer")
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(value, str | int | float) and str(value).strip() for value in values):
            raise self.wrong(f"'answer' must be a text, a number or a list of them; got {value!r}")
        return tuple(str(value).strip() for value in values)

    def images(self, key: str, root: Path) -> tuple[str, ...]:
        """A field that is one or more image paths inside ``root``."""
        return tuple(self._image(key, path, root) for path in self.texts(key))

    def _image(self, key: str, path: str, root: Path) -> str:
        """``path`` with forward slashes; refused where it leaves ``root`` or is no file."""
        clean = PurePosixPath(path.replace("\\", "/"))
        outside = clean.is_absolute() or ".." in clean.parts or any(sign in path for sign in ":\0")
        if outside or not (root / clean).resolve().is_relative_to(root.resolve()):
            raise self.wrong(f"{key!r} leads outside the archive: {path!r}")
        if not os.path.isfile(root / clean):
            raise self.wrong(f"{key!r} names {path!r}, which is no file in {str(root)!r}")
        return str(clean)

    def shown(self) -> int:
        """How many examples it has: ``image_1``, ``image_2``, ... without a gap."""
        found = [key for key in self.fields if re.fullmatch(r"image_\d+", key)]
        for place in range(1, len(found) + 1):
            if f"image_{place}" not in self.fields:
                raise self.wrong(f"it has {len(found)} images of examples, but no 'image_{place}'")
        if not found:
            raise self.wrong("it has no 'image_1'")
        return len(found)

    def parts(self) -> list[Entry]:
        """Itself, or its "same" and "diff" halves (VL-ICL's ``matching_mi``)."""
        halves = [self.fields[key] for key in ("same", "diff") if isinstance(self.fields.get(key), dict)]
        return [Entry(self.file, self.place, half) for half in halves] or [self]


def read_entries(file: Path) -> list[Entry]:
    """Every object of a JSON file that holds a list of them.

    Raises:
        UsageError: not readable, not JSON, or of another form.
    """
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(file)!r} cannot be read as JSON: {error}") from error
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise UsageError(f"{str(file)!r} must be a list of objects; got {type(document).__name__}")
    return [Entry(file, place, row) for place, row in enumerate(document, start=1)]
