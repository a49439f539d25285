"""An LLM that is never asked: for planning what a run would send, without a key, a network or a model in memory.

Knows: another LLM's profile, counting tokens on this machine. Refuses to know: answers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from icl_vision.contracts import Completion, Constraint, Prompt, Scores, TextLLM
from icl_vision.errors import UsageError
from icl_vision.llms.tokens import TokenCount, count_tokens
from icl_vision.llms.wrapped import WrappedLLM


class DryLLM(WrappedLLM):
    """``llm`` as it looks from outside: same profile and identity, tokens counted here, and no answers.

    ``exact`` says whether every count so far was made with the model's own tokenizer, ``how`` with which.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.exact = True
        self.how = ""
        # Prompts of one run share their beginning, which is counted by itself, again and again.
        self._counted = functools.lru_cache(maxsize=256)(self._count)

    def count(self, text: str) -> int:
        """Tokens of a text: exact where this machine has the model's tokenizer, estimated elsewhere."""
        found = self._counted(text)
        self.exact = self.exact and found.exact
        self.how = found.how
        return found.tokens

    def _count(self, text: str) -> TokenCount:
        return count_tokens(text, self.profile.name, encoding=self.profile.tokenizer)

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        raise self._not_asked()

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        raise self._not_asked()

    async def _count_tokens(self, text: str) -> int:
        return self.count(text)

    def _not_asked(self) -> UsageError:
        return UsageError(f"{self.profile.name!r} is only planned with here and is never asked; connect() to ask it")
