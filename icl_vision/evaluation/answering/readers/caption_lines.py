"""Pictures and what people wrote of them, one JSON object a line: ``{"file": "images/1.jpg", "captions": [...]}``.

Knows: those two keys, as Flickr8k lies beside its pictures in ``captions.jsonl``. Refuses to know: which pictures.
"""

from __future__ import annotations

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers.holding import Holding
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question

LINES = "captions.jsonl"


def read_captions(files: Holding) -> QASet:
    """The pictures with their captions; the answers are the captions.

    Raises:
        UsageError: a line without them (its number is told), or a picture that is not there.
    """
    questions = []
    for number, row in files.lines(LINES):
        name, captions = (row.get("file"), row.get("captions")) if isinstance(row, dict) else (None, None)
        told = (
            isinstance(captions, list) and captions and all(isinstance(text, str) and text.strip() for text in captions)
        )
        if not isinstance(name, str) or not isinstance(captions, list) or not told:
            raise UsageError(f"{LINES!r} of {str(files.path)!r}, line {number}: needs 'file' and a list of 'captions'")
        texts = tuple(text.strip() for text in captions)
        questions.append(Question(name, (Picture(name, files.picture(name), captions=texts),), None, texts, "caption"))
    return QASet(files.path.stem, tuple(questions))
