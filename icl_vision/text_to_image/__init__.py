"""A frozen LLM in front of a diffusion model: text is routed, answered in words or drawn (Beyond-CLIP).

Knows: which names are public here and where they live; each is imported when it is first used (PEP 562), since most of
them need torch and diffusers, which the extra ``t2i`` brings. Refuses to know: anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.text_to_image.pipeline import LLMTextToImage
    from icl_vision.text_to_image.router import Route, Router

__all__ = [
    "LLMTextToImage",
    "Route",
    "Router",
]

# public name -> its module in this package
_HOMES = {
    "LLMTextToImage": "pipeline",
    "Route": "router",
    "Router": "router",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
