"""Pictures for tests of drawing, and LLMs that draw them: one that answers from its context, one that cannot."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from icl_vision.drawing import Pair
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary(
    [a + b for a in ("ball", "kite", "moss", "rust", "pear", "glow") for b in ("", "er", "ish", "let", "ward", "some")],
    name="made up",
)
DIGITS = PyramidLayout(((1, 1), (2, 2), (4, 4), (4, 4)))
SMALL = PyramidLayout(((1, 1), (2, 2)))


def picture(seed: int, layout: PyramidLayout = DIGITS) -> TokenPyramid:
    """A picture of random words."""
    draw = random.Random(seed)
    ids = [draw.randrange(len(WORDS)) for _ in range(layout.cumulative[-1])]
    cuts = np.split(np.array(ids), layout.cumulative[:-1])
    return TokenPyramid(tuple(c.reshape(g) for c, g in zip(cuts, layout.grids, strict=True)), layout, WORDS)


def pairs(count: int = 5, layout: PyramidLayout = DIGITS) -> list[Pair]:
    """Pairs "an image of n" with a picture each."""
    return [Pair(f"an image of {number}", picture(number, layout)) for number in range(count)]


def from_context(text: str) -> str:
    """What the example with the query's own lines answers: an LLM that has learnt all there is to learn."""
    lines = text.split("\n")
    start = max((number + 1 for number, line in enumerate(lines[:-1]) if line.startswith("A: ")), default=0)
    *above, said = lines[start:]
    for at in range(start - len(above)):
        answer = lines[at + len(above)]
        if lines[at : at + len(above)] == above and answer.startswith(said + " "):
            return answer.removeprefix(said)
    return ""


def oracle(**options: Any) -> FakeLLM:
    """A FakeLLM that answers from its context."""
    return FakeLLM(from_context, **options)
