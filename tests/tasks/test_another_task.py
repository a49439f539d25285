"""A task that this library does not have, made of its parts alone: few-shot questions about images.

What "how to add a task" in docs/architecture.md says is shown here. Everything above the tests would be a folder
``tasks/answer/`` and a template in ``prompts/``; nothing else of the library has to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pytest

from icl_vision.asking.inquiries import Group, Inquiry, Reply, Window, Writing, ask
from icl_vision.asking.many import OnResult, Work
from icl_vision.asking.plan import count
from icl_vision.contracts import TextLLM, Tokenizer, Usage
from icl_vision.errors import ImageError, NotFittedError, StorageError, TemplateError, UsageError
from icl_vision.files.runs import Run
from icl_vision.images import ImageSource
from icl_vision.llms import FakeLLM
from icl_vision.llms.loop import run_sync
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.prompting import Declaration, FixedPart, Sample, find_template, load_template, render_fixed
from icl_vision.tasks.base import Fitted, Task
from icl_vision.tasks.inputs import encode
from icl_vision.tasks.saving import SavedForm
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer

# prompts/answer.jinja

TEMPLATE = """{% block instruction %}{% if induction %}Answer the question about the words.{% endif %}{% endblock %}
{% block context %}{% for example in examples %}
Words: {{ example.words }}
Question: {{ example.question }}
Answer: {{ example.answer }}
{% endfor %}{% endblock %}
{% block query %}Words: {{ words }}
Question: {{ question }}
Answer:{% endblock %}"""

# tasks/answer/prompts.py


class Shown(NamedTuple):
    """An example: an image's words, a question about it, and the answer."""

    words: str
    question: str
    answer: str


def sample(name: str, folder: Any, *, induction: bool = True, repeats: int = 0) -> Sample:
    fixed = prepare([Shown("red round", "what?", "an apple")], name, folder, induction)
    return Sample(fixed.prompt({"words": "long yellow", "question": "what?"}), " a banana")


ANSWERING = Declaration(
    task="answering",
    purpose="asks a question about an image",
    fixed=("induction",),
    asks={"question": "question"},
    query=("words",),
    sample=sample,
)


def prepare(examples: Sequence[Shown], template: str, folder: Any, induction: bool) -> FixedPart:
    loaded = load_template(find_template(template, folder), (ANSWERING,))
    variables = {"induction": induction}
    shown = {"examples": [example._asdict() for example in examples]}
    return FixedPart(*render_fixed(loaded, variables, shown, max_chars=10_000), loaded, variables, 10_000)


# tasks/answer/task.py


class Asked(NamedTuple):
    """An image's words and the question about it, or why it has no words."""

    text: str
    question: str
    error: Exception | None = None


class Answer(NamedTuple):
    """What came back to a question."""

    text: str
    error: Exception | None = None
    usage: Usage = Usage()

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else str(self.error),
        }


@dataclass(frozen=True, kw_only=True)
class FittedAnswering(Fitted):
    kept: tuple[Shown, ...]
    prompts: FixedPart


