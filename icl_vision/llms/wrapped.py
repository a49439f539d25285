"""An LLM around an LLM: everything is handed on, a subclass changes what it wants to.

Knows: which facts about an LLM must not get lost under a wrapper: its budgeting depends on them. Refuses to know: why
an LLM is wrapped.
"""

from __future__ import annotations

from icl_vision.contracts import Constraint, Profile, Prompt, TextLLM
from icl_vision.llms.base import BaseLLM


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

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for: see ``RemoteLLM.most_tokens``."""
        return most_tokens(self.llm, max_tokens, constraint)

    def marks_prefix(self, prompt: Prompt) -> bool:
        """Whether the provider is told to keep the prompt's fixed part: see ``RemoteLLM.marks_prefix``."""
        return marks_prefix(self.llm, prompt)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.llm!r})"

    async def _count_tokens(self, text: str) -> int:
        return await self.llm.count_tokens(text)

    async def _close(self) -> None:
        close = getattr(self.llm, "aclose", None)
        if close is not None:
            await close()


def most_tokens(llm: TextLLM, max_tokens: int, constraint: Constraint | None) -> int:
    """Tokens a completion of any LLM may be billed for; ``max_tokens`` where it says nothing else."""
    most = getattr(llm, "most_tokens", None)
    return max_tokens if most is None else int(most(max_tokens, constraint))


def marks_prefix(llm: TextLLM, prompt: Prompt) -> bool:
    """Whether any LLM's provider is told to keep the prompt's fixed part; not where it says nothing."""
    marks = getattr(llm, "marks_prefix", None)
    return marks is not None and bool(marks(prompt))
