"""An answering task as it was fitted: which examples a query is shown, what is put to the LLM, what it would cost.

Knows: how options, examples in words and an LLM become prompts and dialogues; lots of queries that share a prompt.
Refuses to know: images, what a user is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from icl_vision.asking.inquiries import TERMINATOR, Group, Inquiry, Window, Writing, fitting
from icl_vision.asking.plan import Plan, plan_of
from icl_vision.contracts import Answer, Prompt, TextLLM, Tokenizer
from icl_vision.errors import UsageError
from icl_vision.llms.cost import PriceTable
from icl_vision.llms.loop import run_sync
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import Declaration, PromptSize, check_tokens
from icl_vision.tasks.answer.answered import AnsweredExample
from icl_vision.tasks.answer.calibrating import packaged_map
from icl_vision.tasks.answer.candidates import candidates
from icl_vision.tasks.answer.pictures import Described, Reader, Seen, Shown, evidence, strings_in
from icl_vision.tasks.answer.prompts import AnswerPromptBuilder, PreparedAnswering, ShownExample
from icl_vision.tasks.answer.reading import asks_for_text, distinct, kind_of
from icl_vision.tasks.answer.scoring import (
    CHOICE_ROOM,
    MOST_WITHOUT_BAGS,
    SHORTLIST,
    TOLD,
    Dialogue,
    Way,
    choose_method,
)
from icl_vision.tasks.answer.selection import Closeness, Selection
from icl_vision.tasks.base import Fitted
from icl_vision.tokenizers.rates import NOTHING, word_rates
from icl_vision.tokenizers.wrapping import fingerprint


@dataclass(frozen=True, slots=True)
class Support:
    """What an answering task keeps of its fit. examples: in the order given. own_map: fitted to the user's own
    questions, None without."""

    examples: tuple[AnsweredExample, ...]
    own_map: ProbabilityMap | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "examples": [example.to_dict() for example in self.examples],
            **({} if self.own_map is None else {"probabilities": self.own_map.to_dict()}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], tokenizer: Tokenizer) -> Support:
        """The way back. Raises whatever comes of a damaged document."""
        own_map = ProbabilityMap.from_dict(document["probabilities"]) if "probabilities" in document else None
        examples = (AnsweredExample.from_dict(entry, tokenizer.vocabulary) for entry in document["examples"])
        return cls(tuple(examples), own_map)


@dataclass(frozen=True, slots=True)
class Query:
    """One query in words. pictures: none where none was given. choices: None where the answer is open."""

    pictures: tuple[Seen, ...]
    question: str | None
    choices: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Posed:
    """A query with the examples it is shown. shown: what a prompt may show of each picture. examples: of each prompt,
    by index. prompts: one, or several of an ensemble. way: how its answer is found."""

    query: Query
    shown: tuple[Shown, ...]
    examples: tuple[tuple[int, ...], ...]
    prompts: tuple[Prompt, ...]
    way: Way

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """Of all pictures, part by part."""
        return tuple(part for shown in self.shown for part in shown.words)

    def dressed(self, answer: Answer) -> Answer:
        """An answer with the query's words, and the examples that were shown."""
        shown = tuple(index for row in self.examples for index in row)
        named = all(len(one.names) == len(one.words) for one in self.shown)
        names = tuple(name for one in self.shown for name in one.names) if named else ()
        return replace(answer, words=self.words, parts=names, examples=shown)


@dataclass(frozen=True, slots=True)
class Lot:
    """Queries that are asked in one go: as it was fitted when they were read, each posed, or why it cannot be; and
    which share the beginning of their first prompt."""

    fitted: FittedAnswering
    posed: list[Posed | Exception]
    together: list[list[int]]

    @property
    def unusable(self) -> list[tuple[int, Answer]]:
        """Queries that cannot be asked, by number, with the error that says why."""
        return [
            (number, Answer("", (), None, None, error=posed))
            for number, posed in enumerate(self.posed)
            if isinstance(posed, Exception)
        ]


