"""LLMs: the way from a prompt to text, or to the log-probability of a text.

Public names are imported when first used, so that ``connect("local")`` does not pay for the SDKs.
Knows: where each name lives. Refuses to know: anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_vision.llms.base import BaseLLM
    from icl_vision.llms.batch.llm import BatchLLM
    from icl_vision.llms.connecting import connect
    from icl_vision.llms.cost import Budget, Meter, Price, PriceTable
    from icl_vision.llms.fake import FakeLLM
    from icl_vision.llms.local.embedded import LocalLLM
    from icl_vision.llms.modes import cache_mode, repeat
    from icl_vision.llms.profiles import register_profile
    from icl_vision.llms.remote.anthropic import AnthropicLLM
    from icl_vision.llms.remote.openai.compatible import OpenAICompatibleLLM
    from icl_vision.llms.remote.openai.llm import OpenAILLM
    from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy
    from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache
    from icl_vision.llms.wrappers.fallback import FallbackLLM
    from icl_vision.llms.wrappers.metered import MeteredLLM
    from icl_vision.llms.wrappers.replay import ReplayLLM, record

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
    "AnthropicLLM": "remote.anthropic",
    "BaseLLM": "base",
    "BatchLLM": "batch.llm",
    "Budget": "cost",
    "CachedLLM": "wrappers.cache",
    "FakeLLM": "fake",
    "FallbackLLM": "wrappers.fallback",
    "Limiter": "remote.resilience",
    "LocalLLM": "local.embedded",
    "Meter": "cost",
    "MeteredLLM": "wrappers.metered",
    "OpenAICompatibleLLM": "remote.openai.compatible",
    "OpenAILLM": "remote.openai.llm",
    "Price": "cost",
    "PriceTable": "cost",
    "ReplayLLM": "wrappers.replay",
    "Resilience": "remote.resilience",
    "ResponseCache": "wrappers.cache",
    "RetryPolicy": "remote.resilience",
    "cache_mode": "modes",
    "connect": "connecting",
    "record": "wrappers.replay",
    "register_profile": "profiles",
    "repeat": "modes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
