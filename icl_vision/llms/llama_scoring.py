"""Exact log-probabilities of given continuations from a server that only reports those of tokens it generates.

Knows: token ids, prefix caches, forced tokens. Refuses to know: labels, words, templates.

llama.cpp's server gives no log-probabilities of a prompt. But a generated token
forced by a logit bias is still reported with its raw probability, the one before
the bias. So a continuation of n tokens is n one-token requests: "prompt + the
first i tokens" with token i+1 forced. Each evaluates a single new token, because
everything before it lies in the slot's prefix cache.

What makes it fast, all of it exact:

- the requests of all pairs form a trie, and each (prefix, token) is asked once;
- they are asked in the order of their tokens, so that neighbours share the longest prefixes;
- the part that all pairs share (the support set) is evaluated first and alone. This also makes the numbers
  repeatable: quantised arithmetic rounds differently when the same tokens are evaluated in other batches.

Two alternatives were measured and dropped: forcing a whole continuation in one request, and decoding the labels side
by side in several slots, both cost the same computing time per token, nearly all of it the output layer over the
vocabulary (see benchmarks/bench_local_llm_scoring.py).

Tokenisation is canonical: prompt, continuation and terminator are tokenised as
one text. Where its tokens do not begin with those of the prompt alone (the
tokenizer merges over the boundary), scoring starts at the first token that
differs, so the re-spelt end of the prompt counts with the continuation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from icl_vision.contracts import Scores, Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.llama_server import Slot, common_prefix

FORCE_BIAS = 10_000.0
"""Far above any logit, so that the biased token is always the one generated."""

LOWEST = -103.0
"""Reported for a token whose probability underflows a float32 (llama.cpp writes null for its logarithm)."""


class TokenServer(Protocol):
    """A llama.cpp server, embedded (``LlamaServer``) or somebody's own (``llama_remote``)."""

    async def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]: ...
    def slot(self, tokens: list[int]) -> AbstractAsyncContextManager[Slot]: ...


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and a continuation as token ids."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    @classmethod
    def split(cls, prompt: Sequence[int], whole: Sequence[int]) -> TokenPair:
        """Divide the tokens of the whole text where they stop being the prompt's."""
        shared = common_prefix(list(prompt), list(whole))
        return cls(tuple(whole[:shared]), tuple(whole[shared:]))


async def score_pairs(server: TokenServer, pairs: Sequence[TokenPair], *, fresh: bool = False) -> Scores:
    """Natural-log probability of each pair's continuation.

    Args:
        pairs: with at least one prompt token and one continuation token each.
        fresh: start from an empty cache, so that equal calls give equal bits.
    """
    nodes = sorted(
        {
            (pair.prompt + pair.continuation[:place], token)
            for pair in pairs
            for place, token in enumerate(pair.continuation)
        }
    )
    shared = list(nodes[0][0])
    for prefix, _ in nodes:
        shared = shared[: common_prefix(tuple(shared), prefix)]
    logprobs: dict[tuple[tuple[int, ...], int], float] = {}
    usage = Usage()
    async with server.slot(list(nodes[0][0])) as slot:
        if fresh or common_prefix(slot.tokens, shared) < len(shared):
            usage += (await _ask(server, slot, shared, cache=not fresh))[1]
        for prefix, token in nodes:
            answer, spent = await _ask(server, slot, list(prefix), force=token)
            usage += spent
            logprobs[prefix, token] = _logprob(answer, token)
    return Scores(
        logprobs=tuple(
            sum(
                logprobs[pair.prompt + pair.continuation[:place], token]
                for place, token in enumerate(pair.continuation)
            )
            for pair in pairs
        ),
        usage=usage,
        method="forced tokens",
    )


async def _ask(
    server: TokenServer, slot: Slot, prompt: list[int], *, force: int | None = None, cache: bool = True
) -> tuple[dict[str, Any], Usage]:
    document: dict[str, Any] = {
        "prompt": prompt,
        "n_predict": 1,
        "id_slot": slot.number,
        "cache_prompt": cache,
        "temperature": 0.0,
        "samplers": ["top_k"],
        "top_k": 1,
        "response_fields": ["completion_probabilities", "timings", "tokens_evaluated"],
    }
    if force is not None:
        document |= {"logit_bias": [[force, FORCE_BIAS]], "n_probs": 1}
    answer = await server.post("/completion", document)
    slot.tokens = prompt
    return answer, usage_of(answer)


def usage_of(answer: dict[str, Any]) -> Usage:
    """Tokens of one llama.cpp answer; the prompt's include those read from the cache."""
    timings = answer.get("timings", {})
    cached, evaluated = int(timings.get("cache_n", 0)), int(timings.get("prompt_n", 0))
    return Usage(
        requests=1,
        prompt_tokens=cached + evaluated,
        cached_tokens=cached,
        completion_tokens=int(timings.get("predicted_n", 0)),
    )


def _logprob(answer: dict[str, Any], token: int) -> float:
    try:
        entry = answer["completion_probabilities"][0]
        generated, logprob = entry["id"], entry["logprob"]
    except (KeyError, IndexError, TypeError) as error:
        raise LLMResponseError(f"the local LLM's answer has no token probability ({error!r})") from error
    if generated != token:
        raise LLMResponseError(f"the local LLM generated token {generated} where token {token} was forced")
    return LOWEST if logprob is None else max(float(logprob), LOWEST)
