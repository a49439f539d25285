"""One prompt prefix, many queries: results in order, an error costs its query only, whatever kind of answer it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from icl_vision.asking.inquiries import Group, Inquiry, Reply, Writing, ask
from icl_vision.asking.plan import count
from icl_vision.contracts import Completion, Profile, Prompt, Scores, Usage
from icl_vision.errors import LLMUnavailableError, PromptTooLongError
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.wrappers.dry import DryLLM

NAMES = ("ada", "bob", "cyd", "dan", "eve")


def captions() -> Group:
    """A caption for each name: free text."""

    def inquiry(query: int) -> Inquiry:
        return Inquiry.written(Prompt("Say hello.", "hello", NAMES[query]), Writing(max_tokens=9))

    return Group(inquiry, len(NAMES))


async def as_text(group: int, query: int, reply: Reply | Exception) -> str:
    return f"{query}: {reply if isinstance(reply, Exception) else reply.text}"


class Named(BaseLLM):
    """Answers with the query, except where it is to fail."""

    def __init__(self, fails: str = "", **facts: Any) -> None:
        self.fails, self.calls = fails, []
        self.facts = facts

    @property
    def profile(self) -> Profile:
        return Profile("named", **self.facts)

    async def _complete(self, prompt: Prompt, **settings: Any) -> Completion:
        self.calls.append([prompt.query])
        if prompt.query == self.fails:
            raise LLMUnavailableError("down")
        return Completion(prompt.query.upper(), "stop", Usage(1))

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        self.calls.append([prompt.query for prompt, _ in pairs])
        if any(prompt.query == self.fails for prompt, _ in pairs):
            raise LLMUnavailableError("down")
        return Scores(tuple(-float(len(text)) for _, text in pairs), Usage(len(pairs)))


async def test_free_texts_come_back_in_order_and_one_that_fails_costs_no_other() -> None:
    finished: list[int] = []
    results = await ask(Named("cyd"), [captions()], concurrency=3, read=as_text, done=finished.append)
    assert results == [["0: ADA", "1: BOB", "2: down", "3: DAN", "4: EVE"]] and sum(finished) == 5
    with pytest.raises(LLMUnavailableError, match="down"):
        await ask(Named("cyd"), [captions()], concurrency=3, read=as_text, keep_errors=False)


@pytest.mark.parametrize(("can", "told"), [(True, -0.5), (False, None)])
async def test_how_likely_a_free_text_is_is_asked_where_the_llm_can_say(can: bool, told: float | None) -> None:
    class Sure(Named):
        async def _complete(self, prompt: Prompt, *, logprobs: bool = False, **settings: Any) -> Completion:
            return Completion("yes", "stop", logprob=-0.5 if logprobs else None)

    async def read(group: int, query: int, reply: Reply | Exception) -> Reply | Exception:
        return reply

    prompt = Prompt("", "", "likely?")
    group = Group(lambda query: Inquiry.written(prompt, Writing(max_tokens=3, logprobs=True)), 1)
    ((reply,),) = await ask(Sure(logprobs=can), [group], concurrency=1, read=read)
    assert isinstance(reply, Reply) and (reply.logprob, reply.finish_reason) == (told, "stop")


async def test_what_cannot_be_sent_is_refused_query_by_query() -> None:
    async def check(inquiry: Inquiry) -> None:
        if "bob" in inquiry.texts[0]:
            raise PromptTooLongError(9, 8, "say less")

    llm = Named(scores_text=True)
    group = Group(lambda query: Inquiry(((Prompt("", "", NAMES[query]), " x"),)), 5, size=3, leads=False)
    lengths = []

    async def read(number: int, query: int, reply: Reply | Exception) -> str:
        lengths.append(query)
        return type(reply).__name__

    results = await ask(llm, [group], concurrency=1, read=read, check=check)
    assert results == [["Reply", "PromptTooLongError", "Reply", "Reply", "Reply"]] and sorted(lengths) == [*range(5)]
    assert ["dan", "eve"] in llm.calls and ["bob"] not in llm.calls


async def test_what_reading_raises_ends_everything() -> None:
    llm = Named()

    async def read(number: int, query: int, reply: Reply | Exception) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await ask(llm, [captions()], concurrency=1, read=read)
    assert llm.calls == [["ada"]]


async def test_what_has_to_be_known_first_is_asked_first_and_its_failure_is_everybodys() -> None:
    told: list[Any] = []

    def group(before: str) -> Group:
        return Group(
            lambda query: Inquiry(((Prompt("", "", NAMES[query]), " x"),)),
            3,
            2,
            leads=False,
            before=[Inquiry(((Prompt("", "", before), " yes"),))],
            begun=told.extend,
        )

    llm = Named("nobody", scores_text=True)
    results = await ask(llm, [group("first"), group("nobody")], concurrency=1, read=as_text)
    assert told == [Reply((-4.0,), usage=Usage(1))]
    assert results == [["0: ", "1: ", "2: "], ["0: down", "1: down", "2: down"]]
    assert llm.calls.index(["first"]) < llm.calls.index(["ada", "bob"]) and ["ada"] not in llm.calls


def test_calls_hold_every_query_once() -> None:
    for queries in range(12):
        for size in (1, 3, 4):
            for leads in (False, True):
                calls = Group(lambda query: Inquiry(()), queries, size, leads).calls
                assert [query for call in calls for query in call] == [*range(queries)]
                assert all(len(call) <= size for call in calls)
                assert not (leads and calls) or len(calls[0]) == 1


def test_free_texts_are_counted_as_they_are_asked() -> None:
    dry = DryLLM(FakeLLM())
    usage, learning = count(dry, [captions()], concurrency=4)
    prompts = [Prompt("Say hello.", "hello", name) for name in NAMES]
    assert (usage.requests, learning) == (5, 0)
    assert usage.prompt_tokens == sum(map(dry.count_prompt, prompts))
    assert usage.completion_tokens == 5 * dry.most_tokens(9, None)
