"""easy-VQA: 5,000 drawings of one shape in one colour, with 48,248 questions, as its PyPI package carries them.

Knows: its folders ``train`` and ``test``, each with ``questions.json``, a list of [question, answer, number of the
picture], and ``images/NUMBER.png``. Refuses to know: the package's code, which is not imported. (Victor Zhou, MIT.)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.holding import Holding
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question

SPLITS = ("train", "test")
_FILE = "questions.json"
_SHAPES = frozenset({"circle", "rectangle", "triangle"})


def installed() -> Path:
    """The data folder of the installed package.

    Raises:
        UsageError: it is not installed.
    """
    found = importlib.util.find_spec("easy_vqa")
    if found is None or not found.submodule_search_locations:
        raise UsageError("easy-VQA is not installed: run `pip install easy-vqa` (3 MB, MIT), or give its data folder")
    return Path(next(iter(found.submodule_search_locations))) / "data"


def is_easy_vqa(files: Holding) -> bool:
    """Whether the files lie as easy-VQA's."""
    return all(files.has(f"{split}/{_FILE}") for split in SPLITS)


def read_questions(files: Holding) -> QASet:
    """Its questions, both parts. Types: "yes/no", "shape" or "colour", by the answer.

    Raises:
        UsageError: a damaged file (its part and entry are told).
    """
    questions = []
    for split in SPLITS:
        rows = files.json(f"{split}/{_FILE}")
        pictures: dict[int, Picture] = {}
        for number, row in enumerate(rows if isinstance(rows, list) else [None], start=1):
            if not (isinstance(row, list) and len(row) == 3) or not all(
                isinstance(text, str) and text for text in row[:2]
            ):
                raise UsageError(
                    f"entry {number} of '{split}/{_FILE}' in {str(files.path)!r} must be [question, answer, number of "
                    f"the picture]; got {str(row)[:200]}"
                )
            question, answer, picture = row
            if not isinstance(picture, int) or isinstance(picture, bool) or picture < 0:
                raise UsageError(
                    f"entry {number} of '{split}/{_FILE}' in {str(files.path)!r}: no picture {picture!r:.40}"
                )
            name = f"{split}/images/{picture}.png"
            if picture not in pictures:
                pictures[picture] = Picture(name, files.picture(name))
            kind = "yes/no" if answer in ("yes", "no") else "shape" if answer in _SHAPES else "colour"
            questions.append(Question(f"{split}/{number}", (pictures[picture],), question, (answer,), kind, split))
    return QASet("easy-vqa", tuple(questions))
