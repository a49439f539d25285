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

Of words by part the words alone are scored: the parts' names, marks and quotes, which an example's prompt shows, say
nothing of the image (``asked_words``).

Measured in docs/few-shot-scoring.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from icl_vision.contracts import Prompt
from icl_vision.image_words import ImageWords
from icl_vision.pyramid import TokenPyramid
from icl_vision.spelling import composed
from icl_vision.tasks.classify.prompts import Example, PreparedPrompt, PromptBuilder


@dataclass(frozen=True, slots=True)
class Ensemble:
    """One prepared prompt per example; stands where one ``PreparedPrompt`` of all examples would.

    members: of a channel template, one example each (repeats included). shown: the label of each one's example.
    prompts: what is asked of each, the same for every image.
    """

    members: tuple[PreparedPrompt, ...]
    shown: tuple[str, ...]
    prompts: tuple[Prompt, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # The same for every image, so they are rendered once.
        queries = (member.query(label=label) for member, label in zip(self.members, self.shown, strict=True))
        object.__setattr__(self, "prompts", tuple(queries))

    @classmethod
    def of(cls, builder: PromptBuilder, examples: Sequence[Example], labels: Sequence[str]) -> Ensemble:
        """Each example alone, in the order given; ``labels``: all that can be an answer."""
        return cls(
            tuple(builder.prepare([example], labels) for example in examples),
            tuple(composed(example.label) for example in examples),
        )

    @property
    def context(self) -> str:
        """All contexts, one after the other: what tells two ensembles apart."""
        return "\n\n".join(member.context for member in self.members)

    def pairs(self, words: str) -> tuple[tuple[Prompt, str], ...]:
        """(prompt, one word), example by example and in each word by word."""
        # A text of nothing but spaces (an empty ASCII picture) has no words, and still needs an answer.
        bag = composed(words).split() or [words]
        return tuple((prompt, " " + word) for prompt in self.prompts for word in bag)


def asked_words(pyramid: TokenPyramid, text: str) -> str:
    """What of an image an ensemble scores, the words parted by spaces: ``text``, but of words by part each word once,
    those with the probability 0 left out (names of regions), then the words of what was read in the image.

    text: the image's words as a prompt shows them.
    """
    if not isinstance(pyramid, ImageWords):
        return text
    chances = pyramid.probabilities or (1.0,) * pyramid.k
    words = [word for word, chance in zip(pyramid.words(), chances, strict=True) if chance > 0]
    words += [word for string in pyramid.text for word in string.split()]
    return " ".join(dict.fromkeys(words)) or " ".join(pyramid.words())


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
