"""An LLM behind a Meter: usage is summed, and a budget stops the next request before it is passed.

Knows: how much a request may cost before it is sent. Refuses to know: prices and limits (``cost`` does), providers.

Before a request its largest cost is reserved: the prompt's tokens, counted where the model's tokenizer is at hand and
estimated with a margin elsewhere, and every token it may write, thinking included. Afterwards what the provider says it
used takes the place of the reservation.

What a failed request cost is not known. Where it never reached the model (a refusal, no connection) it counts as a
request without tokens; where it may have been answered and billed (a timeout, a cut, an answer that cannot be read, a
cancelled wait), the reservation stays as spent, so that a budget errs on the safe side. That holds for every attempt:
one that timed out before another was answered is booked beside it. What was never sent costs nothing. Of a scoring call
that failed, what came back counts with its own usage.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Unpack, cast

from icl_vision.contracts import Completion, Constraint, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import LLMNoAnswerError, UsageError
from icl_vision.llms.attempts import Account, account, may_be_billed
from icl_vision.llms.base import BaseLLM, Settings, completed, scored, shared
from icl_vision.llms.cost import Meter
from icl_vision.llms.scores import attach, take
from icl_vision.llms.tokens import ESTIMATE_ERROR, TokenCount, count_tokens
from icl_vision.llms.word_tables import LEARNING, unknown
from icl_vision.llms.wrappers.wrapped import WrappedLLM

CHAT_TOKENS = 16
"""What a provider adds around the messages of a chat, at the most seen: roles, delimiters."""


class MeteredLLM(WrappedLLM):
    """``llm`` with every request booked on ``meter`` under the LLM's own name.

    Args:
        llm: the LLM that answers.
        meter: where usage goes; one meter may serve many LLMs.
        name: for the meter and its price table; default: the LLM's name.

    Raises BudgetExceededError instead of asking, where a request could pass the meter's budget.
    """

    def __init__(self, llm: TextLLM, meter: Meter, *, name: str | None = None) -> None:
        if not isinstance(llm, TextLLM):
            raise UsageError(f"a MeteredLLM needs an LLM object, see connect(); got {type(llm).__name__}")
        super().__init__(llm)
        self.meter = meter
        self.name = name or llm.profile.name

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        # Counting a long prompt takes milliseconds, and the first time a tokenizer has to be read.
        estimate = await asyncio.to_thread(
            self.estimate, prompt, max_tokens=settings["max_tokens"], constraint=settings["constraint"]
        )
        self.meter.reserve(self.name, estimate)
        spent = estimate
        with account() as tried:
            try:
                answer = await completed(self.llm, prompt, **settings)
                spent = answer.usage + _times(estimate, tried.unsure)
                return answer
            except BaseException as error:
                spent = _spent(error, tried, estimate, estimate, _told(error))
                raise
            finally:
                self.meter.settle(self.name, estimate, spent)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        asked = pairs if terminator else await unknown(self.llm, pairs)
        estimates = [Usage(), *await asyncio.to_thread(self._estimates, asked, terminator)]
        # Which pair's attempt it was that came to nothing is not known here: the largest.
        largest = max(estimates, key=lambda each: each.prompt_tokens + each.completion_tokens)
        estimate = sum(estimates, Usage())
        self.meter.reserve(self.name, estimate)
        spent = estimate
        with account() as tried:
            try:
                scores = await scored(self.llm, pairs, terminator=terminator)
                spent = scores.usage + _times(largest, tried.unsure)
                return scores
            except BaseException as error:
                partial = take(error)
                attach(error, partial)
                spent = _spent(error, tried, estimate, largest, partial.usage)
                raise
            finally:
                self.meter.settle(self.name, estimate, spent)

    def _estimates(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> list[Usage]:
        estimates = []
        for prompt, continuation in pairs:
            # A token is written for every one that is scored, at the most.
            written = self._upper(continuation + terminator)
            estimates.append(Usage(1, self._upper(prompt.text) + written, 0, written))
        return estimates

    async def _learn_words(self, prompts: Sequence[Prompt], words: Sequence[str], done: Callable[[int], None]) -> Usage:
        if not words:
            return Usage()
        new = dict.fromkeys(
            prompt for prompt, _ in await unknown(self.llm, [(prompt, " " + words[0]) for prompt in prompts])
        )
        each = await asyncio.to_thread(lambda: [self._upper(prompt.text) for prompt in new])
        estimate = Usage(LEARNING * len(each), LEARNING * sum(each), 0, LEARNING * len(each))
        self.meter.reserve(self.name, estimate)
        spent = estimate
        try:
            spent = await super()._learn_words(prompts, words, done)
            return spent
        finally:
            self.meter.settle(self.name, estimate, spent)

    @property
    def tells_shares(self) -> bool:
        """The LLM's own."""
        return bool(getattr(self.llm, "tells_shares", False))

    async def _share_words(self, prompt: Prompt, words: Sequence[str]) -> Scores:
        if not self.tells_shares:
            return await super()._share_words(prompt, words)
        (estimate,) = await asyncio.to_thread(self._estimates, [(prompt, " " + words[0])], "")
        self.meter.reserve(self.name, estimate)
        spent = estimate
        with account() as tried:
            try:
                scores = await shared(cast(BaseLLM, self.llm), prompt, words)  # it says that it tells them
                spent = scores.usage + _times(estimate, tried.unsure)
                return scores
            except BaseException as error:
                spent = _spent(error, tried, estimate, estimate, take(error).usage)
                raise
            finally:
                self.meter.settle(self.name, estimate, spent)

    def estimate(self, prompt: Prompt | str, *, max_tokens: int = 16, constraint: Constraint | None = None) -> Usage:
        """The most that one completion may use: prompt, what it may write, what goes into the provider's cache."""
        prompt = Prompt.of(prompt)
        tokens = self._upper(prompt.text) + CHAT_TOKENS
        if constraint is not None:
            # The allowed strings travel with the request, as a schema for instance.
            tokens += self._upper(" ".join(constraint.allowed)) + 4 * len(constraint.allowed) + 64
        written = self._upper(prompt.prefix) if self.marks_prefix(prompt) else 0
        return Usage(1, tokens, 0, self.most_tokens(max_tokens, constraint), min(written, tokens))

    def _upper(self, text: str) -> int:
        counted: TokenCount = count_tokens(text, self.name, encoding=self.profile.tokenizer)
        return counted.tokens if counted.exact else math.ceil(counted.tokens * (1 + ESTIMATE_ERROR))


def _spent(error: BaseException, tried: Account, whole: Usage, largest: Usage, known: Usage) -> Usage:
    """What a failed call is booked with.

    whole: its reservation. largest: that of the largest of its requests. known: the usage of what came back.
    """
    refused = not may_be_billed(error)
    if not tried.known and not known.requests:
        # An LLM that notes no attempts: all of it, or a request that was refused.
        return Usage(requests=1) if refused else whole
    # A refusal is a request without tokens; not where the answers, all of them there, were found to be of no use.
    refused = refused and tried.sent > tried.billed
    spent = known + _times(largest, max(0, tried.billed - known.requests)) + Usage(requests=int(refused))
    # Whatever was sent is a request at least: refusals, say, until the time was up.
    return spent if spent.requests or not tried.sent else Usage(requests=1)


def _told(error: BaseException) -> Usage:
    """What an error says that it cost: where the LLM was asked and answered with nothing."""
    if not isinstance(error, LLMNoAnswerError):
        return Usage()
    return Usage(error.requests, error.prompt_tokens, 0, error.completion_tokens)


def _times(usage: Usage, times: int) -> Usage:
    return Usage(**{name: value * times for name, value in usage.to_dict().items()})
