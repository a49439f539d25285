"""From words to weighed answers: one LLM, one method, many queries.

Knows: how queries of one support set are grouped, checked against the window, calibrated and sent.
Refuses to know: images, label objects, what a user is told.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from icl_vision.contracts import Prompt, ScoringMethod, TextLLM, Usage
from icl_vision.errors import BudgetExceededError, CapabilityError, LLMError
from icl_vision.llms.tokens import most_tokens
from icl_vision.llms.word_tables import learn, learns
from icl_vision.prompting import PromptSize, check_tokens
from icl_vision.spelling import composed
from icl_vision.tasks.classify import scoring
from icl_vision.tasks.classify.ensemble import Ensemble
from icl_vision.tasks.classify.scoring import Answer, Question, Shown
from icl_vision.tasks.scheduling import fan_out

logger = logging.getLogger(__name__)

QUERIES_PER_CALL = 4
"""Queries whose labels are scored in one call: enough for an adapter to batch, few enough for progress to show."""


QUERIES_PER_ENSEMBLE = 16
"""The same with an ensemble, whose prompts then serve so many queries: an embedded LLM takes little more for all their
words than for those of one (benchmarks/scoring_rules.py)."""


@dataclass(frozen=True, slots=True)
class Bias:
    """What a prompt alone says of each label (log, float64 [labels]), and what it cost to ask."""

    values: npt.NDArray[np.float64]
    usage: Usage


Job = Callable[[], Awaitable[None]]

Found = Callable[[int, int, Answer | Exception], Awaitable[None]]
"""Told of one answer: number of its group, place in the group, and the answer."""


@dataclass(slots=True)
class _Group:
    """Queries that share a prepared prompt, while they are asked. bias: None before (or without) calibration."""

    number: int
    prepared: Shown
    texts: Sequence[str]
    answers: list[Answer | Exception]
    keep_errors: bool
    done: Callable[[int], None]
    found: Found | None
    bias: Bias | Exception | None = None


@dataclass(slots=True)
class Asker:
    """What a fitted classifier asks, and of whom.

    labels: as texts, in the order of ``classes_``. calibrate: subtract the bias of the prompt itself. size: what
    makes prompts long, for the advice where one is too long. shared: the
    prepared prompt that all queries share, None where each has its own. words: which an image is likely to have, for
    an LLM that can learn beforehand what an ensemble's prompts say of them.
    """

    llm: TextLLM
    method: ScoringMethod
    labels: tuple[str, ...]
    calibrate: bool
    size: PromptSize
    seed: int
    concurrency: int
    shared: Shown | None = None
    words: tuple[str, ...] = ()
    _used: set[str] = field(default_factory=set, repr=False)
    """Prompts of an ensemble that were asked once."""
    _learnt: set[str] = field(default_factory=set, repr=False)
    _unbooked: Usage = field(default_factory=Usage, repr=False)
    """What learning took and no answer has been charged with yet."""
    _bias: Bias | None = field(default=None, repr=False)
    _room: int = 0
    """Tokens kept free for an answer that the LLM writes."""

    @property
    def room(self) -> int:
        """Tokens kept free for an answer that the LLM writes; 0 where it writes none."""
        return self._room

    def question(self, prepared: Shown, words: str) -> Question:
        """What is sent about an image with these words."""
        return scoring.make_question(self.method, prepared, self.labels, words)

    async def prepare(self, largest: Question) -> None:
        """Find out how long an answer may be, and refuse a support set that leaves no room for this question.

        Raises:
            PromptTooLongError: as ``check_window``.
        """
        if self.method in ("constrained", "parse"):
            texts = [" " + composed(label) for label in self.labels]
            tokens = await self._most_tokens(texts)
            longest = max(len(text.encode()) for text in texts)
            self._room = scoring.ANSWER_ROOM + (longest if tokens is None else tokens)
        await self.check_window(largest)

    async def check_window(self, question: Question) -> None:
        """Refuse a question that does not fit the LLM's window, before it is sent.

        Raises:
            PromptTooLongError: it does not; the message names tokens, window and what shrinks the prompt.
        """
        window = self.llm.profile.context_window
        if window is None:
            return
        texts = {prompt.text + continuation + scoring.TERMINATOR for prompt, continuation in question.pairs}
        doubtful = [text for text in texts if most_tokens(text) + self._room > window]
        tokens = await self._most_tokens(doubtful) if doubtful else None
        if tokens is not None:
            check_tokens(tokens, window, reserve=self._room, size=self.size)

    async def _most_tokens(self, texts: Sequence[str]) -> int | None:
        """Tokens of the text that has the most of them; None where the LLM cannot count."""
        most = 0
        for text in sorted(texts, key=most_tokens, reverse=True):
            if most_tokens(text) <= most:
                break  # neither this one nor a shorter one can have more
            tokens = await self._count(text)
            if tokens is None:
                return None
            most = max(most, tokens)
        return most

    async def learn(self, done: Callable[[int], None]) -> Usage:
        """Have the LLM learn what the prompts of the shared ensemble say of ``words``; what it took.

        done: told how many prompts are finished. A budget that does not allow it is no error: words are asked then.
        """
        if not isinstance(self.shared, Ensemble):
            return Usage()
        return await self._learn(self.shared.prompts, done)

    def pays(self, groups: Sequence[tuple[Shown, int]]) -> list[Prompt]:
        """The prompts that are to be learnt before so many queries of each group are asked."""
        calls: Counter[Prompt] = Counter()
        for prepared, queries in groups:
            if isinstance(prepared, Ensemble):
                for prompt in dict.fromkeys(prepared.prompts):
                    calls[prompt] += -(-queries // QUERIES_PER_ENSEMBLE)
        return [
            prompt
            for prompt, times in calls.items()
            if times + (prompt.text in self._used) > 1 and prompt.text not in self._learnt
        ]

    def learnt_at_fit(self) -> list[Prompt]:
        """The shared ensemble's prompts, those that ``learn`` was called for."""
        prompts = self.shared.prompts if isinstance(self.shared, Ensemble) else ()
        return [prompt for prompt in dict.fromkeys(prompts) if prompt.text in self._learnt]

    def calls(self, prepared: Shown, queries: int) -> tuple[list[range], bool]:
        """Which queries of a group are asked together, and whether the first of these calls is made before the
        others."""
        size = QUERIES_PER_CALL if self.method in ("channel", "direct") else 1
        # Where there is a prefix cache the first request goes alone, with one query, and fills it for the others.
        leads = self.llm.profile.prefix_cache
        if isinstance(prepared, Ensemble):
            size, leads = QUERIES_PER_ENSEMBLE, False  # short prompts, each its own: there is nothing to fill
        edges = [0, *range(1 if leads else size, queries, size), queries]
        return [range(start, end) for start, end in pairwise(edges) if start < end], leads

    async def _learn_what_pays(self, groups: Sequence[tuple[Shown, Sequence[str]]]) -> None:
        """Learn the prompts that would be asked twice: now, in several calls, or now and before.

        Learning takes about as long as asking twice, so who asks once is not made to wait for what nobody uses, and
        who asks often never waits for more than twice what was needed.
        """
        often = self.pays([(prepared, len(texts)) for prepared, texts in groups])
        for prepared, _ in groups:
            if isinstance(prepared, Ensemble):
                self._used.update(prompt.text for prompt in prepared.prompts)
        try:
            self._unbooked += await self._learn(often, lambda count: None)
        except LLMError as error:
            logger.debug("nothing learnt, words are asked: %s", error)  # and whoever asks is told what is wrong

    async def _learn(self, prompts: Sequence[Prompt], done: Callable[[int], None]) -> Usage:
        if not learns(self.llm):
            return Usage()
        try:
            spent = await learn(self.llm, prompts, self.words, done)
            self._learnt.update(prompt.text for prompt in prompts)
            return spent
        except BudgetExceededError as error:
            logger.info("nothing learnt beforehand: %s", error)
            return Usage()

    async def _count(self, text: str) -> int | None:
        """Tokens of a text; None where the LLM cannot count and will have to refuse a long prompt itself."""
        try:
            return await self.llm.count_tokens(text)
        except CapabilityError as error:
            logger.debug("prompt length unchecked: %s", error)
            return None

    async def ask(
        self,
        groups: Sequence[tuple[Shown, Sequence[str]]],
        *,
        keep_errors: bool,
        done: Callable[[int], None],
        found: Found | None = None,
    ) -> list[list[Answer | Exception]]:
        """Answers about images with these words, grouped by the prepared prompt they share; calibrated where asked for.

        keep_errors: put an exception in its query's place; otherwise the first one is raised. done: told how many
        queries were answered. found: awaited with each answer (or kept exception) as soon as there is one, before
        anything else is asked in its stead; what it raises ends everything.
        """
        answers: list[list[Answer | Exception]] = [[_unasked()] * len(texts) for _, texts in groups]
        if self.words and learns(self.llm):
            await self._learn_what_pays(groups)
        jobs: list[list[Job]] = []
        for number, (prepared, texts) in enumerate(groups):
            calls, leads = self.calls(prepared, len(texts))
            group = _Group(number, prepared, texts, answers[number], keep_errors, done, found)
            chunks: list[Job] = [partial(self._answer_chunk, group, call.start, call.stop) for call in calls]
            if self.calibrate and chunks:
                jobs.append([partial(self._calibrate, group), *chunks])  # its answers need the bias: it leads anyway
            else:
                jobs.extend([chunks] if leads else [[chunk] for chunk in chunks])
        # The jobs keep errors themselves: what leaves one is meant to end everything.
        await fan_out(jobs, concurrency=self.concurrency, keep_errors=False)
        return answers

    async def _calibrate(self, group: _Group) -> None:
        try:
            group.bias = await self._bias_of(group.prepared)
        except Exception as error:
            if not group.keep_errors:
                raise
            group.bias = error

    async def _answer_chunk(self, group: _Group, start: int, end: int) -> None:
        """Ask about a group's images from ``start`` to ``end`` and put the answers in their places."""
        if isinstance(group.bias, Exception):
            # Nothing in this group can be answered without its bias.
            answers: list[Answer | Exception] = [group.bias] * (end - start)
        else:
            answers = await self._answer(group.prepared, group.texts[start:end], group.keep_errors)
        for place, answer in enumerate(answers, start):
            if isinstance(group.bias, Bias) and not isinstance(answer, Exception) and answer.logprobs is not None:
                # Inputs without content are one word: a bag of several words has the bias of each of them.
                words = len(group.texts[place].split()) if isinstance(group.prepared, Ensemble) else 1
                logprobs = tuple((np.asarray(answer.logprobs) - words * group.bias.values).tolist())
                # What calibration cost is booked on the first that has an answer.
                answer = replace(answer, logprobs=logprobs, usage=answer.usage + group.bias.usage)
                group.bias = replace(group.bias, usage=Usage())
            if self._unbooked.requests and not isinstance(answer, Exception):
                answer = replace(answer, usage=answer.usage + self._unbooked)
                self._unbooked = Usage()
            group.answers[place] = answer
            if group.found is not None:
                await group.found(group.number, place, answer)
        group.done(end - start)

    async def _answer(self, prepared: Shown, texts: Sequence[str], keep_errors: bool) -> list[Answer | Exception]:
        try:
            questions = [self.question(prepared, words) for words in texts]
            for question in questions:
                await self.check_window(question)
            if self.method in ("channel", "direct"):
                if keep_errors:
                    return await scoring.score_apart(self.llm, questions)
                return [*await scoring.score(self.llm, questions)]
            (question,) = questions
            return [await scoring.complete(self.llm, question, max_tokens=self._room, seed=self.seed)]
        except Exception as error:
            if not keep_errors:
                raise
            if len(texts) == 1:
                return [error]
            # One query of the call cannot be answered: the others must not pay for it.
            alone = [await self._answer(prepared, [words], True) for words in texts]
            return [answer for each in alone for answer in each]

    async def _bias_of(self, prepared: Shown) -> Bias:
        if prepared is self.shared and self._bias is not None:
            return self._bias
        questions = scoring.content_free_questions(self.method, prepared, self.labels)
        for question in questions:
            await self.check_window(question)
        answers = await scoring.score(self.llm, questions)
        spent = sum((answer.usage for answer in answers), Usage())
        bias = Bias(scoring.log_bias([answer.logprobs or () for answer in answers]), spent)
        if prepared is self.shared:
            self._bias = replace(bias, usage=Usage())  # paid for once
        return bias


def _unasked() -> Exception:
    return RuntimeError("this question was never asked")
