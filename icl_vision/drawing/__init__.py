"""From an LLM's text back to what was asked for: a label, or the words of a picture.

Knows: how to read an answer, and how to ask for a picture segment by segment. Refuses to know: prompts' wording, LLM
clients and images.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.drawing.answering import Candidate
    from icl_vision.drawing.drawing import Drawing, Pair, Query, SegmentAnswer, plurality
    from icl_vision.drawing.planning import DrawingPlan
    from icl_vision.drawing.progressive import ProgressiveDecoder
    from icl_vision.drawing.repair import Change, read_words
    from icl_vision.drawing.stages import Decoding, Stage, par, pnar, single_pass, two_stage
    from icl_vision.drawing.windows import Near
    from icl_vision.drawing.wordsets import WordSet
    from icl_vision.drawing.work import Step

__all__ = [
    "Candidate",
    "Change",
    "Decoding",
    "Drawing",
    "DrawingPlan",
    "Near",
    "Pair",
    "ProgressiveDecoder",
    "Query",
    "SegmentAnswer",
    "Stage",
    "Step",
    "WordSet",
    "par",
    "plurality",
    "pnar",
    "read_words",
    "single_pass",
    "two_stage",
]

# Loaded when first used.
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
        raise AttributeError(f"module 'icl_vision.drawing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"icl_vision.drawing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