class Questions(Task[FittedAnswering]):
    """Answers questions about images after a few answered ones."""

    form = SavedForm("icl_vision.Questions", 1, {"examples": list}, "task of questions", "nothing")
    how_to_fit = "fit(images, questions, answers)"

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | Tokenizer = "words-photo",
        k: int | None = 5,
        *,
        template: str = "answer",
        templates: str | Path | None = None,
        induction: bool = True,
        max_tokens: int = 16,
        errors: str = "raise",
        concurrency: int | None = 8,
    ) -> None:
        self.llm, self.tokenizer, self.k = llm, tokenizer, k
        self.template, self.templates, self.induction = template, templates, induction
        self.max_tokens, self.errors, self.concurrency = max_tokens, errors, concurrency

    def _check(self) -> None:
        if not isinstance(self.template, str):
            raise UsageError(f"template must be a name; got {self.template!r}")

    def fit(self, images: Sequence[ImageSource], questions: Sequence[str], answers: Sequence[str]) -> Self:
        self.check()
        tokenizer = self._connect_tokenizer()
        texts = [tokenizer.to_text(pyramid) for pyramid in tokenizer.encode(images, self.k)]
        examples = tuple(map(Shown, texts, questions, answers))
        self._fitted = self._assembled(self._connect_llm(), tokenizer, examples)
        return self

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: tuple[Shown, ...]) -> FittedAnswering:
        prompts = prepare(kept, self.template, self.templates, self.induction)
        return FittedAnswering(params=self._params_now(), llm=llm, tokenizer=tokenizer, kept=kept, prompts=prompts)

    def _kept_to_dict(self) -> dict[str, Any]:
        return {"examples": [list(example) for example in self.fitted.kept]}

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[Shown, ...]:
        return tuple(Shown(*map(str, example)) for example in document["examples"])

    def answers(self, images: Sequence[ImageSource], questions: Sequence[str]) -> list[Answer]:
        self.ready()
        return run_sync(self.ask(self.read(list(zip(images, questions, strict=True)))))

    def plan(self, images: Sequence[ImageSource], questions: Sequence[str]) -> Usage:
        group = self.group([asked for asked in self.read(list(zip(images, questions, strict=True))) if asked.text])
        return count(DryLLM(self.ready().llm), [group], concurrency=self.concurrency or 8)[0]

    def answers_kept(
        self, images: Mapping[str, ImageSource], question: str, out: Path, *, resume: bool
    ) -> Work[Any, Any]:
        sources = [(name, (image, question)) for name, image in images.items()]
        quiet = self.quietly()
        with Run.open(out, "answer", {"prompt": self.fitted.prompts.context}, resume=resume) as run:
            work = Work(run, lambda name, source: (name, source), quiet.read, quiet.ask, known=dict(run.results()))
            work.all(sources, self.concurrency or 8)
        return work

    def read(self, sources: Sequence[tuple[ImageSource, str]]) -> list[Asked]:
        """Images and their questions as words and questions, or why an image has none."""
        fitted, keep_errors, images = self.fitted, self.errors == "return", [image for image, _ in sources]
        words = encode(
            fitted.tokenizer, images, self.k, batch_size=32, keep_errors=keep_errors, done=lambda number: None
        )
        return [
            Asked("", question, pyramid)
            if isinstance(pyramid, Exception)
            else Asked(fitted.tokenizer.to_text(pyramid), question)
            for pyramid, (_, question) in zip(words, sources, strict=True)
        ]

    def group(self, lot: Sequence[Asked]) -> Group:
        def inquiry(number: int) -> Inquiry:
            asked = {"words": lot[number].text, "question": lot[number].question}
            return Inquiry.written(self.fitted.prompts.prompt(asked), Writing(self.max_tokens))

        return Group(inquiry, len(lot))

    async def ask(self, lot: Sequence[Asked], on_result: OnResult | None = None) -> list[Answer]:
        """The answers of a lot, each told of as soon as it is there."""
        answers = [Answer("", asked.error) for asked in lot]
        good = [number for number, asked in enumerate(lot) if asked.error is None]
        window = Window(self.fitted.llm)

        async def check(asked: Inquiry) -> None:
            if await window.excess(asked.texts, room=self.max_tokens):
                raise UsageError("the prompt is too long: use fewer examples")

        async def read(group: int, number: int, reply: Reply | Exception) -> None:
            answer = (
                Answer("", reply) if isinstance(reply, Exception) else Answer(reply.text.strip(), None, reply.usage)
            )
            answers[good[number]] = answer
            if on_result is not None:
                await on_result(good[number], answer)

        group, keep_errors = self.group([lot[number] for number in good]), self.errors == "return"
        await ask(
            self.fitted.llm, [group], concurrency=self.concurrency or 8, read=read, keep_errors=keep_errors, check=check
        )
        return answers


# What comes of it with the base class and asking/ ---------------------------------------------------------------------


def picture(level: int) -> np.ndarray[Any, Any]:
    return np.full((8, 8, 3), level, dtype=np.uint8)


