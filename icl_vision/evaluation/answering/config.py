"""What an evaluation of answers or captions asks, as values, and how right an answer is.

Knows: defaults, what cannot work, the metric of a set. Refuses to know: images, prompts, how anything is asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.metrics import CiderD, exact_answer, vqa_accuracy
from icl_vision.evaluation.answering.metrics.answers import PEOPLE
from icl_vision.evaluation.answering.readers import Question
from icl_vision.evaluation.answering.rows import Task
from icl_vision.files.typed import check_fields
from icl_vision.tasks.answer.captioner import Captioner
from icl_vision.tasks.answer.visual_qa import VisualQA

Metric = Literal["exact", "vqa", "cider"]

METRICS: Final[dict[str, str]] = {
    "exact": "the answer is one of the right ones, both normalised as the VQA evaluation does it; empty is wrong",
    "vqa": "VQA accuracy by the official rule: the mean, each person left out in turn, of min(those who agree / 3, 1)",
    "cider": "CIDEr-D (0 to 10), document frequencies of all references of the set; the first caption is held back",
}
MOST: Final[dict[str, float]] = {"exact": 1.0, "vqa": 1.0, "cider": 10.0}

SET_HERE = frozenset(
    {"llm", "tokenizer", "k", "shots", "ways", "selection", "order_seed", "choices", "scoring", "focus", "errors",
     "batch_size", "concurrency", "progress", "budget", "prices", "probabilities"}
)  # fmt: skip
"""Options of the tasks that an evaluation sets itself."""


@dataclass(frozen=True, slots=True)
class AnsweringConfig:
    """What is asked.

    task: "answers" or "captions". rows: as ``rows.parse_rows`` takes them. n: items, drawn by the seed; None for all of
    the split. shots: examples before each. seed: of everything random. k: most words that a prompt shows of a picture
    (a part), where the row does not say; None for the tokenizer's default. options: any other option of ``VisualQA`` or
    ``Captioner``.

    Raises:
        UsageError: a value that cannot work, named.
    """

    task: Task = "answers"
    rows: tuple[str, ...] = ("all",)
    n: int | None = None
    shots: int = 8
    seed: int = 0
    k: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        checks.count("n", self.n, none="all items")
        checks.count("shots", self.shots, least=0)
        checks.count("seed", self.seed, least=0)
        checks.count("k", self.k, none="the tokenizer's default")
        open_ = open_options(self.task)
        for name in self.options:
            if name not in open_:
                raise UsageError(
                    f"{name!r} is no option of {self.kind.__name__} that an evaluation leaves open; those are "
                    f"{', '.join(open_)}"
                )

    @property
    def kind(self) -> type[VisualQA] | type[Captioner]:
        """The task's class."""
        return VisualQA if self.task == "answers" else Captioner

    @property
    def every_option(self) -> dict[str, Any]:
        """The open options with their values, defaults too: a default that changes is another run. Where templates lie
        decides nothing."""
        every = self.kind(**self.options).get_params()
        return {name: every[name] for name in open_options(self.task) if name != "templates"}


def open_options(task: Task) -> list[str]:
    """Options of the task that an evaluation leaves open."""
    kind = VisualQA if task == "answers" else Captioner
    return [name for name in inspect.signature(kind).parameters if name not in SET_HERE]


class Judge:
    """How right an answer is.

    Args:
        metric: a name of ``METRICS``.
        asked: every item that might be asked: references of all of them weigh words, whichever are asked.

    Raises:
        UsageError: no such metric, or items it cannot judge.
    """

    def __init__(self, metric: str, asked: Sequence[Question]) -> None:
        self.metric = checks.choice("metric", metric, tuple(METRICS))
        self._places = {item.id: place for place, item in enumerate(asked)}
        self._cider: CiderD | None = None
        if metric == "vqa":
            few = next((item for item in asked if len(item.answers) < PEOPLE), None)
            if few is not None:
                raise UsageError(
                    f"VQA accuracy needs the answers of {PEOPLE} people or more to each question; {few.id!r} has "
                    f"{len(few.answers)}: judge by exact"
                )
        if metric == "cider":
            short = next((item for item in asked if len(item.answers) < 2), None)
            if short is not None:
                raise UsageError(
                    f"a caption is judged by those of other people than the first, so that each picture needs two or "
                    f"more; {short.id!r} has {len(short.answers)}"
                )
            self._cider = CiderD([references(item) for item in asked])

    def score(self, item: Question, answer: str) -> float:
        """From 0 to ``MOST``; an empty answer is 0."""
        if self._cider is None:
            right = exact_answer(answer, item.answers) if self.metric == "exact" else vqa_accuracy(answer, item.answers)
            return float(right)
        captions = [""] * len(self._places)
        captions[self._places[item.id]] = answer
        return float(np.max(self._cider.scores(captions)))


def references(item: Question) -> tuple[str, ...]:
    """The captions that a caption is judged by: all but the first, which is a row of its own."""
    return item.answers[1:]
