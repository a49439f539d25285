"""Run folders as what can be compared in pairs: which items there are, what was asked in each, how right each row was.

Knows: the journals of `icl-vision eval few-shot`, `eval answers` and `eval captions`. Refuses to know: tests,
intervals, how a comparison is printed.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.errors import RunError
from icl_vision.files.reading import read_json
from icl_vision.files.runs import read_info, read_results

ALL = "all"
"""The setting that every item of a run of answers or captions is in, beside its type."""
DEFAULT_ROWS = {"few-shot": ("likelihood",)}
"""Rows that two runs are compared by where nothing else is said; of other kinds all that both have."""
ANSWERING = ("eval answers", "eval captions")


@dataclass(frozen=True, slots=True)
class ComparedItem:
    """One item of a run. settings: which tables it is in. digest: of what was asked (not of its wording). scores: row
    -> how right it was; 0 or 1 where a row is right or not."""

    settings: tuple[str, ...]
    digest: bytes
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """The items of one run by name. kind: of runs that may be compared with it. graded: whether a score may be more
    than right or wrong. settings: in the order they came in."""

    kind: str
    items: Mapping[str, ComparedItem]
    graded: bool = False

    @property
    def rows(self) -> list[str]:
        """Rows that any item has."""
        return list(dict.fromkeys(name for item in self.items.values() for name in item.scores))


def read_compared(folder: str | os.PathLike[str]) -> ComparedRun:
    """The finished items of a run.

    Raises:
        RunError: a run of another kind, or nothing finished.
    """
    path = Path(folder)
    info = read_info(path)
    if info.get("command") in ANSWERING:
        run = _answering(path, info)
    else:
        run = ComparedRun("few-shot", _few_shot(path, info))
    if not run.items:
        raise RunError(f"{str(path)!r} holds no finished item; there is nothing to compare")
    return run


def _few_shot(path: Path, info: Mapping[str, Any]) -> dict[str, ComparedItem]:
    items: dict[str, ComparedItem] = {}
    for name, result in read_results(path):
        try:
            answers = result["answers"]
            # Every journal line brings its own copies of the same few names: one of each is kept.
            right = {sys.intern(str(row)): float(bool(answer["right"])) for row, answer in answers.items()}
            items[name] = ComparedItem((sys.intern(str(result["setting"])),), _digest(result), right)
        except (AttributeError, KeyError, TypeError) as error:
            raise RunError(
                f"item {name!r} of {str(path)!r} is no few-shot result ({type(error).__name__}: {error}); this is a "
                f"run of {info.get('command')!r}: compare runs of `icl-vision eval few-shot`, `eval answers` or "
                "`eval captions`"
            ) from error
    return items


def _digest(item: Mapping[str, Any]) -> bytes:
    """Digest of what is asked: setting, query image, and which support images share a class.

    Names of labels, the order of the examples and their words are left out: they are what two runs may differ in.
    """
    support = sorted((str(tile["image"]), str(tile["label"])) for tile in item["support"])
    classes = {label: number for number, label in reversed(list(enumerate(label for _, label in support)))}
    truth = classes.get(str(item["query"]["label"]), -1)
    parts = [str(item["setting"]), str(item["query"]["image"]), str(truth)]
    parts += [f"{image}\x1e{classes[label]}" for image, label in support]
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]


def _answering(path: Path, info: Mapping[str, Any]) -> ComparedRun:
    try:
        asked = {str(item["id"]): item for item in read_json(path / "items.json")["items"]}
        metric = str(info["config"]["metric"])
        scores: dict[str, dict[str, float]] = {}
        for _, line in read_results(path):
            if line["score"] is not None:
                scores.setdefault(str(line["item"]), {})[sys.intern(str(line["row"]))] = float(line["score"])
        items = {
            name: ComparedItem(
                tuple(filter(None, (ALL, str(asked[name]["type"])))), _asked_digest(asked[name]), scores[name]
            )
            for name in asked
            if name in scores
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{str(path)!r} is no run of answers or captions that can be read ({type(error).__name__}: {error})"
        ) from error
    return ComparedRun(f"{info['command']}, {metric}", items, metric != "exact")


def _asked_digest(item: Mapping[str, Any]) -> bytes:
    """Digest of a question: its pictures, its text, what is right. Examples are left out: runs may differ in them."""
    parts = [*map(str, item["pictures"]), str(item["question"]), *map(str, item["answers"])]
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]
