"""An LLM without a model, for tests of code that uses this library.

Knows: fixed answers, and a rule that imitates in-context learning by counting words. Refuses to know: any network.

    llm = FakeLLM("golden retriever")                 # always this
    llm = FakeLLM(["red", "green", "blue"])           # one after the other
    llm = FakeLLM(lambda prompt: prompt[-10:])        # computed from the prompt's text
    llm = FakeLLM()                                   # by word overlap: see ``overlap_score``
    assert llm.calls[0].prompt.query.endswith("Output:")
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, Usage
from icl_vision.errors import CapabilityError, LLMResponseError, PromptTooLongError
from icl_vision.llms.answers import cut_at_stop
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.forced_requests import START, ForcedTokens

Answers = str | Iterable[str | Exception] | Callable[[str], str]
Score = Callable[[Prompt, str], float]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One request a FakeLLM got: "complete" or "score", its prompt, and the settings (a continuation among them)."""

    kind: Literal["complete", "score"]
    prompt: Prompt
    settings: dict[str, Any] = field(default_factory=dict)


class FakeLLM(BaseLLM):
    """Answers as told, remembers what it was asked.

    Args:
        answers: one text for every prompt; or several, given out one after the other (an exception among them is
            raised); or a function of the prompt's text; None answers by word overlap with the prompt's examples.
        score: function of (prompt, continuation) that gives a log-probability (a number up to 0, -inf for what cannot
            be); None scores by word overlap.
        scores_text: False imitates a provider without log-probabilities. scores_bags: see ``Profile``.
        forced: count the requests that llama.cpp would have been asked for scores, as plans do for an LLM that
            ``scores_bags``; otherwise each text that is scored counts as one.
        constraint: the kind of constraint it claims to keep; None imitates a provider that keeps none.
        context_window: tokens, counted as words and marks; a longer prompt raises PromptTooLongError.
        api: endpoint it claims to answer on.
        name: in its profile.
        logprobs: tell, where asked, how likely an answer is: what ``score`` says of it as it stands.

    ``calls`` holds every request so far, a FakeCall each.
    """

    def __init__(
        self,
        answers: Answers | None = None,
        *,
        score: Score | None = None,
        scores_text: bool = True,
        scores_bags: bool = False,
        forced: bool = False,
        constraint: Literal["logit_bias", "grammar", "json_schema", "choice"] | None = None,
        context_window: int | None = None,
        api: Literal["completions", "chat"] = "completions",
        name: str = "fake",
        logprobs: bool = False,
    ) -> None:
        context_window = checks.count("context_window", context_window, of="tokens", none="no limit")
        self.calls: list[FakeCall] = []
        self._answers: str | Callable[[str], str] | None = None
        self._queue: Iterator[str | Exception] | None = None
        if answers is None or isinstance(answers, str) or callable(answers):
            self._answers = answers
        else:
            self._queue = iter(answers)
        self._score_of = score or overlap_score
        self._forced = ForcedTokens() if forced else None
        self._profile = Profile(
            name=name,
            context_window=context_window,
            api=api,
            scores_text=scores_text,
            scores_bags=scores_bags,
            constraint=constraint,
            seed=True,
            prefix_cache=False,
            logprobs=logprobs,
        )

    @property
    def profile(self) -> Profile:
        return self._profile

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
        logprobs: bool = False,
    ) -> Completion:
        settings = {
            "max_tokens": max_tokens,
            "stop": stop,
            "temperature": temperature,
            "seed": seed,
            "constraint": constraint,
        }
        if logprobs:
            settings["logprobs"] = True
        self.calls.append(FakeCall("complete", prompt, settings))
        spent = self._check_fits(prompt.text)
        text = self._answer(prompt, constraint)
        reason = "stop"
        text, _ = cut_at_stop(text, stop)
        pieces = list(_pieces(text))
        if len(pieces) > max_tokens:
            text, reason = text[: pieces[max_tokens - 1].end()], "length"
        logprob = min(0.0, float(self._score_of(prompt, text))) if logprobs else None
        return Completion(text, reason, Usage(1, spent, 0, min(len(pieces), max_tokens)), {}, logprob)

    def _answer(self, prompt: Prompt, constraint: Constraint | None) -> str:
        if self._queue is not None:
            try:
                answer = next(self._queue)
            except StopIteration:
                count = sum(call.kind == "complete" for call in self.calls) - 1
                raise LLMResponseError(f"this FakeLLM has no answers left; it was given {count}") from None
            if isinstance(answer, Exception):
                raise answer
            return answer
        if callable(self._answers):
            return self._answers(prompt.text)
        if self._answers is not None:
            return self._answers
        if constraint is not None:
            places = constraint.places or (constraint.allowed,)
            best = [max(place, key=lambda word: self._score_of(prompt, " " + word)) for place in places]
            return " " + " ".join(best if constraint.places else best * constraint.count)
        return overlap_answer(prompt)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        if not self._profile.scores_text:
            raise CapabilityError(f"{self._profile.name!r} gives no log-probabilities of a given text")
        logprobs, usage = [], Usage()
        for prompt, continuation in pairs:
            self.calls.append(FakeCall("score", prompt, {"continuation": continuation, "terminator": terminator}))
            spent = self._check_fits(prompt.text + continuation + terminator)
            logprobs.append(float(self._score_of(prompt, continuation)))
            usage += Usage(1, spent)
        if self._forced is not None:
            usage = self._forced_usage(pairs, terminator)
        return Scores(tuple(logprobs), usage, "fake")

    def pieces(self, text: str) -> list[str]:
        """What it counts as tokens."""
        return [piece.group() for piece in _pieces(text)]

    def _forced_usage(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Usage:
        """What llama.cpp would be asked: see ``local.scoring``."""
        tokens = [([START, *self.pieces(prompt.text)], self.pieces(text + terminator)) for prompt, text in pairs]
        assert self._forced is not None
        led, asks = self._forced.requests(tokens)
        read = sum((len(prefix) - 1) * times for prefix, times in asks.items())
        return Usage(bool(led) + asks.total(), max(0, led - 1) + read)

    async def _count_tokens(self, text: str) -> int:
        return sum(1 for _ in _pieces(text))

    def _check_fits(self, text: str) -> int:
        tokens = sum(1 for _ in _pieces(text))
        window = self._profile.context_window
        if window is not None and tokens > window:
            raise PromptTooLongError(tokens, window, "use fewer or shorter examples")
        return tokens


def _pieces(text: str) -> Iterator[re.Match[str]]:
    """Words and single marks, with the space before them: about what a tokenizer would make of plain text."""
    return re.finditer(r"\s*(?:\w+|[^\w\s])|\s+$", text)


def _examples(prompt: Prompt) -> list[str]:
    """The prompt's context cut into pieces of as many lines as the query has: one example each, in any template."""
    height = prompt.query.count("\n") + 1
    lines = prompt.context.split("\n") if prompt.context else []
    return ["\n".join(lines[at : at + height]) for at in range(0, len(lines), height)]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def overlap_score(prompt: Prompt, continuation: str) -> float:
    """A log-probability by word overlap: the fake's imitation of learning in context.

    The query with its continuation is compared with every example of the prompt's context. Each of its words that an
    example lacks makes it ten times less likely there; the result is the mean over the examples. So the label whose
    examples share most words with the query wins, in direct and in channel templates alike.
    """
    asked = _words(prompt.query + continuation)
    examples = _examples(prompt) or [""]
    likelihoods = [10.0 ** -len(asked - _words(example)) for example in examples]
    # 1e-300: a mean of zero, from a query of hundreds of words, still has a logarithm.
    return math.log(max(sum(likelihoods) / len(examples), 1e-300))


def overlap_answer(prompt: Prompt) -> str:
    """What follows, in the example most like the query, after the part that the query's last line repeats."""
    examples = _examples(prompt)
    if not examples:
        return ""
    asked = _words(prompt.query)
    best = max(examples, key=lambda example: len(asked & _words(example)))
    return best.rpartition("\n")[2].removeprefix(prompt.query.rpartition("\n")[2])
