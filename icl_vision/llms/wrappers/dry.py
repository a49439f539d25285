"""An LLM that is never asked: for planning what a run would send, without a key, a network or a model in memory.

Knows: another LLM's profile, counting tokens on this machine. Refuses to know: answers.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Unpack

from icl_vision.contracts import Completion, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import UsageError
from icl_vision.llms.base import Settings
from icl_vision.llms.forced_requests import SIBLINGS, START, ForcedTokens
from icl_vision.llms.tokens import TokenCount, count_tokens, estimated_pieces
from icl_vision.llms.word_tables import LEARNING
from icl_vision.llms.wrappers.wrapped import WrappedLLM, llama_lead, score_checks

CHECK_TOKENS = 6
"""Of a request that checks whether texts are scored, about."""


class DryLLM(WrappedLLM):
    """``llm`` as it looks from outside: same profile and identity, tokens counted here, and no answers.

    ``exact`` says whether every count so far was made with the model's own tokenizer, ``how`` with which. ``whole``:
    words that are one token each with the space before them, as those of a portable vocabulary are.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.exact = True
        self.how = ""
        self.whole: Container[str] = ()
        self._cut_prefix = functools.lru_cache(maxsize=64)(self._pieces)
        self.begin()
        # Prompts of one run share their beginning, which is counted by itself, again and again.
        self._counted = functools.lru_cache(maxsize=256)(self._count)

    def begin(self) -> None:
        """Plan another run: nothing is in a cache yet, and no echo is proven but by what was asked in earnest."""
        self._forced = ForcedTokens(llama_lead(self.llm))
        self._checks = score_checks(self.llm)

    def count(self, text: str) -> int:
        """Tokens of a text: exact where this machine has the model's tokenizer, estimated elsewhere."""
        counted = self._counted(text)
        self.exact = self.exact and counted.exact
        self.how = counted.how
        return counted.tokens

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
            return Usage(len(continuations), sum(fixed + self.count(prompt.query + text) for text in continuations))
        tokens = [len(self._pieces(text)) for text in dict.fromkeys(continuations)]
        start, later = self.count_prompt(prompt), sum(tokens) - len(tokens)
        requests = (2 if len(tokens) >= SIBLINGS else len(tokens)) + later
        total = requests * start + sum(number * (number - 1) // 2 for number in tokens)
        return Usage(requests, total, total - start - later)

    def call(
        self, pairs: Sequence[tuple[Prompt, str]], terminator: str, *, alone: bool = True
    ) -> list[tuple[Prompt | None, Usage]]:
        """What the next call of ``score`` would use, for each prompt; None stands for what all of them share.

        Calls are to be told in their order: what one leaves in the cache of an LLM that ``scores_bags`` is not read
        again by the next, and whether texts are scored at all is checked once, where the scores do not show it.

        alone: no other call is under way, which might be answered first.
        """
        groups = by_prompt(pairs, terminator)
        if not self.profile.scores_bags:
            parts: list[tuple[Prompt | None, Usage]] = [
                (prompt, self.scored(prompt, texts)) for prompt, texts in groups
            ]
            if self._checks and not any(len(set(texts)) > 1 for _, texts in groups):
                parts.append((None, Usage(self._checks, self._checks * CHECK_TOKENS, 0, self._checks)))
                self._checks = 0
            elif alone:
                self._checks = 0  # its scores show it
            return parts
        return self._forced_call(groups)

    def _forced_call(self, groups: Sequence[tuple[Prompt, list[str]]]) -> list[tuple[Prompt | None, Usage]]:
        cut = [(prompt, self._cut(prompt), [self._pieces(text) for text in texts]) for prompt, texts in groups]
        led, asks = self._forced.requests([(prompt, text) for _, prompt, texts in cut for text in texts])
        parts: list[tuple[Prompt | None, Usage]] = [(None, Usage(1, led, 0, 1))] if led else []
        for prompt, tokens, texts in cut:
            start, requests, read, later = self.count_prompt(prompt), 0, 0, 0
            for text in texts:
                for index in range(len(text)):
                    times = asks.pop((*tokens, *text[:index]), 0)
                    requests += times
                    read += times * (start + index)
                    later += times if index else 0
            parts.append((prompt, Usage(requests, read, max(0, read - start - later))))
        return parts

    def learnt(self, prompt: Prompt) -> Usage:
        """What learning words after a prompt would use: see ``word_tables``."""
        tokens = self.count_prompt(prompt)
        self._forced.hold(self._cut(prompt))
        return Usage(LEARNING, LEARNING * tokens, (LEARNING - 1) * tokens, LEARNING)

    def _cut(self, prompt: Prompt) -> tuple[str, ...]:
        return (START, *self._cut_prefix(prompt.prefix), *self._pieces(prompt.query))

    def _pieces(self, text: str) -> list[str]:
        """About the tokens of a text, as texts; an LLM may have a cut of its own."""
        own = getattr(self.llm, "pieces", None)
        return list(own(text)) if own is not None else estimated_pieces(text, self.whole)

    def _count(self, text: str) -> TokenCount:
        return count_tokens(text, self.profile.name, encoding=self.profile.tokenizer)

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
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
    groups: dict[str, tuple[Prompt, list[str]]] = {}
    for prompt, continuation in pairs:
        groups.setdefault(prompt.text, (prompt, []))[1].append(continuation + terminator)
    return list(groups.values())
