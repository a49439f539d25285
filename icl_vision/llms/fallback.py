"""Several LLMs, the next one asked where one cannot answer.

Knows: which failures another LLM could mend. Refuses to know: providers, retries (each LLM has done its own by then).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM
from icl_vision.errors import (
    CapabilityError,
    IclVisionError,
    LLMError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.llms import wrapped
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.foreign_errors import failure_of
from icl_vision.llms.resilience import QUOTA_CODES, is_retryable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Anthropic's words for an account that cannot pay; OpenAI's are in QUOTA_CODES.
_UNPAID = QUOTA_CODES | {"billing_error", "linked_organization_spend_limit_reached"}


class FallbackLLM(BaseLLM):
    """The first of ``llms`` that answers.

    The next one is asked where an LLM cannot be reached, takes too long, answers with a status that passes (408, 409,
    429, 5xx) after all its retries, or has no money left. A request that is wrong in itself (a bad key, a prompt too
    long, a refused parameter) fails at once: the next LLM would hide a mistake.

    What the profile promises, every one of them keeps. ``answered`` counts the answers by LLM; a completion's
    ``raw["answered_by"]`` names its own.

    Args:
        llms: two or more, the preferred first.
    """

    def __init__(self, llms: Sequence[TextLLM]) -> None:
        super().__init__()
        llms = list(llms)
        if len(llms) < 2:
            raise UsageError(f"a fallback needs two LLMs or more; got {len(llms)}")
        for llm in llms:
            if not isinstance(llm, TextLLM):
                raise UsageError(f"a fallback holds LLM objects, see connect(); got {type(llm).__name__}")
        self.llms = llms
        self._answered = dict.fromkeys((llm.profile.name for llm in llms), 0)
        self._lock = threading.Lock()
        self._profile = _common([llm.profile for llm in llms])

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def identity(self) -> str:
        """Of all of them: which one answered is not known before."""
        return "fallback(" + ", ".join(str(getattr(llm, "identity", llm.profile.name)) for llm in self.llms) + ")"

    @property
    def answered(self) -> dict[str, int]:
        """How many requests each LLM answered, by name."""
        with self._lock:
            return dict(self._answered)

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
        async def ask(llm: TextLLM) -> Completion:
            return await llm.complete(
                prompt, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, constraint=constraint
            )

        answer, name = await self._first(ask)
        return replace(answer, raw={**answer.raw, "answered_by": name})

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        if not self.profile.scores_text:
            raise CapabilityError(f"{self.profile.name!r}: not every LLM in it gives log-probabilities of given text")

        # All pairs by one LLM: log-probabilities of different models cannot be compared.
        async def ask(llm: TextLLM) -> Scores:
            return await llm.score(pairs, terminator=terminator)

        return (await self._first(ask))[0]

    async def _count_tokens(self, text: str) -> int:
        # The largest count: the prompt has to fit whichever answers.
        return max([await llm.count_tokens(text) for llm in self.llms])

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for, by the most generous of them."""
        return max(wrapped.most_tokens(llm, max_tokens, constraint) for llm in self.llms)

    def marks_prefix(self, prompt: Prompt) -> bool:
        """Whether any of them has its provider keep the prompt's fixed part."""
        return any(wrapped.marks_prefix(llm, prompt) for llm in self.llms)

    async def _first(self, ask: Callable[[TextLLM], Awaitable[T]]) -> tuple[T, str]:
        failures: list[tuple[str, Exception]] = []
        for llm in self.llms:
            name = llm.profile.name
            try:
                answer = await ask(llm)
            except Exception as error:
                if not another_may_answer(error):
                    raise
                failures.append((name, error))
                logger.warning("%r cannot answer (%s: %s); asking the next", name, type(error).__name__, error)
            else:
                with self._lock:
                    self._answered[name] += 1
                return answer, name
        said = "; ".join(f"{name!r}: {type(error).__name__}: {error}" for name, error in failures)
        slow = all(isinstance(error, TimeoutError) for _, error in failures)
        raise (LLMTimeoutError if slow else LLMUnavailableError)(f"none of {len(failures)} LLMs could answer: {said}")

    async def _close(self) -> None:
        for llm in self.llms:
            close = getattr(llm, "aclose", None)
            if close is not None:
                await close()


def another_may_answer(error: Exception) -> bool:
    """Whether the failure lies with the provider and not with the request."""
    if isinstance(error, LLMError):
        if is_retryable(error):
            return True
        return isinstance(error, LLMStatusError) and (error.code in _UNPAID or error.status == 402)
    if isinstance(error, IclVisionError):
        return False
    # An LLM of the user's own raises what it likes.
    found = failure_of(error)
    if found.status is None:
        return bool(found.kind)
    return found.status in (402, 408, 409, 429) or found.status >= 500


def _common(profiles: Sequence[Profile]) -> Profile:
    """What all of them can do."""
    windows = [one.context_window for one in profiles if one.context_window is not None]
    first = profiles[0]
    limits = [one.constraint_limit for one in profiles if one.constraint_limit is not None]
    return replace(
        first,
        name="fallback(" + ", ".join(one.name for one in profiles) + ")",
        # An unknown window is no bound, but a known one of another is.
        context_window=min(windows) if windows else None,
        scores_text=all(one.scores_text for one in profiles),
        constraint=first.constraint if all(one.constraint for one in profiles) else None,
        constraint_limit=min(limits) if limits else None,
        seed=all(one.seed for one in profiles),
        temperature=all(one.temperature for one in profiles),
        batch=False,
    )
