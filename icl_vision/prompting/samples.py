"""A small built-in episode, to show or try a template without images or an LLM.

Knows: made-up words for two classes. Refuses to know: how they came about; they are not measured output.
"""

from __future__ import annotations

from icl_vision.prompting.builder import Example

SAMPLE_LABELS = ("lion", "school bus")
SAMPLE_EXAMPLES = (
    Example("mane savanna tawny cat roar", "lion"),
    Example("yellow traffic vehicle children wheel", "school bus"),
    Example("cub pride fur grass predator", "lion"),
    Example("road driver stop engine window", "school bus"),
)
SAMPLE_WORDS = "whisker paw desert mane animal"