@dataclass(frozen=True, kw_only=True)
class FittedAnswering(Fitted):
    """What an answering task was fitted with.

    builder: of the template in use. reader: pictures into words. selection, closeness: which examples are shown;
    closeness is None where all queries are shown the same. lines: what a prompt shows of each example's pictures.
    rates: how probable words are of any picture, where that is known.
    probability_map: what calibrates, None where nothing does. short: an answer is a word or two.
    """

    kept: Support
    builder: AnswerPromptBuilder
    reader: Reader
    selection: Selection
    closeness: Closeness | None
    lines: tuple[tuple[str, ...], ...]
    rates: Mapping[str, float]
    probability_map: ProbabilityMap | None
    short: bool
    _prepared: dict[tuple[object, ...], PreparedAnswering] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        params: Mapping[str, Any],
        llm: TextLLM,
        tokenizer: Tokenizer,
        support: Support,
        declaration: Declaration,
        *,
        short: bool,
    ) -> Self:
        """The task of these options and examples.

        Raises:
            CapabilityError, UsageError: ``scoring`` asks what the LLM or the tokenizer does not offer.
            TemplateError: no such template, or one with faults.
            PromptTooLongError: the examples do not fit the LLM's window.
        """
        builder = AnswerPromptBuilder(
            declaration,
            params["template"],
            folder=params["templates"],
            induction=params["induction"],
            repeats=params["repeats"],
        )
        reader = Reader(tokenizer, params["k"], focus=params.get("focus", True) and short)
        selection = Selection(
            params["selection"], params["shots"], params.get("ways"), params["prompts"], params["order_seed"]
        )
        lines = tuple(
            tuple(reader.shown(seen, example.question).line for seen in example.pictures)
            for example in support.examples
        )
        fitted = cls(
            params=params,
            llm=llm,
            tokenizer=tokenizer,
            kept=support,
            builder=builder,
            reader=reader,
            selection=selection,
            closeness=None if selection.shared else Closeness(support.examples, tokenizer),
            lines=lines,
            rates=word_rates(tokenizer),
            probability_map=support.own_map,
            short=short,
        )
        fitted.way(params.get("choices"))  # refuses what the LLM cannot do
        run_sync(fitted.check_largest())
        return fitted if support.own_map is not None else replace(fitted, probability_map=packaged_map(fitted))

    @property
    def examples(self) -> tuple[AnsweredExample, ...]:
        """In the order given."""
        return self.kept.examples

    def way(self, choices: Sequence[str] | None, max_tokens: int | None = None) -> Way:
        """How an answer is found, among these choices or any."""
        params, profile = self.params, self.llm.profile
        method = choose_method(
            params.get("scoring", "greedy"), profile, choices, evidence=self.tokenizer.vocabulary is not None
        )
        room = int(max_tokens or MOST_TOKENS)
        if method in ("constrained", "parsed"):
            room = max(room, CHOICE_ROOM + max(len(text.encode()) for text in choices or ("",)))
        return Way(
            method,
            float(params.get("vision_weight", 0.0)),
            self.short,
            room,
            profile.scores_bags,
            int(params["order_seed"] or 0) % 2**31,
        )

    def shows_words(self, way: Way) -> bool:
        """Whether a prompt shows words of the pictures."""
        told: bool | None = self.params.get("show_words")
        return way.method != "fused" if told is None else told

    def posed(self, query: Query, max_tokens: int | None = None) -> Posed:
        """A query with its examples and prompts.

        Raises:
            PromptError: words that must not enter a prompt. CapabilityError: choices the LLM cannot choose among.
        """
        way = self.way(query.choices, max_tokens)
        # (Choices bind, and who asks for a method by name gets it.)
        asked = query.choices is None and self.params.get("scoring") == "auto" and asks_for_text(query.question)
        if way.method == "fused" and asked and strings_in(query.pictures):
            way = replace(way, method="read")
        shown = tuple(self.reader.shown(seen, query.question) for seen in query.pictures)
        if self.closeness is None:
            rows = self.selection.random(self.examples)
        else:
            rows = self.selection.nearest(self.examples, self.closeness.of(query.pictures, query.question))
        lines = [one.line for one in shown] if self.shows_words(way) else []
        prompts = tuple(
            self.prepared(row, query.choices or (), words=self.shows_words(way)).query(lines, query.question)
            for row in rows
        )
        return Posed(query, shown, tuple(rows), prompts, way)

    def prepared(self, row: tuple[int, ...], choices: Sequence[str], *, words: bool) -> PreparedAnswering:
        """The fixed part of a prompt with these examples."""
        key = (row, tuple(choices), words)
        if key not in self._prepared:
            if len(self._prepared) > MOST_PREPARED:
                self._prepared.clear()
            shown = [
                ShownExample(
                    self.lines[index] if words else (), self.examples[index].question or "", self.examples[index].answer
                )
                for index in row
            ]
            self._prepared[key] = self.builder.prepare(shown, choices)
        return self._prepared[key]

    def lot(self, queries: Sequence[Query | Exception], max_tokens: int | None, *, keep_errors: bool) -> Lot:
        """Queries with their prompts, grouped by the beginning they share.

        keep_errors: put the error of a query that cannot be posed in its place; otherwise the first one is raised.
        """
        posed: list[Posed | Exception] = []
        groups: dict[str, list[int]] = {}
        for number, query in enumerate(queries):
            try:
                one = query if isinstance(query, Exception) else self.posed(query, max_tokens)
            except Exception as error:
                if not keep_errors:
                    raise
                one = error
            posed.append(one)
            if not isinstance(one, Exception):
                groups.setdefault(one.prompts[0].prefix, []).append(number)
        return Lot(self, posed, list(groups.values()))

    def dialogue(self, posed: Posed, told: int | None = TOLD) -> Dialogue:
        """What is put to the LLM about a query, one inquiry after the other; told: see ``Way``."""
        query = posed.query
        kind = kind_of(query.question)
        shown = (self.examples[index] for row in posed.examples for index in row)
        # What was answered to a question of another kind ("two", "blue") is no answer to this one.
        answers = distinct(example.answer for example in shown if kind_of(example.question) == kind)
        return Dialogue(
            replace(posed.way, told=told),
            query.question,
            posed.prompts,
            query.choices,
            evidence(query.pictures),
            tuple(answers),
            NOTHING if any(isinstance(seen, Described) for seen in query.pictures) else self.rates,
            strings_in(query.pictures) if posed.way.method == "read" else (),
        )

    # Windows and plans.

    async def check_largest(self) -> None:
        """Refuse examples of which the largest prompt would not fit the window."""
        if not self.examples or self.llm.profile.context_window is None:
            return
        sizes = [
            len(example.answer) + len(example.question or "") + sum(map(len, lines))
            for example, lines in zip(self.examples, self.lines, strict=True)
        ]
        way = self.way(self.params.get("choices"), self.params["max_tokens"])
        words = self.shows_words(way)
        row = self.selection.largest(self.examples, sizes)
        largest = max(range(len(sizes)), key=lambda index: sizes[index])
        prompt = self.prepared(row, self.params.get("choices") or (), words=words).query(
            self.lines[largest] if words else (), self.examples[largest].question
        )
        await self.check_window(Inquiry.written(prompt, Writing(way.max_tokens)))

    async def check_window(self, inquiry: Inquiry, llm: TextLLM | None = None) -> None:
        """Refuse an inquiry that does not fit the LLM's window, before it is sent.

        Raises:
            PromptTooLongError: the message names tokens, window and what shrinks the prompt.
        """
        room = 0 if inquiry.writing is None else inquiry.writing.max_tokens
        excess = await Window(llm or self.llm).excess(inquiry.texts, room=room)
        if excess is not None:
            params = self.params
            size = PromptSize(params["shots"], params["k"], params["repeats"], params["selection"])
            check_tokens(excess.tokens, excess.window, reserve=excess.room, size=size)

    def plan(self, llm: DryLLM, lot: Lot, prices: PriceTable | None, *, concurrency: int) -> Plan:
        """What asking about a lot would send."""
        groups = [
            Group(partial(_nth, rows), len(rows))
            for numbers in lot.together
            for rows in self._rounds([lot.posed[number] for number in numbers])
        ]
        fitted, refused = run_sync(fitting(groups, partial(self.check_window, llm=llm)))
        plan = plan_of(llm, fitted, concurrency=concurrency, prices=prices)
        lost = (
            *(answer for _, answer in lot.unusable),
            *(Answer("", (), None, None, error=error) for error in dict.fromkeys(refused)),
        )
        asked = len(lot.posed) - len(lot.unusable)
        methods = sorted({posed.way.method for posed in lot.posed if not isinstance(posed, Exception)})
        remarks = {"model": f"answers: {', '.join(methods)}"} if methods else {}
        remarks |= {"queries": f"{len(lost)} unusable"} if lost else {}
        return replace(
            plan,
            queries=asked,
            unusable=lost,
            facts={"methods": methods, "queries": asked, "unusable": len(lost)},
            lines=(("queries", f"{asked:,}"),),
            remarks={**plan.remarks, **remarks},
            subject="answering",
            advice="use fewer questions, fewer shots=, prompts=1 or a smaller k=",
        )

    def _rounds(self, posed: Sequence[Posed | Exception]) -> list[list[Inquiry]]:
        """The inquiries of queries in rounds, with what would be sent where a reply decides what follows."""
        rounds: list[list[Inquiry]] = []
        for one in posed:
            assert not isinstance(one, Exception)  # it would be in no group
            for number, inquiry in enumerate(self._expected(one)):
                while len(rounds) <= number:
                    rounds.append([])
                rounds[number].append(inquiry)
        return rounds

    def _expected(self, posed: Posed) -> list[Inquiry]:
        dialogue = self.dialogue(posed)
        first = dialogue.first()
        if posed.way.method in ("choices", "read"):
            return [first]
        if posed.way.method != "fused":
            return [first, *(replace(first, pairs=((prompt, ""),)) for prompt in posed.prompts[1:])]
        offered = posed.query.choices or candidates(
            posed.query.question,
            dialogue.chances,
            dialogue.answers,
            "answer",
            **({} if posed.way.bags else {"most": MOST_WITHOUT_BAGS}),
        )
        after = [(prompt, " " + text) for prompt in posed.prompts for text in offered]
        if not posed.way.bags:
            return [first, Inquiry(tuple(after))]
        last = [(prompt, " " + text) for prompt in posed.prompts for text in offered[:SHORTLIST]]
        return [first, Inquiry(tuple(after), terminator=""), Inquiry(tuple(last), terminator=TERMINATOR)]

    def run_config(self, calibration: ProbabilityMap | None, max_tokens: int | None) -> dict[str, Any]:
        """What decides answers, as plain JSON: a run goes on only with the same."""
        params = self.params
        row = tuple(range(min(len(self.examples), 4)))
        offered = params.get("choices")
        prompt = self.prepared(row, tuple(offered or ()), words=True).query(["words"], "question?")
        kept = repr([example.to_dict() for example in self.examples])
        decisive = (
            "k", "shots", "ways", "repeats", "selection", "prompts", "scoring", "show_words",
            "vision_weight", "focus", "order_seed",
        )  # fmt: skip
        return {
            "llm": str(getattr(self.llm, "identity", self.llm.profile.name)),
            "tokenizer": {"name": self.tokenizer.name, "hash": fingerprint(self.tokenizer)},
            **{name: params[name] for name in decisive if name in params},
            "choices": None if offered is None else list(offered),
            "method": self.way(params.get("choices")).method,
            "max_tokens": max_tokens,
            "examples": hashlib.sha256(kept.encode()).hexdigest(),
            "prompt": hashlib.sha256(prompt.text.encode()).hexdigest(),
            "probabilities": None if calibration is None else f"temperature {calibration.temperature:.6g}",
        }


MOST_PREPARED = 512
"""Prepared prompts that are kept while a task lives."""

MOST_TOKENS = 256
"""Of an answer without a limit of its own."""


def _nth(inquiries: Sequence[Inquiry], number: int) -> Inquiry:
    return inquiries[number]


def refuse_wrong_words(seen: Seen, tokenizer: Tokenizer) -> None:
    """Refuse words of another tokenizer's vocabulary. Raises UsageError."""
    own, its = tokenizer.vocabulary, getattr(seen, "vocabulary", None)
    if hasattr(seen, "vocabulary") and (own is not its) and (own is None or its is None or own.hash != its.hash):
        raise UsageError(f"these words are not of the tokenizer {tokenizer.name!r}; encode the picture with it")
