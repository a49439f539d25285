"""From data sets to what is asked and what may be shown before it.

Knows: which part of a set is asked, and where examples come from: of questions, every other one of the set; of
captions, only what is not captioned. What a set keeps for its test is never shown before anything else. Refuses to
know: files, LLMs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from icl_vision.contracts import Tokenizer
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.items import Bench, Vectors
from icl_vision.evaluation.answering.readers import QASet, Question

TEST = "test"
"""The part that nothing may be tuned on."""


def question_bench(data: QASet, split: str | None = None, *, shots: int = 8, seed: int = 0) -> Bench:
    """Questions of one part; examples are all other questions of the set about other pictures, of any part but the test
    (unless that is asked).

    Args:
        split: the part that is asked; None for everything, where the set has no parts.
        shots, seed: as ``Bench``.

    Raises:
        UsageError: a set with parts and no ``split``, no such part, or nothing to choose examples from.
    """
    part = _part(data, split)
    testing = any(item.split == TEST for item in part.questions)
    pool = [item for item in data.questions if testing or item.split != TEST]
    return Bench(_name(data, split), part.questions, (*pool, *data.pool), shots, seed)


def caption_bench(
    data: QASet,
    split: str | None = None,
    *,
    examples: Sequence[QASet] = (),
    tokenizer: Tokenizer,
    shots: int = 8,
    seed: int = 0,
) -> Bench:
    """Pictures of one part to be captioned; examples are of the other parts and of further sets, never of this part.

    Args:
        split: the part that is captioned; None for everything, where the set has no parts.
        examples: sets of which every part may be shown.
        tokenizer: has image vectors, by which pictures are near.
        shots, seed: as ``Bench``.

    Raises:
        UsageError: as ``question_bench``; or a tokenizer without image vectors.
    """
    if not tokenizer.can_embed:
        raise UsageError(f"{tokenizer.name!r} has no image vectors, by which the nearest pictures are found")
    part = _part(data, split)
    asked = {item.id for item in part.questions}
    pool = [item for item in data.questions if item.id not in asked and item.split != TEST]
    pool += [_of(other, item) for other in examples for item in (*other.questions, *other.pool)]
    return Bench(_name(data, split), part.questions, (*pool, *data.pool), shots, seed, _vectors(tokenizer))


def _of(data: QASet, item: Question) -> Question:
    """An item of another set, its pictures named as that set's: two sets may call different pictures alike."""
    pictures = tuple(replace(picture, name=f"{data.name}/{picture.name}") for picture in item.pictures)
    return replace(item, id=f"{data.name}/{item.id}", pictures=pictures)


def _part(data: QASet, split: str | None) -> QASet:
    if split is not None:
        return data.of_split(split)
    if len(data.splits) > 1:
        parts = ", ".join(f"{name!r} ({count})" for name, count in data.splits.items())
        raise UsageError(f"{data.name} has parts, and figures are of one of them: name it, of {parts}")
    return data


def _name(data: QASet, split: str | None) -> str:
    return data.name if split is None else f"{data.name} {split}"


def _vectors(tokenizer: Tokenizer) -> Callable[[Question], Vectors]:
    """The vector of an item's first picture, each computed once."""
    known: dict[str, Vectors] = {}

    def vector(item: Question) -> Vectors:
        picture = item.pictures[0]
        if picture.name not in known:
            if picture.source is None:
                raise UsageError(f"{picture.name!r} has no pixels, so nothing says which pictures are near it")
            row = np.asarray(tokenizer.embed([picture.source])[0], dtype=np.float32)
            known[picture.name] = row / max(float(np.linalg.norm(row)), 1e-12)
        return known[picture.name]

    return vector
