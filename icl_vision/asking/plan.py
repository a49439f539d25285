"""What asking would send and cost, without asking anything: the plan of any task, and how inquiries are counted.

Knows: requests, tokens, which of them a provider's cache would serve. Refuses to know: prices (the user's table says),
replies, what a query is.

Requests are those that a run makes, call by call, but of texts that llama.cpp scores token by token their number is an
estimate where words are not one token each (labels, line ends). Counted: what the embedded LLM learns of the examples
before, and the two short requests by which an echo is checked. Not counted: what a provider adds around messages and
schemas, requests tried again, and what the response cache already holds.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from icl_vision.asking.inquiries import Group, Inquiry
from icl_vision.contracts import Prompt, Usage
from icl_vision.errors import BudgetExceededError
from icl_vision.llms.cost import Budget, Cost, PriceTable
from icl_vision.llms.forced_requests import SIBLINGS
from icl_vision.llms.tokens import how_counted
from icl_vision.llms.word_tables import learns, table_of
from icl_vision.llms.wrappers.dry import DryLLM

LOCAL_PROMPT_SPEED = 120.0
LOCAL_ANSWER_SPEED = 20.0
"""Tokens a second of the embedded LLM on two cores: prompts 90 to 220 and answers 5 to 36 were measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a task would send, and what it would cost.

    model: who would be asked. queries: to be asked about; inquiries: to be answered about them, several a query where
    an answer is had part by part. usage: requests and tokens; ``cached_tokens`` is the estimate of what a provider
    reads from its cache. exact, counted_by: whether the model's own tokenizer counted. cost: of that usage;
    cost_uncached: without those cache reads, None where that is not told. at_most: whether the tokens written, and so
    the cost, are bounds (every answer taken to be as long as it may be) or what is expected. learning: those of the
    requests by which the embedded LLM learns what the examples' prompts say of words: it keeps that, and the next plan
    has none of them. longest_prompt: its tokens, None where that is not told. unusable: results, with their errors, of
    queries that cannot be asked about. passes: what the inquiries are, where a task has several a query.

    facts: what else the task tells, plain JSON, for ``to_dict``. lines: the same for ``print``, above the common lines,
    and notes below them; remarks: what stands in brackets, by the name of a line. subject, advice: of the refusal by
    ``check``, what needs so much and what would make it less.
    """

    model: str
    queries: int
    usage: Usage
    exact: bool
    counted_by: str
    cost: Cost
    inquiries: int = 0
    cost_uncached: Cost | None = None
    at_most: bool = False
    learning: int = 0
    longest_prompt: int | None = None
    unusable: tuple[Any, ...] = ()
    passes: tuple[Any, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    subject: str = "this"
    advice: str = "use fewer queries or examples"

    @classmethod
    def together(cls, parts: Sequence[Plan]) -> Plan:
        """The plan of several parts of one task, asked of one LLM; what it tells beside the numbers is the first's."""
        first = parts[0]
        return replace(
            first,
            queries=sum(part.queries for part in parts),
            inquiries=sum(part.inquiries for part in parts),
            usage=sum((part.usage for part in parts), Usage()),
            exact=all(part.exact for part in parts),
            cost=functools.reduce(operator.add, (part.cost for part in parts)),
            learning=sum(part.learning for part in parts),
            longest_prompt=max(
                (part.longest_prompt for part in parts if part.longest_prompt is not None), default=None
            ),
            unusable=tuple(result for part in parts for result in part.unusable),
            passes=tuple(pass_ for part in parts for pass_ in part.passes),
        )

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens, cached ones included."""
        return self.usage.prompt_tokens + self.usage.completion_tokens

    def seconds(
        self, prompt_speed: float = LOCAL_PROMPT_SPEED, answer_speed: float = LOCAL_ANSWER_SPEED, latency: float = 0.0
    ) -> float:
        """Time one after the other: tokens not in the cache, tokens written, latency of each request.

        prompt_speed, answer_speed: tokens a second; the defaults are the embedded LLM's on two cores. latency: seconds.
        """
        fresh = self.usage.prompt_tokens - self.usage.cached_tokens
        return fresh / prompt_speed + self.usage.completion_tokens / answer_speed + latency * self.usage.requests

    def check(self, budget: Budget, spent: Usage | None = None, paid: Cost | None = None) -> None:
        """Refuse a plan that cannot keep to a budget even if nothing has to be asked again.

        Args:
            spent, paid: what was used before, in an earlier part of the same run.

        Raises:
            BudgetExceededError: naming the limit.
        """
        usage = self.usage + (spent or Usage())
        tokens = usage.prompt_tokens + usage.completion_tokens
        for what, needed, limit in (("requests", usage.requests, budget.requests), ("tokens", tokens, budget.tokens)):
            if limit is not None and needed > limit:
                raise BudgetExceededError(
                    f"{self.subject} needs about {needed:,} {what}, the budget is {limit:,}: {self.advice}"
                )
        if budget.cost is not None:
            cost = self.cost + (paid or Cost(0.0))
            if cost.amount is None or cost.amount > budget.cost:
                raise BudgetExceededError(f"{self.subject} costs about {cost}, the budget is {budget.cost}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; an unknown cost is null beside its reason."""
        kind = "at_most" if self.at_most else "estimate"
        document = {
            "model": self.model,
            **self.facts,
            "requests": self.usage.requests,
            "requests_of_learning": self.learning,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens_estimate": self.usage.cached_tokens,
            "cache_write_tokens_estimate": self.usage.cache_write_tokens,
            f"completion_tokens_{kind}": self.usage.completion_tokens,
            "longest_prompt": self.longest_prompt,
            "tokens_exact": self.exact,
            "tokens_counted_by": self.counted_by,
            f"cost_{kind}": self.cost.to_dict(),
        }
        if self.cost_uncached is not None:
            document[f"cost_{kind}_without_cache"] = self.cost_uncached.to_dict()
        if self.longest_prompt is None:
            del document["longest_prompt"]
        return document

    def __str__(self) -> str:
        usage = self.usage
        bound = "at most " if self.at_most else ""
        lines = [
            ("model", self.model),
            *self.lines,
            ("requests", f"{usage.requests:,}"),
            ("prompt tokens", f"{usage.prompt_tokens:,} ({how_counted(self.exact, self.counted_by)})"),
            ("  of them cached", f"{usage.cached_tokens:,}"),
        ]
        if usage.cache_write_tokens:
            lines.append(("  written to it", f"{usage.cache_write_tokens:,}"))
        if self.longest_prompt is not None:
            lines.append(("longest prompt", f"{self.longest_prompt:,} tokens"))
        lines.append(("completion tokens", f"{bound}{usage.completion_tokens:,}"))
        lines.append(("cost", self._money(self.cost)))
        if self.cost_uncached is not None and self.cost_uncached.amount is not None:
            lines.append(("  without its cache", self._money(self.cost_uncached)))
        told = [(name, f"{text} ({self.remarks[name]})" if name in self.remarks else text) for name, text in lines]
        return "\n".join([*(f"{name:<20}{text}" for name, text in told), *self.notes])

    def _money(self, cost: Cost) -> str:
        if cost.amount is None:
            return str(cost)
        return f"at most {cost}" if self.at_most else f"about {cost}"


