"""Public few-shot archives, as their folders lie on disk once extracted: Frozen's four, and VL-ICL Bench.

Knows: file names and keys. Refuses to know: the network, tar files, what is asked or scored.

Frozen (Tsimpoukelli et al. 2021, arXiv 2106.13884), folders ``open_ended_mi``, ``real_name_mi``, ``fast_vqa`` and
``guided_vqa``. The authors' page (repository fh295/fh295.github.io, frozen.md) gives the names: images
``TASK_shots_N_ways_M_id_X_image_I.jpg`` and ``..._question.jpg`` beside ``TASK_shots_N_ways_M_all_questions.json``,
which describe each question by its images, texts and answer. The keys are those that independent readers of the
archives use (evaluations of FROMAGe, arXiv 2301.13823, on real_name_mi, open_ended_mi and guided_vqa): a list of
objects with ``question_id``, ``image_1``, ``caption_1``, ... , ``question``, ``question_image`` and ``answer``.

    Not confirmed, because the archives themselves were not at hand: the exact wording of captions. A caption is taken
    to be the class's name, with or without "This is a" before it and a full stop after it, as in the paper's figures;
    the answer must be one of the names so found, so that another wording is refused instead of misread.

VL-ICL Bench (Zong et al. 2024, arXiv 2403.13164), folders with ``support.json`` and ``query.json``, as its own code
reads them (repository ys-zong/VL-ICL, utils/utils.py and utils/ICL_utils.py): lists of objects with ``image`` (a path
or a list of them), ``question`` and ``answer``. In ``open_mi`` a query has its own support: ``classes`` and
``support[CLASS]["images"]``. Image paths are relative to the folder that holds all data sets; paths relative to the
data set's own folder are taken as well.

Every image must be there and lie inside the archive.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.archive_entries import Entry, read_entries
from icl_vision.evaluation.few_shot.episodes.drawing import Draw, Episode, Item, display_label

Kind = Literal["frozen-classes", "frozen-questions", "vl-icl-classes", "vl-icl-questions"]

FROZEN_TASKS: Mapping[str, Kind] = {
    "open_ended_mi": "frozen-classes",
    "real_name_mi": "frozen-classes",
    "fast_vqa": "frozen-questions",
    "guided_vqa": "frozen-questions",
}
"""Frozen's archives; "_mi" ask for a class's name, "_vqa" ask a question about a picture."""

_FROZEN_FILE = re.compile(r"(?P<task>[a-z_]+?)_shots_(?P<shots>\d+)_ways(?:_(?P<ways>\d+))?_all_questions\.json")
_CAPTION = re.compile(r"(?:this is (?:an?|the)\s+)?(?P<name>.+?)[\s.!]*", re.IGNORECASE)
_VL_ICL_FILES = ("query.json", "support.json")


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a visual question. images: relative to the archive's root. text: its caption or question.
    answers: what is right ((), for a caption; several, where the archive lists several)."""

    images: tuple[str, ...]
    text: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VisualQuestion:
    """A question about images, with the examples shown before it.

    number: the archive's own, or the place in its file from 1. examples: in the archive's order; () where the archive
    leaves the choice to the user (see ``VisualQuestions.pool``).
    """

    number: int
    images: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class VisualQuestions:
    """The questions of one archive. root: what image paths are relative to. pool: examples to choose from."""

    root: Path
    questions: tuple[VisualQuestion, ...]
    pool: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Archive:
    """What ``detect`` found. files: the JSON files, of Frozen with their (shots, ways or None)."""

    kind: Kind
    folder: Path
    files: Mapping[Path, tuple[int, int | None]]

    @property
    def has_episodes(self) -> bool:
        """``load_archive`` can read it; otherwise ``load_questions`` can."""
        return self.kind.endswith("-classes")


