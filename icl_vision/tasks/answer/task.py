"""What the tasks that answer about pictures have in common: fitting, asking, planning, keeping.

Knows: the order of the line (pictures, words, examples, prompts, LLM, answer). Refuses to know: how any one step works,
and which of its options a user is told (``visual_qa``, ``captioner``).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from icl_vision import checks
from icl_vision.asking.inquiries import Group, Inquiry, Reply, ask
from icl_vision.asking.jobs import progress_bar
from icl_vision.asking.plan import Plan
from icl_vision.contracts import Answer, TextLLM, Tokenizer, Usage
from icl_vision.errors import UsageError
from icl_vision.llms import Budget
from icl_vision.llms.cost import Meter, PriceTable
from icl_vision.llms.loop import hop, run_sync
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.llms.wrappers.metered import MeteredLLM
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import Declaration
from icl_vision.tasks.answer.answered import AnsweredExample, Asked, Wording, as_support
from icl_vision.tasks.answer.calibrating import holding
from icl_vision.tasks.answer.fitted import FittedAnswering, Lot, Posed, Query, Support, refuse_wrong_words
from icl_vision.tasks.answer.prompts import AnswerPromptBuilder
from icl_vision.tasks.answer.scoring import TOLD, Dialogue
from icl_vision.tasks.base import Task
from icl_vision.tasks.inputs import check_folder, check_name

OnAnswer = Callable[[int, Answer], Awaitable[None]]


class AnsweringTask(Task[FittedAnswering]):
    """Base of the tasks that answer about pictures; see the module."""

    declaration: ClassVar[Declaration]
    wording: ClassVar[tuple[str, int]]
    """What an answer is called in messages, and how many characters it may have."""
    short: ClassVar[bool]
    """Whether an answer is a word or two, rather than a whole line."""

    k: int | None
    shots: int | None
    repeats: int
    induction: bool
    selection: str
    prompts: int
    order_seed: int | None
    max_tokens: int | None
    template: str
    templates: Any
    errors: str
    batch_size: int
    concurrency: int
    progress: bool | None
    budget: Budget | None
    prices: PriceTable | None

    _meter: Meter | None = None
    """Of a run of several calls that share one budget; a call by itself makes its own."""
    _tells_all: bool = False
    """Whether answers tell the probability of every candidate, for who fits a map to them."""

    # The examples.

    def _check(self) -> None:
        checks.count("k", self.k, none="the tokenizer's default")
        checks.count("shots", self.shots, none="all examples")
        checks.count("repeats", self.repeats, least=0, most=100)
        checks.count("prompts", self.prompts, most=100)
        checks.count("order_seed", self.order_seed, least=0, none="the order given")
        checks.flag("induction", self.induction)
        checks.choice("selection", self.selection, ("nearest", "random"))
        check_name("template", self.template, "a prompt template")
        check_folder("templates", self.templates)

    def _wording(self) -> Wording:
        builder = AnswerPromptBuilder(self.declaration, self.template, folder=self.templates)
        return Wording(*self.wording, builder.template.literals)

    def _fitted_wording(self) -> Wording:
        return Wording(*self.wording, self.fitted.builder.template.literals)

    def _fit(self, images: object, questions: object, answers: object, shown: Callable[[Sequence[str]], str]) -> Self:
        """``fit``, with the reference of an example that a prompt shows chosen by ``shown``."""
        self.check()
        # Before any image is opened: texts, template and scoring may already be wrong.
        support = as_support(images, questions, answers, self._wording(), with_questions=self.short)
        tokenizer, llm = self._connect_tokenizer(), self._connect_llm()
        empty = self._assembled(llm, tokenizer, Support(()))
        with progress_bar(sum(len(pictures) for pictures, _, _ in support), "words", self.progress) as done:
            read = empty.reader.read(
                [pictures for pictures, _, _ in support], batch_size=self.batch_size, keep_errors=False, done=done
            )
        examples = []
        for pictures, (_, question, references) in zip(read, support, strict=True):
            assert not isinstance(pictures, Exception)  # errors were not kept
            for seen in pictures:
                refuse_wrong_words(seen, tokenizer)
            examples.append(AnsweredExample(pictures, question, shown(references), references))
        self._fitted = self._assembled(llm, tokenizer, Support(tuple(examples)))
        return self

    def _assembled(self, llm: TextLLM, tokenizer: Tokenizer, kept: Support) -> FittedAnswering:
        params = self._params_now()
        return FittedAnswering.of(params, llm, tokenizer, kept, self.declaration, short=self.short)

    @property
    def examples_(self) -> list[AnsweredExample]:
        """The examples as words, in the order given."""
        return list(self.fitted.examples)

    @property
    def probability_map_(self) -> ProbabilityMap | None:
        """What calibrates probabilities; None where nothing does."""
        return self.fitted.probability_map

    # Keeping it: how is ``Task``'s, what is here.

    def _kept_to_dict(self) -> dict[str, Any]:
        return self.fitted.kept.to_dict()

    @classmethod
    def _kept_from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Support:
        return Support.from_dict(document, tokenizer)

    # Asking.

    def _queries(self, asked: Sequence[Asked]) -> list[Query | Exception]:
        """Queries in words."""
        fitted = self.ready()
        with progress_bar(sum(len(query.pictures) for query in asked), "words", self.progress) as done:
            read = fitted.reader.read(
                [() if query.error is not None else query.pictures for query in asked],
                batch_size=self.batch_size,
                keep_errors=self.errors == "return",
                done=done,
            )
        queries: list[Query | Exception] = []
        for pictures, query in zip(read, asked, strict=True):
            if isinstance(pictures, Exception):
                queries.append(pictures)
                continue
            if query.error is not None:
                queries.append(query.error)
                continue
            for seen in pictures:
                refuse_wrong_words(seen, fitted.tokenizer)
            choices = query.choices if query.choices is not None else fitted.params.get("choices")
            queries.append(Query(pictures, query.question, None if choices is None else tuple(choices)))
        return queries

    def read(self, asked: Sequence[Asked]) -> Lot:
        """Everything that happens before the LLM is asked: the words of each picture, and which examples it is shown.

        For runs and plans; asking does this, then ``ask``.

        Raises:
            NotFittedError: before ``fit``. ImageError: an image that cannot be used, unless ``errors="return"``.
        """
        fitted = self.ready()
        return fitted.lot(self._queries(asked), self.max_tokens, keep_errors=self.errors == "return")

    async def ask(self, lot: Lot, on_result: OnAnswer | None = None) -> list[Answer]:
        """Ask about queries that were read; for runs, see ``read``. To be awaited on the library's event loop.

        on_result: awaited with each query's number and answer as soon as it is known, before anything else is asked in
            its stead; what it raises ends everything.

        Raises:
            LLMError, PromptTooLongError: unless ``errors="return"``.
        """
        fitted, keep_errors = lot.fitted, self.errors == "return"
        calibration = self._map_in_use(fitted)
        answers = [Answer("", (), None, None) for _ in lot.posed]
        dialogues: dict[tuple[int, int], Dialogue] = {}

        async def keep(number: int, answer: Answer) -> None:
            answers[number] = answer
            if on_result is not None:
                await on_result(number, answer)

        def posed_of(group: int, query: int) -> Posed:
            posed = lot.posed[lot.together[group][query]]
            assert not isinstance(posed, Exception)  # it would be in no group
            return posed

        def begin(group: int, query: int) -> Inquiry:
            dialogues[group, query] = fitted.dialogue(posed_of(group, query), told=None if self._tells_all else TOLD)
            return dialogues[group, query].first()

        def go_on(group: int, query: int, reply: Reply | Exception) -> Inquiry | None:
            return dialogues[group, query].then(reply)

        async def judge(group: int, query: int, reply: Reply | Exception) -> None:
            posed = posed_of(group, query)
            if (group, query) in dialogues:
                answer = dialogues.pop((group, query)).answer(reply, holding(calibration, posed.query.choices))
            else:  # it was never begun: the one before all of its group failed
                answer = Answer("", (), None, None, error=reply if isinstance(reply, Exception) else None)
            answer = posed.dressed(answer)
            await keep(lot.together[group][query], answer)
            if answer.error is not None and not keep_errors:
                raise answer.error  # now: what is still to be asked would be paid for and thrown away

        unusable = lot.unusable
        for number, answer in unusable:
            await keep(number, answer)
        llm = self._metered(fitted.llm)
        groups = [
            Group(
                lambda query, group=group: begin(group, query),  # type: ignore[misc]  # a default binds the loop's own
                len(numbers),
                leads=llm.profile.prefix_cache,
                then=lambda query, reply, group=group: go_on(group, query, reply),  # type: ignore[misc]  # likewise
            )
            for group, numbers in enumerate(lot.together)
        ]
        with progress_bar(len(lot.posed) - len(unusable), "answers", self.progress) as done:
            await ask(
                llm,
                groups,
                concurrency=self.concurrency,
                read=judge,
                keep_errors=keep_errors,
                check=None if llm.profile.context_window is None else fitted.check_window,
                done=done,
            )
        return answers

    def _asked(self, asked: Sequence[Asked]) -> list[Answer]:
        return run_sync(self.ask(self.read(asked)))

    async def _aasked(self, asked: Sequence[Asked]) -> list[Answer]:
        return await hop(self.ask(await asyncio.to_thread(self.read, asked)))

    def _plan(self, asked: Sequence[Asked], prices: PriceTable | None) -> Plan:
        fitted = self.ready()
        llm = fitted.llm
        if not isinstance(llm, DryLLM):
            raise UsageError(f"a plan needs a task fitted with llm=DryLLM(connect(...)); got {llm!r}")
        llm.begin()
        lot = self.quietly().read(asked)
        if fitted.tokenizer.vocabulary is not None:
            llm.whole = frozenset(fitted.tokenizer.vocabulary)
        return fitted.plan(llm, lot, prices if prices is not None else self.prices, concurrency=self.concurrency)

    def _prompt_for(self, asked: Sequence[Asked]) -> Inquiry:
        (query,) = self._queries(asked)
        if isinstance(query, Exception):
            raise query
        fitted = self.fitted
        return fitted.dialogue(fitted.posed(query, self.max_tokens)).first()

    def run_config(self) -> dict[str, Any]:
        """What decides the answers of this fitted task, as plain JSON: a run goes on only with the same.

        Raises:
            NotFittedError: before ``fit``.
        """
        fitted = self.ready()
        return fitted.run_config(self._map_in_use(fitted), self.max_tokens)

    @property
    def at_once(self) -> int:
        """Requests that may be in flight together."""
        self.ready()
        return self.concurrency

    def sharing_budget(self, spent: Usage | None = None) -> Self:
        """The same task whose calls, all of them together, keep to its budget; for runs.

        spent: what was used before.
        """
        twin = copy.copy(self)
        if self.budget is not None:
            twin._meter = Meter(self.prices or PriceTable(), self.budget)
            if spent is not None:
                twin._meter.settle(self.fitted.llm.profile.name, Usage(), spent)
        return twin

    def _metered(self, llm: TextLLM) -> TextLLM:
        if self.budget is None:
            return llm
        return MeteredLLM(llm, self._meter or Meter(self.prices or PriceTable(), self.budget))

    def _map_in_use(self, fitted: FittedAnswering) -> ProbabilityMap | None:
        """What makes probabilities of scores in this call; None leaves them raw."""
        return fitted.probability_map if getattr(self, "probabilities", "raw") == "calibrated" else None
