"""Progressive in-context decoding (SPAE, section 3.2): a frozen LLM draws, segment by segment.

    v_t ~ P_LLM( . | [u, v_<t'] ; { ([u_i, v_i,<t'], v_i,t) } i = 1..K )        (11)

    decoder = ProgressiveDecoder(llm, par(stride=4))
    drawings = decoder.decode_sync(pairs, [Query("an image of 3")])
    tokenizer.decode([drawings[0].pyramid])

Knows: the order in which passes run, what is drawn so far, run folders, budgets, and that an LLM on this machine is
asked one thing at a time. Refuses to know: any other LLM, images, tasks, how an answer is read (``repair``), what a
prompt holds (``questions``).

All queries of a segment are asked before the next segment: they share its fixed part, instruction and examples, byte
for byte; the first is awaited, the others then find it in the provider's prefix cache. Segments that do not depend on
each other (PNAR) run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_vision.contracts import Constraint, Prompt, TextLLM, Usage
from icl_vision.drawing.answering import Constrain, Question, Score, SegmentAsker
from icl_vision.drawing.drawing import Drawing, Pair, Query, SegmentAnswer
from icl_vision.drawing.planning import DrawingPlan, plan_of
from icl_vision.drawing.questions import Questions, item_of
from icl_vision.drawing.scheduling import Job, in_order
from icl_vision.drawing.stages import Pass, Stage
from icl_vision.drawing.work import Step, Work
from icl_vision.errors import (
    AnswerRefusedError,
    BudgetExceededError,
    CapabilityError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.files.runs import Run, read_usage
from icl_vision.llms.cost import Budget, Meter, PriceTable
from icl_vision.llms.loop import OwnThread, run_sync
from icl_vision.llms.tokens import most_tokens
from icl_vision.llms.wrappers.metered import MeteredLLM

if TYPE_CHECKING:
    from icl_vision.codebook import Codebook

COMMAND = "draw"

SHORTER = (
    "use fewer examples, a smaller window (given=Near() or 'none'), a shorter condition (condition='same'), fewer "
    "layers, or an LLM with a larger window"
)


class ProgressiveDecoder:
    """Draws pictures with an LLM.

    Args:
        llm: a TextLLM, such as ``connect`` makes.
        stages: how, see ``par``, ``pnar``, ``two_stage``, ``single_pass`` and ``Stage``.
        constrain: "auto" restricts the LLM's output to the allowed words where its profile allows it and repairs its
            answers elsewhere; "always" demands the restriction; "never" is the papers' open-ended way.
        asks: requests for one segment at most, before it is refused.
        fill: instead of refusing a segment, fill places that are not answered with the examples' most frequent word
            there. Named in the report, and off by default: it puts a baseline's answer into the LLM's.
        score: how good candidates are, where a stage's ``best_of`` asks for several; None takes the likeliest.
        codebook: of the pictures' vocabulary, for the repair of words by nearness of meaning; None leaves that out.
        templates: a folder of your own templates.
        concurrency: requests at the same time. None is 1 for an LLM on this machine, which holds one prompt prefix, and
            8 for others; give a local LLM with several slots as many.
        errors: "raise" ends everything at the first segment that is refused or cannot be asked; "return" gives up that
            picture alone and puts the error into its drawing.
        budget, prices: limits for everything this decoder asks, and what models cost.

    Raises:
        UsageError: a value out of range.
        CapabilityError: the LLM cannot do what is asked for.
    """

    def __init__(
        self,
        llm: TextLLM,
        stages: Sequence[Stage],
        *,
        constrain: Constrain = "auto",
        asks: int = 3,
        fill: bool = False,
        score: Score | None = None,
        codebook: Codebook | None = None,
        templates: str | os.PathLike[str] | None = None,
        concurrency: int | None = None,
        errors: Literal["raise", "return"] = "raise",
        budget: Budget | None = None,
        prices: PriceTable | None = None,
    ) -> None:
        if not isinstance(llm, TextLLM):
            raise UsageError(f"drawing needs an LLM object, see connect(); got {type(llm).__name__}")
        if errors not in ("raise", "return"):
            raise UsageError(f"errors must be 'raise' or 'return'; got {errors!r}")
        if concurrency is not None and not (type(concurrency) is int and concurrency >= 1):
            raise UsageError(f"concurrency must be 1 or more requests; got {concurrency!r}")
        self.stages = (stages,) if isinstance(stages, Stage) else tuple(stages)
        self.fill = fill
        self.codebook = codebook
        self.templates = templates
        self.concurrency = concurrency or (1 if llm.profile.embedded else 8)
        self.errors = errors
        self.prices = prices or PriceTable()
        self.budget = budget
        # Metering counts every prompt's tokens before it is sent; without a limit nobody needs that.
        self._meter = None if budget is None else Meter(self.prices, budget)
        self._counted: set[Path] = set()
        self._counts: dict[str, int] = {}
        self.llm = llm if self._meter is None else MeteredLLM(llm, self._meter)
        self._asker = SegmentAsker(self.llm, constrain=constrain, asks=asks, score=score)
        for stage in self.stages:
            self._asker.check(stage.decoding)

    def plan(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
    ) -> DrawingPlan:
        """What ``decode`` with these arguments would send and cost; nothing is asked."""
        return self._plan(self._questions(pairs, queries, stage_pairs), run)

    def prompt(
        self,
        pairs: Sequence[Pair],
        query: Query,
        segment: int = 1,
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
    ) -> Prompt:
        """What would be sent for one segment (from 1); words that are not there yet are the first example's.

        Raises:
            UsageError: no such segment.
        """
        questions = self._questions(pairs, [query], stage_pairs)
        if not 1 <= segment <= len(questions.passes):
            raise UsageError(f"there are segments 1 to {len(questions.passes)}; got {segment}")
        return questions.stand_in(questions.passes[segment - 1], query)

    def config(
        self, pairs: Sequence[Pair], *, stage_pairs: Mapping[int, Sequence[Pair]] | None = None
    ) -> dict[str, Any]:
        """What decides the answers beside the queries, as plain JSON: a run goes on only with the same."""
        questions = self._questions(pairs, [_everything(pairs)], stage_pairs)
        score = self._asker.score
        return {
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "stages": [stage.to_dict() for stage in questions.stages],
            "constrain": self._asker.constrain,
            "asks": self._asker.asks,
            "fill": self.fill,
            "score": None if score is None else getattr(score, "__qualname__", type(score).__name__),
            "codebook": None if self.codebook is None else self.codebook.hash or self.codebook.name,
            "prompts": questions.digest(),
        }

    def open_run(
        self,
        folder: str | os.PathLike[str],
        pairs: Sequence[Pair],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        resume: bool = False,
    ) -> Run:
        """A run folder for ``decode``: every segment is on disk before the next is asked for. See ``Run.open``."""
        return Run.open(folder, COMMAND, self.config(pairs, stage_pairs=stage_pairs), resume=resume)

    def count_spent(self, folder: str | os.PathLike[str], pattern: str | None = None) -> None:
        """Let what an earlier part of a run used count against the budget; each folder once.

        Done by itself for the run that is drawn into; to be called for others that one budget is for.

        folder: a run's; with ``pattern`` one that holds folders of runs, named so.
        """
        folders = [Path(folder)] if pattern is None else sorted(Path(folder).glob(pattern))
        for path in (one.resolve() for one in folders):
            if self._meter is not None and path not in self._counted:
                self._counted.add(path)
                self._meter.settle(self.llm.profile.name, Usage(), read_usage(path))

    async def stream(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
    ) -> AsyncGenerator[Step]:
        """Draw, and tell of every segment as soon as it has its words; ``Step.drawing.preview()`` can be decoded.

        Args:
            pairs: the examples, in the order to show.
            queries: what to draw. Each is drawn on its own: none sees another's words.
            stage_pairs: other examples for a stage, by its number from 1.
            run: an open run folder, see ``open_run``; segments it has are not asked for again.

        Raises:
            BudgetExceededError: the plan does not keep to the budget (before anything is asked), or the next request
                would not. Everything answered is in the run folder.
            PromptTooLongError: a prompt does not fit the LLM's window.
            AnswerRefusedError: a segment's answers could not be read, with ``errors="raise"``.
            LLMError: the LLM could not answer, with ``errors="raise"``.
        """
        work = await asyncio.to_thread(self._work, pairs, queries, stage_pairs, run)
        try:
            for step in work.restored():
                yield step
            async with contextlib.aclosing(self._draw(work)) as steps:
                async for step in steps:
                    yield step
        finally:
            await asyncio.shield(asyncio.to_thread(work.close))  # may wait for the disk

    async def decode(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
        step: Callable[[Step], object] | None = None,
    ) -> list[Drawing]:
        """Draw; the pictures in the order of the queries. Arguments and errors as for ``stream``.

        step: called with every ``Step``, one after the other, in a thread of its own: it may take its time.
        """
        steps_thread = OwnThread("icl-vision-steps")
        work = await asyncio.to_thread(self._work, pairs, queries, stage_pairs, run)
        try:
            for found in work.restored():
                if step is not None:
                    await steps_thread.run(step, found)
            async with contextlib.aclosing(self._draw(work)) as steps:
                async for found in steps:
                    if step is not None:
                        await steps_thread.run(step, found)
        finally:
            await asyncio.shield(asyncio.to_thread(work.close))  # may wait for the disk
        return [work.drawing(number) for number in range(len(work.questions.queries))]

    def decode_sync(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
        step: Callable[[Step], object] | None = None,
    ) -> list[Drawing]:
        """``decode`` for code that does not await."""
        return run_sync(self.decode(pairs, queries, stage_pairs=stage_pairs, run=run, step=step))

    # ---- inside ----

    def _questions(
        self, pairs: Sequence[Pair], queries: Sequence[Query], stage_pairs: Mapping[int, Sequence[Pair]] | None
    ) -> Questions:
        return Questions(
            stages=self.stages,
            pairs=tuple(pairs),
            queries=tuple(queries),
            stage_pairs=dict(stage_pairs or {}),
            profile=self.llm.profile,
            fill=self.fill,
            templates=self.templates,
            codebook=self.codebook,
        )

    def _plan(self, questions: Questions, run: Run | None) -> DrawingPlan:
        done = (lambda item: item in run.done) if run is not None else (lambda item: False)
        return plan_of(
            questions,
            self.llm,
            one_by_one=self._asker.one_by_one,
            constraint=partial(self._constraint, questions),
            scored=self._asker.score is None,
            prices=self.prices,
            done=done,
        )

    def _constraint(self, questions: Questions, step: Pass, number: int) -> Constraint | None:
        """What an answer about a segment of a query is restricted to."""
        return self._asker.constraint(*questions.allowed(step, number))

    def _work(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        stage_pairs: Mapping[int, Sequence[Pair]] | None,
        run: Run | None,
    ) -> Work:
        questions = self._questions(pairs, queries, stage_pairs)
        work = Work(questions, run)
        meter = self._meter
        if meter is not None and self.budget is not None:
            if run is not None:
                self.count_spent(run.folder)
            try:
                self._plan(questions, run).check(self.budget, *meter.total())
            except BaseException:
                work.close()
                raise
        return work

    async def _draw(self, work: Work) -> AsyncGenerator[Step]:
        """Run all passes, wave after wave, and give the steps as they come."""
        await self._check_window(work.questions)
        steps: asyncio.Queue[Step | None] = asyncio.Queue()

        async def all_waves() -> None:
            try:
                passes = work.questions.passes
                for wave in range(max(one.wave for one in passes) + 1):
                    groups = [self._jobs(work, one, steps) for one in passes if one.wave == wave]
                    await in_order(groups, concurrency=self.concurrency, lead=self.llm.profile.prefix_cache)
            finally:
                steps.put_nowait(None)

        task = asyncio.create_task(all_waves())
        try:
            while (step := await steps.get()) is not None:
                yield step
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # told above, or nobody waits for it
                await task

    def _jobs(self, work: Work, step: Pass, steps: asyncio.Queue[Step | None]) -> list[Job]:
        queries = work.questions.queries
        return [
            partial(self._segment, work, step, number, steps)
            for number in range(len(queries))
            if work.open(number, step)
        ]

    async def _segment(self, work: Work, step: Pass, number: int, steps: asyncio.Queue[Step | None]) -> None:
        """Ask for one segment of one query."""
        canvas = work.canvases[number]
        if canvas.error is not None:
            return
        item = item_of(work.questions.queries[number], step)
        answer: SegmentAnswer | None = None
        error: Exception | None = None
        try:
            question = await work.question(step, number)
            if canvas.error is not None:
                return  # given up while the prompt was put together
            await self._check_question(work.questions, step, question)
            answer = await self._asker.ask(question)
            if answer.words is None:
                said = "; ".join(map(repr, answer.texts[-3:]))
                error = AnswerRefusedError(
                    f"segment {step.number} of {work.questions.queries[number].name!r} was refused: {answer.problem}; "
                    f"the LLM said {said[:400]}"
                )
        except BudgetExceededError:
            raise
        except Exception as caught:
            error = caught
        if error is not None:
            await work.write_error(item, error, Usage() if answer is None else answer.usage)
            canvas.error = canvas.error or error  # the first says why it was given up
            if answer is not None:
                canvas.answers[step.number] = answer
            if self.errors == "raise":
                raise error
        else:
            assert answer is not None
            # On disk before anything is built upon it.
            await work.write(item, answer)
            work.put(number, step, answer)
        steps.put_nowait(Step(number, step.number, work.drawing(number)))

    async def _check_window(self, questions: Questions) -> None:
        """Refuse prompts that do not fit before anything is asked, as far as they are known: words that are still to be
        drawn are the first example's there, and each prompt is looked at again when they are (``_check_question``)."""
        window = self.llm.profile.context_window
        if window is None:
            return
        for texts, answers in await asyncio.to_thread(_prompts, questions):
            await self._check_fits(texts, answers, window)

    async def _check_question(self, questions: Questions, step: Pass, question: Question) -> None:
        """Refuse a prompt that does not fit, with the words that were drawn in it, before it is sent."""
        window = self.llm.profile.context_window
        if window is None:
            return
        prompts = (question.prompt, *(() if question.against is None else (question.against,)))
        answers = await asyncio.to_thread(questions.answers, step)
        await self._check_fits([prompt.text for prompt in prompts], answers, window)

    async def _check_fits(self, texts: Sequence[str], answers: Sequence[str], window: int) -> None:
        """Raise PromptTooLongError where the prompt with the most tokens and the longest of the answers do not fit."""
        if max(map(most_tokens, texts)) + max(map(most_tokens, answers)) <= window:
            return  # whatever they are written in
        room = await self._most_counted(answers)
        tokens = None if room is None else await self._most_counted(texts)
        if room is not None and tokens is not None and tokens + room > window:
            raise PromptTooLongError(tokens + room, window, SHORTER)

    async def _most_counted(self, texts: Sequence[str]) -> int | None:
        """Tokens of the text that has the most of them, which need not be the longest; None where the LLM cannot count
        and will have to refuse a long prompt by itself."""
        most = 0
        for text in sorted(dict.fromkeys(texts), key=most_tokens, reverse=True):
            if most_tokens(text) <= most:
                break  # neither this one nor a shorter one can have more
            known = self._counts.get(text)
            if known is None:
                try:
                    known = await self.llm.count_tokens(text)
                except CapabilityError:
                    return None
                if len(text) < 4096:  # answers, which are asked for again and again
                    self._counts[text] = known
            most = max(most, known)
        return most


def _prompts(questions: Questions) -> list[tuple[list[str], list[str]]]:
    """Of each pass that is asked: its prompts, each once, and the answers that its examples have."""
    found = []
    for one in questions.passes:
        asked = [query for query in questions.queries if questions.wanted(one, query)]
        prompts = [
            prompt
            for query in asked
            for prompt in (questions.stand_in(one, query), questions.stand_in_against(one, query))
        ]
        texts = list(dict.fromkeys(prompt.text for prompt in prompts if prompt is not None))
        if texts:
            found.append((texts, questions.answers(one)))
    return found


def _everything(pairs: Sequence[Pair]) -> Query:
    """The first picture with all its words: a query that leaves nothing to be drawn."""
    if not pairs or not isinstance(pairs[0], Pair):
        return Query()  # what is wrong with the pairs is told where they are checked
    return Query(pairs[0].condition, dict(enumerate(pairs[0].target.words())))
