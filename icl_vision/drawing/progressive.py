"""Progressive in-context decoding (SPAE, section 3.2): a frozen LLM draws, segment by segment.

    v_t ~ P_LLM( . | [u, v_<t'] ; { ([u_i, v_i,<t'], v_i,t) } i = 1..K )        (11)

    decoder = ProgressiveDecoder(llm, par(stride=4))
    drawings = decoder.decode_sync(pairs, [Query("an image of 3")])
    tokenizer.decode([drawings[0].pyramid])

Knows: the order in which passes run, what is drawn so far, run folders, budgets, and that an LLM on this machine is
asked one thing at a time. Refuses to know: any other LLM, images, tasks, how an answer is read (``repair``), what a
prompt holds (``passes``).

All queries of a segment are asked before the next segment: they share its fixed part, instruction and examples, byte
for byte; the first is awaited, the others then find it in the provider's prefix cache. Segments that do not depend on
each other (PNAR) run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_vision import checks
from icl_vision.asking.inquiries import Window
from icl_vision.asking.jobs import Journal, run_jobs
from icl_vision.asking.plan import Plan
from icl_vision.contracts import Prompt, TextLLM, Usage
from icl_vision.drawing.answering import Constrain, Score, SegmentAsker, SegmentInquiry
from icl_vision.drawing.drawing import Canvas, Drawing, Pair, Query, SegmentAnswer, SegmentDrawn
from icl_vision.drawing.passes import Pass, SegmentPrompts
from icl_vision.drawing.planning import plan_of
from icl_vision.drawing.stages import Stage
from icl_vision.errors import (
    AnswerRefusedError,
    BudgetExceededError,
    PromptTooLongError,
    RunError,
    UsageError,
)
from icl_vision.files.runs import Run, read_usage
from icl_vision.llms.cost import Budget, Meter, PriceTable
from icl_vision.llms.loop import OwnThread, run_sync
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
        checks.choice("errors", errors, ("raise", "return"))
        checks.count("concurrency", concurrency, of="requests", none="as many as the LLM bears")
        self.stages = (stages,) if isinstance(stages, Stage) else tuple(stages)
        self.fill = fill
        self.codebook = codebook
        self.templates = templates
        self.concurrency = concurrency or (1 if llm.profile.embedded else 8)
        self.errors = errors
        self.prices = prices
        self.budget = budget
        # Metering counts every prompt's tokens before it is sent; without a limit nobody needs that.
        self._meter = None if budget is None else Meter(prices or PriceTable(), budget)
        self._counted: set[Path] = set()
        self.llm = llm if self._meter is None else MeteredLLM(llm, self._meter)
        self._window = None if llm.profile.context_window is None else Window(self.llm)
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
    ) -> Plan:
        """What ``decode`` with these arguments would send and cost; nothing is asked."""
        return self._plan(self._prompts(pairs, queries, stage_pairs), run)

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
        prompts = self._prompts(pairs, [query], stage_pairs)
        if not 1 <= segment <= len(prompts.passes):
            raise UsageError(f"there are segments 1 to {len(prompts.passes)}; got {segment}")
        return prompts.stand_in(prompts.passes[segment - 1], query)

    def config(
        self, pairs: Sequence[Pair], *, stage_pairs: Mapping[int, Sequence[Pair]] | None = None
    ) -> dict[str, Any]:
        """What decides the answers beside the queries, as plain JSON: a run goes on only with the same."""
        prompts = self._prompts(pairs, [_everything(pairs)], stage_pairs)
        score = self._asker.score
        return {
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "stages": [stage.to_dict() for stage in prompts.stages],
            "constrain": self._asker.constrain,
            "asks": self._asker.asks,
            "fill": self.fill,
            "score": None if score is None else getattr(score, "__qualname__", type(score).__name__),
            "codebook": None if self.codebook is None else self.codebook.hash or self.codebook.name,
            "prompts": prompts.digest(),
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
        for path in (path.resolve() for path in folders):
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
    ) -> AsyncGenerator[SegmentDrawn]:
        """Draw, and tell of every segment as soon as it has its words; its ``drawing.preview()`` can be decoded.

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
        work = await asyncio.to_thread(self._begin, pairs, queries, stage_pairs, run)
        async with contextlib.aclosing(self._segments(work)) as segments:
            async for drawn in segments:
                yield drawn

    async def decode(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
        on_segment: Callable[[SegmentDrawn], object] | None = None,
    ) -> list[Drawing]:
        """Draw; the pictures in the order of the queries. Arguments and errors as for ``stream``.

        on_segment: called with every ``SegmentDrawn``, one after the other, in a thread of its own: it may take its
            time.
        """
        watcher = OwnThread("icl-vision-segments")
        work = await asyncio.to_thread(self._begin, pairs, queries, stage_pairs, run)
        work.watched = on_segment is not None
        async with contextlib.aclosing(self._segments(work)) as segments:
            async for drawn in segments:
                if on_segment is not None:
                    await watcher.run(on_segment, drawn)
        return [canvas.drawing() for canvas in work.canvases]

    def decode_sync(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        *,
        stage_pairs: Mapping[int, Sequence[Pair]] | None = None,
        run: Run | None = None,
        on_segment: Callable[[SegmentDrawn], object] | None = None,
    ) -> list[Drawing]:
        """``decode`` for code that does not await."""
        return run_sync(self.decode(pairs, queries, stage_pairs=stage_pairs, run=run, on_segment=on_segment))

    # ---- inside ----

    def _prompts(
        self, pairs: Sequence[Pair], queries: Sequence[Query], stage_pairs: Mapping[int, Sequence[Pair]] | None
    ) -> SegmentPrompts:
        return SegmentPrompts(
            stages=self.stages,
            pairs=tuple(pairs),
            queries=tuple(queries),
            stage_pairs=dict(stage_pairs or {}),
            profile=self.llm.profile,
            fill=self.fill,
            templates=self.templates,
            codebook=self.codebook,
        )

    def _plan(self, prompts: SegmentPrompts, run: Run | None) -> Plan:
        return plan_of(
            prompts,
            self.llm,
            word_by_word=self._asker.word_by_word,
            constraint=lambda pass_, number: self._asker.constraint(*prompts.allowed(pass_, number)),
            scored=self._asker.score is None,
            prices=self.prices,
            done=lambda item: run is not None and item in run.done,
        )

    def _begin(
        self,
        pairs: Sequence[Pair],
        queries: Sequence[Query],
        stage_pairs: Mapping[int, Sequence[Pair]] | None,
        run: Run | None,
    ) -> _Work:
        """A call, with what its run folder has, once its plan is known to keep to the budget."""
        prompts = self._prompts(pairs, queries, stage_pairs)
        work = _Work(prompts, [prompts.canvas(query) for query in prompts.queries], Journal(run))
        try:
            if run is not None:
                work.restore(run)
            if self._meter is not None and self.budget is not None:
                if run is not None:
                    self.count_spent(run.folder)
                self._plan(prompts, run).check(self.budget, *self._meter.total())
        except BaseException:
            work.journal.close()
            raise
        return work

    async def _segments(self, work: _Work) -> AsyncGenerator[SegmentDrawn]:
        """The segments that the run folder had, then the others as they come: all passes, wave after wave."""
        drawing: asyncio.Task[None] | None = None
        try:
            for number, pass_ in work.restored:
                yield SegmentDrawn(number, pass_.number, work.canvases[number].drawing(), restored=True)
            await self._check_window(work.prompts)
            drawing = asyncio.create_task(self._draw(work))
            while (drawn := await work.drawn.get()) is not None:
                yield drawn
            await drawing
        finally:
            if drawing is not None:
                drawing.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):  # told above, or nobody waits for it
                    await drawing
            await asyncio.shield(asyncio.to_thread(work.journal.close))  # may wait for the disk

    async def _draw(self, work: _Work) -> None:
        """For each wave, for each query: ask, read, write."""
        try:
            passes = work.prompts.passes
            for wave in range(max(pass_.wave for pass_ in passes) + 1):
                groups = [
                    [partial(self._segment, work, pass_, number) for number in work.numbers(pass_)]
                    for pass_ in passes
                    if pass_.wave == wave
                ]
                # An LLM that holds one prefix must not read it anew for every query.
                lead = self.llm.profile.prefix_cache
                await run_jobs(groups, concurrency=self.concurrency, lead=lead, order="in turn")
        finally:
            work.drawn.put_nowait(None)

    async def _segment(self, work: _Work, pass_: Pass, number: int) -> None:
        """Ask for one segment of one query."""
        canvas = work.canvases[number]
        if canvas.error is not None:
            return
        answer: SegmentAnswer | None = None
        error: Exception | None = None
        try:
            # With the words that there are now.
            inquiry = await work.builder.run(work.prompts.inquiry, pass_, number, list(canvas.words))
            if canvas.error is not None:
                return  # given up while the prompt was put together
            await self._check_inquiry(work.prompts, pass_, inquiry)
            answer = await self._asker.ask(inquiry)
            if answer.words is None:
                said = "; ".join(map(repr, answer.texts[-3:]))
                error = AnswerRefusedError(
                    f"segment {pass_.number} of {canvas.query.name!r} was refused: {answer.problem}; "
                    f"the LLM said {said[:400]}"
                )
        except BudgetExceededError:
            raise
        except Exception as caught:
            error = caught
        kept = work.journal.run is not None
        if error is not None:
            if kept:
                spent = Usage() if answer is None else answer.usage
                await work.journal.record_error(work.prompts.item(number, pass_), error, spent)
            canvas.error = canvas.error or error  # the first says why it was given up
            if answer is not None:
                canvas.answers[pass_.number] = answer
            if self.errors == "raise":
                raise error
        else:
            assert answer is not None
            if kept:  # on disk before anything is built upon it
                await work.journal.record(work.prompts.item(number, pass_), answer.to_dict())
            canvas.put(pass_.number, pass_.segment, answer)
        if work.watched:
            work.drawn.put_nowait(SegmentDrawn(number, pass_.number, canvas.drawing()))

    async def _check_window(self, prompts: SegmentPrompts) -> None:
        """Refuse prompts that do not fit before anything is asked, as far as they are known: words that are still to be
        drawn are the first example's there, and each prompt is looked at again when they are (``_check_inquiry``)."""
        if self._window is not None:
            for texts, words in await asyncio.to_thread(_texts, prompts):
                await _check_fits(self._window, texts, words)

    async def _check_inquiry(self, prompts: SegmentPrompts, pass_: Pass, inquiry: SegmentInquiry) -> None:
        """Refuse a prompt that does not fit, with the words that were drawn in it, before it is sent."""
        if self._window is not None:
            texts = [inquiry.prompt.text] if inquiry.against is None else [inquiry.prompt.text, inquiry.against.text]
            await _check_fits(self._window, texts, await asyncio.to_thread(prompts.example_words, pass_))


