"""From labelled examples and a template to the prompts of an episode.

Knows: the classification settings (task induction, ways, inner shots, repeats, order) and the variables that its
templates get, which it declares. Refuses to know: images, LLMs, token counts, answers, and how a template is rendered.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from icl_vision import checks
from icl_vision.contracts import Prompt
from icl_vision.errors import PromptError, TemplateError, UsageError
from icl_vision.prompting.declarations import Declaration, Sample, Twin
from icl_vision.prompting.labels import check_labels, check_words
from icl_vision.prompting.templates import (
    MAX_RENDERED_CHARS,
    FixedPart,
    TemplateInfo,
    find_template,
    find_twin,
    load_template,
    lost_twin,
    render_fixed,
)
from icl_vision.spelling import composed

MAX_REPEATS = 100
"""Most repeats of an example; the published settings use up to 5."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: its words as one string, and its label."""

    words: str
    label: str


@dataclass(frozen=True, slots=True)
class PreparedPrompt(FixedPart):
    """The fixed part of an episode, rendered once; ``query`` adds what changes.

    Attributes:
        examples: the examples in the order shown, repeats included.
        labels: the labels in the order given, as they were spelled. Prompts hold them in composed characters, and
            ``query`` takes them in either spelling.
    """

    examples: tuple[Example, ...]
    labels: tuple[str, ...]

    def query(self, *, words: str | None = None, label: str | None = None) -> Prompt:
        """The whole prompt of one query.

        Args:
            words: the query image's words, for a direct template; the LLM continues with ``" " + label``.
            label: one of ``labels``, for a channel template; the LLM is asked how likely ``" " + words`` is.

        Raises:
            PromptError: words that may not enter a prompt, or a label outside ``labels``.
            UsageError: the argument that this template does not take.
            TemplateError: the query block fails.
        """
        if self.template.kind == "direct":
            if words is None or label is not None:
                raise UsageError(f"the template {self.template.info.name!r} is direct: call query(words=...) alone")
            return self.prompt({"words": check_words(words)})
        if label is None or words is not None:
            raise UsageError(
                f"the template {self.template.info.name!r} is a channel template: call query(label=...) alone"
            )
        if not isinstance(label, str) or composed(label) not in map(composed, self.labels):
            raise PromptError(f"the label {label!r} is none of this episode's: {', '.join(self.labels)}")
        return self.prompt({"label": label})


class PromptBuilder:
    """Builds the prompts of few-shot classification from a template.

    Args:
        template: name of a template; see ``icl-vision prompts list``.
        folder: a folder of your own ``*.jinja`` files, which override packaged ones of the same name.
        induction: task induction, the line that names the possible answers.
        repeats: how many times more the examples are shown, 0 or more. The whole support set is shown again
            in the same order, rather than each example twice in a row: classes stay interleaved, the last class
            gets no run of its own at the end (LLMs favour what they saw last), and a prompt with fewer repeats
            is a prefix of one with more, which prefix caches reuse.
        order_seed: an int interleaves the classes in rounds (v1c1, v1c2, ..., v2c1, v2c2, ...; LQAE, section 4)
            and shuffles the order of the classes inside each round, the same for the same seed; None keeps
            the order in which the examples are given.
        max_chars: longest rendered part of a prompt.

    Raises:
        TemplateError: no such template, or one with faults.
        UsageError: ``repeats``, ``order_seed`` or ``max_chars`` out of range.
    """

    def __init__(
        self,
        template: str = "classification",
        *,
        folder: str | os.PathLike[str] | None = None,
        induction: bool = True,
        repeats: int = 0,
        order_seed: int | None = 0,
        max_chars: int = MAX_RENDERED_CHARS,
    ) -> None:
        checks.flag("induction", induction)
        self.folder = folder
        self.induction = induction
        self.repeats = checks.count("repeats", repeats, least=0, most=MAX_REPEATS)
        self.order_seed = checks.count("order_seed", order_seed, least=None, none="the order in which they are given")
        self.max_chars = checks.count("max_chars", max_chars)
        self._others: tuple[str, ...] | None = None
        self.template = load_template(find_template(template, folder), (CLASSIFICATION,))

    @property
    def kind(self) -> str:
        """ "direct" (the query holds words) or "channel" (the query holds a label)."""
        return self.template.kind

    def has_channel(self) -> bool:
        """Whether noisy-channel scoring can be used: this is a channel template or has a twin that is one.

        The twin of ``NAME`` is ``NAME_channel`` in the same folder, or in the user's folder. A template that
        the user overrides without giving a twin has none.
        """
        return self.kind == "channel" or self._twin() is not None

    def channel(self) -> PromptBuilder:
        """The builder of the twin with the same settings; the builder itself if it is one.

        Raises:
            TemplateError: there is no twin, or it has faults.
        """
        if self.kind == "channel":
            return self
        twin = self._twin()
        if twin is None:
            raise TemplateError(
                f"the template {self.template.info.name!r} at {self.template.info.path} has no twin for noisy-channel "
                f"scoring: put a {self.template.info.name}_channel.jinja beside it, or use direct scoring"
            )
        builder = PromptBuilder(
            twin.name,
            folder=self.folder,
            induction=self.induction,
            repeats=self.repeats,
            order_seed=self.order_seed,
            max_chars=self.max_chars,
        )
        builder._others = self.template.literals
        return builder

    @property
    def literals(self) -> tuple[str, ...]:
        """Fixed words that no label may contain: of the template and of its twin, so that the same labels are good
        whichever of the two an LLM is asked with."""
        if self._others is None:
            twin = None if self.kind == "channel" else self._twin()
            try:
                self._others = () if twin is None else load_template(twin, (CLASSIFICATION,)).literals
            except TemplateError:
                self._others = ()  # told where the twin is used
        return tuple(dict.fromkeys((*self.template.literals, *self._others)))

    def prepare(self, examples: Sequence[Example], labels: Sequence[str]) -> PreparedPrompt:
        """Order the examples and render the part that all queries share.

        Args:
            examples: the support set; may be empty. ``repeats`` is applied here, not by the caller.
            labels: every label that can be an answer, in the order to name them.

        Raises:
            LabelError: a label that must not enter a prompt, or two that an answer could not tell apart.
            PromptError: words that must not enter a prompt, an example whose label is not in ``labels``, or examples
                of more than ``max_chars`` characters.
            TemplateError: a block fails, or the text is longer than ``max_chars``.
        """
        names = check_labels(labels, self.literals)
        known = {composed(name): name for name in names}
        checked = []
        given: Sequence[object] = examples
        for number, example in enumerate(given, 1):
            if not isinstance(example, Example):
                raise UsageError(f"example {number} must be an Example(words, label); got {type(example).__name__}")
            name = known.get(composed(example.label)) if isinstance(example.label, str) else None
            if name is None:
                raise PromptError(f"example {number} has the label {example.label!r}, none of {', '.join(names)}")
            checked.append(Example(check_words(example.words), name))
        shots = max((sum(example.label == name for example in checked) for name in names), default=0)
        longest = sum(len(composed(example.words)) + len(composed(example.label)) for example in checked) * (
            self.repeats + 1
        )
        if longest > self.max_chars:
            raise PromptError(
                f"the {len(checked) * (self.repeats + 1)} examples shown have {longest:,} characters, more than the "
                f"{self.max_chars:,} of max_chars: use repeats=0, fewer shots= or a smaller k=, or raise max_chars"
            )
        shown = tuple(order_examples(checked, names, self.order_seed) * (self.repeats + 1))
        variables: dict[str, Any] = {
            "labels": list(names),
            "induction": self.induction,
            "ways": len(names),
            "shots": shots,
            "repeats": self.repeats,
        }
        shown_variables = [{"words": example.words, "label": example.label} for example in shown]
        rendered = render_fixed(self.template, variables, {"examples": shown_variables}, max_chars=self.max_chars)
        return PreparedPrompt(*rendered, self.template, variables, self.max_chars, shown, names)

    def lost_channel(self) -> str | None:
        """Why there is no channel twin though the packaged template has one, and what to add; None if none is lost."""
        return lost_twin(self.template.info, CHANNEL, self.folder)

    def _twin(self) -> TemplateInfo | None:
        return find_twin(self.template.info, CHANNEL, self.folder)


