"""From an LLM's text back to what was asked for: a label, or the words of a picture.

Knows: how to read an answer, and how to ask for a picture segment by segment. Refuses to know: prompts' wording, LLM
clients and images.
"""

from typing import TYPE_CHECKING, Any

from icl_vision.decoding.parsing import ParsedLabel, Rung, parse_label

if TYPE_CHECKING:
    from icl_vision.decoding.answering import Candidate
    from icl_vision.decoding.drawing import Drawing, Pair, Query, SegmentAnswer, plurality
    from icl_vision.decoding.planning import DrawingPlan
    from icl_vision.decoding.progressive import ProgressiveDecoder
    from icl_vision.decoding.repair import Change, read_words
    from icl_vision.decoding.stages import Decoding, Stage, par, pnar, single_pass, two_stage
    from icl_vision.decoding.windows import Near
    from icl_vision.decoding.wordsets import WordSet
    from icl_vision.decoding.work import Step

__all__ = [
    "Candidate",
    "Change",
    "Decoding",
    "Drawing",
    "DrawingPlan",
    "Near",
    "Pair",
    "ParsedLabel",
    "ProgressiveDecoder",
    "Query",
    "Rung",
    "SegmentAnswer",
    "Stage",
    "Step",
    "WordSet",
    "par",
    "parse_label",
    "plurality",
    "pnar",
    "read_words",
    "single_pass",
    "two_stage",
]

# Loaded when first used: reading a label needs none of it.
_HOMES = {
    "Candidate": "answering",
    "Change": "repair",
    "Decoding": "stages",
    "Drawing": "drawing",
    "DrawingPlan": "planning",
    "Near": "windows",
    "Pair": "drawing",
    "ProgressiveDecoder": "progressive",
    "Query": "drawing",
    "SegmentAnswer": "drawing",
    "Stage": "stages",
    "Step": "work",
    "WordSet": "wordsets",
    "par": "stages",
    "plurality": "drawing",
    "pnar": "stages",
    "read_words": "repair",
    "single_pass": "stages",
    "two_stage": "stages",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'icl_vision.decoding' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"icl_vision.decoding.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
