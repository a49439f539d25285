"""Argument checks of every LLM, told before anything is asked; sync twins; copies; closing."""

from __future__ import annotations

import asyncio
import copy

import pytest

from icl_vision.contracts import Constraint, Prompt, TextLLM
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.llms import FakeLLM, base


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM("yes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number of 1 or more; got 0"),
        ({"max_tokens": True}, "max_tokens must be a whole number of 1 or more; got True"),
        ({"max_tokens": 2.5}, "max_tokens must be a whole number of 1 or more; got 2.5"),
        ({"temperature": -1}, "temperature must be a number of 0 or more; got -1"),
        ({"temperature": float("nan")}, "temperature must be a number of 0 or more; got nan"),
        ({"temperature": "hot"}, "temperature must be a number of 0 or more; got 'hot'"),
        ({"stop": [""]}, "every stop must be a string that is not empty; got ''"),
        ({"stop": ["\n", 3]}, "every stop must be a string that is not empty; got 3"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2,147,483,647; got -1"),
        ({"seed": 2**31}, r"seed must be a whole number from 0 to 2,147,483,647"),
        ({"constraint": "a|b"}, "constraint must be an icl_vision Constraint or None; got str"),
    ],
)
def test_settings_that_cannot_work(llm, settings, message):
    with pytest.raises(UsageError, match=message):
        llm.complete_sync("text", **settings)
    assert llm.calls == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n ", "the prompt is empty"),
        (Prompt("", "", ""), "the prompt is empty"),
        (None, "a prompt must be a string or an icl_vision Prompt; got NoneType"),
        ("a\x00b", "NUL character at position 1"),
        ("a\ud800", r"not valid Unicode at position 1 \(a lone surrogate\)"),
    ],
)
def test_prompts_that_cannot_work(llm, prompt, message):
    with pytest.raises(UsageError, match=message):
        llm.complete_sync(prompt)
    with pytest.raises(UsageError, match=message):
        llm.score_sync([(prompt, " x")])


def test_a_prompt_beyond_the_cap(llm, monkeypatch):
    monkeypatch.setattr(base, "MAX_PROMPT_CHARACTERS", 10)
    with pytest.raises(UsageError, match="the prompt has 11 characters, more than the cap of 10; use fewer examples"):
        llm.complete_sync("x" * 11)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "needs at least one"),
        (["ab", "cd"], r"needs \(prompt, continuation\) pairs; item 0 is 'ab'"),
        ([(Prompt.of("a"), "")], "the continuation of item 0 must be a string that is not empty; got ''"),
        ([(Prompt.of("a"), " b"), (Prompt.of("a"), 3)], "the continuation of item 1 must be a string"),
        ([(Prompt.of("a"), "b\x00")], "the continuation of item 0 holds a NUL character"),
    ],
)
def test_pairs_that_cannot_work(llm, pairs, message):
    with pytest.raises(UsageError, match=message):
        llm.score_sync(pairs)


def test_terminator_and_count_tokens_want_strings(llm):
    with pytest.raises(UsageError, match="terminator must be a string; got None"):
        llm.score_sync([(Prompt.of("a"), " b")], terminator=None)
    with pytest.raises(UsageError, match="count_tokens needs a string; got int"):
        llm.count_tokens_sync(3)


def test_a_constraint_needs_an_llm_that_keeps_it(llm):
    with pytest.raises(CapabilityError, match="'fake' cannot restrict its answers"):
        llm.complete_sync("text", constraint=Constraint(("a",)))


def test_one_stop_string_stands_for_itself():
    assert FakeLLM("one\ntwo").complete_sync("text", stop="\ntwo").text == "one"


async def test_coroutines_and_twins_agree_inside_a_running_loop(llm):
    assert await llm.complete("text") == llm.complete_sync("text")
    pairs = [(Prompt.of("a b"), " c")]
    assert await llm.score(pairs) == llm.score_sync(pairs)
    assert await llm.count_tokens("one two") == llm.count_tokens_sync("one two") == 2


def test_across_loops():
    llm = FakeLLM("yes")
    assert [asyncio.run(llm.complete("text")).text for _ in range(2)] == ["yes", "yes"]


async def test_context_managers():
    async with FakeLLM("yes") as llm:
        assert (await llm.complete("text")).text == "yes"
    with FakeLLM("yes") as llm:
        assert llm.complete_sync("text").text == "yes"


def test_a_copy_of_a_connection_is_the_connection(llm):
    assert copy.copy(llm) is llm
    assert copy.deepcopy({"llm": llm})["llm"] is llm


def test_protocol_and_repr(llm):
    assert isinstance(llm, TextLLM)
    assert repr(llm) == "<FakeLLM 'fake'>"
    assert llm.identity == "fake"