def order_examples(examples: Sequence[Example], labels: Sequence[str], order_seed: int | None) -> list[Example]:
    """The examples in the order to show.

    Round by round, one example of each class that still has one; a class's examples stay in the order given,
    and the order of the classes inside each round is shuffled by ``order_seed``. None keeps the order given.
    """
    if order_seed is None:
        return list(examples)
    queues = {label: [example for example in examples if example.label == label] for label in labels}
    generator = random.Random(order_seed)
    ordered: list[Example] = []
    for position in range(max(map(len, queues.values()), default=0)):
        # All labels are shuffled, also those that ran out, so that one class's size does not move the others.
        turn = list(labels)
        generator.shuffle(turn)
        ordered.extend(queues[label][position] for label in turn if position < len(queues[label]))
    return ordered


# What the templates get, and a try of them ------------------------------------------------------------------------

SAMPLE_LABELS = ("lion", "school bus")
"""A small built-in episode, of made-up words; they are not measured output."""
SAMPLE_EXAMPLES = (
    Example("mane savanna tawny cat roar", "lion"),
    Example("yellow traffic vehicle children wheel", "school bus"),
    Example("cub pride fur grass predator", "lion"),
    Example("road driver stop engine window", "school bus"),
)
SAMPLE_WORDS = "whisker paw desert mane animal"


def sample(name: str, folder: str | os.PathLike[str] | None, *, induction: bool = True, repeats: int = 0) -> Sample:
    """The prompt that a template makes of the built-in episode, without images or an LLM.

    Raises:
        TemplateError: as ``PromptBuilder``, or a block fails.
    """
    builder = PromptBuilder(name, folder=folder, induction=induction, repeats=repeats)
    prepared = builder.prepare(SAMPLE_EXAMPLES, SAMPLE_LABELS)
    if builder.kind == "direct":
        return Sample(prepared.query(words=SAMPLE_WORDS), f" {SAMPLE_LABELS[0]}")
    return Sample(prepared.query(label=SAMPLE_LABELS[0]), f" {SAMPLE_WORDS}", scored=True)


CHANNEL = Twin(
    "_channel",
    "channel",
    "labels are not scored by noisy channel, the best way with an LLM that scores text",
)
"""The twin for noisy-channel scoring: words and label change their roles."""

CLASSIFICATION = Declaration(
    task="classification",
    purpose="asks for a label",
    fixed=("labels", "induction", "ways", "shots", "repeats"),
    asks={"direct": "words", "channel": "label"},
    twin=CHANNEL,
    sample=sample,
)
"""direct: the query holds the image's words and asks for the label; channel: the other way round."""