def detect(path: str | Path) -> Archive | None:
    """The archive that lies at ``path``: a folder, or one of Frozen's JSON files alone; None where it is none.

    Raises:
        UsageError: one of Frozen's tar files, which must be extracted first; or files of several archives in a folder.
    """
    place = Path(path)
    if place.name.removesuffix(".tar.gz") in FROZEN_TASKS and os.path.isfile(place):
        raise UsageError(f"{str(path)!r} is an archive still packed: extract it (tar -xzf) and give the folder")
    if os.path.isdir(place) and all((place / name).is_file() for name in _VL_ICL_FILES):
        rows = read_entries(place / _VL_ICL_FILES[0])
        own_support = bool(rows) and isinstance(rows[0].fields.get("support"), dict) and "answer" in rows[0].fields
        kind: Kind = "vl-icl-classes" if own_support else "vl-icl-questions"
        return Archive(kind, place, {place / name: (0, None) for name in _VL_ICL_FILES})
    found: dict[Path, tuple[int, int | None]] = {}
    tasks = set()
    for file in sorted(place.glob("*_all_questions.json")) if os.path.isdir(place) else [place]:
        match = _FROZEN_FILE.fullmatch(file.name)
        if match and match["task"] in FROZEN_TASKS and file.is_file():
            found[file] = (int(match["shots"]), int(match["ways"]) if match["ways"] else None)
            tasks.add(match["task"])
    if len(tasks) > 1:
        raise UsageError(f"{str(path)!r} holds files of {', '.join(sorted(tasks))}: keep one archive in a folder")
    if not found:
        return None
    return Archive(FROZEN_TASKS[tasks.pop()], place if os.path.isdir(place) else place.parent, found)


def load_archive(
    path: str | Path, *, shots: int | None = None, ways: int | None = None, seed: int = 0
) -> tuple[list[Episode], Path]:
    """The episodes of an archive of classes, and the folder their image paths are relative to.

    An episode has one query. Its support is put shot by shot (one image of every class in each), classes in the order
    of their first example, so that fewer shots can be taken from more; inside a class the archive's order is kept.

    Args:
        path: as ``detect``.
        shots: which of Frozen's files: the ones with so many shots; None for the most shots of each number of ways.
        ways: only episodes of so many ways; None for all. VL-ICL's ``open_mi`` comes with 5 ways and is asked with 2,
            the query's class and another, which its code draws anew each time: here ``seed`` draws it, and None gives
            both, all classes first.
        seed: of that draw.

    Raises:
        UsageError: no archive of classes, no such shots or ways, or a damaged file (its name and key are told).
    """
    archive = detect(path)
    if archive is None:
        raise UsageError(
            f"{str(path)!r} is no archive known here: give a folder with {'/'.join(FROZEN_TASKS)} questions "
            "(TASK_shots_N_ways_M_all_questions.json) or with support.json and query.json"
        )
    if not archive.has_episodes:
        raise UsageError(f"{str(path)!r} asks questions instead of class names: read it with load_questions")
    if archive.kind == "vl-icl-classes":
        return _open_mi(archive, ways, seed)
    episodes = [
        _frozen_episode(entry, archive.folder, count, many)
        for file, (count, many) in _chosen(archive, shots, ways).items()
        for entry in read_entries(file)
    ]
    # A file may not say its ways in its name.
    return [episode for episode in episodes if ways in (None, episode.ways)], archive.folder


def load_questions(path: str | Path, *, shots: int | None = None) -> VisualQuestions:
    """The questions of Frozen's ``fast_vqa`` and ``guided_vqa``, or of a VL-ICL folder.

    Args:
        path: as ``detect``.
        shots: which of Frozen's files; None for the one with the most shots.

    Raises:
        UsageError: no archive of questions, no such shots, or a damaged file (its name and key are told).
    """
    archive = detect(path)
    if archive is None or archive.has_episodes:
        what = "asks for class names: read it with load_archive" if archive else "is no archive known here"
        raise UsageError(f"{str(path)!r} {what}")
    if archive.kind == "vl-icl-questions":
        queries, support = (read_entries(archive.folder / name) for name in _VL_ICL_FILES)
        root = _vl_icl_root(archive.folder, queries)
        pool = [part for entry in support for part in entry.parts()]
        return VisualQuestions(
            root,
            tuple(
                VisualQuestion(entry.number, entry.images("image", root), entry.text("question"), entry.answers())
                for entry in queries
            ),
            tuple(Example(entry.images("image", root), entry.text("question"), entry.answers()) for entry in pool),
        )
    questions = []
    for file in _chosen(archive, shots, None):
        for entry in read_entries(file):
            examples = tuple(
                Example(entry.images(f"image_{place}", archive.folder), entry.text(f"caption_{place}"))
                for place in range(1, entry.shown() + 1)
            )
            images = entry.images("question_image", archive.folder)
            answers = entry.answers()
            questions.append(VisualQuestion(entry.number, images, entry.text("question"), answers, examples))
    return VisualQuestions(archive.folder, tuple(questions))


# -- Frozen


