"""From answered examples and a template to the prompts of a query.

Knows: the variables that the templates of questions and of captions get, which it declares. Refuses to know: images,
LLMs, which examples are shown, how a template is rendered.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from icl_vision.contracts import Prompt
from icl_vision.prompting.declarations import Declaration, Sample
from icl_vision.prompting.labels import check_words
from icl_vision.prompting.templates import (
    MAX_RENDERED_CHARS,
    FixedPart,
    PromptTemplate,
    find_template,
    load_template,
    render_fixed,
)


class ShownExample(NamedTuple):
    """An example as a template gets it. pictures: the line of each. question: "" without one."""

    pictures: tuple[str, ...]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class PreparedAnswering(FixedPart):
    """The fixed part of a prompt with the examples it shows, rendered once; ``query`` adds what changes."""

    def query(self, pictures: Sequence[str], question: str | None) -> Prompt:
        """The whole prompt about a query.

        Args:
            pictures: the line of each picture; none where no words are shown.
            question: None without one.

        Raises:
            PromptError: words that must not enter a prompt. TemplateError: the query block fails.
        """
        lines = [check_words(line) for line in pictures]
        asked = {"question": question or ""} if self.template.kind == "question" else {}
        return self.prompt({"pictures": lines, **asked})


class AnswerPromptBuilder:
    """Builds the prompts of an answering task from a template.

    Args:
        declaration: ``ANSWERING`` or ``CAPTIONING``.
        template: name of a template of that task.
        folder: a folder of your own ``*.jinja`` files, which override packaged ones of the same name.
        induction: whether the template's instruction is given.
        repeats: how many times more each example is shown.

    Raises:
        TemplateError: no such template, or one with faults.
    """

    def __init__(
        self,
        declaration: Declaration,
        template: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        induction: bool = True,
        repeats: int = 0,
    ) -> None:
        self.declaration = declaration
        self.template: PromptTemplate = load_template(find_template(template, folder), (declaration,))
        self.induction = bool(induction)
        self.repeats = int(repeats)

    def prepare(self, examples: Sequence[ShownExample], choices: Sequence[str] = ()) -> PreparedAnswering:
        """Render the part that all queries with these examples share.

        Args:
            examples: in the order to show; may be empty.
            choices: what may be answered, where that is fixed.

        Raises:
            PromptError: words that must not enter a prompt.
            TemplateError: a block fails, or the text is too long.
        """
        variables: dict[str, Any] = {"induction": self.induction, "shots": len(examples), "repeats": self.repeats}
        if self.template.kind == "question":
            variables |= {"choices": list(choices), "ways": len({example.answer for example in examples})}
        shown = [
            {
                "pictures": [check_words(line) for line in example.pictures],
                "answer": example.answer,
                **({"question": example.question} if self.template.kind == "question" else {}),
            }
            for example in [*examples] * (self.repeats + 1)
        ]
        rendered = render_fixed(self.template, variables, {"examples": shown}, max_chars=MAX_RENDERED_CHARS)
        return PreparedAnswering(*rendered, self.template, variables, MAX_RENDERED_CHARS)


# What the templates get, and a try of them ------------------------------------------------------------------------

SAMPLE_SHOWN = (
    ShownExample(("dolphin whale sea jump",), "how many animals are there?", "two"),
    ShownExample(('pizza cheese table; text in the picture: "MENU"',), "what is on the table?", "pizza"),
)
SAMPLE_CAPTIONED = (
    ShownExample(("dolphin whale sea jump",), "", "Two dolphins jump out of the sea."),
    ShownExample(("pizza cheese table",), "", "A pizza lies on a table."),
)
"""Small built-in examples, of made-up words; they are not measured output."""
SAMPLE_WORDS = ("bus traffic wheel yellow",)
SAMPLE_QUESTION = "what colour is the bus?"


def sample_question(
    name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0
) -> Sample:
    """The prompt that a template of questions makes of the built-in examples, without images or an LLM.

    Raises:
        TemplateError: as ``AnswerPromptBuilder``, or a block fails.
    """
    builder = AnswerPromptBuilder(ANSWERING, name, folder=folder, induction=induction, repeats=repeats)
    return Sample(builder.prepare(SAMPLE_SHOWN).query(SAMPLE_WORDS, SAMPLE_QUESTION), " yellow")


def sample_caption(
    name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0
) -> Sample:
    """The same of a template of captions."""
    builder = AnswerPromptBuilder(CAPTIONING, name, folder=folder, induction=induction, repeats=repeats)
    return Sample(builder.prepare(SAMPLE_CAPTIONED).query(SAMPLE_WORDS, None), " A yellow bus stands in traffic.")


ANSWERING = Declaration(
    task="answering",
    purpose="asks a question about pictures",
    fixed=("induction", "choices", "shots", "ways", "repeats"),
    asks={"question": "question"},
    query=("pictures",),
    sample=sample_question,
)

CAPTIONING = Declaration(
    task="captioning",
    purpose="asks for a caption",
    fixed=("induction", "shots", "repeats"),
    asks={"caption": "pictures"},
    sample=sample_caption,
)
