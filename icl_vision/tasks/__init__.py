"""Tasks: the whole line from images to answers, composed of the other packages' parts.

Public names are imported when first used, so that a prompt (``from icl_vision import PromptBuilder``) needs no images.
Knows: the order of the steps. Refuses to know: how any step works.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.asking.inquiries import Inquiry
    from icl_vision.asking.many import Outcome
    from icl_vision.asking.plan import Plan
    from icl_vision.tasks.answer.captioner import Captioner
    from icl_vision.tasks.answer.files import packaged_captions, packaged_examples
    from icl_vision.tasks.answer.many import aanswer_many, answer_many
    from icl_vision.tasks.answer.pictures import Described
    from icl_vision.tasks.answer.visual_qa import VisualQA
    from icl_vision.tasks.classify.classifier import FewShotClassifier
    from icl_vision.tasks.many import aclassify_many, classify_many

__all__ = [
    "Captioner",
    "Described",
    "FewShotClassifier",
    "Inquiry",
    "Outcome",
    "Plan",
    "VisualQA",
    "aanswer_many",
    "aclassify_many",
    "answer_many",
    "classify_many",
    "packaged_captions",
    "packaged_examples",
]

_HOMES = {
    "Captioner": "tasks.answer.captioner",
    "Described": "tasks.answer.pictures",
    "FewShotClassifier": "tasks.classify.classifier",
    "Inquiry": "asking.inquiries",
    "Outcome": "asking.many",
    "Plan": "asking.plan",
    "VisualQA": "tasks.answer.visual_qa",
    "aanswer_many": "tasks.answer.many",
    "aclassify_many": "tasks.many",
    "answer_many": "tasks.answer.many",
    "classify_many": "tasks.many",
    "packaged_captions": "tasks.answer.files",
    "packaged_examples": "tasks.answer.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"icl_vision.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
