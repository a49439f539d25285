"""Words of one token each, from a set of its own for every place, written by llama.cpp.

Knows: token ids, runs of places, the slot's cache. Refuses to know: prompts' wording, what the words mean.

A logit bias holds for a whole request, so each run of places with the same set is one request: the prompt with what
was written before, and as many tokens as the run is long. Everything but the last token lies in the slot's prefix
cache, so a request of one token costs what that token would have cost in a longer one. A place with a single word is
not asked about at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from icl_vision.contracts import Completion, Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.local.scoring import TokenServer, usage_of

SEEDS = 2**31


async def write_places(
    server: TokenServer,
    request: Mapping[str, Any],
    places: Sequence[Sequence[str]],
    tokens: Mapping[str, int],
    *,
    lift: float,
) -> Completion:
    """A word for each place, the likeliest or sampled.

    Args:
        request: a ``/completion`` request with prompt (token ids) and sampling; a seed in it is the first request's.
        places: the words allowed at each place; all of them at once fit the window.
        tokens: the token of each word with its leading space.
        lift: added to the logits of the allowed.

    Returns:
        The words, each with its leading space. Its usage counts the prompt once, and what was written.
    """
    prompt = list(request["prompt"])
    words: list[str] = []
    spent = Usage()
    async with server.slot(prompt) as slot:
        for place, run in groupby(map(tuple, places)):
            length = sum(1 for _ in run)
            if len(place) == 1:
                words += [place[0]] * length
                prompt += [tokens[place[0]]] * length
                continue
            document = dict(request) | {
                "prompt": list(prompt),
                "n_predict": length,
                "logit_bias": [[tokens[word], lift] for word in place],
                "id_slot": slot.number,
            }
            if "seed" in document:
                document["seed"] = (document["seed"] + len(words)) % SEEDS
            answer = await server.post("/completion", document)
            written = str(answer["content"]).split(" ")[1:]
            if len(written) != length or not set(written) <= set(place):
                raise LLMResponseError(
                    f"the local LLM wrote {answer['content']!r} where {length} of {len(place)} words were allowed"
                )
            usage = usage_of(answer)
            # Later requests read again what the first one has paid for.
            fresh = usage.prompt_tokens if not spent.requests else 0
            cached = usage.cached_tokens if not spent.requests else 0
            spent += Usage(1, fresh, cached, usage.completion_tokens)
            words += written
            prompt += [tokens[word] for word in written]
            # The last token written was not evaluated.
            slot.tokens = prompt[:-1]
    return Completion("".join(" " + word for word in words), "stop", spent)
