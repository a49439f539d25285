"""A llama.cpp server inside the test: its probabilities are known, and depend on what was evaluated in one go.

Words are tokens of their own with their leading space, but those that begin with "two" are two tokens.
"""

from __future__ import annotations

import math
import re
import zlib
from contextlib import asynccontextmanager

from icl_vision.llms.forced_requests import common_prefix
from icl_vision.llms.local import embedded as local
from icl_vision.llms.local.embedded import LocalLLM
from icl_vision.llms.local.server import Slot


class FakeLlama:
    """Stands where ``LlamaServer`` would; ``requests`` are the completions it was asked for."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.failure: Exception | None = None
        self._slot = Slot(0)
        self._cache: list[int] = []

    async def tokenize(self, text, *, start=True, special=False):
        pieces = []
        for piece in re.findall(r" ?[^\s:]+|:|\n| ", text):
            pieces += [piece[:4], piece[4:]] if piece.startswith(" two") else [piece]
        return [0] * start + [zlib.crc32(piece.encode()) % 10**6 + 1 for piece in pieces]

    @asynccontextmanager
    async def slot(self, tokens):
        yield self._slot

    def logit(self, prompt, token, evaluated):
        """Any function will do, with a little of what was evaluated together in it, as quantised weights have."""
        return math.sin(sum(prompt) * 7 + token * 13) * 4 + math.sin(token + evaluated) * 0.05

    async def post(self, path, document):
        self.requests.append(document)
        if self.failure is not None:
            raise self.failure
        prompt = document["prompt"]
        cached = min(common_prefix(self._cache, prompt), len(prompt) - 1) if document["cache_prompt"] else 0
        self._cache = list(prompt)
        evaluated = min(len(prompt) - cached, 2)
        answer = {"timings": {"cache_n": cached, "prompt_n": len(prompt) - cached, "predicted_n": 1}}
        asked = [token for token, _ in document.get("logit_bias", [])]
        if document.get("post_sampling_probs"):
            weights = {token: math.exp(self.logit(prompt, token, evaluated)) for token in asked}
            entries = [{"id": token, "prob": weight / sum(weights.values())} for token, weight in weights.items()]
            answer["completion_probabilities"] = [{"top_probs": entries}]
        elif asked:
            (token,) = asked
            entry = {"id": token, "logprob": self.logit(prompt, token, evaluated) - 9}
            answer["completion_probabilities"] = [entry]
        return answer


def fake_local(monkeypatch, model: str = "a" * 64, **options) -> tuple[LocalLLM, FakeLlama]:
    """A LocalLLM that asks a FakeLlama. model: what its file's hash is to be."""
    server = FakeLlama()

    async def ready(self):
        self._check_open()
        return server

    monkeypatch.setattr(local, "packaged_hash", lambda: model)
    monkeypatch.setattr(LocalLLM, "_ready", ready)
    return LocalLLM(**options), server
