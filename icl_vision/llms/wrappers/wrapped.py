"""An LLM around an LLM: everything is handed on, a subclass changes what it wants to.

Knows: which facts about an LLM must not get lost under a wrapper: its budgeting depends on them. Refuses to know: why
an LLM is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from icl_vision.contracts import Constraint, Profile, Prompt, TextLLM, Usage
from icl_vision.llms.base import BaseLLM, learnt
from icl_vision.llms.forced_requests import Lead

if TYPE_CHECKING:
    from icl_vision.llms.word_tables import WordTable


class WrappedLLM(BaseLLM):
    """Base of LLMs that ask another one, ``llm``, which is closed with them."""

    def __init__(self, llm: TextLLM) -> None:
        super().__init__()
        self.llm = llm

    @property
    def profile(self) -> Profile:
        """The LLM's own."""
        return self.llm.profile

    @property
    def identity(self) -> str:
        """The LLM's own: an answer is the same through every wrapper."""
        return str(getattr(self.llm, "identity", self.llm.profile.name))

    @property
    def unknown_to_caches(self) -> str:
        """Why answers must not be kept: the LLM's own reason, "" for none."""
        return unknown_to_caches(self.llm)

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for: see ``RemoteLLM.most_tokens``."""
        return most_tokens(self.llm, max_tokens, constraint)

    def marks_prefix(self, prompt: Prompt) -> bool:
        """Whether the provider is told to keep the prompt's fixed part: see ``RemoteLLM.marks_prefix``."""
        return marks_prefix(self.llm, prompt)

    @property
    def learns_words(self) -> bool:
        """The LLM's own."""
        return bool(getattr(self.llm, "learns_words", False))

    @property
    def score_checks(self) -> int:
        """The LLM's own: see ``score_checks``."""
        return score_checks(self.llm)

    @property
    def llama_lead(self) -> Lead:
        """The LLM's own: see ``llama_lead``."""
        return llama_lead(self.llm)

    @property
    def places_apart(self) -> bool:
        """The LLM's own: see ``places_apart``."""
        return places_apart(self.llm)

    def word_table(self, prompt: Prompt) -> WordTable | None:
        """What the LLM keeps of a prompt, without asking it."""
        find = getattr(self.llm, "word_table", None)
        table: WordTable | None = None if find is None else find(prompt)
        return table

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.llm!r})"

    async def _learn_words(self, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
        if not self.learns_words:
            return Usage()
        return await learnt(cast(BaseLLM, self.llm), prompts, words, done)  # it says that it learns them

    async def _count_tokens(self, text: str) -> int:
        return await self.llm.count_tokens(text)

    async def _close(self) -> None:
        close = getattr(self.llm, "aclose", None)
        if close is not None:
            await close()


def unknown_to_caches(llm: TextLLM) -> str:
    """Why an LLM's answers must not be kept: its identity does not tell it from others; "" where it does."""
    return str(getattr(llm, "unknown_to_caches", ""))


def most_tokens(llm: TextLLM, max_tokens: int, constraint: Constraint | None) -> int:
    """Tokens a completion of any LLM may be billed for; ``max_tokens`` where it says nothing else."""
    most = getattr(llm, "most_tokens", None)
    return max_tokens if most is None else int(most(max_tokens, constraint))


def marks_prefix(llm: TextLLM, prompt: Prompt) -> bool:
    """Whether any LLM's provider is told to keep the prompt's fixed part; not where it says nothing."""
    marks = getattr(llm, "marks_prefix", None)
    return marks is not None and bool(marks(prompt))


def score_checks(llm: TextLLM) -> int:
    """Requests by which an LLM makes sure, once, that texts are scored at all, where the scores do not show it."""
    return int(getattr(llm, "score_checks", 0))


def llama_lead(llm: TextLLM) -> Lead:
    """Of an LLM that ``scores_bags``: when it reads what the texts of a call share by a request of its own."""
    lead: Lead = getattr(llm, "llama_lead", "held")
    return lead


def places_apart(llm: TextLLM) -> bool:
    """Whether an LLM takes a request for each run of places with the same words, of those that an answer may hold."""
    return bool(getattr(llm, "places_apart", False))
