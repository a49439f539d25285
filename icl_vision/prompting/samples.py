"""A small built-in episode, to show or try a template without images or an LLM.

Knows: made-up words for two classes. Refuses to know: how they came about; they are not measured output.
"""

from __future__ import annotations

from icl_vision.prompting.builder import Example
from icl_vision.prompting.segment_prompts import SegmentExample, SegmentPlace

SAMPLE_LABELS = ("lion", "school bus")
SAMPLE_EXAMPLES = (
    Example("mane savanna tawny cat roar", "lion"),
    Example("yellow traffic vehicle children wheel", "school bus"),
    Example("cub pride fur grass predator", "lion"),
    Example("road driver stop engine window", "school bus"),
)
SAMPLE_WORDS = "whisker paw desert mane animal"

SAMPLE_PLACE = SegmentPlace(count=2, layer=2, layers=2, first=3, size=4, segment=3, segments=3)
"""The last two of four words on a second layer: what was drawn before are one word and two."""
SAMPLE_DRAWN = (
    SegmentExample("an image of 1", "stroke empty line", "line empty"),
    SegmentExample("an image of 0", "ring curve curve", "curve curve"),
    SegmentExample("an image of 7", "corner line line", "empty line"),
)
SAMPLE_CONDITION = "an image of 4"
SAMPLE_SO_FAR = "cross line line"
