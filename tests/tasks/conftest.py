"""A tokenizer and an LLM small enough to predict by hand, for the tests of tasks."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, Usage
from icl_vision.llms.base import BaseLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

# pytest's importlib mode puts no folder on the path; grey_pictures and drawing_llm beside this file have names nobody
# else has.
sys.path.insert(0, str(Path(__file__).parent))

WORDS = ("apple", "brick", "cherry", "fern", "grass", "leaf", "ocean", "river", "sky")
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


class ColourTokenizer(ImageTokenizer):
    """Three words to each of red, green and blue: the strongest channel chooses, its brightness orders them."""

    name = "colours"

    def __init__(self, *, words: Sequence[str] = WORDS, codebook: bool = True) -> None:
        self._vocabulary = Vocabulary(words, name="colours")
        vectors = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0) + np.tile(0.1 * np.eye(3, dtype=np.float32), (3, 1))
        self._codebook = vectors if codebook else None
        self.encoded = 0
        self.threads: set[int] = set()

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(3)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def codebook(self):
        return self._codebook

    def layout_for(self, k: int) -> PyramidLayout:
        return PyramidLayout.flat(k)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        self.encoded += len(images)
        self.threads.add(threading.get_ident())
        pyramids = []
        for image in images:
            mean = np.asarray(image, dtype=np.float64).mean(axis=(0, 1))
            channel, first = int(mean.argmax()), int(mean.max()) % 3
            ids = [3 * channel + (first + step) % 3 for step in range(k or 3)]
            pyramids.append(TokenPyramid((np.array([ids]),), PyramidLayout.flat(k or 3), self.vocabulary))
        return pyramids


class OverlapLLM(BaseLLM):
    """Learns in context: a label is as likely as its examples' words are like the query's. Keeps what it was asked.

    before: called with every request's prompts, to raise or to watch. answer: what it writes, whatever it is asked.
    """

    def __init__(
        self,
        *,
        scores_text: bool = True,
        constraint: str | None = None,
        window: int | None = None,
        answer: str | None = None,
        before: Callable[[list[Prompt]], None] = lambda prompts: None,
        bias: dict[str, float] | None = None,
        prefix_cache: bool = True,
        bags: bool = True,
    ) -> None:
        super().__init__()
        self._profile = Profile(
            "overlap",
            window,
            scores_text=scores_text,
            constraint=constraint,
            seed=True,
            prefix_cache=prefix_cache,
            scores_bags=scores_text and bags,
        )
        self.answer = answer
        self.before = before
        self.bias = bias or {}
        self.asked: list[list[tuple[Prompt, str]]] = []
        self.completions: list[tuple[Prompt, int, tuple[str, ...], Constraint | None]] = []
        self.in_flight = self.most_in_flight = 0

    @property
    def profile(self) -> Profile:
        return self._profile

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        assert terminator in ("\n", "")  # whole lines, or words one by one
        self.asked.append(list(pairs))
        await self._work([prompt for prompt, _ in pairs])
        return Scores(
            tuple(self._likeness(*pair) for pair in pairs), Usage(1, 10 * len(pairs), 0, len(pairs)), "overlap"
        )

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        self.completions.append((prompt, max_tokens, tuple(stop), constraint))
        await self._work([prompt])
        labels = sorted({label for label, _ in examples(prompt)})
        best = max(labels, key=lambda label: self._likeness(prompt, " " + label))
        return Completion(f" {best}" if self.answer is None else self.answer, "stop", Usage(1, 10, 0, 2))

    async def _count_tokens(self, text: str) -> int:
        return len(text.split())

    async def _work(self, prompts: list[Prompt]) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            self.before(prompts)
        finally:
            self.in_flight -= 1

    def _likeness(self, prompt: Prompt, continuation: str) -> float:
        assert continuation.startswith(" ")
        if prompt.query.endswith("Output:"):
            words, label = prompt.query.split("Input:")[1].split("\n")[0], continuation.strip()
        else:
            words, label = continuation, prompt.query.removesuffix(":")
        shared = [len(set(words.split()) & set(known.split())) for name, known in examples(prompt) if name == label]
        return -60.0 + 3.0 * sum(shared) / max(1, len(shared)) + self.bias.get(label, 0.0)


def examples(prompt: Prompt) -> list[tuple[str, str]]:
    """(label, words) of every example in a packaged classification prompt."""
    direct = re.findall(r"Input: (.*)\nOutput: (.*)", prompt.context)
    if direct:
        return [(label, words) for words, label in direct]
    return [(line.split(": ", 1)[0], line.split(": ", 1)[1]) for line in prompt.context.splitlines() if ": " in line]


def picture(colour: str, shade: int = 0) -> Image.Image:
    """An 8x8 image of one colour; three shades have the same words in three orders."""
    strongest = max(COLOURS[colour])
    return Image.new("RGB", (8, 8), tuple(c - shade if c == strongest else c for c in COLOURS[colour]))


# Classes and functions reach the tests as fixtures: test modules cannot import one another.


@pytest.fixture
def colour_tokenizer() -> type[ColourTokenizer]:
    return ColourTokenizer


@pytest.fixture
def overlap_llm() -> type[OverlapLLM]:
    return OverlapLLM


@pytest.fixture(name="picture")
def picture_of() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def tokenizer() -> ColourTokenizer:
    return ColourTokenizer()


@pytest.fixture
def support() -> tuple[list[Image.Image], list[str]]:
    """Two examples of each of three classes, their order mixed."""
    labels = ["warm", "leafy", "wet", "wet", "warm", "leafy"]
    colours = ["red", "green", "blue", "blue", "red", "green"]
    return [picture(colour, number // 3) for number, colour in enumerate(colours)], labels


@pytest.fixture
def queries() -> tuple[list[Image.Image], list[str]]:
    return [picture("blue", 2), picture("red", 2), picture("green", 2), picture("red")], [
        "wet",
        "warm",
        "leafy",
        "warm",
    ]
