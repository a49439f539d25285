"""The words of a picture from an LLM, segment by segment.

Knows: which words are asked for when, what each request is shown, and how an answer is read. Refuses to know: prompts'
wording, LLM clients, images, tasks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.drawing.answering import Candidate
    from icl_vision.drawing.drawing import Drawing, Pair, Query, SegmentAnswer, SegmentDrawn, plurality
    from icl_vision.drawing.progressive import ProgressiveDecoder
    from icl_vision.drawing.repair import Change, WordSet, read_words
    from icl_vision.drawing.stages import Decoding, Near, Stage, par, pnar, single_pass, two_stage

__all__ = [
    "Candidate",
    "Change",
    "Decoding",
    "Drawing",
    "Near",
    "Pair",
    "ProgressiveDecoder",
    "Query",
    "SegmentAnswer",
    "SegmentDrawn",
    "Stage",
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
    "Near": "stages",
    "Pair": "drawing",
    "ProgressiveDecoder": "progressive",
    "Query": "drawing",
    "SegmentAnswer": "drawing",
    "SegmentDrawn": "drawing",
    "Stage": "stages",
    "WordSet": "repair",
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
