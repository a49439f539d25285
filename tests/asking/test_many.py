"""A task that is none of ours, with free texts for answers, asked about many items: kept, resumed, planned, stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from icl_vision.asking.inquiries import Group, Inquiry, Reply, Window, Writing, ask, fitting
from icl_vision.asking.many import OnResult, Work
from icl_vision.asking.plan import plan_of
from icl_vision.contracts import Completion, Profile, Prompt, TextLLM, Usage
from icl_vision.errors import BudgetExceededError, LLMStatusError, LLMUnavailableError, PromptTooLongError
from icl_vision.files.runs import Run, read_results
from icl_vision.llms import Budget, Meter, MeteredLLM, Price, PriceTable
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.loop import run_sync
from icl_vision.llms.wrappers.dry import DryLLM


class Describing(BaseLLM):
    """Writes a sentence about the query's words; ``fails``: by query, an error."""

    def __init__(self, fails: dict[str, Exception] | None = None) -> None:
        self.fails, self.asked = fails or {}, list[str]()

    @property
    def profile(self) -> Profile:
        return Profile("describing", context_window=40, prefix_cache=True)

    async def _count_tokens(self, text: str) -> int:
        return len(text.split())

    async def _complete(self, prompt: Prompt, **settings: Any) -> Completion:
        self.asked.append(prompt.query)
        if prompt.query in self.fails:
            raise self.fails[prompt.query]
        return Completion(f"It has {prompt.query}.", "stop", Usage(1, 10, 0, 5))


@dataclass(frozen=True)
class Answer:
    """A free text."""

    text: str
    usage: Usage = field(default_factory=Usage)
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "usage": self.usage.to_dict(), "error": str(self.error)}


@dataclass
class Questions:
    """A task: questions about several pictures each, a person's words and the pictures' in one prompt."""

    llm: TextLLM

    def group(self, lot: Sequence[tuple[str, str]]) -> Group:
        prompts = [Prompt("Answer.", "cat -> It has cat.", f"{first} and {second}") for first, second in lot]
        return Group(lambda query: Inquiry.written(prompts[query], Writing(max_tokens=8)), len(lot))

    async def check(self, inquiry: Inquiry) -> None:
        excess = await Window(self.llm).excess(inquiry.texts, room=8)
        if excess is not None:
            raise PromptTooLongError(excess.tokens, excess.window, "ask about fewer pictures")

    async def ask(self, lot: Sequence[tuple[str, str]], on_result: OnResult) -> list[Answer]:
        async def read(group: int, query: int, reply: Reply | Exception) -> Answer:
            answer = Answer("", error=reply) if isinstance(reply, Exception) else Answer(reply.text, reply.usage)
            await on_result(query, answer)
            return answer

        return (await ask(self.llm, [self.group(lot)], concurrency=2, read=read, check=self.check))[0]


ITEMS = {f"item {number}": (word, "sky") for number, word in enumerate(("dog", "cat", "bus", "long " * 100, "sea"))}


def work(llm: TextLLM, run: Run, at_once: int = 1) -> Work[tuple[str, str], list[tuple[str, str]]]:
    made: Work[tuple[str, str], list[tuple[str, str]]] = Work(
        run, lambda name, source: (name, source), lambda sources: sources, Questions(llm).ask, known=dict(run.results())
    )
    made.all(list(ITEMS.items()), at_once)
    return made


def test_answers_are_kept_and_what_failed_is_asked_again(tmp_path: Path) -> None:
    llm = Describing({"cat and sky": LLMUnavailableError("down")})
    with Run.open(tmp_path, "ask", {}) as run:
        first = work(llm, run)
    assert (first.answered, first.kept, first.items) == (3, 0, list(ITEMS))
    assert first.errors["item 1"] == "LLMUnavailableError: down" and first.errors["item 3"].startswith("PromptTooLong")
    assert first.usage == Usage(3, 30, 0, 15)
    assert {item: result["text"] for item, result in read_results(tmp_path)} == {
        "item 0": "It has dog and sky.", "item 2": "It has bus and sky.", "item 4": "It has sea and sky.",
    }  # fmt: skip
    again = Describing()
    with Run.open(tmp_path, "ask", {}, resume=True) as run:
        second = work(again, run)
    assert (second.answered, second.kept) == (1, 3) and again.asked == ["cat and sky"]
    assert second.usage == Usage(4, 40, 0, 20)


def test_a_budget_and_a_wrong_key_end_it(tmp_path: Path) -> None:
    with Run.open(tmp_path / "a", "ask", {}) as run, pytest.raises(BudgetExceededError):
        work(MeteredLLM(Describing(), Meter(None, Budget(requests=2))), run)
    assert len(list(read_results(tmp_path / "a"))) == 2
    llm = Describing({"dog and sky": LLMStatusError("no such key", 401)})
    with Run.open(tmp_path / "b", "ask", {}) as run, pytest.raises(LLMStatusError, match="no such key"):
        work(llm, run)
    assert llm.asked == ["dog and sky"]


def test_its_plan_counts_what_is_asked_and_names_what_cannot_be() -> None:
    meter = Meter()
    llm = MeteredLLM(Describing(), meter)
    dry = DryLLM(llm)
    task = Questions(dry)
    groups, refused = run_sync(fitting([task.group(list(ITEMS.values()))], task.check))
    plan = plan_of(dry, groups, concurrency=2, prices=PriceTable({"describing": Price(1, 2, cache_read=0.5)}))
    assert (plan.queries, plan.usage.requests, len(refused)) == (4, 4, 1) and isinstance(refused[0], PromptTooLongError)
    assert plan.usage.cached_tokens > 0 and plan.cost.amount is not None and plan.cost_uncached is not None
    assert plan.cost.amount < (plan.cost_uncached.amount or 0)
    assert plan.usage.completion_tokens == 4 * dry.most_tokens(8, None)
    assert "queries             4" in str(plan) and plan.to_dict()["completion_tokens_at_most"] > 0
    with pytest.raises(BudgetExceededError, match="needs about 4 requests, the budget is 3"):
        plan.check(Budget(requests=3))
    plan.check(Budget(requests=4))

    async def nothing(number: int, result: Any) -> None: ...

    run_sync(Questions(llm).ask([pair for pair in ITEMS.values() if len(pair[0]) < 9], nothing))
    assert meter.total()[0].requests == plan.usage.requests
