"""icl_vision: any text-only LLM sees and draws, through ordinary words.

Public names, each imported when it is first used (PEP 562), so that ``import icl_vision`` costs next to nothing.
Knows: which names are public and where they live. Refuses to know: anything else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from icl_vision._version import __version__

if TYPE_CHECKING:
    from icl_vision import errors
    from icl_vision.contracts import Answer, Classification, Prompt
    from icl_vision.errors import IclVisionError
    from icl_vision.image_words import ImageWords
    from icl_vision.llms import connect
    from icl_vision.pyramid import PyramidLayout, TokenPyramid
    from icl_vision.tasks import Captioner, Described, FewShotClassifier, VisualQA
    from icl_vision.tasks.classify.prompts import Example, PromptBuilder
    from icl_vision.tasks.denoise.denoiser import ImageDenoiser
    from icl_vision.tasks.draw.generator import ImageGenerator
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.vocabulary import Vocabulary

__all__ = [
    "Answer",
    "Captioner",
    "Classification",
    "Described",
    "Example",
    "FewShotClassifier",
    "IclVisionError",
    "ImageDenoiser",
    "ImageGenerator",
    "ImageTokenizer",
    "ImageWords",
    "Prompt",
    "PromptBuilder",
    "PyramidLayout",
    "TokenPyramid",
    "VisualQA",
    "Vocabulary",
    "__version__",
    "connect",
    "errors",
]

# Silent by default: a library leaves it to the application to show its log.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# public name -> the module it lives in
_HOMES = {
    "Answer": "contracts",
    "Captioner": "tasks",
    "Classification": "contracts",
    "Described": "tasks",
    "Example": "tasks.classify.prompts",
    "FewShotClassifier": "tasks",
    "IclVisionError": "errors",
    "ImageDenoiser": "tasks.denoise.denoiser",
    "ImageGenerator": "tasks.draw.generator",
    "ImageTokenizer": "tokenizers",
    "ImageWords": "image_words",
    "Prompt": "contracts",
    "PromptBuilder": "tasks.classify.prompts",
    "PyramidLayout": "pyramid",
    "TokenPyramid": "pyramid",
    "VisualQA": "tasks",
    "Vocabulary": "vocabulary",
    "connect": "llms",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        value = getattr(importlib.import_module(f"icl_vision.{_HOMES[name]}"), name)
    elif name == "errors":
        value = importlib.import_module("icl_vision.errors")
    else:
        raise AttributeError(f"module 'icl_vision' has no attribute {name!r}; public are {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