@dataclass(slots=True)
class _Work:
    """One call of ``stream`` or ``decode`` while it is done: its pictures, its journal, what was drawn last.

    builder: one thread puts all prompts together, since what they are made of is looked up once and kept. restored: the
    queries' numbers and passes that the run folder had. drawn: None where there is no more; nothing else where nobody
    watches.
    """

    prompts: SegmentPrompts
    canvases: list[Canvas]
    journal: Journal
    restored: list[tuple[int, Pass]] = field(default_factory=list)
    builder: OwnThread = field(default_factory=lambda: OwnThread("icl-vision-prompts"))
    drawn: asyncio.Queue[SegmentDrawn | None] = field(default_factory=asyncio.Queue)
    watched: bool = True

    def numbers(self, pass_: Pass) -> list[int]:
        """The queries that a pass is still to be asked for."""
        return [
            number
            for number, canvas in enumerate(self.canvases)
            if pass_.number not in canvas.answers and self.prompts.wanted(pass_, canvas.query)
        ]

    def restore(self, run: Run) -> None:
        """Draw what the journal has.

        Raises:
            RunError: an answer there that cannot be one.
        """
        items = {
            self.prompts.item(number, pass_): (number, pass_)
            for number in range(len(self.canvases))
            for pass_ in self.prompts.passes
        }
        for item, result in self.journal.results():
            try:
                answer = SegmentAnswer.from_dict(result)
                if item not in items:
                    continue  # of a query that is not asked for now
                number, pass_ = items[item]
                words = answer.words or ()
                if len(words) != len(pass_.segment):
                    raise ValueError(f"{len(words)} words for a segment of {len(pass_.segment)}")
                self.prompts.vocabulary.ids(words)
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(
                    f"the journal of {str(run.folder)!r} holds no usable answer for {item!r} ({error}); choose another "
                    "folder"
                ) from error
            self.canvases[number].put(pass_.number, pass_.segment, answer)
            self.restored.append((number, pass_))


