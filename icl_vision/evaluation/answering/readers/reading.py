"""Which layout a data set has, and its reader: one way in for the evaluations and the command line.

Knows: what tells layouts apart. Refuses to know: what is in them.
"""

from __future__ import annotations

import os
from pathlib import Path

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers import caption_lines, coco, easy_vqa, frozen, vl_icl, vqa
from icl_vision.evaluation.answering.readers.holding import Holding, holding
from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.evaluation.answering.readers.operators import KIND, digit_set, operator_episodes, operator_questions
from icl_vision.evaluation.few_shot.episodes import loaders
from icl_vision.tasks.answer.files import Entry, read_entries

EASY_VQA = "easy-vqa"
"""The name under which easy-VQA is read from its installed package."""
OPERATOR_TEXT = f"{KIND}-text"
"""Operator induction with the digits' names in place of their pictures; ``KIND`` has the pictures."""
OPERATOR_EPISODES = 300
"""So many are drawn; draw fewer of them for a shorter run."""

LAYOUTS = (
    "an index.json with captions and COCO-QA's questions, a file of JSON lines (image, question, answer), a pair of "
    "..._questions.json and ..._annotations.json (VQAv2, OK-VQA), easy-VQA's folders train and test (or the name "
    f"{EASY_VQA!r}, if it is installed), VL-ICL's query.json and support.json, Frozen's ..._all_questions.json; or the "
    f"names {KIND!r} and {OPERATOR_TEXT!r}"
)


def read_questions(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    shots: int | None = None,
    seed: int = 0,
    trust: bool = False,
) -> QASet:
    """Questions about pictures, of whatever layout.

    Args:
        source: a folder, a tar archive of one, a file of JSON lines; or "easy-vqa", "operator-induction" or
            "operator-induction-text", where no file of that name is there.
        images: where the pictures of VQAv2 and OK-VQA lie, None beside their files; the digits of operator induction
            (see ``digit_set``), None for the packaged ones.
        shots: examples of sets that bring their own (Frozen's file with so many; VL-ICL's draw; operator induction's);
            None for the most, or 8.
        seed: of VL-ICL's draw of examples, and of the episodes of operator induction.
        trust: follow paths of a file of JSON lines that lead out of its folder.

    Raises:
        UsageError: no layout known here, or a damaged file (where it is damaged is told).
    """
    if str(source) == EASY_VQA and not os.path.exists(source):
        return easy_vqa.read_questions(Holding(easy_vqa.installed()))
    if str(source) in (KIND, OPERATOR_TEXT) and not os.path.exists(source):
        return _operators(str(source), images, shots, seed)
    path = Path(source)
    if path.suffix.lower() == ".jsonl" and os.path.isfile(path):
        return _own_questions(path, trust)
    found = loaders.detect(path) if os.path.exists(path) else None
    if found is not None and found.kind == "frozen-questions":
        return frozen.read_questions(path, shots=shots)
    if os.path.isdir(path) and vl_icl.is_vl_icl(path):
        return vl_icl.read_questions(path, shots=vl_icl.SHOTS if shots is None else shots, seed=seed)
    files = holding(path)
    if files.has(coco.INDEX):
        return coco.read_questions(files)
    if easy_vqa.is_easy_vqa(files):
        return easy_vqa.read_questions(files)
    if vqa.question_files(files) is not None:
        return vqa.read_questions(files, images=None if images is None else Path(images))
    if files.packed is None and any(name.endswith(".jsonl") for name in os.listdir(path)):
        return _own_questions(path, trust)
    raise UsageError(f"{str(path)!r} holds no questions in a layout known here: {LAYOUTS}")


def read_captions(source: str | os.PathLike[str], *, trust: bool = False) -> QASet:
    """Pictures with reference captions, of whatever layout; each is a ``Question`` whose question is None.

    Args:
        source: a folder or tar archive with index.json (COCO) or captions.jsonl (Flickr8k), or a file of JSON lines
            (image, caption).
        trust: as ``read_questions``.

    Raises:
        UsageError: as ``read_questions``.
    """
    path = Path(source)
    if path.suffix.lower() == ".jsonl" and os.path.isfile(path):
        return _own_captions(path, trust)
    files = holding(path)
    if files.has(coco.INDEX):
        return coco.read_captions(files)
    if files.has(caption_lines.LINES):
        rows = files.lines(caption_lines.LINES)
        if rows and isinstance(rows[0][1], dict) and "captions" not in rows[0][1] and files.packed is None:
            return _own_captions(path, trust)
        return caption_lines.read_captions(files)
    if files.packed is None and any(name.endswith(".jsonl") for name in os.listdir(path)):
        return _own_captions(path, trust)
    raise UsageError(
        f"{str(path)!r} holds no captions in a layout known here: an index.json (COCO), a captions.jsonl with 'file' "
        "and 'captions', or a file of JSON lines with 'image' and 'caption'"
    )


def _operators(name: str, images: str | os.PathLike[str] | None, shots: int | None, seed: int) -> QASet:
    digits = digit_set(None if images is None else Path(images))
    episodes = operator_episodes(digits, OPERATOR_EPISODES, shots=vl_icl.SHOTS if shots is None else shots, seed=seed)
    describe = digits.labels.__getitem__ if name == OPERATOR_TEXT else None
    return operator_questions(episodes, digits, describe, name=name)


def _own_questions(path: Path, trust: bool) -> QASet:
    entries = read_entries(path, "question", truths=True, trust=trust)
    return QASet(
        path.stem,
        tuple(Question(str(entry.line), _own_pictures(entry, path), entry.question, entry.truths) for entry in entries),
    )


def _own_captions(path: Path, trust: bool) -> QASet:
    entries = read_entries(path, "caption", truths=True, trust=trust)
    return QASet(
        path.stem,
        tuple(
            Question(
                str(entry.line),
                tuple(Picture(one.name, one.source, captions=entry.truths) for one in _own_pictures(entry, path)),
                None,
                entry.truths,
                "caption",
            )
            for entry in entries
        ),
    )


def _own_pictures(entry: Entry, source: Path) -> tuple[Picture, ...]:
    """Named by their path from the file's folder, so that a set has the same names wherever it lies.

    Raises:
        UsageError: one that is no file: a set is asked in full or not at all.
    """
    folder = source if os.path.isdir(source) else source.parent
    missing = next((image for image in entry.images if not os.path.isfile(image)), None)
    if missing is not None:
        raise UsageError(f"line {entry.line} of {str(source)!r} names the picture {str(missing)!r}, which is no file")
    return tuple(Picture(os.path.relpath(image, folder).replace(os.sep, "/"), image) for image in entry.images)
