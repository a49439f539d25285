"""VL-ICL Bench's sets of questions and their text twins: folders with ``query.json`` and ``support.json``.

Knows: the keys, as its own code reads them (Zong et al. 2024, arXiv 2403.13164; repository ys-zong/VL-ICL,
utils/ICL_utils.py and utils/utils.py), and how examples are chosen there. Refuses to know: its judges (``vl_icl_right``
among the metrics) and its sets that ask for pictures.

- ``operator_induction``, ``operator_induction_interleaved`` and their twins: a query has an ``operator`` (+, - or x),
  and the ``answer`` of an example is a list of three, one for each operator.
- ``open_mi``: a query has ``classes``, and its own ``support[CLASS]["images"]``; it is asked with two classes, its own
  and another.
- ``matching_mi``: an example is a pair, ``same`` and ``diff``.
- ``clevr``, ``textocr`` and any other: examples are drawn from ``support.json``.

A text twin has the same keys without ``image``: what the picture shows stands in ``question``. It measures what an LLM
induces where nothing is lost on the way from pixels to words: the ceiling of any words.

The bench draws examples anew for each query from one random stream; here they are drawn by ``seed`` and the query's
place, so that fewer shots are the first of more and a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.evaluation.few_shot.episodes.archive_entries import Entry, read_entries
from icl_vision.evaluation.few_shot.episodes.drawing import Draw

QUERY, SUPPORT = "query.json", "support.json"
OPERATORS = ("+", "-", "x")
"""In the order of the answers of an example."""
SHOTS = 8
"""As many as the bench shows at most."""


def is_vl_icl(folder: Path) -> bool:
    """Whether the files of one set lie in a folder."""
    return (folder / QUERY).is_file() and (folder / SUPPORT).is_file()


def read_questions(folder: str | Path, *, shots: int = SHOTS, seed: int = 0) -> QASet:
    """The queries of one set, each with examples drawn for it.

    Args:
        folder: the set's own folder, called as the bench calls it. Paths of pictures are relative to the folder above,
            or to itself.
        shots: so many examples each (of each class in ``open_mi``, of each kind in ``matching_mi``), or as many as
            there are.
        seed: of their draw.

    Raises:
        UsageError: a damaged file (its name, entry and key are told).
    """
    shots = checks.count("shots", shots, least=0)
    place = Path(folder)
    queries, support = (read_entries(place / name) for name in (QUERY, SUPPORT))
    if not queries:
        raise UsageError(f"{str(place / QUERY)!r} holds no queries")
    root = _root(place, [*queries, *support])
    questions = [
        Question(
            str(entry.place),
            _pictures(entry, root),
            entry.text("question"),
            _answers(entry, None),
            str(entry.fields.get("operator") or ""),
            examples=tuple(_examples(entry, support, root, shots, seed)),
        )
        for entry in queries
    ]
    return QASet(place.resolve().name, tuple(questions))


def _examples(query: Entry, support: Sequence[Entry], root: Path, shots: int, seed: int) -> list[Question]:
    """Those shown before a query, as the bench chooses them for its kind of set."""
    draw = Draw("vl-icl", seed, query.place)
    if isinstance(query.fields.get("support"), dict):
        return _of_classes(query, root, shots, draw)
    operator = query.fields.get("operator")
    if operator is not None and operator not in OPERATORS:
        raise query.wrong(f"'operator' must be one of {', '.join(OPERATORS)}; got {operator!r}")
    chosen = draw.shuffled(support)[:shots]
    return [_example(part, root, operator) for entry in chosen for part in entry.parts()]


def _example(entry: Entry, root: Path, operator: str | None) -> Question:
    answers = _answers(entry, operator)
    return Question(f"support/{entry.place}", _pictures(entry, root), entry.text("question"), answers)


def _of_classes(query: Entry, root: Path, shots: int, draw: Draw) -> list[Question]:
    """Pictures of the query's class and of one other, in turns."""
    answer, names = query.text("answer"), query.texts("classes")
    if answer not in names:
        raise query.wrong(f"'answer' is {answer!r}, none of its 'classes' {list(names)}")
    others = [name for name in names if name != answer]
    pair = draw.shuffled([answer, *draw.shuffled(others)[:1]])
    images = {}
    for name in pair:
        shown = query.fields["support"].get(name)
        if not isinstance(shown, dict) or not isinstance(shown.get("images"), list):
            raise query.wrong(f"'support' must have a list of 'images' of the class {name!r}; got {shown!r:.80}")
        images[name] = Entry(query.file, query.place, shown).images("images", root)
    return [
        Question(f"{query.place}/{name}/{shot}", (Picture(path, root / path),), query.text("question"), (name,))
        for shot in range(min(shots, *(len(paths) for paths in images.values())))
        for name in pair
        for path in images[name][shot : shot + 1]
    ]


def _answers(entry: Entry, operator: str | None) -> tuple[str, ...]:
    answers = entry.answers()
    if operator is None:
        return answers
    if len(answers) != len(OPERATORS):
        raise entry.wrong(f"'answer' must list one for each of {', '.join(OPERATORS)}; got {list(answers)}")
    return (answers[OPERATORS.index(operator)],)


def _pictures(entry: Entry, root: Path) -> tuple[Picture, ...]:
    if "image" not in entry.fields:
        return ()  # a text twin: all of it stands in the question
    return tuple(Picture(path, root / path) for path in entry.images("image", root))


def _root(folder: Path, entries: Sequence[Entry]) -> Path:
    """What paths are relative to: the folder above, as the bench's own code has it, or the folder itself."""
    parts = (part for entry in entries for part in entry.parts())
    path = next((part.texts("image")[0] for part in parts if "image" in part.fields), None)
    if path is None:
        return folder
    above = folder.resolve().parent
    return above if (above / path).is_file() and not (folder / path).is_file() else folder
