"""VQAv2 and OK-VQA: a file of questions, a file of what ten people answered, and a folder of COCO pictures.

Knows: their keys (visualqa.org and okvqa.allenai.org): ``questions`` with ``question_id``, ``image_id``, ``question``;
``annotations`` with ``question_id``, ``answers`` (each with ``answer``), ``answer_type`` ("yes/no", "number", "other";
OK-VQA numbers its categories in ``question_type``); ``data_subtype`` ("val2014"), which names pictures
``COCO_val2014_000000000042.jpg``. Refuses to know: how answers are judged.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_vision.errors import DataLeftOutWarning, UsageError
from icl_vision.evaluation.answering.readers.holding import Holding
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.files.reading import MOST_WEIGHTS

_NAMED = 3


def question_files(files: Holding) -> tuple[str, str] | None:
    """(questions, annotations) in a folder, by their names; None where there are none.

    Raises:
        UsageError: several of a kind.
    """
    if files.packed is not None:
        names = sorted(name for name in files.packed if "/" not in name)
    else:
        names = sorted(os.listdir(files.path))
    found = [[name for name in names if name.endswith(f"_{kind}.json")] for kind in ("questions", "annotations")]
    if not all(found):
        return None
    if any(len(some) > 1 for some in found):
        several = next(some for some in found if len(some) > 1)
        raise UsageError(f"{str(files.path)!r} holds {', '.join(several)}: keep one set in a folder")
    return found[0][0], found[1][0]


def read_questions(files: Holding, images: str | Path | None = None) -> QASet:
    """The questions that people answered.

    Args:
        files: holds both JSON files.
        images: the folder of pictures; None for the one that holds the files, or its folder ``val2014`` (or whatever
            the files say). Questions whose picture is not there are left out, which a warning counts.

    Raises:
        UsageError: a damaged file (its entry is told), or no picture at all.
    """
    names = question_files(files)
    if names is None:
        raise UsageError(f"{str(files.path)!r} holds no pair of ..._questions.json and ..._annotations.json")
    asked, annotated = (files.json(name, most=MOST_WEIGHTS) for name in names)
    rows = _rows(asked, key="questions", name=names[0], files=files)
    people = {
        _whole(row, "question_id", names[1], files): row
        for row in _rows(annotated, key="annotations", name=names[1], files=files)
    }
    subset = str(asked.get("data_subtype") or annotated.get("data_subtype") or "")
    if subset and not re.fullmatch(r"\w+", subset):
        raise UsageError(f"{names[0]!r} of {str(files.path)!r}: 'data_subtype' must be one word; got {subset!r:.80}")
    folders = [Path(images)] if images is not None else [files.path / subset, files.path]
    pictures: dict[int, Picture | None] = {}
    questions, lost = [], []
    for row in rows:
        number, image = (_whole(row, key, names[0], files) for key in ("question_id", "image_id"))
        if image not in pictures:
            pictures[image] = _picture(image, subset, folders, files if images is None else None)
        picture = pictures[image]
        if picture is None:
            lost.append(image)
        elif number in people:
            questions.append(_question(number, picture, row, people[number], subset, names, files))
    if not questions:
        where = " or ".join(repr(str(folder)) for folder in folders)
        raise UsageError(
            f"no question of {str(files.path)!r} has its answers and its picture (such as "
            f"{_file_name(lost[0] if lost else 0, subset)}, looked for in {where}); say where they are with images="
        )
    if lost:
        missing = sorted(set(lost))
        warnings.warn(
            f"{len(lost)} questions about {len(missing)} pictures that are not there were left out of "
            f"{str(files.path)!r} ({', '.join(_file_name(image, subset) for image in missing[:_NAMED])} ...)",
            DataLeftOutWarning,
            stacklevel=3,
        )
    return QASet(names[0].removesuffix("_questions.json"), tuple(questions), metric="vqa")


def _rows(document: Any, *, key: str, name: str, files: Holding) -> list[Mapping[str, Any]]:
    rows = document.get(key) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{name!r} of {str(files.path)!r} must hold an object with a list of {key!r}")
    return rows


def _whole(row: Mapping[str, Any], key: str, name: str, files: Holding) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name!r} of {str(files.path)!r}: {key!r} must be a whole number; got {value!r:.80}")
    return value


def _file_name(image: int, subset: str) -> str:
    return f"COCO_{subset}_{image:012d}.jpg" if subset else f"{image:012d}.jpg"


def _picture(image: int, subset: str, folders: list[Path], files: Holding | None) -> Picture | None:
    """The picture under either name COCO has had for it, where there is one."""
    for name in dict.fromkeys((_file_name(image, subset), f"{image:012d}.jpg")):
        if files is not None and files.packed is not None:
            inside = next((path for path in (f"{subset}/{name}", name) if files.has(path)), None)
            if inside is not None:
                return Picture(str(image), files.picture(inside))
            continue
        for folder in folders:
            if os.path.isfile(folder / name):
                return Picture(str(image), folder / name)
    return None


def _question(
    number: int,
    picture: Picture,
    row: Mapping[str, Any],
    answered: Mapping[str, Any],
    subset: str,
    names: tuple[str, str],
    files: Holding,
) -> Question:
    text, answers = row.get("question"), answered.get("answers")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{names[0]!r} of {str(files.path)!r}: question {number} has no text")
    said = [one.get("answer") for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []
    if not said or not all(isinstance(one, str) for one in said):
        raise UsageError(f"{names[1]!r} of {str(files.path)!r}: question {number} must have 'answers' that are texts")
    kind = str(answered.get("answer_type") or "")
    return Question(str(number), (picture,), text.strip(), tuple(map(str, said)), kind, subset)