def plan_of(
    dry: DryLLM,
    groups: Sequence[Group],
    *,
    concurrency: int,
    prices: PriceTable | None = None,
    learnt: Iterable[Prompt] = (),
    learning: Iterable[Prompt] = (),
    words: Sequence[str] = (),
) -> Plan:
    """What asking about these groups would send and cost at most, every answer taken to be as long as it may be.

    A task adds what else it has to tell with ``dataclasses.replace``: facts, lines, queries that cannot be asked about
    (see ``inquiries.fitting``).

    Args:
        concurrency: calls at the same time.
        prices: of models, by name; None knows none.
        learnt, learning, words: see ``count``.
    """
    usage, learning_requests = count(
        dry, groups, concurrency=concurrency, learnt=learnt, learning=learning, words=words
    )
    queries = sum(group.queries for group in groups)
    table, name = prices or PriceTable(), dry.profile.name
    remarks = {"  of them cached": "estimate: what an earlier prompt began with"}
    if learning_requests:
        remarks["requests"] = f"{learning_requests:,} of them to learn the examples, once: they are kept"
    return Plan(
        model=name,
        queries=queries,
        inquiries=queries,
        usage=usage,
        exact=dry.exact,
        counted_by=dry.how,
        cost=table.cost(name, usage),
        cost_uncached=table.cost(name, replace(usage, cached_tokens=0, cache_write_tokens=0)),
        at_most=True,
        learning=learning_requests,
        lines=(("queries", f"{queries:,}"),),
        remarks=remarks,
    )