async def _check_fits(window: Window, texts: Sequence[str], words: Sequence[str]) -> None:
    """Raise PromptTooLongError where the prompt with the most tokens and the longest of the words do not fit."""
    excess = await window.excess(texts, answers=words)
    if excess is not None:
        raise PromptTooLongError(excess.tokens + excess.room, excess.window, SHORTER)


def _texts(prompts: SegmentPrompts) -> list[tuple[list[str], list[str]]]:
    """Of each pass that is asked: its prompts, each once, and the words that its examples have."""
    texts_and_words = []
    for pass_ in prompts.passes:
        asked = [query for query in prompts.queries if prompts.wanted(pass_, query)]
        both = [
            prompt
            for query in asked
            for prompt in (prompts.stand_in(pass_, query), prompts.stand_in_against(pass_, query))
        ]
        texts = list(dict.fromkeys(prompt.text for prompt in both if prompt is not None))
        if texts:
            texts_and_words.append((texts, prompts.example_words(pass_)))
    return texts_and_words


def _everything(pairs: Sequence[Pair]) -> Query:
    """The first picture with all its words: a query that leaves nothing to be drawn."""
    if not pairs or not isinstance(pairs[0], Pair):
        return Query()  # what is wrong with the pairs is told where they are checked
    return Query(pairs[0].condition, dict(enumerate(pairs[0].target.words())))
