"""LLMs: the way from a prompt to text, or to the log-probability of a text.

Public names are imported when first used, so that ``connect("local")`` does not pay for the SDKs.
Knows: where each name lives. Refuses to know: anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.llms.anthropic import AnthropicLLM
    from icl_vision.llms.base import BaseLLM
    from icl_vision.llms.batch import BatchLLM
    from icl_vision.llms.cache import CachedLLM, ResponseCache, cache_mode, repeat
    from icl_vision.llms.connecting import connect
    from icl_vision.llms.cost import Budget, Meter, Price, PriceTable
    from icl_vision.llms.fake import FakeLLM
    from icl_vision.llms.fallback import FallbackLLM
    from icl_vision.llms.local import LocalLLM
    from icl_vision.llms.metered import MeteredLLM
    from icl_vision.llms.openai import OpenAILLM
    from icl_vision.llms.openai_compatible import OpenAICompatibleLLM
    from icl_vision.llms.profiles import register_profile
    from icl_vision.llms.replay import ReplayLLM, record
    from icl_vision.llms.resilience import Limiter, Resilience, RetryPolicy

__all__ = [
    "AnthropicLLM",
    "BaseLLM",
    "BatchLLM",
    "Budget",
    "CachedLLM",
    "FakeLLM",
    "FallbackLLM",
    "Limiter",
    "LocalLLM",
    "Meter",
    "MeteredLLM",
    "OpenAICompatibleLLM",
    "OpenAILLM",
    "Price",
    "PriceTable",
    "ReplayLLM",
    "Resilience",
    "ResponseCache",
    "RetryPolicy",
    "cache_mode",
    "connect",
    "record",
    "register_profile",
    "repeat",
]

_HOMES = {
    "AnthropicLLM": "anthropic",
    "BaseLLM": "base",
    "BatchLLM": "batch",
    "Budget": "cost",
    "CachedLLM": "cache",
    "FakeLLM": "fake",
    "FallbackLLM": "fallback",
    "Limiter": "resilience",
    "LocalLLM": "local",
    "Meter": "cost",
    "MeteredLLM": "metered",
    "OpenAICompatibleLLM": "openai_compatible",
    "OpenAILLM": "openai",
    "Price": "cost",
    "PriceTable": "cost",
    "ReplayLLM": "replay",
    "Resilience": "resilience",
    "ResponseCache": "cache",
    "RetryPolicy": "resilience",
    "cache_mode": "cache",
    "connect": "connecting",
    "record": "replay",
    "register_profile": "profiles",
    "repeat": "cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
