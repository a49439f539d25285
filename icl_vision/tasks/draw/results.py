"""What drawing from texts gives: finished pictures, and pictures on their way.

Knows: their parts and plain forms. Refuses to know: how they come to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icl_vision.contracts import Usage
from icl_vision.drawing.drawing import Drawing, SegmentDrawn
from icl_vision.drawing.repair import Change
from icl_vision.pyramid import TokenPyramid

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One drawn picture.

    text: what was asked for. number: from 1, among several pictures of one text. image: decoded from ``pyramid``; both
    None where ``error`` says why. drawing: every segment's words, repairs and usage.
    """

    text: str
    number: int
    image: Image.Image | None
    pyramid: TokenPyramid | None
    drawing: Drawing
    error: Exception | None = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """The repair report: everything that was done to the LLM's answers."""
        return self.drawing.changes

    @property
    def usage(self) -> Usage:
        """Requests and tokens."""
        return self.drawing.usage

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without pixels; ``words`` holds a list per layer."""
        pyramid = self.pyramid
        return {
            "text": self.text,
            "number": self.number,
            "words": None if pyramid is None else [pyramid.words(layer + 1) for layer in range(pyramid.layers)],
            "constrained": self.drawing.constrained,
            "changes": [change.to_dict() for change in self.changes],
            "usage": self.usage.to_dict(),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture on its way. query: its place among all that are drawn, from 0. text, number: as in GeneratedImage.
    segment: the one that has just got its words. image: what there is; places without a word show the coarser word
    over them, or the most frequent word of the examples. done: nothing is missing."""

    query: int
    text: str
    number: int
    segment: SegmentDrawn
    image: Image.Image
    done: bool