def count(
    dry: DryLLM,
    groups: Sequence[Group],
    *,
    concurrency: int,
    learnt: Iterable[Prompt] = (),
    learning: Iterable[Prompt] = (),
    words: Sequence[str] = (),
) -> tuple[Usage, int]:
    """What asking about these groups would use, call by call, and how many of the requests learn what is kept.

    Prompts with the same fixed part share it in a provider's cache.

    Args:
        learnt: prompts that the LLM has learnt by now; they are counted too.
        learning: prompts that it would learn before anything is asked.
        words: that it learns of each of them.
    """
    profile = dry.profile
    kept = profile.prompt_cache is not None or profile.prefix_cache
    sent: Counter[str] = Counter()  # requests by the fixed part of their prompts
    first: dict[str, Prompt] = {}
    tables = _Tables(dry, words)
    usage = sum(map(tables.learn, learnt), Usage()) + sum(map(tables.learn, learning), Usage())
    learning_requests = usage.requests
    for call, alone in _rounds([group for group in groups if group.queries], concurrency):
        writing = call[0].writing
        if writing is not None:
            prompt = call[0].pairs[0][0]
            written = dry.most_tokens(writing.max_tokens, writing.constraint)
            parts: list[tuple[Prompt | None, Usage]] = [
                (prompt, Usage(1, dry.count_prompt(prompt), 0, written)) for _ in call
            ]
        else:
            terminator = call[0].terminator
            pairs = tables.unknown([pair for inquiry in call for pair in inquiry.pairs], terminator)
            parts = dry.call(pairs, terminator, alone=alone) if pairs else []
        for part, spent in parts:
            usage += spent if kept else replace(spent, cached_tokens=0)
            if part is not None and part.prefix:
                sent[part.prefix] += 1 if profile.scores_bags else spent.requests
                first.setdefault(part.prefix, part)
    for prefix, requests in sent.items():
        fixed = dry.count(prefix)
        if kept and requests > 1 and fixed >= profile.prompt_cache_minimum:
            written = fixed if dry.marks_prefix(first[prefix]) else 0
            usage += Usage(cached_tokens=fixed * (requests - 1), cache_write_tokens=written)
    return usage, learning_requests


def _rounds(groups: Sequence[Group], concurrency: int) -> list[tuple[list[Inquiry], bool]]:
    """The calls in the order in which they are made, and whether each is made while no other is.

    Groups are asked side by side, as many as there are requests at a time.
    """
    chains = [_chain(group) for group in groups]
    return [
        (call, alone and len(chains) == 1)
        for start in range(0, len(chains), concurrency)
        for turn in zip_longest(*chains[start : start + concurrency])
        for call, alone in filter(None, turn)
    ]


def _chain(group: Group) -> list[tuple[list[Inquiry], bool]]:
    """The calls about one group in their order, and whether each is made while no other of the group is."""
    calls = [[group.inquiry(query) for query in call] for call in group.calls]
    leads = group.leads or bool(group.before)
    if group.before:
        calls = [[*group.before], *calls]
    return [(call, len(calls) == 1 or (leads and not number)) for number, call in enumerate(calls)]


class _Tables:
    """What an LLM that learns words knows of each prompt, now and after what it is to learn."""

    def __init__(self, llm: DryLLM, words: Sequence[str]) -> None:
        self._llm = llm
        self._words = frozenset(words)
        self._kept: dict[str, Container[str]] = {}
        self._learnt: set[str] = set()

    def learn(self, prompt: Prompt) -> Usage:
        """Have a prompt's words learnt, unless they are; what that would use."""
        known = self._of(prompt)
        if prompt.text in self._learnt or sum(word not in known for word in self._words) < SIBLINGS:
            return Usage()
        self._learnt.add(prompt.text)
        return self._llm.learnt(prompt)

    def unknown(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> list[tuple[Prompt, str]]:
        """The pairs of one call that are to be asked."""
        if terminator or not learns(self._llm):
            return list(pairs)
        return [(prompt, text) for prompt, text in pairs if not self._knows(prompt, text[1:])]

    def _knows(self, prompt: Prompt, word: str) -> bool:
        return (prompt.text in self._learnt and word in self._words) or word in self._of(prompt)

    def _of(self, prompt: Prompt) -> Container[str]:
        if prompt.text not in self._kept:
            self._kept[prompt.text] = table_of(self._llm, prompt) or ()
        return self._kept[prompt.text]
