"""Drawing without an LLM: what the words of the examples give by themselves.

Knows: examples, texts. Refuses to know: LLMs, pixels, measures.

Each looks up the examples whose text is the question's, letter for letter; where there are none it takes all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from icl_vision.drawing.drawing import Pair, plurality
from icl_vision.pyramid import TokenPyramid

Words = list[str]


def plurality_vote(pairs: Sequence[Pair], text: str, seed: Sequence[int]) -> Words:
    """The most frequent word of each place in the whole context: the same for every text."""
    return list(plurality([pair.target for pair in pairs]))


def text_plurality(pairs: Sequence[Pair], text: str, seed: Sequence[int]) -> Words:
    """The most frequent word of each place among the examples with this text."""
    return list(plurality(_same(pairs, text)))


def copied_example(pairs: Sequence[Pair], text: str, seed: Sequence[int]) -> Words:
    """One of the examples with this text."""
    same = _same(pairs, text)
    return same[int(np.random.default_rng(seed).integers(len(same)))].words()


def text_frequencies(pairs: Sequence[Pair], text: str, seed: Sequence[int]) -> Words:
    """Each place's word drawn, by itself, from the examples with this text."""
    return _drawn(_same(pairs, text), seed)


def random_allowed(pairs: Sequence[Pair], text: str, seed: Sequence[int]) -> Words:
    """Each place's word drawn, by itself, from all examples: what the restriction to allowed words gives alone."""
    return _drawn([pair.target for pair in pairs], seed)


BASELINES: dict[str, Callable[[Sequence[Pair], str, Sequence[int]], Words]] = {
    "text frequencies": text_frequencies,
    "text plurality": text_plurality,
    "copied example": copied_example,
    "plurality vote": plurality_vote,
    "random allowed": random_allowed,
}
"""By name; each is given the examples, the text and a seed."""

MEANINGS = {
    "llm": "the LLM, as the options say",
    "text frequencies": "no LLM: each word drawn from the examples with the same text, place by place",
    "text plurality": "no LLM: the most frequent word of each place among the examples with the same text",
    "copied example": "no LLM: an example with the same text, as it is",
    "plurality vote": "no LLM: the most frequent word of each place among all examples",
    "random allowed": "no LLM: each word drawn from all examples, place by place",
    "single pass": "control: the LLM asked for all words at once (eq. 10)",
    "shuffled texts": "control: the LLM with the examples' texts dealt out at random, so that they mean nothing",
    "ceiling": "real digits that are in no example, through the tokenizer and back",
}


def _same(pairs: Sequence[Pair], text: str) -> list[TokenPyramid]:
    return [pair.target for pair in pairs if pair.condition == text] or [pair.target for pair in pairs]


def _drawn(targets: Sequence[TokenPyramid], seed: Sequence[int]) -> Words:
    generator = np.random.default_rng(seed)
    words = [target.words() for target in targets]
    return [words[int(generator.integers(len(words)))][place] for place in range(len(words[0]))]
