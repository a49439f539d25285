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
- tokens asked after the same prefix (words scored as a bag) take two requests, however many they are: one reports
  their shares among themselves (all lifted by the same bias, probabilities after it), one the raw probability of the
  likeliest. Agreement with one request a token: 0.00001 nats;
- the part that all pairs share (the support set) is evaluated first, alone or (where all go on from the same token)
  with the first question. This also makes the numbers
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

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from icl_vision.contracts import Scores, Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.forced_requests import SIBLINGS, common_prefix
from icl_vision.llms.local.server import Slot
from icl_vision.llms.scores import PartialScores, attach, take

FORCE_BIAS = 10_000.0
"""Far above any logit, so that the biased token is always the one generated."""

SHARE_BIAS = 100.0
"""Lifts several tokens far above all others, and little enough to leave the digits of their logits alone."""

LEAST_SHARE = 1e-30
"""A smaller share is too near the end of float32 to be told exactly."""

LOWEST = -103.0
"""Reported for a token whose probability underflows a float32 (llama.cpp writes null for its logarithm)."""


METHOD = "forced tokens"

Node = tuple[tuple[int, ...], int]
"""A question: the tokens before, and the token whose log-probability is wanted."""


class TokenServer(Protocol):
    """A llama.cpp server, embedded (``LlamaServer``) or somebody's own (``local.remote``)."""

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

    An error on the way carries what came back before it; see ``scores``.
    """
    nodes = sorted(
        {
            (pair.prompt + pair.continuation[:index], token)
            for pair in pairs
            for index, token in enumerate(pair.continuation)
        }
    )
    shared = list(nodes[0][0])
    for prefix, _ in nodes:
        shared = shared[: common_prefix(tuple(shared), prefix)]
    logprobs: dict[Node, float] = {}
    try:
        usage = await _ask_all(server, nodes, shared, logprobs, fresh=fresh)
    except Exception as error:
        attach(error, PartialScores(_sums(pairs, logprobs), take(error).usage, METHOD))
        raise
    sums = _sums(pairs, logprobs)
    return Scores(tuple(sums[index] for index in range(len(pairs))), usage, METHOD)


def _sums(pairs: Sequence[TokenPair], logprobs: Mapping[Node, float]) -> dict[int, float]:
    """The log-probability of each continuation all of whose tokens are known, by its place."""
    sums: dict[int, float] = {}
    for number, pair in enumerate(pairs):
        parts = [
            logprobs.get((pair.prompt + pair.continuation[:index], token))
            for index, token in enumerate(pair.continuation)
        ]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            sums[number] = sum(known)
    return sums


async def _ask_all(
    server: TokenServer, nodes: Sequence[Node], shared: list[int], logprobs: dict[Node, float], *, fresh: bool
) -> Usage:
    """Ask for all nodes in their order, putting what comes back into ``logprobs``; an error carries the usage."""
    usage = Usage()
    async with server.slot(list(nodes[0][0])) as slot:
        # Where all pairs go on from the same tokens, the first question evaluates those and nothing else by itself.
        alone = all(prefix == nodes[0][0] for prefix, _ in nodes)
        if fresh or (not alone and common_prefix(slot.tokens, shared) < len(shared)):
            usage += (await _ask(server, slot, shared, cache=not fresh))[1]
        try:
            for prefix, group in groupby(nodes, key=itemgetter(0)):
                levels, spent = await _next_tokens(server, slot, list(prefix), [token for _, token in group])
                usage += spent
                logprobs.update({(prefix, token): logprob for token, logprob in levels.items()})
        except Exception as error:
            attach(error, PartialScores(usage=usage))
            raise
    return usage


@dataclass(frozen=True, slots=True)
class NextTokens:
    """Of tokens as the next one after a prompt: what decides every answer that ``score_pairs`` would give about them.

    shares: their log-probabilities among themselves, from the evaluation of the whole prompt. levels: their
    log-probabilities, from the evaluation of its last token alone. ``score_pairs`` takes the shares of the tokens asked
    together from the first and the level of their likeliest from the second; with quantised weights the two differ by
    some hundredths of a nat. Tokens too unlikely to be told among the others are in neither.
    """

    shares: dict[int, float]
    levels: dict[int, float]
    usage: Usage


async def next_tokens(server: TokenServer, prompt: Sequence[int], tokens: Sequence[int]) -> NextTokens:
    """Both evaluations of many tokens after one prompt, by three requests; 1,700 tokens take little more than five."""
    ids = list(prompt)
    async with server.slot(ids) as slot:
        shares, usage = await _shares(server, slot, ids, tokens)
        again, spent = await _shares(server, slot, ids, tokens)
        usage += spent
        likeliest = max(again, key=again.__getitem__, default=None)
        if likeliest is None:
            return NextTokens({}, {}, usage)
        answer, spent = await _ask(server, slot, ids, force=likeliest)
        level = _logprob(answer, likeliest) - again[likeliest]
        usage += spent
    both = shares.keys() & again.keys()
    return NextTokens(
        {token: shares[token] for token in tokens if token in both},
        {token: level + again[token] for token in tokens if token in both},
        usage,
    )


async def share_tokens(
    server: TokenServer, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[dict[int, float], Usage]:
    """Log-probabilities of tokens among themselves after a prompt, by one request; without those too unlikely to tell.

    Raises:
        LLMResponseError: the server tells none.
    """
    ids = list(prompt)
    async with server.slot(ids) as slot:
        shares, usage = await _shares(server, slot, ids, tokens)
    if not shares:
        raise LLMResponseError(f"the local LLM's server told no share of {len(tokens)} tokens")
    return shares, usage


async def _next_tokens(
    server: TokenServer, slot: Slot, prefix: list[int], tokens: Sequence[int]
) -> tuple[dict[int, float], Usage]:
    """Log-probability of each of these tokens as the next one, and what it cost to ask."""
    shares: dict[int, float] = {}
    usage = Usage()
    if len(tokens) >= SIBLINGS:
        shares, usage = await _shares(server, slot, prefix, tokens)
    likeliest = max(shares, key=shares.__getitem__, default=None)
    levels: dict[int, float] = {}
    for token in tokens:
        if token in shares and token != likeliest:
            continue
        answer, spent = await _ask(server, slot, prefix, force=token)
        usage += spent
        levels[token] = _logprob(answer, token)
    if likeliest is not None:
        together = levels[likeliest] - shares[likeliest]
        levels |= {token: max(together + share, LOWEST) for token, share in shares.items()}
    return levels, usage


async def _shares(
    server: TokenServer, slot: Slot, prefix: list[int], tokens: Sequence[int]
) -> tuple[dict[int, float], Usage]:
    """Logarithm of each token's probability among them; without those too unlikely to tell or not reported."""
    document = _request(slot, prefix) | {
        "temperature": 1.0,
        "samplers": ["temperature"],
        "post_sampling_probs": True,
        "n_probs": len(tokens),
        "logit_bias": [[token, SHARE_BIAS] for token in tokens],
    }
    answer = await server.post("/completion", document)
    slot.tokens = prefix
    try:
        # A server that knows no such probabilities reports none, and every token is then asked for by itself.
        reported = answer["completion_probabilities"][0].get("top_probs", [])
        probabilities = {int(entry["id"]): float(entry["prob"]) for entry in reported}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise LLMResponseError(f"the local LLM's answer has no token probability ({error!r})") from error
    wanted = set(tokens)
    return {
        token: math.log(share) for token, share in probabilities.items() if token in wanted and share > LEAST_SHARE
    }, usage_of(answer)


async def _ask(
    server: TokenServer, slot: Slot, prompt: list[int], *, force: int | None = None, cache: bool = True
) -> tuple[dict[str, Any], Usage]:
    document = _request(slot, prompt) | {"cache_prompt": cache, "temperature": 0.0, "samplers": ["top_k"], "top_k": 1}
    if force is not None:
        document |= {"logit_bias": [[force, FORCE_BIAS]], "n_probs": 1}
    answer = await server.post("/completion", document)
    slot.tokens = prompt
    return answer, usage_of(answer)


def _request(slot: Slot, prompt: list[int]) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "n_predict": 1,
        "id_slot": slot.number,
        "cache_prompt": True,
        "response_fields": ["completion_probabilities", "timings", "tokens_evaluated"],
    }


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
