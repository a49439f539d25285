"""LLMs that ask the batch servers of ``batch_servers``, at once rather than after minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batch_servers import CANARY, BatchServer, OpenAIBatchServer

from icl_vision.llms.batch.llm import BatchLLM
from icl_vision.llms.remote.anthropic import AnthropicLLM
from icl_vision.llms.remote.openai.llm import OpenAILLM
from icl_vision.llms.remote.resilience import Resilience, RetryPolicy
from icl_vision.llms.remote.transport import RemoteLLM


def quick() -> Resilience:
    """Tries four times, and waits next to nothing."""
    policy = RetryPolicy(4, attempt_timeout=20, total_timeout=60, wait_initial=0.001, wait_maximum=0.01)
    return Resilience(policy)


def llm_of(server: BatchServer, **options: Any) -> RemoteLLM:
    if isinstance(server, OpenAIBatchServer):
        return OpenAILLM("gpt-4o-mini", base_url=server.url, api_key=CANARY, **options)
    return AnthropicLLM("claude-haiku-4-5", base_url=server.url, api_key=CANARY, **options)


def batched(server: BatchServer, folder: Path, **options: Any) -> BatchLLM:
    llm = options.pop("llm", None) or llm_of(server)
    return BatchLLM(llm, folder, **{"poll": 0.01, "window": 0.02, "resilience": quick(), **options})
