"""The data of a benchmark page: results.json checked, and a journal of thousands of items packed small.

Knows: the form of a few-shot run's results and items, and how a page's script wants them. Refuses to know: HTML.

Packed, so that a page of thousands of episodes opens at once: an index of numbers for every item (which episode,
setting and class; what each row answered; whether that was right), which filters and counts need, and blocks of
``BLOCK`` items with all else (words, prompts, answers, probabilities), which are unpacked only when somebody looks.
Everything is zlib and base64, which the browser unpacks by itself.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from icl_vision.errors import RunError
from icl_vision.files.reading import read_json
from icl_vision.viz.few_shot_page import HUES

BLOCK = 32
"""Items packed together: small enough to unpack in a few milliseconds, large enough to share their words."""

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Results:
    """results.json of a few-shot run: its settings and rows in order, and cells and means by their names."""

    config: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    cells: Mapping[tuple[str, str], Mapping[str, Any]]
    means: Mapping[tuple[str, int], float | None]
    document: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Of a run folder.

        Raises:
            RunError: none there, unreadable, of another kind or format, or a field is missing.
        """
        target = folder / "results.json"
        try:
            document = read_json(target, finite=False)
        except FileNotFoundError:
            raise RunError(
                f"{str(folder)!r} has no results.json: no run, or one that is not finished; finish it with --resume"
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"{str(target)!r} cannot be read: {error}") from error
        kind = (document.get("kind"), document.get("format_version")) if isinstance(document, dict) else None
        if kind != ("few-shot", FORMAT_VERSION):
            raise RunError(
                f"{str(target)!r} holds {kind}, not results of `icl-vision eval few-shot` (format {FORMAT_VERSION})"
            )
        try:
            return cls(
                document["config"],
                [setting for setting in document["settings"] if (setting["id"], setting["ways"], setting["shots"])],
                [row for row in document["rows"] if (row["name"], row["kind"])],
                {(cell["row"], cell["setting"]): cell for cell in document["cells"]},
                {(mean["row"], mean["ways"]): mean["mean"] for mean in document["means"]},
                document,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{str(target)!r} lacks what a page needs: {type(error).__name__}: {error}") from error

    def accuracy(self, row: str, setting: str) -> Mapping[str, Any] | None:
        """The accuracy object of a cell, None where there is none or nothing was counted."""
        accuracy = self.cells.get((row, setting), {}).get("accuracy")
        return accuracy if accuracy and accuracy.get("accuracy") is not None else None


class Numbers:
    """Numbers for texts, in the order they are first met."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for text in texts:
            self[text]

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)


@dataclass
class Packed:
    """What is known once every item was packed. usage: summed by setting, with ``items``, how many had any."""

    settings: Numbers
    rows: Numbers
    labels: Numbers
    images: Numbers
    columns: dict[str, array[int]] = field(default_factory=dict)
    items: int = 0
    usage: dict[str, dict[str, int]] = field(default_factory=dict)

    def index(self) -> str:
        """The index: a JSON header and its columns (unsigned 32-bit, little-endian), packed."""
        names = list(self.columns)
        header = {
            "items": self.items,
            "block": BLOCK,
            "columns": names,
            "settings": self.settings.texts,
            "rows": self.rows.texts,
            "labels": self.labels.texts,
            "hues": list(HUES),
        }
        parts = []
        for name in names:
            column = self.columns[name]
            column.extend([0] * (self.items - len(column)))
            if sys.byteorder == "big":
                column = array("I", column)
                column.byteswap()
            parts.append(column.tobytes())
        return pack(json.dumps(header, ensure_ascii=False).encode()) + "\n" + pack(b"".join(parts))


def pack(data: bytes) -> str:
    """zlib and base64: text that can stand anywhere in a page, whatever is in it."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def pack_items(items: Iterable[tuple[str, Any]], results: Results, target: IO[str]) -> Packed:
    """Write the items' blocks to ``target``, one a line, and give the index. Memory holds the index and one block.

    Args:
        items: (id, item document), as ``runs.read_results`` gives them.
        results: for the order of settings and rows.
        target: open text file.

    Raises:
        RunError: an item of another form, named.
    """
    packed = Packed(
        Numbers(str(setting["id"]) for setting in results.settings),
        Numbers(str(row["name"]) for row in results.rows),
        Numbers(),
        Numbers(),
    )
    block = _Block(packed)
    for name, item in items:
        try:
            _index(packed, item)
            block.add(item)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunError(f"item {name!r} is no few-shot result: {type(error).__name__}: {error}") from error
        packed.items += 1
        if packed.items % BLOCK == 0:
            target.write(block.text() + "\n")
            block = _Block(packed)
    if packed.items % BLOCK:
        target.write(block.text() + "\n")
    return packed


def _index(packed: Packed, item: Mapping[str, Any]) -> None:
    """One more entry in every column; an answer is 0 (none given), or 1 + right + 2 * (0 abstained, 1 + label)."""
    columns = packed.columns

    def put(name: str, value: int) -> None:
        column = columns.setdefault(name, array("I"))
        column.extend([0] * (packed.items - len(column)))
        column.append(value)

    put("episode", int(item["episode"]))
    put("setting", packed.settings[str(item["setting"])])
    put("truth", packed.labels[str(item["query"]["label"])])
    put("image", packed.images[str(item["query"]["image"])])
    for row, answer in item["answers"].items():
        label = answer["label"]
        code = 0 if label is None else 1 + packed.labels[str(label)]
        put(f"row {packed.rows[str(row)]}", 1 + bool(answer["right"]) + 2 * code)
    spent = packed.usage.setdefault(str(item["setting"]), {"items": 0})
    spent["items"] += 1
    for name, value in (item.get("usage") or {}).items():
        if isinstance(value, int) and not isinstance(value, bool):
            spent[name] = spent.get(name, 0) + value


class _Block:
    """Items of one block; lists of words that several share stand in it once."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._words: dict[tuple[str, ...], int] = {}
        self._items: list[dict[str, Any]] = []

    def add(self, item: Mapping[str, Any]) -> None:
        label = self._packed.labels
        self._items.append(
            {
                "id": str(item["id"]),
                "labels": [label[str(name)] for name in item["labels"]],
                "support": [self._tile(tile) for tile in item["support"]],
                "query": self._tile(item["query"]),
                "prompts": {str(name): _text(prompt) for name, prompt in item["prompts"].items() if prompt},
                "answers": [self._answer(str(row), answer) for row, answer in item["answers"].items()],
                "usage": item.get("usage") or {},
                "notes": {str(row): str(note) for row, note in (item.get("notes") or {}).items()},
            }
        )

    def _tile(self, tile: Mapping[str, Any]) -> list[int]:
        words = tuple(str(word) for word in tile["words"])
        return [
            self._packed.images[str(tile["image"])],
            self._packed.labels[str(tile["label"])],
            self._words.setdefault(words, len(self._words)),
        ]

    def _answer(self, row: str, answer: Mapping[str, Any]) -> list[Any]:
        """[row, label or -1, right, raw, [[label, probability] ...], calls]"""
        label, raw = answer["label"], answer.get("raw")
        shares = [
            [self._packed.labels[str(name)], round(float(share), 4)]
            for name, share in (answer.get("probabilities") or {}).items()
        ]
        return [
            self._packed.rows[row],
            -1 if label is None else self._packed.labels[str(label)],
            int(bool(answer["right"])),
            None if raw is None else _text(raw),
            shares,
            answer.get("calls"),
        ]

    def text(self) -> str:
        document = {"words": list(self._words), "items": self._items}
        return pack(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
