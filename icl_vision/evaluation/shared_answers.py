"""One LLM for all rows of an item: what two rows ask alike is asked once, and every question is counted.

Knows: prompts, settings, answers of one episode. Refuses to know: rows, labels, images.

Also here: an LLM that answers nothing but says what it would have been sent, for estimates without a request.
"""

from __future__ import annotations

from collections.abc import Sequence

from icl_vision.contracts import Completion, Constraint, Prompt, Scores, TextLLM, Usage
from icl_vision.llms.dry import DryLLM
from icl_vision.llms.wrapped import WrappedLLM

Settings = tuple[int, tuple[str, ...], float, int | None, Constraint | None]


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
        self._completions: dict[tuple[str, Settings], Completion] = {}

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
        self.calls += 1
        key = (prompt.text, (max_tokens, tuple(stop), temperature, seed, constraint))
        known = self._completions.get(key)
        if known is None:
            known = await self.llm.complete(
                prompt, max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed, constraint=constraint
            )
            self.asked += 1
            self.usage += known.usage
            self._completions[key] = Completion(known.text, known.finish_reason)  # what it cost is booked once
        return known

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls += len(pairs)
        keys = [(prompt.text, continuation, terminator) for prompt, continuation in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._scores}
        usage, method = Usage(), "shared"
        if new:
            found = await self.llm.score(list(new.values()), terminator=terminator)
            usage, method = found.usage, found.method
            self.asked += len(new)
            self.usage += usage
            self._scores.update(zip(new, found.logprobs, strict=True))
        return Scores(tuple(self._scores[key] for key in keys), usage, method)


class UnaskedLLM(DryLLM):
    """``llm`` as it looks from outside, whose answers are empty and whose usage is what the question would have been.

    fixed_tokens: tokens of the prompts' fixed parts that an earlier prompt already had, which a prefix cache saves.
    """

    def __init__(self, llm: TextLLM) -> None:
        super().__init__(llm)
        self.fixed_tokens = 0
        self._fixed: set[str] = set()

    def forget(self) -> None:
        """Take no fixed part for known any more: what comes next is another episode."""
        self._fixed.clear()

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
        written = self.most_tokens(max_tokens, constraint)
        return Completion("", "stop", Usage(1, self._tokens(prompt, ""), 0, written))

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        tokens = sum(self._tokens(prompt, continuation + terminator) for prompt, continuation in pairs)
        return Scores((0.0,) * len(pairs), Usage(len(pairs), tokens), "not asked")

    def _tokens(self, prompt: Prompt, continuation: str) -> int:
        # In two parts: the fixed one ends in a newline, where every tokenizer splits.
        fixed = self.count(prompt.prefix) if prompt.prefix else 0
        if prompt.prefix in self._fixed:
            self.fixed_tokens += fixed
        self._fixed.add(prompt.prefix)
        return fixed + self.count(prompt.query + continuation)
