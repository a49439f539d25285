"""Few-shot episodes drawn from a folder of class folders.

Knows: class folders, seeded draws, and that a query never stands in its own support set.
Refuses to know: tokenizers, LLMs, scores.

The draws use only ``random.Random.random()`` on an integer seed, the one part of the
standard generator whose sequence Python promises to keep, so a seed names the same
episodes on every version.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.images.folders import EMPTY, loose, survey
from icl_vision.spelling import by_name, composed

T = TypeVar("T")


class Item(NamedTuple):
    """One labelled image: ``path`` relative to the folder it came from (forward slashes), and its label."""

    path: str
    label: str


def display_label(folder_name: str) -> str:
    """The label a class folder stands for: underscores become spaces, everything else stays as it is."""
    return folder_name.replace("_", " ").strip()


class Draw:
    """A seeded source of shuffles that is the same on every Python version.

    Args:
        *key: anything whose ``str`` names the stream, e.g. a seed and an episode number.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """A new list in random order (Fisher-Yates on ``random()``)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = int(self._random.random() * (last + 1))
            result[last], result[other] = result[other], result[last]
        return result


@dataclass(frozen=True, slots=True)
class Episode:
    """One few-shot task: a support set, and queries that are not in it.

    labels: the ways, in the order the classes were drawn. support: shot by shot, one image of
    every class in each (c1, c2, ..., c1, c2, ...). queries: images of those classes.
    number and seed: which draw this was.
    """

    number: int
    seed: int
    labels: tuple[str, ...]
    support: tuple[Item, ...]
    queries: tuple[Item, ...]

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise UsageError(f"an episode needs 2 or more different labels; got {list(self.labels)}")
        unknown = {item.label for item in (*self.support, *self.queries)} - set(self.labels)
        if unknown:
            raise UsageError(f"episode {self.number} holds images of {sorted(unknown)}, which are not among its labels")
        counts = {label: sum(item.label == label for item in self.support) for label in self.labels}
        if len(set(counts.values())) != 1:
            raise UsageError(f"episode {self.number} has an unequal number of support images per label: {counts}")
        both = {item.path for item in self.support} & {item.path for item in self.queries}
        if both:
            raise UsageError(f"episode {self.number} asks for images of its own support set: {sorted(both)}")

    @property
    def ways(self) -> int:
        return len(self.labels)

    @property
    def shots(self) -> int:
        return len(self.support) // len(self.labels)

    def with_shots(self, shots: int) -> Episode:
        """The same episode with only the first ``shots`` support images of every class; the queries stay the same."""
        if not 1 <= shots <= self.shots:
            raise UsageError(f"shots must be between 1 and {self.shots} for this episode; got {shots}")
        return Episode(self.number, self.seed, self.labels, self.support[: shots * self.ways], self.queries)

    def renamed(self, names: Mapping[str, str]) -> Episode:
        """The same images under other names (nonsense ones, say).

        names: label -> name, one for every label.
        """
        missing = [label for label in self.labels if label not in names]
        if missing:
            raise UsageError(f"episode {self.number} cannot be renamed: no name for {missing}")
        return replace(
            self,
            labels=tuple(names[label] for label in self.labels),
            support=tuple(Item(item.path, names[item.label]) for item in self.support),
            queries=tuple(Item(item.path, names[item.label]) for item in self.queries),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` reads it back."""
        return {
            "number": self.number,
            "seed": self.seed,
            "labels": list(self.labels),
            "support": [{"path": item.path, "label": item.label} for item in self.support],
            "queries": [{"path": item.path, "label": item.label} for item in self.queries],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Episode:
        """Read what ``to_dict`` wrote; a document of another form raises UsageError naming what is wrong."""
        try:
            return cls(
                int(document["number"]),
                int(document["seed"]),
                tuple(str(label) for label in document["labels"]),
                _items(document["support"]),
                _items(document["queries"]),
            )
        except UsageError:  # it has the form and says what cannot be
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"not an episode: {error!r} while reading its fields") from error


def _items(rows: Sequence[Mapping[str, Any]]) -> tuple[Item, ...]:
    items = tuple(Item(str(row["path"]), str(row["label"])) for row in rows)
    for item in items:
        path = PurePosixPath(item.path)
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(f"an episode's image path must stay inside its folder; got {item.path!r}")
    return items


