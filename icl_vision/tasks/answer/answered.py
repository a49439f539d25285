"""Answered examples and queries of an answering task: what a user hands over, checked, and what a file keeps of it.

Knows: pictures, a question or none, an answer with its references, choices. Refuses to know: prompts, LLMs, how a
picture becomes words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from icl_vision import checks
from icl_vision.errors import PromptError, UsageError
from icl_vision.prompting.labels import check_line
from icl_vision.spelling import composed
from icl_vision.tasks.answer.pictures import Seen, Source, as_pictures, from_dict, is_picture, to_dict
from icl_vision.tasks.inputs import is_folder, read_images
from icl_vision.vocabulary import Vocabulary
from icl_vision.wording import counted

MOST_QUESTION = 500
"""Characters of a question; the longest of the data sets read by ``icl_vision.evaluation`` have some 300."""

MOST_ANSWER = 200
"""Characters of an answer or a choice."""

MOST_CAPTION = 500
"""Characters of a caption."""

MOST_REFERENCES = 64
"""Answers that one example may have: the data sets have 1 to 10."""

MOST_CHOICES = 1000
"""Things that may be given to choose from."""


@dataclass(frozen=True, slots=True)
class AnsweredExample:
    """One example: its pictures in words (several, or none), the question or None, and what was answered.

    answer: the one that a prompt shows. references: all that were given, the answer among them.
    """

    pictures: tuple[Seen, ...]
    question: str | None
    answer: str
    references: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "pictures": [to_dict(seen) for seen in self.pictures],
            "question": self.question,
            "answer": self.answer,
            "references": list(self.references),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], vocabulary: Vocabulary | None) -> AnsweredExample:
        """The way back.

        Raises:
            PyramidError, VocabularyError, PromptError, KeyError, TypeError, ValueError: a damaged document.
        """
        question, answer, references = document["question"], document["answer"], document["references"]
        for text in (answer, *references, *([] if question is None else [question])):
            check_line(text, "a text of an example", max(MOST_QUESTION, MOST_CAPTION))
        if answer not in references:
            raise ValueError(f"the answer {answer!r} is none of its references")
        return cls(
            tuple(from_dict(seen, vocabulary) for seen in document["pictures"]), question, answer, tuple(references)
        )


class Asked(NamedTuple):
    """One query as a user hands it over. choices: what may be answered, None where that is open. error: why it cannot
    be asked, where that costs only itself; its question is then what was given, shortened to be told."""

    pictures: tuple[Source, ...]
    question: str | None
    choices: tuple[str, ...] | None
    error: Exception | None = None


class Wording(NamedTuple):
    """How texts of one task are checked. what: what an answer is called. most: characters it may have. literals: fixed
    words of the template."""

    what: str
    most: int
    literals: tuple[str, ...]

    def answer(self, text: object) -> str:
        """An answer, without spaces at its ends; whole numbers as text.

        Raises:
            PromptError: see ``check_line``.
        """
        if isinstance(text, int) and not isinstance(text, bool):
            text = str(text)
        return check_line(_stripped(text), self.what, self.most, self.literals)

    def question(self, text: object) -> str | None:
        """A question, or None for none.

        Raises:
            PromptError: see ``check_line``.
        """
        return None if text is None else check_line(_stripped(text), "a question", MOST_QUESTION, self.literals)

    def references(self, given: object, index: int) -> tuple[str, ...]:
        """One answer or several, as a tuple.

        Raises:
            UsageError: none, or too many. PromptError: one that must not enter a prompt.
        """
        several = [given] if isinstance(given, str | int) else list(_iterable(given, f"answers[{index}]"))
        if not 0 < len(several) <= MOST_REFERENCES:
            raise UsageError(
                f"an example needs 1 to {MOST_REFERENCES} answers; example {index} has {len(several)}: give a text, "
                "or a list of texts"
            )
        try:
            return tuple(self.answer(text) for text in several)
        except PromptError as error:
            raise type(error)(f"example {index}: {error}") from error

    def choices(self, given: object) -> tuple[str, ...] | None:
        """Things to choose from, or None.

        Raises:
            UsageError: fewer than two, too many, or two that an answer could not tell apart.
            PromptError: one that must not enter a prompt.
        """
        if given is None:
            return None
        if isinstance(given, str):
            raise UsageError(f"choices must be a list of texts; got the single text {given!r}")
        texts = tuple(check_line(_stripped(text), "a choice", MOST_ANSWER, self.literals)
                      for text in _iterable(given, "choices"))  # fmt: skip
        if not 2 <= len(texts) <= MOST_CHOICES:
            raise UsageError(f"choices must be 2 to {MOST_CHOICES} texts; got {len(texts)}")
        tally = Counter(composed(text).casefold() for text in texts)
        twice = next((text for text in texts if tally[composed(text).casefold()] > 1), None)
        if twice is not None:
            raise UsageError(f"the choice {twice!r} is given twice, up to case; give each once")
        return texts


def most_usual(references: Sequence[str]) -> str:
    """The answer that most gave; of equals the first."""
    tally = Counter(composed(text).casefold() for text in references)
    return max(references, key=lambda text: tally[composed(text).casefold()])


def most_central(references: Sequence[str]) -> str:
    """The caption that has most words in common with the others, for its length; of equals the first."""
    bags = [set(composed(text).casefold().split()) for text in references]

    def shared(index: int) -> float:
        own = bags[index]
        return sum(len(own & other) / len(own | other) for place, other in enumerate(bags) if place != index and own)

    return references[max(range(len(references)), key=shared)]


def as_support(
    images: object, questions: object, answers: object, wording: Wording, *, with_questions: bool
) -> list[tuple[tuple[Source, ...], str | None, tuple[str, ...]]]:
    """The examples of a ``fit``: pictures, question, references of each; [] where everything is None.

    Raises:
        UsageError: a form that cannot work. PromptError: a text that must not enter a prompt; naming the example.
    """
    names = "images, questions and answers" if with_questions else "images and captions"
    if images is None and questions is None and answers is None:
        return []
    if images is None or answers is None:
        raise UsageError(f"fit needs {names}, or nothing at all to answer without examples")
    pictures = _each_pictures(images)
    answered = list(_iterable(answers, "answers" if with_questions else "captions"))
    asked = [questions] * len(pictures) if questions is None or isinstance(questions, str) else list(
        _iterable(questions, "questions")
    )  # fmt: skip
    if not len(pictures) == len(asked) == len(answered):
        told = f"{counted(len(pictures), 'image')}, {counted(len(asked), 'question')} and " if with_questions else (
            f"{counted(len(pictures), 'image')} and "
        )  # fmt: skip
        noun = "answer" if with_questions else "caption"
        raise UsageError(f"{names} must be of equal length; got {told}{counted(len(answered), noun)}")
    support = []
    for index, (shown, question, given) in enumerate(zip(pictures, asked, answered, strict=True)):
        try:
            text = wording.question(question)
        except PromptError as error:
            raise type(error)(f"example {index}: {error}") from error
        support.append((shown, text, wording.references(given, index)))
    return support


def as_queries(
    images: object, questions: object, choices: object, wording: Wording, *, keep_errors: bool = False
) -> list[Asked]:
    """Queries: one picture for all questions, one question for all pictures, or as many of the one as of the other.

    choices: one list for all, or a list for each query; None for those of ``fit``, which is not looked at here.
    keep_errors: put what is wrong with one of several questions, or with its own choices, in its place.

    Raises:
        UsageError: a form that cannot work. PromptError: a text that must not enter a prompt.
    """
    single = is_picture(images) and not is_folder(images)
    if isinstance(questions, str) or questions is None:
        pictures = _each_pictures([images] if single else images)
        asked: list[object] = [questions] * len(pictures)
    else:
        asked = list(_iterable(questions, "questions"))
        pictures = [as_pictures(images)] * len(asked) if single else _each_pictures(images)
    if len(pictures) != len(asked):
        raise UsageError(
            "images and questions must be of equal length, or one of them a single one; got "
            f"{counted(len(pictures), 'image')} and {counted(len(asked), 'question')}"
        )
    offered: list[object] = [choices] * len(asked)
    own_choices = False
    if choices is not None and not isinstance(choices, str):
        listed = list(_iterable(choices, "choices"))
        own_choices = bool(listed) and not any(isinstance(entry, str) for entry in listed)
        if own_choices and len(listed) != len(asked):
            raise UsageError(
                f"choices must be one list, or one for each question; got {counted(len(listed), 'list')} for "
                f"{counted(len(asked), 'question')}"
            )
        offered = listed if own_choices else [listed] * len(asked)
    shared = None if own_choices else wording.choices(choices if not offered else offered[0])
    queries = []
    for shown, question, given in zip(pictures, asked, offered, strict=True):
        try:
            chosen = wording.choices(given) if own_choices else shared
            queries.append(Asked(shown, wording.question(question), chosen))
        except (PromptError, UsageError) as error:
            if not keep_errors:
                raise
            queries.append(Asked(shown, checks.shown(question), None, error))
    return queries


def _each_pictures(images: object) -> list[tuple[Any, ...]]:
    """The pictures of every example or query: each entry one picture, or a list of several."""
    if is_folder(images):
        return [(path,) for path in read_images(images)]  # type: ignore[arg-type]  # is_folder saw to it
    if is_picture(images):
        raise UsageError("images must be a sequence, an entry for each example; got one image: put it into a list")
    return [as_pictures(entry, f"images[{index}]") for index, entry in enumerate(_iterable(images, "images"))]


def _iterable(value: object, name: str) -> Iterable[object]:
    if isinstance(value, str | bytes | Mapping | set | frozenset) or not isinstance(value, Iterable):
        raise UsageError(f"{name} must be a sequence; got {type(value).__name__}")
    return value


def _stripped(text: object) -> object:
    return text.strip() if isinstance(text, str) else text
