"""The rows of a table of answers or captions: what each puts in the place of the picture, and how its answer is found.

A row is written ``words`` or ``words:method``, as in ``describe:fused``: what stands for the picture, and how the LLM
is asked. Rows without an LLM have no method. Where none is named it is "fused" with an LLM that scores text, and
"greedy" elsewhere, as ``VisualQA`` itself does it.

Knows: names, meanings, which rows there are by default. Refuses to know: how words are made, how anything is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from icl_vision.errors import UsageError

Task = Literal["answers", "captions"]
Method = Literal["fused", "greedy"]

METHODS: Final[dict[str, str]] = {
    "fused": "the candidate that the LLM, not shown the picture, and the picture's words hold likeliest together",
    "greedy": "what the LLM writes after the words",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What stands for the picture in a row.

    name: as in ``--rows``. meaning: one line for people. tokenizer, k: what makes the words and how many; None where
    nothing is encoded. focus: only words that bear on the question. near: its examples are nearest by the pictures'
    words too. tasks: where the row makes sense. llm: whether an LLM is asked; a row without one costs nothing.
    """

    name: str
    meaning: str
    tokenizer: str | None = None
    k: int | None = None
    focus: bool = False
    near: bool = False
    tasks: tuple[Task, ...] = ("answers", "captions")
    llm: bool = True


BLIND, PRIOR, CONSTANT, COPIED = "blind", "prior", "constant", "copied"
VISION, HUMAN, TEMPLATE = "vision", "human", "template"
DESCRIBE, DESCRIBE_ALL, DESCRIBE_NEAR = "describe", "describe-all", "describe-near"
PHOTO, ASCII = "words-photo", "ascii"
CAPTION, SHUFFLED, OTHER, GIVEN = "caption", "caption-shuffled", "other", "given"

WORDS: Final[dict[str, Words]] = {
    words.name: words
    for words in (
        Words(BLIND, "the picture withheld: question and examples without words; for captions, examples by a draw"),
        Words(
            PRIOR, "no LLM: the most frequent answer to questions of the same type about other pictures",
            tasks=("answers",), llm=False,
        ),
        Words(
            CONSTANT, "no LLM: the one answer that is right of most questions of the type, which nobody could know "
            "before; the highest that a constant guess can come", tasks=("answers",), llm=False,
        ),
        Words(COPIED, "no LLM: the nearest example's answer or caption, copied", llm=False),
        Words(
            VISION,
            "no LLM: the answer that describe-photo's words and the frequency of answers of the type hold likeliest",
            "describe-photo", focus=True, tasks=("answers",), llm=False,
        ),
        Words(HUMAN, "no LLM: what one person wrote, judged by the others", tasks=("captions",), llm=False),
        Words(
            TEMPLATE, "no LLM: a fixed sentence around describe-photo's likeliest words", "describe-photo",
            tasks=("captions",), llm=False,
        ),
        Words(DESCRIBE, "describe-photo, the words that bear on the question", "describe-photo", focus=True),
        Words(DESCRIBE_ALL, "describe-photo, whatever the question", "describe-photo", tasks=("answers",)),
        Words(
            DESCRIBE_NEAR, "the same, with examples of its own: nearest by question and by words of pictures, as "
            "VisualQA chooses them", "describe-photo", focus=True, near=True, tasks=("answers",),
        ),
        Words(PHOTO, "words-photo: words for what class of thing it is", "words-photo"),
        Words("spae-5", "spae-photo-128, 5 words", "spae-photo-128", 5),
        Words("spae-21", "spae-photo-128, 21 words", "spae-photo-128", 21),
        Words("spae-85", "spae-photo-128, 85 words", "spae-photo-128", 85),
        Words("lqae-64", "lqae-photo-128, all its 64 words", "lqae-photo-128", 64),
        Words(ASCII, "character art, 16 rows of 16", "ascii"),
        Words(
            CAPTION, "the ceiling of text: what a person wrote of the picture, as its words (words-photo's where "
            "nobody wrote of an example's picture)",
        ),
        Words(SHUFFLED, "the same words in random order"),
        Words(GIVEN, "the words that come with the set in the place of pictures, as they are"),
        Words(
            OTHER, "control: the words that describe-photo has for other pictures, dealt out", "describe-photo",
            focus=True,
        ),
    )
}  # fmt: skip
"""Every name that a row may begin with."""

