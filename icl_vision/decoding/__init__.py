"""From an LLM's text back to what was asked for: a label.

Knows: how to read an answer. Refuses to know: prompts' wording, LLM clients and images.
"""

from icl_vision.decoding.parsing import ParsedLabel, Rung, parse_label

__all__ = ["ParsedLabel", "Rung", "parse_label"]
