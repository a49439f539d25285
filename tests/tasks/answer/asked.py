"""A tokenizer of words with parts and an LLM that looks answers up, small enough to predict by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from icl_vision.contracts import Prompt
from icl_vision.image_words import ImageWords
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

WORDS = ("dog", "cat", "bus", "grass", "sofa", "street", "red", "green", "blue", "two", "man", "ball")
VOCABULARY = Vocabulary(WORDS, name="seen")

SCENES: Mapping[int, Mapping[str, Sequence[str]]] = {
    0: {"what": ["dog", "ball"], "said": ["grass", "man"], "colours": ["green"]},
    1: {"what": ["cat"], "said": ["sofa"], "colours": ["red"]},
    2: {"what": ["bus"], "said": ["street", "two"], "colours": ["blue", "red"]},
    3: {"what": ["dog"], "said": ["sofa"], "colours": ["blue"]},
}
"""What each picture shows, by its grey."""


def picture(scene: int) -> Image.Image:
    """A grey picture of one of the scenes."""
    return Image.new("RGB", (8, 8), (scene, scene, scene))


class SceneTokenizer(ImageTokenizer):
    """Words by part, with probabilities; read text where the picture is of that grey; can be asked about something."""

    name = "scenes"
    parts = ("what", "said", "colours")
    can_focus = True
    focus_from = 4

    def __init__(self, text: Mapping[int, Sequence[str]] | None = None, *, chances: bool = True) -> None:
        self.text = dict(text or {})
        self.chances = chances
        self.encoded: list[int | None] = []
        self.about: list[str] = []

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(12)

    def layout_for(self, k: int) -> PyramidLayout:
        return PyramidLayout.flat(3 * k)

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    @property
    def codebook(self) -> Any:
        return np.eye(len(WORDS), dtype=np.float32)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        self.encoded += [k] * len(images)
        found: list[TokenPyramid] = []
        for image in images:
            scene = int(np.asarray(image)[0, 0, 0])
            parts = {name: list(words)[: k or 4] for name, words in SCENES[scene].items()}
            chances = {name: [0.9 - 0.2 * rank for rank in range(len(words))] for name, words in parts.items()}
            found.append(
                ImageWords.of(
                    parts, VOCABULARY, probabilities=chances if self.chances else None, text=self.text.get(scene, ())
                )
            )
        return found

    def _focus(self, words: TokenPyramid, about: str, k: int | None) -> TokenPyramid:
        self.about.append(about)
        assert isinstance(words, ImageWords)
        name = "colours" if "colour" in about else "what"
        return words.only({part: range(min(count, k or 9) if part == name else 0) for part, count in words.parts})


def looks_up(text: str) -> str:
    """Says what the last example with the query's own lines says; else "nothing"."""
    lines = text.split("\n")
    asked = []
    for line in reversed(lines[:-1]):
        if line.startswith("A:") or not re.match(r"[CQ]\d*:", line):
            break
        asked.insert(0, line)
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("A: ") and lines[max(0, index - len(asked)) : index] == asked:
            return lines[index][2:]
    return " nothing"


def prefers(scores: Mapping[str, float], default: float = -9.0) -> Any:
    """A score function: these log-probabilities of continuations, ``default`` for any other."""
    return lambda prompt, continuation: scores.get(continuation.strip(), default)


def context_of(prompt: Prompt) -> list[str]:
    """The lines of a prompt's examples."""
    return prompt.context.split("\n")
