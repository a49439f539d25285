"""What every reader gives: questions about pictures with their answers, or pictures with their captions.

Knows: the value types, draws, a digest of what is asked. Refuses to know: where they come from and what is done with
them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.files.storage import sha256_file

Metric = Literal["exact", "vqa"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a data set.

    name: names it in its set; questions about the same picture have the same name.
    source: what ``images.load_image`` takes: a path, or the bytes of a file inside an archive; None for a text twin.
    text: what stands in the picture's place in a text twin ("3", "a red cube, a blue ball"); "" where there are pixels.
    captions: what people wrote of it; () where nobody did, or where nothing is known of that.
    """

    name: str
    source: Path | bytes | None = field(default=None, repr=False)
    text: str = ""
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.source is None) == (not self.text):
            raise UsageError(f"picture {self.name!r} needs pixels or a text in their place, and not both")


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask, or one example of it.

    id: names it in its set. pictures: what it is about, in order; () for a question without any.
    question: None where a caption is wanted. answers: what is right: one or more equally good answers, what each of
    several people said (``QASet.metric`` "vqa"), or reference captions. type: of the question ("colour", "yes/no"), ""
    without one. split: the part of the set it belongs to ("test", "tuning"), "" without parts.
    examples: those shown before it, the first ones the most important (fewer shots are the first of more); () where the
    choice is free: then any other question of the set, or of its ``pool``, about another picture may be shown.
    """

    id: str
    pictures: tuple[Picture, ...]
    question: str | None
    answers: tuple[str, ...]
    type: str = ""
    split: str = ""
    examples: tuple[Question, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; pixels are named, not copied."""
        return {
            "id": self.id,
            "pictures": [picture.text or picture.name for picture in self.pictures],
            "question": self.question,
            "answers": list(self.answers),
            "type": self.type,
            "split": self.split,
            "examples": [example.to_dict() for example in self.examples],
        }


@dataclass(frozen=True, slots=True)
class QASet:
    """A data set in one form.

    name: what it is called. questions: what is asked, in the order of its file. pool: further examples that are never
    asked. metric: "exact" where an answer is right or not, "vqa" where ``answers`` are several people's.
    """

    name: str
    questions: tuple[Question, ...] = field(repr=False)
    pool: tuple[Question, ...] = field(default=(), repr=False)
    metric: Metric = "exact"

    def __post_init__(self) -> None:
        if not self.questions:
            raise UsageError(f"the data set {self.name!r} holds no questions")
        twice = [name for name, count in Counter(question.id for question in self.questions).items() if count > 1]
        if twice:
            raise UsageError(f"the data set {self.name!r} has {twice[0]!r} twice among the ids of its questions")

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @property
    def splits(self) -> Mapping[str, int]:
        """How many questions each part has."""
        return dict(Counter(question.split for question in self.questions))

    @property
    def types(self) -> Mapping[str, int]:
        """How many questions of each type there are, the most first."""
        return dict(Counter(question.type for question in self.questions).most_common())

    @property
    def pictures(self) -> Mapping[str, Picture]:
        """The pictures asked about, by name."""
        return {picture.name: picture for question in self.questions for picture in question.pictures}

    def of_split(self, split: str) -> QASet:
        """One part, with the same pool.

        Raises:
            UsageError: no such part.
        """
        if split not in self.splits:
            named = ", ".join(repr(name) for name in self.splits)
            raise UsageError(f"the data set {self.name!r} has no part {split!r}; it has {named}")
        return self._of([question for question in self.questions if question.split == split])

    def drawn(self, n: int, *, seed: int = 0) -> QASet:
        """``n`` of the questions, drawn by ``seed``, in their own order; all where there are no more. A larger draw
        holds the smaller one of the same seed.

        Raises:
            UsageError: n below 1.
        """
        n = checks.count("n", n, of="questions")
        chosen = set(Draw("questions", seed).shuffled([question.id for question in self.questions])[:n])
        return self._of([question for question in self.questions if question.id in chosen])

    def digest(self) -> str:
        """Hex sha256 of everything that is asked, shown or right, pixels included: the same digest, the same set.

        Raises:
            UsageError: a picture that cannot be read any more.
        """
        whole = hashlib.sha256(f"{self.name}\x1f{self.metric}\n".encode())
        for question in (*self.questions, *self.pool):
            whole.update(json.dumps(question.to_dict(), sort_keys=True, ensure_ascii=False).encode() + b"\n")
        shown = [example for question in self.questions for example in question.examples]
        pictures = {
            picture.name: picture for question in (*self.questions, *self.pool, *shown) for picture in question.pictures
        }
        for name in sorted(pictures):
            source = pictures[name].source
            pixels = "" if source is None else _sha256(source)
            whole.update(json.dumps([name, pixels, pictures[name].captions], ensure_ascii=False).encode() + b"\n")
        return whole.hexdigest()

    def _of(self, questions: Sequence[Question]) -> QASet:
        return replace(self, questions=tuple(questions))


def _sha256(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        return sha256_file(source)
    except OSError as error:
        raise UsageError(f"the picture {str(source)!r} cannot be read: {error.strerror}") from error
