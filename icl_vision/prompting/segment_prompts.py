"""From pairs of pictures and a segment template to the prompts that ask for one segment of a picture.

Knows: the variables that a segment template receives, and that everything but the query is rendered once.
Refuses to know: which words are shown for which segment (``drawing.windows``), LLMs, answers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from icl_vision.contracts import Prompt
from icl_vision.errors import TemplateError, UsageError
from icl_vision.prompting.labels import check_words
from icl_vision.prompting.templates import MAX_RENDERED_CHARS, PromptTemplate, find_template, load_template


@dataclass(frozen=True, slots=True)
class SegmentExample:
    """One example of a segment: its condition, the words shown before it (both may be ""), and its own words."""

    condition: str
    words: str
    answer: str


@dataclass(frozen=True, slots=True)
class SegmentPlace:
    """Where a segment lies, as a template is told.

    count: its words. layer: of its first word, from 1. layers: of the picture. first: place of its first word on that
    layer, from 1. size: words of that layer. segment: its number, from 1. segments: of the picture.
    """

    count: int
    layer: int = 1
    layers: int = 1
    first: int = 1
    size: int = 1
    segment: int = 1
    segments: int = 1


@dataclass(frozen=True, slots=True)
class PreparedSegment:
    """The fixed part of one segment's prompts, rendered once; ``query`` adds what changes."""

    instruction: str
    context: str
    template: PromptTemplate = field(repr=False)
    variables: dict[str, Any] = field(repr=False)
    max_chars: int = field(default=MAX_RENDERED_CHARS, repr=False)

    def query(self, *, condition: str = "", words: str = "") -> Prompt:
        """The whole prompt of one query.

        Args:
            condition: what the picture is of, or "".
            words: the words shown, or "".

        Raises:
            PromptError: text that may not enter a prompt.
            TemplateError: the query block fails.
        """
        variables = {**self.variables, "condition": check_words(condition), "words": check_words(words)}
        return Prompt(
            self.instruction, self.context, self.template.render("query", variables, max_chars=self.max_chars)
        )


class SegmentPromptBuilder:
    """Builds the prompts of progressive decoding (SPAE, eq. 11) from a segment template.

    Args:
        template: name of a segment template, such as "progressive" or "refinement".
        folder: a folder of your own ``*.jinja`` files, which override packaged ones of the same name.
        induction: whether the template's instruction is given.
        max_chars: longest rendered part of a prompt.

    Raises:
        TemplateError: no such template, one with faults, or one that asks for labels.
        UsageError: ``max_chars`` below 1.
    """

    def __init__(
        self,
        template: str = "progressive",
        *,
        folder: str | os.PathLike[str] | None = None,
        induction: bool = True,
        max_chars: int = MAX_RENDERED_CHARS,
    ) -> None:
        if isinstance(max_chars, bool) or not isinstance(max_chars, int) or max_chars < 1:
            raise UsageError(f"max_chars must be a whole number of 1 or more; got {max_chars!r}")
        self.template = load_template(find_template(template, folder))
        if self.template.kind != "segment":
            raise TemplateError(
                f"{self.template.info.path}: the template {template!r} asks for a label, not for the next words of a "
                "picture; use one whose blocks use `count`, such as 'progressive'"
            )
        self.induction = bool(induction)
        self.max_chars = max_chars

    @property
    def kind(self) -> str:
        """Always "segment"."""
        return self.template.kind

    def prepare(self, examples: Sequence[SegmentExample], place: SegmentPlace) -> PreparedSegment:
        """Render the part that all queries of a segment share.

        Args:
            examples: in the order to show; may be empty.
            place: where the segment lies.

        Raises:
            PromptError: text that may not enter a prompt.
            TemplateError: a block fails, or the text is longer than ``max_chars``.
        """
        variables: dict[str, Any] = {"induction": self.induction, **asdict(place)}
        shown = [
            {
                "condition": check_words(one.condition),
                "words": check_words(one.words),
                "answer": check_words(one.answer),
            }
            for one in examples
        ]
        render = self.template.render
        instruction = render("instruction", variables, max_chars=self.max_chars)
        context = render("context", {**variables, "examples": shown}, max_chars=self.max_chars)
        return PreparedSegment(instruction, context, self.template, variables, self.max_chars)