class ImageFolder:
    """A folder with one sub-folder of images per class.

    Args:
        root: the folder. Hidden files, hidden folders and files that are no images are passed over; what may have been
            meant (pictures of other formats, beside the class folders or in deeper ones, empty class folders) is
            counted and named in a ``DataLeftOutWarning``.

    Raises:
        UsageError: no such folder, no class with an image, or two class folders with the same label.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not os.path.isdir(self.root):
            raise UsageError(f"{str(self.root)!r} is not a folder; give one with a sub-folder of images per class")
        self.classes: dict[str, tuple[str, ...]] = {}
        folders: dict[str, str] = {}
        everything = loose(self.root)
        folders_found = (path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        for folder in sorted(folders_found, key=by_name):
            surveyed = survey(folder, deep=False)
            paths = tuple(f"{folder.name}/{path.name}" for path in surveyed.images if path.is_file())
            for why, names in surveyed.left_out.items():
                for name in names:
                    everything.leave_out(why, f"{folder.name}/{name}")
            if not paths:
                everything.leave_out(EMPTY, folder.name)
                continue
            label = display_label(folder.name)
            if composed(label) in folders:
                other = folders[composed(label)]
                raise UsageError(
                    f"the class folders {other!r} and {folder.name!r} both stand for the label {label!r}; rename one"
                )
            folders[composed(label)] = folder.name
            self.classes[label] = paths
        if not self.classes:
            raise UsageError(f"{str(self.root)!r} holds no class folder with images; expected CLASS/IMAGE.jpg")
        everything.tell()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.classes)

    def path(self, item: Item | str) -> Path:
        """Where an image of this folder lies on disk."""
        return self.root / (item if isinstance(item, str) else item.path)

    def sample(self, number: int, *, ways: int, shots: int, queries: int | None = None, seed: int = 0) -> Episode:
        """One episode; the same arguments always give the same one.

        Args:
            number: which episode of this seed, from 0.
            ways: how many classes, 2 or more.
            shots: support images per class, 1 or more.
            queries: how many images are asked about, dealt to the classes in turn; None = one per class.
            seed: names the whole series.

        Raises:
            UsageError: too few classes, or classes with too few images (named).
        """
        return self._sample(number, ways, shots, queries, seed, {})

    def episodes(
        self, count: int, *, ways: int, shots: int, queries: int | None = None, seed: int = 0, fresh: bool = False
    ) -> list[Episode]:
        """``count`` episodes (see ``sample``); a longer series begins with the shorter one.

        Args:
            fresh: no image is asked about twice in the whole series, so that no query counts twice.
                Classes that still have an unasked image are preferred; when they run out, UsageError.
        """
        count = checks.count("the number of episodes", count)
        if not fresh:
            return [self.sample(n, ways=ways, shots=shots, queries=queries, seed=seed) for n in range(count)]
        unasked = {label: set(paths) for label, paths in self.classes.items()}
        result = []
        for number in range(count):
            episode = self._sample(number, ways, shots, queries, seed, unasked)
            for item in episode.queries:
                unasked[item.label].discard(item.path)
            result.append(episode)
        return result

    def _sample(
        self, number: int, ways: int, shots: int, queries: int | None, seed: int, unasked: Mapping[str, set[str]]
    ) -> Episode:
        queries = ways if queries is None else queries
        if ways < 2 or shots < 1 or queries < 1:
            raise UsageError(
                f"an episode needs ways >= 2, shots >= 1 and queries >= 1; "
                f"got ways={ways}, shots={shots}, queries={queries}"
            )
        if ways > len(self.classes):
            raise UsageError(
                f"{ways} ways need {ways} classes, but {str(self.root)!r} has {len(self.classes)}: "
                f"{', '.join(self.classes)}"
            )
        draw = Draw("episode", seed, number)
        per_class = -(-queries // ways)
        short = {label: len(paths) for label, paths in self.classes.items() if len(paths) < shots + per_class}
        able = [
            label
            for label in draw.shuffled(self.classes)
            if label not in short and (not unasked or len(unasked[label]) >= per_class)
        ]
        if len(able) < ways:
            if short:
                named = ", ".join(f"{label!r} ({count})" for label, count in short.items())
                raise UsageError(
                    f"{shots} shots and {per_class} queries per class need {shots + per_class} images; too few are in "
                    f"{named}"
                )
            raise UsageError(
                f"episode {number} finds only {len(able)} classes with {per_class} images not yet asked about; "
                f"ask for fewer episodes, or give more images"
            )
        labels = tuple(able[:ways])
        support: dict[str, list[str]] = {}
        asked: dict[str, list[str]] = {}
        for label in labels:
            paths = draw.shuffled(self.classes[label])
            asked[label] = [path for path in paths if not unasked or path in unasked[label]][:per_class]
            support[label] = [path for path in paths if path not in asked[label]][:shots]
        turns = [Item(asked[label][turn], label) for turn in range(per_class) for label in draw.shuffled(labels)]
        return Episode(
            number,
            seed,
            labels,
            tuple(Item(support[label][shot], label) for shot in range(shots) for label in labels),
            tuple(turns[:queries]),
        )
