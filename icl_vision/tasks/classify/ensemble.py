"""Every example in a prompt of its own: what is asked of each, and what they say together.

Knows: prompts with one example each, words as a bag, how examples of one class are pooled.
Refuses to know: images, LLMs, what a score is used for.

The channel with one prompt reads log P(words | label, all examples). A small LLM then also continues the examples of
the other classes, and the more the longer the prompt is. Here each example i stands alone,

    label: words of example i
    label:

and every word w of the image is scored as the next one. A class is the mixture of its m examples, its words independent
given the example's prompt (a bag: their order is the tokenizer's, not the image's):

    log P(words | label) = sum over w of log( 1/m * sum over i of P(w | prompt i) )

Words by part stand apart: an example has a prompt for each part ("label: dog puppy" for what is seen, "label: man ball"
for what is said), a part's words are scored after the prompts of that part, and the parts are added up, those after the
first with the weight ``OTHER_PARTS``. Names of parts, marks and quotes are no words of an image and are not scored.

Measured in docs/few-shot-scoring.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from icl_vision.contracts import Prompt
from icl_vision.image_words import TEXT, ImageWords, quoted
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.classify.prompts import Example, PreparedPrompt, PromptBuilder

OTHER_PARTS = 0.25
"""What words of the parts after the first count: as much as the first's they cost accuracy."""

NO_PARTS = ("",)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """One prepared prompt per example and part; stands where one ``PreparedPrompt`` of all examples would.

    members: of a channel template, one example each (repeats included), part by part and in each example by example.
    shown: the label of each example. parts: whose words they are; ``NO_PARTS`` where words have none. prompts: what is
    asked of each member, the same for every image.
    """

    members: tuple[PreparedPrompt, ...]
    shown: tuple[str, ...]
    parts: tuple[str, ...] = NO_PARTS
    prompts: tuple[Prompt, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # The same for every image, so they are rendered once.
        labels = self.shown * len(self.parts)
        queries = (member.query(label=label) for member, label in zip(self.members, labels, strict=True))
        object.__setattr__(self, "prompts", tuple(queries))

    @classmethod
    def of(cls, builder: PromptBuilder, examples: Sequence[Example], labels: Sequence[str]) -> Ensemble:
        """Each example alone, in the order given; ``labels``: all that can be an answer."""
        return cls(
            tuple(builder.prepare([example], labels) for example in examples),
            tuple(composed(example.label) for example in examples),
        )

    @classmethod
    def by_part(
        cls, builder: PromptBuilder, examples: Sequence[tuple[ImageWords, str]], labels: Sequence[str]
    ) -> Ensemble:
        """Each part of each example alone; examples: (words, label), which share a part. What one lacks is left out."""
        parts = shared_parts([words for words, _ in examples])
        members = [
            builder.prepare([Example(_line(words, part), label)], labels) for part in parts for words, label in examples
        ]
        return cls(tuple(members), tuple(composed(label) for _, label in examples), parts)

    @property
    def context(self) -> str:
        """All contexts, one after the other: what tells two ensembles apart."""
        return "\n\n".join(member.context for member in self.members)

    @property
    def weights(self) -> tuple[float, ...]:
        """What the words of each part count."""
        return (1.0, *(OTHER_PARTS for _ in self.parts[1:]))

    def asked(self, pyramid: TokenPyramid, text: str) -> str:
        """An image's words as ``pairs`` takes them: ``text``, or, of words by part, a line for each part."""
        if self.parts == NO_PARTS or not isinstance(pyramid, ImageWords):
            return text
        lines = [" ".join(_bag(pyramid, part)) for part in self.parts]
        return "\n".join(lines if any(lines) else [" ".join(pyramid.words()), *lines[1:]])

    def pairs(self, words: str) -> tuple[tuple[Prompt, str], ...]:
        """(prompt, one word), part by part, in each example by example and in each word by word."""
        size = len(self.shown)
        return tuple(
            (prompt, " " + word)
            for place, bag in enumerate(self._bags(words))
            for prompt in self.prompts[place * size : (place + 1) * size]
            for word in bag
        )

    def pooled(self, logprobs: Sequence[float], words: str, labels: Sequence[str]) -> tuple[float, ...]:
        """What the log-probabilities of ``pairs(words)`` say of each of ``labels``."""
        totals, start = np.zeros(len(labels)), 0
        for weight, bag in zip(self.weights, self._bags(words), strict=True):
            end = start + len(self.shown) * len(bag)
            if bag:
                totals += weight * np.asarray(pool(logprobs[start:end], self.shown, labels))
            start = end
        return tuple(totals.tolist())

    def length(self, words: str) -> float:
        """How many words of an image are scored: the mean over parts, by what they count."""
        return float(np.average([len(bag) for bag in self._bags(words)], weights=self.weights))

    def _bags(self, words: str) -> list[list[str]]:
        """The words of each part."""
        if self.parts == NO_PARTS:
            # A text of nothing but spaces (an empty ASCII picture) has no words, and still needs an answer.
            return [composed(words).split() or [words]]
        lines = composed(words).split("\n")
        if len(lines) != len(self.parts):
            lines = [composed(words)] * len(self.parts)  # an input without content, the same for all
        return [line.split() for line in lines]


def shared_parts(examples: Sequence[ImageWords]) -> tuple[str, ...]:
    """The parts of which every example has words, in the first one's order, and read text last; () where they share
    none."""
    parts = [part for part in examples[0].names if all(part in one.names and _bag(one, part) for one in examples)]
    return (*parts, *([TEXT] if all(one.text for one in examples) else ()))


def _line(words: ImageWords, part: str) -> str:
    """A part's words as a prompt shows them; read text in quotes, so that it cannot pass for more."""
    return " ".join(map(quoted, words.text) if part == TEXT else words.words(part))


def _bag(words: ImageWords, part: str) -> list[str]:
    """A part's words as they are scored: each once, those with the probability 0 (names of regions) left out."""
    if part == TEXT:
        return list(dict.fromkeys(word for string in words.text for word in string.split()))
    if part not in words.names:
        return []
    chances = words.chances(part) or (1.0,) * len(words.words(part))
    return list(dict.fromkeys(word for word, chance in zip(words.words(part), chances, strict=True) if chance > 0))


def pool(logprobs: Sequence[float], shown: Sequence[str], labels: Sequence[str]) -> tuple[float, ...]:
    """What the examples of each class say together of all words: log-probabilities in the order of ``labels``.

    Args:
        logprobs: of ``Ensemble.pairs``, [examples * words].
        shown: the label of each example.
        labels: each with one example at least.
    """
    table = np.asarray(logprobs, dtype=np.float64).reshape(len(shown), -1)
    of = np.asarray([composed(label) for label in shown])
    return tuple(
        float((np.logaddexp.reduce(table[of == label], axis=0) - math.log(np.sum(of == label))).sum())
        for label in map(composed, labels)
    )
