"""What exact scoring needs of a llama.cpp server that is not ours: its own endpoints, beside OpenAI's.

Knows: /tokenize and /completion at the root of the server. Refuses to know: how a request is sent, what is scored.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from icl_vision.contracts import Prompt, Scores
from icl_vision.errors import LLMResponseError, UsageError
from icl_vision.llms.attempts import free
from icl_vision.llms.local.scoring import TokenPair, score_pairs
from icl_vision.llms.local.server import Slot

ANY_SLOT = -1
"""The server takes the slot whose cache shares most with the request."""


def root_of(base_url: str) -> str:
    """The address of the server's own endpoints: that of OpenAI's without the version and without a query."""
    parts = urllib.parse.urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class RemoteLlama:
    """``llama_scoring.TokenServer`` over any way to post JSON to a path of the server."""

    def __init__(self, post: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self._post = post

    async def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """One request."""
        return await self._post(path, document)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of a text with the model's start token, special tokens read as ordinary text."""
        with free():
            answer = await self._post("/tokenize", {"content": text, "add_special": True, "parse_special": False})
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise LLMResponseError("the llama.cpp server's /tokenize answered without tokens; is the URL llama.cpp's?")
        return tuple(tokens)

    @asynccontextmanager
    async def slot(self, tokens: list[int]) -> AsyncIterator[Slot]:
        """Others use the server too, so what a slot's cache holds is not known."""
        yield Slot(ANY_SLOT)

    async def score(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Scores:
        """Natural-log probability of each continuation plus its terminator; see ``local.scoring``."""
        known: dict[str, tuple[int, ...]] = {}
        token_pairs = []
        for prompt, continuation in pairs:
            if prompt.text not in known:
                known[prompt.text] = await self.tokenize(prompt.text)
            pair = TokenPair.split(known[prompt.text], await self.tokenize(prompt.text + continuation + terminator))
            if not pair.continuation or not pair.prompt:
                raise UsageError(f"the continuation {continuation!r} adds no token to its prompt")
            token_pairs.append(pair)
        return await score_pairs(self, token_pairs)