def looks_up(text: str) -> str:
    """Says what the last example with the query's own words and question says."""
    *lines, words, question, _ = text.split("\n")
    for index in range(len(lines) - 3, -1, -1):
        if lines[index : index + 2] == [words, question]:
            return lines[index + 2].removeprefix("Answer:")
    return " nobody knows"


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "answer.jinja").write_text(TEMPLATE)
    return tmp_path


@pytest.fixture
def fitted(templates: Path) -> Questions:
    task = Questions(FakeLLM(looks_up), AsciiTokenizer(1, 2), None, templates=templates)
    return task.fit([picture(0), picture(0), picture(255)], ["light?", "dark?", "light?"], ["no", "yes", "yes"])


def texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def test_it_answers(fitted: Questions) -> None:
    images = [picture(255), picture(0), picture(0), picture(255)]
    asked = ["light?", "light?", "dark?", "dark?"]
    assert fitted.plan(images, asked).requests == 4 and not fitted.llm_.calls  # type: ignore[attr-defined]  # the fake's
    assert texts(fitted.answers(images, asked)) == ["yes", "no", "yes", "nobody knows"]
    prompts = [call.prompt for call in fitted.llm_.calls]  # type: ignore[attr-defined]  # the fake's
    assert len({prompt.prefix for prompt in prompts}) == 1, "a prefix cache serves all of them"
    assert all(prompt.query.endswith("Answer:") for prompt in prompts)


def test_an_image_that_cannot_be_used_costs_itself(fitted: Questions) -> None:
    with pytest.raises(ImageError):
        fitted.answers([picture(0), b""], ["light?"] * 2)
    broken, whole = fitted.set_params(errors="return").answers([b"", picture(0)], ["light?"] * 2)
    assert isinstance(broken.error, ImageError) and whole.text == "no"


def test_what_was_answered_is_not_asked_again(fitted: Questions, tmp_path: Path) -> None:
    images = {"a": picture(0), "b": picture(255)}
    first = fitted.answers_kept({"a": picture(0)}, "light?", tmp_path / "run", resume=False)
    again = fitted.answers_kept(images, "light?", tmp_path / "run", resume=True)
    assert (first.answered, again.answered, again.kept) == (1, 1, 1)
    assert [again.known[item]["text"] for item in again.items] == ["no", "yes"]
    assert len(fitted.llm_.calls) == 2  # type: ignore[attr-defined]  # the fake's


def test_it_is_saved_and_loaded(fitted: Questions, tmp_path: Path, templates: Path) -> None:
    fitted.save(tmp_path / "task.json")
    text = (tmp_path / "task.json").read_text()
    assert "light?" in text and "icl_vision.Questions" in text
    again = Questions.load(
        tmp_path / "task.json", llm=FakeLLM(looks_up), tokenizer=AsciiTokenizer(1, 2), templates=templates
    )
    assert texts(again.answers([picture(0)], ["dark?"])) == ["yes"]
    (templates / "answer.jinja").write_text(TEMPLATE.replace("Words:", "Image:"))
    with pytest.raises(TemplateError):
        Questions.load(tmp_path / "task.json", llm=FakeLLM(looks_up), tokenizer=AsciiTokenizer(1, 2), trust=True)
    with pytest.raises(StorageError, match="is no saved task of questions: it holds what FewShotClassifier.load reads"):
        (tmp_path / "other.json").write_text('{"format": "icl_vision.FewShotClassifier"}')
        Questions.load(tmp_path / "other.json")


def test_it_is_a_task_like_the_others(fitted: Questions) -> None:
    with pytest.raises(NotFittedError, match=r"call fit\(images, questions, answers\) first"):
        Questions().answers([], [])
    with pytest.raises(UsageError, match="errors must be one of 'raise', 'return'"):
        fitted.set_params(errors="ignore").answers([], [])
    fitted.set_params(errors="raise", induction=False)
    fitted.answers([picture(0)], ["dark?"])
    sent = fitted.llm_.calls[-1].prompt  # type: ignore[attr-defined]  # the fake's
    assert sent.instruction, "what is set after fit holds from the next fit on"
    assert isinstance(fitted.tokenizer_, ImageTokenizer)
