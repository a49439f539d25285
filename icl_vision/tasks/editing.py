"""A picture changed through words: it is seen as words, an LLM changes the words, and they are drawn again.

    loop = PictureLoop(connect("local"), see, {"words": generator_draws, "diffusion": system.draw})
    (edited,) = loop.edit(["seven.png"], "make it five")
    edited.said, edited.pictures["words"], edited.pictures["diffusion"]

Several drawers draw the same words, side by side. What the words do not say does not survive the trip: that is what
there is to be measured (``benchmarks/edit_loop.py``).

Knows: the order of the trip, the template ``edit`` and its examples. Refuses to know: how a picture is seen, and how
one is drawn; both are handed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from icl_vision import checks
from icl_vision.contracts import Prompt, TextLLM
from icl_vision.errors import LLMNoAnswerError, UsageError
from icl_vision.images import ImageSource
from icl_vision.prompting.declarations import Declaration, Sample
from icl_vision.prompting.labels import check_words
from icl_vision.prompting.templates import MAX_RENDERED_CHARS, FixedPart, find_template, load_template, render_fixed

if TYPE_CHECKING:
    from PIL import Image

See = Callable[[Sequence[ImageSource]], Sequence[str]]
"""Pictures to what they show, a line each."""
DrawTexts = Callable[[Sequence[str]], "Sequence[Image.Image | None]"]
"""Texts to pictures of them, None where there is none."""

MOST_TOKENS = 24
"""Tokens that the LLM may write."""
MOST_CHARACTERS = 300
"""Of what is seen, of a change, and of what is drawn."""


class Change(NamedTuple):
    """An example: what a picture shows, what is to change, what the new one shows."""

    before: str
    change: str
    after: str


DIGIT_CHANGES: tuple[Change, ...] = (
    Change("an image of 4", "make it two", "an image of 2"),
    Change("an image of 6", "the same again", "an image of 6"),
    Change("an image of 1", "add one", "an image of 2"),
    Change("an image of 9", "make it zero", "an image of 0"),
    Change("an image of 3", "add one", "an image of 4"),
    Change("an image of 8", "the same again", "an image of 8"),
)
"""Examples for pictures of digits, in the words of the packaged ones."""


@dataclass(frozen=True, slots=True)
class Edited:
    """One trip.

    Attributes:
        seen: what the picture shows, in words.
        change: what was to change.
        said: what the new picture shows, by the LLM; None where it said nothing.
        pictures: by drawer; None where nothing was said, or the drawer drew nothing.
    """

    seen: str
    change: str
    said: str | None
    pictures: Mapping[str, Image.Image | None] = field(repr=False)


class PictureLoop:
    """Picture to words, words to words, words to pictures.

    Args:
        llm: changes the words; it never sees a picture.
        see: what pictures show; such as ``predict`` of a fitted ``FewShotClassifier``.
        draw: one or more drawers by name; all are given the same words. Equal texts are drawn once.
        examples: of changes, shown to the LLM before each.
        template: name of a template of this task.
        templates: a folder of your own ``*.jinja`` files.

    Raises:
        UsageError: no drawer, or no example.
        TemplateError: no such template, or one with faults.
        PromptError: examples that must not enter a prompt.
    """

    def __init__(
        self,
        llm: TextLLM,
        see: See,
        draw: Mapping[str, DrawTexts],
        *,
        examples: Sequence[Change] = DIGIT_CHANGES,
        template: str = "edit",
        templates: str | os.PathLike[str] | None = None,
    ) -> None:
        if not draw or not examples:
            raise UsageError(
                f"a picture is changed with one drawer and one example at least; got {len(draw)} and {len(examples)}"
            )
        self.llm = llm
        self.see = see
        self.drawers = dict(draw)
        self._fixed = _fixed(tuple(Change(*map(check_words, one)) for one in examples), template, templates)

    def edit(self, pictures: Sequence[ImageSource], changes: str | Sequence[str]) -> list[Edited]:
        """Change pictures.

        Args:
            pictures: the pictures.
            changes: one for each, or one for all.

        Raises:
            UsageError: another number of changes, or one that is no text of 1 to 300 characters.
            PromptError: a change, or what is seen, that must not enter a prompt.
            LLMError: the LLM cannot answer. What ``see`` and the drawers raise.
        """
        wanted = [changes] * len(pictures) if isinstance(changes, str) else list(changes)
        if len(wanted) != len(pictures):
            raise UsageError(
                f"a change is needed for each picture, or one for all; got {len(wanted)} for {len(pictures)}"
            )
        wanted = [_line("a change", change) for change in wanted]
        seen = [_line("what is seen", line) for line in self.see(pictures)]
        said = [self._said(before, change) for before, change in zip(seen, wanted, strict=True)]
        texts = list(dict.fromkeys(text for text in said if text is not None))
        drawn = {
            name: dict(zip(texts, draw(texts), strict=True)) if texts else {} for name, draw in self.drawers.items()
        }
        return [
            Edited(
                before, change, text, {name: None if text is None else own[text] for name, own in drawn.items()}
            )
            for before, change, text in zip(seen, wanted, said, strict=True)
        ]  # fmt: skip

    def prompt(self, before: str, change: str) -> Prompt:
        """What the LLM is asked about one picture. Raises PromptError for words that must not enter a prompt."""
        return self._fixed.prompt({"before": check_words(before), "change": check_words(change)})

    def _said(self, before: str, change: str) -> str | None:
        try:
            answer = self.llm.complete_sync(self.prompt(before, change), max_tokens=MOST_TOKENS, stop=("\n",)).text
        except LLMNoAnswerError:
            return None
        text = " ".join(answer.split())
        return text[:MOST_CHARACTERS] if text.isprintable() and text else None


def _line(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MOST_CHARACTERS or "\n" in value.strip():
        raise UsageError(
            f"{name} must be a line of 1 to {MOST_CHARACTERS} characters; got {checks.shown(value)}"
        )  # fmt: skip
    return value.strip()


def _fixed(
    examples: Sequence[Change],
    template: str,
    folder: str | os.PathLike[str] | None,
    *,
    induction: bool = True,
    repeats: int = 0,
) -> FixedPart:
    loaded = load_template(find_template(template, folder), (EDITING,))
    variables = {"induction": bool(induction), "repeats": int(repeats)}
    shown = [one._asdict() for one in [*examples] * (int(repeats) + 1)]
    fixed = render_fixed(loaded, variables, {"examples": shown}, max_chars=MAX_RENDERED_CHARS)
    return FixedPart(*fixed, loaded, variables, MAX_RENDERED_CHARS)


def sample(name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0) -> Sample:
    """The prompt that a template makes of a built-in change.

    Raises:
        TemplateError: as ``PictureLoop``, or a block fails.
    """
    fixed = _fixed(DIGIT_CHANGES, name, folder, induction=induction, repeats=repeats)
    return Sample(fixed.prompt({"before": "an image of 7", "change": "make it five"}), " an image of 5")


EDITING = Declaration(
    task="editing",
    purpose="asks what a picture shows after a change",
    fixed=("induction", "repeats"),
    asks={"edit": "change"},
    query=("before",),
    sample=sample,
)
