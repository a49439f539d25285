"""Several LLMs, the next one asked where one cannot answer.

Knows: which failures another LLM could mend. Refuses to know: providers, retries (each LLM has done its own by then).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import (
    CapabilityError,
    IclVisionError,
    LLMError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.forks import ForkLock
from icl_vision.llms.base import BaseLLM, Settings, completed, scored
from icl_vision.llms.remote.errors.foreign_errors import failure_of
from icl_vision.llms.remote.resilience import QUOTA_CODES, is_retryable
from icl_vision.llms.scores import PartialScores, attach, take
from icl_vision.llms.wrappers import wrapped

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
        self._lock = ForkLock()
        self._profile = _common([llm.profile for llm in llms])

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def unknown_to_caches(self) -> str:
        """The first reason that any of them has, see ``WrappedLLM``."""
        return next((why for llm in self.llms if (why := wrapped.unknown_to_caches(llm))), "")

    @property
    def identity(self) -> str:
        """Of all of them: which one answered is not known before."""
        return "fallback(" + ", ".join(str(getattr(llm, "identity", llm.profile.name)) for llm in self.llms) + ")"

    @property
    def answered(self) -> dict[str, int]:
        """How many requests each LLM answered, by name."""
        with self._lock:
            return dict(self._answered)

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        async def ask(llm: TextLLM) -> Completion:
            return await completed(llm, prompt, **settings)

        answer, name = await self._first(ask)
        return replace(answer, raw={**answer.raw, "answered_by": name})

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        if not self.profile.scores_text:
            raise CapabilityError(f"{self.profile.name!r}: not every LLM in it gives log-probabilities of given text")

        lost = Usage()

        # All pairs by one LLM: log-probabilities of different models cannot be compared.
        async def ask(llm: TextLLM) -> Scores:
            nonlocal lost
            try:
                return await scored(llm, pairs, terminator=terminator)
            except Exception as error:
                # Scores of this one and of another, put together from a cache, could not be compared; but it has its
                # price, whoever answers in the end.
                lost += take(error).usage
                raise

        try:
            scores = (await self._first(ask))[0]
        except Exception as error:
            attach(error, PartialScores({}, lost, "echo"))
            raise
        return replace(scores, usage=scores.usage + lost)

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
    failure = failure_of(error)
    if failure.status is None:
        return bool(failure.kind)
    return failure.status in (402, 408, 409, 429) or failure.status >= 500


def _common(profiles: Sequence[Profile]) -> Profile:
    """What all of them can do: every field by its own rule."""
    common = {name: rule([getattr(profile, name) for profile in profiles]) for name, rule in _RULES.items()}
    # A field without a rule promises nothing that they do not all say.
    for field in dataclasses.fields(Profile):
        if field.name not in common:
            common[field.name] = _same(field.default)([getattr(profile, field.name) for profile in profiles])
    return Profile(**common)


def _same(otherwise: Any) -> Callable[[Sequence[Any]], Any]:
    """What all of them say; ``otherwise`` where they differ."""
    return lambda values: values[0] if all(value == values[0] for value in values) else otherwise


def _least(values: Sequence[int | None]) -> int | None:
    """The narrowest bound. An unknown one is none, but a known one of another is."""
    return min((value for value in values if value is not None), default=None)


def _most_reasoning(values: Sequence[str]) -> str:
    """Room for thoughts has to be kept for the one that thinks most."""
    return max(values, key=("never", "optional", "always").index)


def _first_of_all(values: Sequence[str | None]) -> str | None:
    """Each keeps a constraint in its own way; what counts is that all of them keep it."""
    return values[0] if all(values) else None


_RULES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "name": lambda values: "fallback(" + ", ".join(values) + ")",
    "context_window": _least,
    # A chat answers whoever continues text too, not the other way round.
    "api": _same("chat"),
    "scores_text": all,
    "scores_bags": all,
    "constraint": _first_of_all,
    "constraint_limit": _least,
    "constraint_characters": _least,
    "constraint_characters_many": _least,
    "seed": all,
    "temperature": all,
    "stop_strings": min,
    "prefix_cache": all,
    "prompt_cache": _same(None),
    "prompt_cache_minimum": max,
    "reasoning": _most_reasoning,
    "least_reasoning": _same(None),
    "tokenizer": _same(None),
    "batch": lambda values: False,
    # Each takes its share of this machine's cores only where all of them do.
    "embedded": all,
    "logprobs": all,
}
"""How a field of several profiles becomes one. A new field of ``Profile`` needs its rule here: a test asks for it."""
