"""An LLM that is never asked: for planning what a run would send, without a key, a network or a model in memory.

Knows: another LLM's profile, counting tokens on this machine. Refuses to know: answers.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence

from icl_vision.contracts import Completion, Constraint, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import UsageError
from icl_vision.llms.llama_scoring import SIBLINGS
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

    def count_prompt(self, prompt: Prompt) -> int:
        """Tokens of a prompt, in two parts: the fixed one ends in a newline, where every tokenizer splits."""
        return (self.count(prompt.prefix) if prompt.prefix else 0) + self.count(prompt.query)

    def scored(self, prompt: Prompt, continuations: Sequence[str]) -> Usage:
        """What scoring these continuations (terminators included) of one prompt would use.

        A request for each. Of an LLM that ``scores_bags`` (llama.cpp forces tokens one by one): a request for each
        token, but two for all first tokens together from three of them on; ``cached_tokens`` is what those after the
        first repeat of the prompt.
        """
        if not self.profile.scores_bags:
            fixed = self.count(prompt.prefix) if prompt.prefix else 0
            return Usage(len(continuations), sum(fixed + self.count(prompt.query + one) for one in continuations))
        tokens = [max(1, self.count(one)) for one in dict.fromkeys(continuations)]
        start, later = self.count_prompt(prompt), sum(tokens) - len(tokens)
        requests = (2 if len(tokens) >= SIBLINGS else len(tokens)) + later
        total = requests * start + sum(number * (number - 1) // 2 for number in tokens)
        return Usage(requests, total, total - start - later)

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

    async def _learn_words(self, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
        return Usage()

    async def _count_tokens(self, text: str) -> int:
        return await asyncio.to_thread(self.count, text)  # the first time a tokenizer has to be read

    def _not_asked(self) -> UsageError:
        return UsageError(f"{self.profile.name!r} is only planned with here and is never asked; connect() to ask it")


def by_prompt(pairs: Iterable[tuple[Prompt, str]], terminator: str) -> list[tuple[Prompt, list[str]]]:
    """Each prompt once, with everything that is scored after it, terminators included."""
    found: dict[str, tuple[Prompt, list[str]]] = {}
    for prompt, continuation in pairs:
        found.setdefault(prompt.text, (prompt, []))[1].append(continuation + terminator)
    return list(found.values())
