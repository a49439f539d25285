"""Answers as LLMs should not give them, by seed, and the check that none of them became a silent guess.

Knows: how answers go wrong, and what a report must say. Refuses to know: how answers are repaired.

Used by bench_progressive.py (1,000 answers) and by tests/drawing/test_malformed.py (fewer).
"""

from __future__ import annotations

import collections
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from icl_vision.drawing import Drawing, Pair, ProgressiveDecoder, Query, SegmentAnswer, par
from icl_vision.errors import AnswerRefusedError
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers.base import on_grids
from icl_vision.vocabulary import Vocabulary

WORDS = ("arc", "bar", "corner", "curve", "dot", "edge", "gap", "hook", "line", "loop", "ring", "stroke", "tail", "tip")
ESSAY = (
    "Certainly! This picture appears to continue in the style of the examples, with a line and a gap that balance the "
    "whole composition; the artist may have wanted the curve to lead the eye. Let me know if you need anything else!"
)
SEPARATORS = re.compile(r"[\s,;|/\u3001\uff0c]+")
ODD = "\u200b\ufeff\u0000\u202e\U0001f600\u0301\ud800\uff0c\u3000\u2028\r\t"

Make = Callable[[random.Random, Sequence[str], str], str]
"""(draw, words that would be right, the prompt's text) -> an answer."""


def _typo(draw: random.Random, word: str) -> str:
    at = draw.randrange(len(word))
    return draw.choice(
        [word[:at] + word[at + 1 :], word[:at] + draw.choice("qxz") + word[at:], word.upper(), word + "s"]
    )


def _mixed(draw: random.Random, right: Sequence[str], text: str) -> str:
    """Two faults at once."""
    first, second = draw.sample([make for name, make in KINDS.items() if name != "two faults"], 2)
    return first(draw, right, text) + draw.choice([" ", "\n", "\n\n"]) + second(draw, right, text)


KINDS: dict[str, Make] = {
    "empty": lambda draw, right, text: draw.choice(["", " ", "\n\n", "\t", "```\n```"]),
    "too few": lambda draw, right, text: " ".join(right[: draw.randrange(len(right))]),
    "too many": lambda draw, right, text: " ".join([*right, *draw.choices(WORDS, k=draw.randint(1, 9))]),
    "wrong words": lambda draw, right, text: " ".join(
        draw.choices(["house", "7", "de", "Linie", "blobfish"], k=len(right))
    ),
    "some wrong": lambda draw, right, text: " ".join(
        word if draw.random() < 0.6 else draw.choice(["house", "blob", "xq"]) for word in right
    ),
    "typos": lambda draw, right, text: " ".join(_typo(draw, word) for word in right),
    "essay": lambda draw, right, text: ESSAY + draw.choice(["", " " + " ".join(right), "\n" + " ".join(right)]),
    "echo of the query": lambda draw, right, text: text[text.rindex("\nC:") + 1 :] + " " + " ".join(right),
    "echo of the prompt": lambda draw, right, text: text[: draw.randint(1, len(text))],
    "list": lambda draw, right, text: "\n".join(f"{number}. {word}" for number, word in enumerate(right, 1)),
    "marked up": lambda draw, right, text: "**" + ", ".join(f'"{word.title()}"' for word in right) + "**.",
    "json": lambda draw, right, text: str(list(right)) + draw.choice(["", "}", " // done"]),
    "unicode": lambda draw, right, text: "".join(word + draw.choice(ODD) + draw.choice([" ", ""]) for word in right),
    "noise": lambda draw, right, text: "".join(chr(draw.choice([draw.randrange(32, 0xD7FF), 32])) for _ in range(60)),
    "very long": lambda draw, right, text: " ".join(right) * draw.randint(50, 400),
    "two faults": _mixed,
}


def pictures(count: int, layout: PyramidLayout, seed: int) -> list[TokenPyramid]:
    """Random pictures of ``WORDS``."""
    vocabulary = Vocabulary(WORDS, name="strokes")
    draw = np.random.default_rng(seed)
    return [
        TokenPyramid(
            on_grids(draw.integers(0, len(WORDS), layout.cumulative[-1]).astype(np.int32), layout), layout, vocabulary
        )
        for _ in range(count)
    ]


def fuzz(answers: int, seed: int) -> dict[str, Any]:
    """Draw pictures from malformed answers until so many were given.

    Returns:
        {answers, kinds, segments, read, refused, crashes: [...], silent: [...]}; a crash is any error but a refusal
        that says why, a silent guess a word that neither stood in an answer nor is named in the report.
    """
    layout = PyramidLayout(((1, 1), (2, 2), (4, 4)))
    draw = random.Random(seed)
    counts: collections.Counter[str] = collections.Counter()
    shown = pictures(5, layout, seed)
    pairs = [Pair(f"an image of {number}", pyramid) for number, pyramid in enumerate(shown)]
    found: dict[str, Any] = {"segments": 0, "read": 0, "refused": 0, "crashes": [], "silent": []}

    def answer(text: str) -> str:
        kind = draw.choice(list(KINDS))
        counts[kind] += 1
        last = text[text.rindex("\nA: ") + 4 :].split("\n")[0].split()
        return KINDS[kind](draw, last or list(WORDS[:1]), text)

    number = 0
    while counts.total() < answers:
        number += 1
        stride = draw.choice([1, 2, 3, 4, 16])
        llm = FakeLLM(answer, api=draw.choice(["chat", "completions"]))
        stages = par(stride, allowed=draw.choice(["place", "layer", "context", "vocabulary"]))
        decoder = ProgressiveDecoder(llm, stages, asks=draw.choice([1, 2, 3]), errors="return")
        try:
            (drawing,) = decoder.decode_sync(pairs, [Query(f"an image of {draw.randrange(5)}", name=str(number))])
        except Exception as error:
            found["crashes"].append(f"{type(error).__name__}: {error}")
            continue
        _count(drawing, found)
    return {"answers": counts.total(), "kinds": dict(sorted(counts.items())), **found}


def _count(drawing: Drawing, found: dict[str, Any]) -> None:
    if drawing.error is not None and not isinstance(drawing.error, AnswerRefusedError):
        found["crashes"].append(f"{type(drawing.error).__name__}: {drawing.error}")
    for number, answer in drawing.answers.items():
        found["segments"] += 1
        if answer.words is None:
            found["refused"] += 1
            if not answer.problem:
                found["silent"].append(f"segment {number} was refused without a reason")
            continue
        found["read"] += 1
        found["silent"] += [f"segment {number}: {guess}" for guess in guesses(answer)]


def guesses(answer: SegmentAnswer) -> list[str]:
    """Words that nothing accounts for, and answers of which something was left out without a word of it."""
    assert answer.words is not None
    said = {piece for text in answer.texts for piece in SEPARATORS.split(text)}
    named = {(change.place, change.now) for change in answer.changes}
    found = [
        f"word {place}, {word!r}, stood in no answer and in no change"
        for place, word in enumerate(answer.words, start=1)
        if word not in said and (place, word) not in named
    ]
    pieces = [piece for text in answer.texts for piece in text.split()]
    if pieces != list(answer.words) and not answer.changes and len(answer.texts) == 1:
        found.append(f"{answer.texts[0][:60]!r} was read as {answer.words} without a change named")
    return found
