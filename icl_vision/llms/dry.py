"""An LLM that is never asked: for planning what a run would send, without a key, a network or a model in memory.

Knows: another LLM's profile, counting tokens on this machine. Refuses to know: answers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM
from icl_vision.errors import UsageError
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.tokens import TokenCount, count_tokens


class DryLLM(BaseLLM):
    """``llm`` as it looks from outside: same profile and identity, tokens counted here, and no answers.

    ``exact`` says whether every count so far was made with the model's own tokenizer, ``how`` with which.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__()
        self.llm = llm
        self.exact = True
        self.how = ""
        # Prompts of one run share their beginning, which is counted by itself, again and again.
        self._counted = functools.lru_cache(maxsize=256)(self._count)

    @property
    def profile(self) -> Profile:
        return self.llm.profile

    @property
    def identity(self) -> str:
        return str(getattr(self.llm, "identity", self.llm.profile.name))

    def count(self, text: str) -> int:
        """Tokens of a text: exact where this machine has the model's tokenizer, estimated elsewhere."""
        found = self._counted(text)
        self.exact = self.exact and found.exact
        self.how = found.how
        return found.tokens

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for: see ``RemoteLLM.most_tokens``."""
        most = getattr(self.llm, "most_tokens", None)
        return max_tokens if most is None else int(most(max_tokens, constraint))

    def marks_prefix(self, prompt: Prompt) -> bool:
        """Whether the provider would be told to keep the prompt's fixed part: see ``RemoteLLM.marks_prefix``."""
        marks = getattr(self.llm, "marks_prefix", None)
        return bool(marks is not None and marks(prompt))

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
