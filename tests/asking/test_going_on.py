"""A query that one inquiry does not settle: what is put to the LLM next, and what happens where that fails."""

from __future__ import annotations

import pytest

from icl_vision.asking.inquiries import Group, Inquiry, Reply, Writing, ask
from icl_vision.contracts import Prompt
from icl_vision.errors import CapabilityError, LLMNoAnswerError
from icl_vision.llms import FakeLLM
from icl_vision.llms.loop import run_sync


def test_a_query_may_take_several_inquiries() -> None:
    llm = FakeLLM(["one", LLMNoAnswerError("nothing"), "three"], score=lambda prompt, text: -1.0)
    heard: list[object] = []
    following = [Inquiry.written(Prompt("", "", "b"), Writing(4)), Inquiry.written(Prompt("", "", "c"), Writing(4)),
                 Inquiry(((Prompt("", "", "d"), " x"),)), None]  # fmt: skip

    def then(query: int, reply: Reply | Exception) -> Inquiry | None:
        heard.append(reply.text if isinstance(reply, Reply) else type(reply))
        return following[len(heard) - 1]

    async def read(group: int, query: int, reply: Reply | Exception) -> object:
        return reply

    group = Group(lambda query: Inquiry.written(Prompt("", "", "a"), Writing(4)), 1, then=then)
    ((last,),) = run_sync(ask(llm, [group], concurrency=2, read=read, keep_errors=False))
    assert heard == ["one", LLMNoAnswerError, "three", ""], "who goes on may do without an answer"
    assert isinstance(last, Reply) and last.logprobs == (-1.0,)
    assert [call.prompt.query for call in llm.calls] == ["a", "b", "c", "d"]


def test_what_fails_on_the_way_ends_the_query() -> None:
    async def read(group: int, query: int, reply: Reply | Exception) -> object:
        return reply

    def group() -> Group:
        return Group(
            lambda query: Inquiry.written(Prompt("", "", "a"), Writing(4)),
            1,
            then=lambda query, reply: None if isinstance(reply, Exception) else Inquiry(((Prompt("", "", "d"), " x"),)),
        )

    llm = FakeLLM("one", scores_text=False)
    ((kept,),) = run_sync(ask(llm, [group()], concurrency=2, read=read))
    assert isinstance(kept, CapabilityError)
    with pytest.raises(CapabilityError):
        run_sync(ask(llm, [group()], concurrency=2, read=read, keep_errors=False))