def _chosen(archive: Archive, shots: int | None, ways: int | None) -> dict[Path, tuple[int, int | None]]:
    """The files with these shots, or of each number of ways the one with the most."""
    fitting = {file: size for file, size in archive.files.items() if ways in (None, size[1]) or size[1] is None}
    most = {many: max(few for few, other in fitting.values() if other == many) for _, many in fitting.values()}
    chosen = {file: size for file, size in fitting.items() if size[0] == (most[size[1]] if shots is None else shots)}
    if not chosen:
        there = ", ".join(file.name for file in archive.files)
        raise UsageError(f"{str(archive.folder)!r} has no questions of shots={shots} and ways={ways}; it has {there}")
    return chosen


def _frozen_episode(entry: Entry, root: Path, shots: int, ways: int | None) -> Episode:
    support: dict[str, list[Item]] = {}
    for place in range(1, entry.shown() + 1):
        name = _name(entry.text(f"caption_{place}"))
        image = entry.images(f"image_{place}", root)[0]
        support.setdefault(name, []).append(Item(image, name))
    if len(support) != (ways or len(support)) or any(len(items) != shots for items in support.values()):
        counts = {name: len(items) for name, items in support.items()}
        raise entry.wrong(f"its captions must give {shots} examples of each of {ways or 'its'} classes; got {counts}")
    answer = _name(entry.text("answer"))
    return _episode(entry, support, Item(entry.images("question_image", root)[0], answer), seed=0)


def _name(caption: str) -> str:
    """The class's name in a caption: "This is a dax." and "dax" both say "dax"."""
    match = _CAPTION.fullmatch(caption)
    return display_label(match["name"] if match else caption)


# -- VL-ICL


def _open_mi(archive: Archive, ways: int | None, seed: int) -> tuple[list[Episode], Path]:
    entries = read_entries(archive.folder / _VL_ICL_FILES[0])
    root = _vl_icl_root(archive.folder, entries)
    whole = [_open_mi_episode(entry, root, None, seed) for entry in entries]
    if ways is None:
        return whole + [_open_mi_episode(entry, root, 2, seed) for entry in entries], root
    if ways == 2:
        return [_open_mi_episode(entry, root, 2, seed) for entry in entries], root
    if any(episode.ways != ways for episode in whole):
        sizes = sorted({2} | {episode.ways for episode in whole})
        raise UsageError(f"{str(archive.folder)!r} can be asked with ways {sizes}; got ways={ways}")
    return whole, root


def _open_mi_episode(entry: Entry, root: Path, ways: int | None, seed: int) -> Episode:
    names, answer = entry.texts("classes"), entry.text("answer")
    if answer not in names:
        raise entry.wrong(f"'answer' is {answer!r}, none of its 'classes' {list(names)}")
    if ways == 2:
        draw = Draw("open_mi", seed, entry.place)
        names = tuple(draw.shuffled([answer, draw.shuffled([name for name in names if name != answer])[0]]))
    support: dict[str, list[Item]] = {}
    for name in names:
        shown = entry.fields["support"].get(name) if isinstance(entry.fields.get("support"), dict) else None
        if not isinstance(shown, dict) or not isinstance(shown.get("images"), list):
            raise entry.wrong(f"'support' must have a list of 'images' of the class {name!r}; got {shown!r}")
        inner = Entry(entry.file, entry.place, shown)
        support[display_label(name)] = [Item(image, display_label(name)) for image in inner.images("images", root)]
    images = entry.images("image", root)
    if len(images) != 1:
        raise entry.wrong(f"'image' must be one image; got {list(images)}")
    return _episode(entry, support, Item(images[0], display_label(answer)), seed=seed)


def _vl_icl_root(folder: Path, entries: Sequence[Entry]) -> Path:
    """What image paths are relative to: the folder above, as the archive's own code has it, or the folder itself."""
    if not entries:
        raise UsageError(f"{str(folder / _VL_ICL_FILES[0])!r} holds no queries")
    first = entries[0].texts("image")[0]
    above = folder.resolve().parent
    return above if (above / first).is_file() and not (folder / first).is_file() else folder


def _episode(entry: Entry, support: Mapping[str, Sequence[Item]], query: Item, *, seed: int) -> Episode:
    if query.label not in support:
        raise entry.wrong(f"'answer' is {query.label!r}, none of its examples' names {list(support)}")
    try:
        turns = [item for turn in zip(*support.values(), strict=True) for item in turn]
        return Episode(entry.number, seed, tuple(support), tuple(turns), (query,))
    except ValueError as error:  # UsageError, or classes with unequal numbers of examples
        raise entry.wrong(str(error)) from error