ANSWERS: Final = (
    BLIND, PRIOR, CONSTANT, COPIED, VISION, DESCRIBE, DESCRIBE_NEAR, PHOTO, CAPTION, OTHER,
    "blind:greedy", "describe:greedy", "describe-all:greedy", "words-photo:greedy", "spae-5:greedy", "spae-21:greedy",
    "spae-85:greedy", "ascii:greedy", "caption:greedy", "caption-shuffled:greedy",
)  # fmt: skip
"""The rows of a table of answers, where nothing else is said. (Fused, the order of words is nothing: a shuffled caption
is the caption.)"""

CAPTIONS: Final = (
    BLIND, COPIED, TEMPLATE, HUMAN, DESCRIBE, PHOTO, "spae-5", "spae-21", "spae-85", ASCII, CAPTION, SHUFFLED, OTHER,
)  # fmt: skip
"""The same of captions."""

LADDER: Final = (BLIND, PHOTO, DESCRIBE, CAPTION, "blind:greedy", "caption:greedy", "caption-shuffled:greedy")
"""Rows that say how much of what perfect words would give an LLM ours give it. Of one that does not score text, and of
captions, they are five."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. method: None without an LLM."""

    words: Words
    method: Method | None

    @property
    def name(self) -> str:
        """As in the journal: "describe:fused"."""
        return self.words.name + (f":{self.method}" if self.method else "")

    @property
    def meaning(self) -> str:
        """One line for people."""
        return self.words.meaning + (f"; {METHODS[self.method]}" if self.method else "")


def parse_rows(texts: Sequence[str], task: Task, *, scores_text: bool) -> list[Row]:
    """The rows of these names, each once, in the order given.

    Args:
        texts: names; "all" for the task's table, "ladder" for ``LADDER``.
        task: what is measured.
        scores_text: whether the LLM scores text, so that "fused" can be had; decides where no method is named.

    Raises:
        UsageError: no such row, no such method, or one that this task or row does not have.
    """
    named: list[str] = []
    for text in texts:
        whole = {"all": ANSWERS if task == "answers" else CAPTIONS, "ladder": LADDER}.get(text)
        named += [text] if whole is None else whole
    rows = [_row(text, task, scores_text) for text in named]
    if not rows:
        raise UsageError(f"give at least one row: {', '.join(_of(task))}, or all, or ladder")
    return list({row.name: row for row in rows}.values())


def _row(text: str, task: Task, scores_text: bool) -> Row:
    name, colon, method = text.partition(":")
    words = WORDS.get(name)
    if words is None or task not in words.tasks:
        raise UsageError(f"there is no row {name!r} of {task}; there are {', '.join(_of(task))}")
    if not words.llm:
        if colon:
            raise UsageError(f"the row {name!r} asks no LLM, so that {text!r} has no method; write {name}")
        return Row(words, None)
    if task == "captions":
        if colon and method != "greedy":
            raise UsageError(f"captions are written (greedy), not chosen; got {text!r}")
        return Row(words, "greedy")
    if not colon:
        return Row(words, "fused" if scores_text and name != ASCII else "greedy")
    if method not in METHODS:
        raise UsageError(f"a row's method is {' or '.join(METHODS)}; got {text!r}")
    return Row(words, "fused" if method == "fused" else "greedy")


def _of(task: Task) -> list[str]:
    return [words.name for words in WORDS.values() if task in words.tasks]
