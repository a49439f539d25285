"""From pairs of pictures and a segment template to the prompts that ask for one segment of a picture.

Knows: the variables that a segment template gets, which it declares. Refuses to know: which words are shown for which
segment (``drawing.stages``), LLMs, answers, and how a template is rendered.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from icl_vision import checks
from icl_vision.contracts import Prompt
from icl_vision.prompting.declarations import Declaration, Sample
from icl_vision.prompting.labels import check_texts
from icl_vision.prompting.templates import MAX_RENDERED_CHARS, FixedPart, find_template, load_template, render_fixed


@dataclass(frozen=True, slots=True)
class SegmentExample:
    """One example of a segment: its condition, the words shown before it (both may be ""), and its own words."""

    condition: str
    words: str
    answer: str


SHOWN = tuple(field.name for field in fields(SegmentExample))


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
class PreparedSegment(FixedPart):
    """The fixed part of one segment's prompts, rendered once; ``query`` adds what changes."""

    def query(self, *, condition: str = "", words: str = "") -> Prompt:
        """The whole prompt of one query.

        Args:
            condition: what the picture is of, or "".
            words: the words shown, or "".

        Raises:
            PromptError: text that may not enter a prompt.
            TemplateError: the query block fails.
        """
        condition, words = check_texts((condition, words))
        return self.prompt({"condition": condition, "words": words})


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
        self.max_chars = checks.count("max_chars", max_chars)
        self.template = load_template(find_template(template, folder), (SEGMENT,))
        self.induction = bool(induction)

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
        texts = iter(
            check_texts([text for example in examples for text in (example.condition, example.words, example.answer)])
        )
        shown = [dict(zip(SHOWN, three, strict=True)) for three in zip(texts, texts, texts, strict=True)]
        rendered = render_fixed(self.template, variables, {"examples": shown}, max_chars=self.max_chars)
        return PreparedSegment(*rendered, self.template, variables, self.max_chars)


# What the templates get, and a try of them ------------------------------------------------------------------------

SAMPLE_PLACE = SegmentPlace(count=2, layer=2, layers=2, first=3, size=4, segment=3, segments=3)
"""The last two of four words on a second layer: what was drawn before are one word and two. All are made up."""
SAMPLE_DRAWN = (
    SegmentExample("an image of 1", "stroke empty line", "line empty"),
    SegmentExample("an image of 0", "ring curve curve", "curve curve"),
    SegmentExample("an image of 7", "corner line line", "empty line"),
)
SAMPLE_CONDITION = "an image of 4"
SAMPLE_SO_FAR = "cross line line"


def sample(name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0) -> Sample:
    """The prompt that a template makes of a built-in segment, without a tokenizer or an LLM; ``repeats`` means nothing.

    Raises:
        TemplateError: as ``SegmentPromptBuilder``, or a block fails.
    """
    prepared = SegmentPromptBuilder(name, folder=folder, induction=induction).prepare(SAMPLE_DRAWN, SAMPLE_PLACE)
    return Sample(prepared.query(condition=SAMPLE_CONDITION, words=SAMPLE_SO_FAR), f" {SAMPLE_DRAWN[0].answer}")


SEGMENT = Declaration(
    task="drawing",
    purpose="asks for the next words of a picture",
    fixed=("induction", *(field.name for field in fields(SegmentPlace))),
    asks={"segment": "words"},
    query=("condition",),
    sample=sample,
)
"""The query holds a condition and the words so far, and asks for the next words of a picture."""
