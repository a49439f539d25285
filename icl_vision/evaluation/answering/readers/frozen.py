"""Frozen's Fast-VQA and Real-Fast-VQA, as their archives lie on disk once extracted, in the form of a ``QASet``.

Knows: what an example's caption is there. Refuses to know: file names and keys (``few_shot/episodes/loaders.py`` reads
them: "fast_vqa" with made-up names, "guided_vqa" with real ones; Tsimpoukelli et al. 2021, arXiv 2106.13884).

Each question comes with its own examples: pictures with a caption that names what they show ("This is a dax."). The
example's answer is that caption, and it has no question. One answer is right, compared after VQAv2's normalisation.

Naming trap: the tables of LQAE and SPAE called "Fast VQA" are Real-Fast-VQA, that is ``guided_vqa``.
"""

from __future__ import annotations

from pathlib import Path

from icl_vision.evaluation.answering.readers.items import Picture, QASet, Question
from icl_vision.evaluation.few_shot.episodes import loaders

NAMES = {"fast_vqa": "fast-vqa", "guided_vqa": "real-fast-vqa"}


def read_questions(folder: str | Path, *, shots: int | None = None) -> QASet:
    """The questions of one archive, each with its examples.

    Args:
        folder: the extracted folder, or one of its JSON files.
        shots: the file with so many; None for the most.

    Raises:
        UsageError: no such archive or shots, or a damaged file (its name and key are told).
    """
    archive = loaders.detect(folder)
    read = loaders.load_questions(folder, shots=shots)
    name = NAMES.get(next(iter(archive.files)).name.partition("_shots_")[0], "frozen") if archive else "frozen"
    questions = []
    for place, asked in enumerate(read.questions, start=1):
        examples = tuple(
            Question(f"{place}/{number}", _pictures(read.root, example.images), None, (example.text,))
            for number, example in enumerate(asked.examples, start=1)
        )
        questions.append(
            Question(str(place), _pictures(read.root, asked.images), asked.question, asked.answers, examples=examples)
        )
    return QASet(name, tuple(questions))


def _pictures(root: Path, names: tuple[str, ...]) -> tuple[Picture, ...]:
    return tuple(Picture(name, root / name) for name in names)
