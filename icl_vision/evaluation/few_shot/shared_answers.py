"""One LLM for all rows of an item: what two rows ask alike is asked once, and every question is counted.

Knows: prompts, settings, answers of one episode. Refuses to know: rows, labels, images.

Also here: an LLM that answers nothing but says what it would have been sent, for estimates without a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

from icl_vision.contracts import Completion, Prompt, Scores, TextLLM, Usage
from icl_vision.llms.base import Settings, completed, scored
from icl_vision.llms.forced_requests import START
from icl_vision.llms.loop import OwnThread
from icl_vision.llms.scores import PartialScores, attach, take
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.llms.wrappers.wrapped import WrappedLLM


def shares(total: int, parts: int) -> list[int]:
    """A number of things dealt as evenly as can be to so many that they were for."""
    each, rest = divmod(total, parts)
    return [each + (number < rest) for number in range(parts)]


class SharedAnswers(WrappedLLM):
    """``llm``, asked each question once; for one episode, in one thread at a time.

    Counted so far: ``calls``, prompts that rows wanted answered (a scored continuation is one); ``asked``, those that
    the LLM was really asked; ``usage``, what it spent on them.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.calls = 0
        self.asked = 0
        self.usage = Usage()
        self._scores: dict[tuple[str, str, str], float] = {}
        self._completions: dict[tuple[Any, ...], Completion] = {}

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        self.calls += 1
        key = (prompt.text, tuple(settings.values()))
        known = self._completions.get(key)
        if known is None:
            known = await completed(self.llm, prompt, **settings)
            self.asked += 1
            self.usage += known.usage
            self._completions[key] = replace(known, usage=Usage(), raw={})  # what it cost is booked once
        return known

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls += len(pairs)
        keys = [(prompt.text, continuation, terminator) for prompt, continuation in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._scores}
        usage, method = Usage(), "shared"
        if new:
            try:
                scores = await scored(self.llm, list(new.values()), terminator=terminator)
            except Exception as error:
                self._keep(list(new), take(error))
                there = {index: self._scores[key] for index, key in enumerate(keys) if key in self._scores}
                attach(error, PartialScores(there, Usage(), "shared"))  # what it cost is booked here
                raise
            usage, method = scores.usage, scores.method
            self.asked += len(new)
            self.usage += usage
            self._scores.update(zip(new, scores.logprobs, strict=True))
        return Scores(tuple(self._scores[key] for key in keys), usage, method)

    def _keep(self, asked: Sequence[tuple[str, str, str]], partial: PartialScores) -> None:
        """What came back of a call that failed."""
        self.asked += len(partial.logprobs)
        self.usage += partial.usage
        self._scores.update({asked[index]: value for index, value in partial.logprobs.items()})


class UnaskedLLM(DryLLM):
    """``llm`` as it looks from outside, whose answers are a dash and whose usage is what the question would have been.

    fixed_tokens: tokens that an earlier prompt already began with (its fixed part; the whole prompt where many words
    are scored after one), which a prefix cache saves.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.fixed_tokens = 0
        # Once a connection, not once an episode: an echo's check, and the start of all prompts.
        self._checks = 0
        self._forced.hold((START,))
        self._fixed: set[str] = set()
        # Counting is no work for the loop that serves every LLM, and this count no work for two threads.
        self._thread = OwnThread("icl-vision-counting")

    def forget(self) -> None:
        """Take no fixed part for known any more: what comes next is another episode."""
        self._fixed.clear()

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        tokens = await self._thread.run(self._completed, prompt)
        # (An empty one would be no answer.)
        return Completion(
            "-", "stop", Usage(1, tokens, 0, self.most_tokens(settings["max_tokens"], settings["constraint"]))
        )

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        usage = await self._thread.run(self._all_scored, pairs, terminator)
        return Scores((0.0,) * len(pairs), usage, "not asked")

    def _completed(self, prompt: Prompt) -> int:
        self._known(prompt, 1)
        return self.count_prompt(prompt)

    def _all_scored(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Usage:
        usage = Usage()
        for prompt, spent in self.call(pairs, terminator):
            if prompt is not None:
                self._known(prompt, 1 if self.profile.scores_bags else spent.requests)
            self.fixed_tokens += spent.cached_tokens
            usage += spent
        return usage

    def _known(self, prompt: Prompt, times: int) -> None:
        """Count the fixed part of a prompt that is sent so often as saved, but for the first time ever."""
        fixed = self.count(prompt.prefix) if prompt.prefix else 0
        self.fixed_tokens += fixed * (times - (prompt.prefix not in self._fixed))
        self._fixed.add(prompt.prefix)
