"""Noise in word space: some of a picture's words replaced by words drawn at random.

Knows: places, vocabularies, seeds. Refuses to know: pixels, tasks, prompts.

Source: SPAE (arXiv 2306.17842, section 4.3) shows pictures "randomly corrupted in the token space", from 50% down to
20% across the context; the code of the V2L Tokenizer draws the replacements uniformly from its vocabulary. Here a rate
says exactly how many words change, and a replacement is never the word itself.
"""

from __future__ import annotations

import numpy as np

from icl_vision import checks
from icl_vision.errors import UsageError
from icl_vision.pyramid import TokenPyramid

PAPER_RATES = (0.5, 0.2)
"""Corruption of the first and the last example of a context."""


def check_rates(rates: object) -> tuple[float, float]:
    """The rates of the first and the last example, as a pair of floats.

    Raises:
        UsageError: not two numbers from 0 to 1.
    """
    given = tuple(rates) if isinstance(rates, tuple | list) else ()
    first, last = map(checks.as_real, given) if len(given) == 2 else (None, None)
    if first is None or last is None:
        raise UsageError(
            f"corruption must be two rates, of the first and the last example, like (0.5, 0.2); got {rates!r}"
        )
    if not (0 <= first <= 1 and 0 <= last <= 1):
        raise UsageError(f"corruption must be rates from 0 to 1; got {rates!r}")
    return first, last


def corruption_rates(count: int, rates: tuple[float, float] = PAPER_RATES) -> tuple[float, ...]:
    """One rate for each of ``count`` examples, in equal steps from the first to the last; a single one gets the first.

    Raises:
        UsageError: a count below 1, or rates that are none.
    """
    first, last = check_rates(rates)
    checks.count("count", count, of="examples")
    return tuple(float(rate) for rate in np.linspace(first, last, count))


def corrupt_words(pyramid: TokenPyramid, rate: float, *, seed: int, number: int = 0) -> TokenPyramid:
    """The picture with exactly ``round(rate * words)`` of its words replaced.

    Args:
        pyramid: with a vocabulary of two words or more.
        rate: 0 to 1. Places are drawn without replacement over all layers; each gets a uniformly drawn other word of
            the vocabulary.
        seed, number: name the draw; equal ones give equal noise, whatever else is drawn.

    Raises:
        UsageError: a rate outside 0 to 1, a negative seed or number, or a picture of characters.
    """
    rate = checks.number("rate", rate, least=0, most=1)
    checks.count("seed", seed, least=0)
    checks.count("number", number, least=0)
    vocabulary = pyramid.vocabulary
    if vocabulary is None or len(vocabulary) < 2:
        raise UsageError("only pictures with a vocabulary of two words or more can be corrupted in word space")
    draw = np.random.default_rng([seed, number])
    ids = np.concatenate([layer.ravel() for layer in pyramid.ids])
    places = draw.permutation(ids.size)[: round(rate * ids.size)]
    # An offset of 1 to T - 1 reaches every word but the one that stands there, each as likely as the others.
    ids[places] = (ids[places] + draw.integers(1, len(vocabulary), places.size)) % len(vocabulary)
    cuts = np.split(ids, pyramid.layout.cumulative[:-1])
    layers = tuple(cut.reshape(grid) for cut, grid in zip(cuts, pyramid.layout.grids, strict=True))
    return TokenPyramid(layers, pyramid.layout, vocabulary)


def shuffle_words(pyramid: TokenPyramid, *, seed: int, number: int = 0) -> TokenPyramid:
    """The picture with each layer's words in random order: a control that keeps what stands there and not where.

    seed, number: name the draw, 0 or more.
    """
    draw = np.random.default_rng([seed, number])
    layers = tuple(draw.permutation(layer.ravel()).reshape(layer.shape) for layer in pyramid.ids)
    return TokenPyramid(layers, pyramid.layout, pyramid.vocabulary)
