"""COCO pictures with their captions and COCO-QA's questions, one ``index.json`` beside a folder of pictures.

Knows: the keys of that file: ``id``, ``file``, ``captions`` (a list, perhaps empty) and ``cocoqa`` (a list of
``question``, ``answer`` and ``type``: object, number, color or location; Ren et al. 2015, arXiv 1505.02074).
Refuses to know: how pictures came into it.

The parts: a picture with captions and questions is "test", for only there can the caption stand in for our words (the
ceiling); the other pictures with questions are "tuning"; those with captions alone are "training" captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.holding import Holding
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question

INDEX = "index.json"
_TYPES = {"color": "colour"}


def read_questions(files: Holding) -> QASet:
    """COCO-QA's questions. Raises UsageError: a damaged file (its entry and key are told)."""
    questions = []
    for place, entry in _entries(files):
        picture = _picture(files, place, entry)
        split = "test" if picture.captions else "tuning"
        for number, asked in enumerate(entry["cocoqa"]):
            question, answer = (_text(asked, key, files, place) for key in ("question", "answer"))
            kind = str(asked.get("type", ""))
            questions.append(
                Question(f"{entry['id']}/{number}", (picture,), question, (answer,), _TYPES.get(kind, kind), split)
            )
    return QASet("coco-qa", tuple(questions))


def read_captions(files: Holding) -> QASet:
    """The pictures that have captions; the answers are the captions. Raises: as ``read_questions``."""
    pictures = [(entry, _picture(files, place, entry)) for place, entry in _entries(files) if entry["captions"]]
    return QASet(
        "coco-captions",
        tuple(
            Question(
                str(entry["id"]),
                (picture,),
                None,
                picture.captions,
                "caption",
                "test" if entry["cocoqa"] else "training",
            )
            for entry, picture in pictures
        ),
    )


def _entries(files: Holding) -> list[tuple[int, Mapping[str, Any]]]:
    document = files.json(INDEX)
    if not isinstance(document, list):
        raise UsageError(f"{INDEX!r} of {str(files.path)!r} must be a list of pictures; got {type(document).__name__}")
    for place, entry in enumerate(document, start=1):
        keys = {"file": str, "captions": list, "cocoqa": list}
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in keys.items()):
            raise UsageError(
                f"entry {place} of {INDEX!r} in {str(files.path)!r} must have 'file' and the lists 'captions' and "
                f"'cocoqa'; got {str(entry)[:200]}"
            )
        entry.setdefault("id", place)
    return list(enumerate(document, start=1))


def _picture(files: Holding, place: int, entry: Mapping[str, Any]) -> Picture:
    captions = entry["captions"]
    if not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise UsageError(f"entry {place} of {INDEX!r} in {str(files.path)!r}: 'captions' must be texts")
    return Picture(entry["file"], files.picture(entry["file"]), captions=tuple(text.strip() for text in captions))


def _text(asked: Any, key: str, files: Holding, place: int) -> str:
    value = asked.get(key) if isinstance(asked, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UsageError(
            f"entry {place} of {INDEX!r} in {str(files.path)!r}: {key!r} must be a text; got {value!r:.80}"
        )
    return value.strip()
