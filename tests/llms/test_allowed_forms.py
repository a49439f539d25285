"""A constraint's strings are shown in one form and come back as they were given."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from icl_vision.contracts import Completion, Constraint
from icl_vision.llms.answers import composed_constraint, respelled
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.remote.structured import answer_from_json
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache

COMPOSED = ("caf\u00e9", "\u00e5l", "cr\u00e8me br\u00fbl\u00e9e")


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


SEPARATE = tuple(map(nfd, COMPOSED))


@pytest.mark.parametrize("allowed", [COMPOSED, SEPARATE])
@pytest.mark.parametrize("answer", [*COMPOSED, *SEPARATE])
def test_the_answer_is_spelled_as_it_was_allowed(allowed: tuple[str, ...], answer: str) -> None:
    llm = FakeLLM(f" {answer}\n", constraint="grammar")
    text = llm.complete_sync("which?", constraint=Constraint(allowed), max_tokens=99).text
    assert text.strip() in allowed and nfd(text.strip()) == nfd(answer) and text[0] == " "
    assert llm.calls[0].settings["constraint"] == Constraint(COMPOSED)


def test_several_strings_in_a_row_even_with_spaces_in_them() -> None:
    text = " " + " ".join([COMPOSED[2], SEPARATE[0], COMPOSED[1]])
    for allowed in (COMPOSED, SEPARATE):
        found = respelled(Completion(text, "stop"), Constraint(allowed, 3))
        assert found.text == " " + " ".join([allowed[2], allowed[0], allowed[1]])
    cut_short = respelled(Completion(f" {COMPOSED[0]} {COMPOSED[1]}", "length"), Constraint(SEPARATE, 3))
    assert cut_short.text == f" {SEPARATE[0]} {SEPARATE[1]}"


def test_each_place_has_its_own_spelling() -> None:
    constraint = Constraint.at_places([(SEPARATE[0], "x"), (COMPOSED[0], COMPOSED[1])])
    found = respelled(Completion(" ".join([COMPOSED[0]] * 2), "stop"), constraint)
    assert found.text == f"{SEPARATE[0]} {COMPOSED[0]}"


@pytest.mark.parametrize("text", ["", " ", "something \u00e9lse", "caf\u00e9 nothing", "plain"])
def test_what_is_not_allowed_stays_as_it_is(text: str) -> None:
    answer = Completion(text, "stop")
    assert respelled(answer, Constraint(SEPARATE, 2)) is answer


def test_two_spellings_of_one_string_are_one() -> None:
    both = Constraint((SEPARATE[0], COMPOSED[0], "x"))
    assert composed_constraint(both) == Constraint((COMPOSED[0], "x"))
    assert respelled(Completion(COMPOSED[0], "stop"), both).text == SEPARATE[0]


def test_plain_constraints_are_left_alone() -> None:
    plain = Constraint.at_places([("a",), ("b", "c")])
    assert composed_constraint(plain) is plain


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("allowed", [COMPOSED, SEPARATE])
def test_structured_answers_match_in_either_form(allowed: tuple[str, ...], arrays: bool) -> None:
    for said in (COMPOSED, SEPARATE):
        assert answer_from_json(json.dumps({"answer": said[0]}), Constraint(allowed), arrays=arrays) == allowed[0]
        many: Any = {"answer": said[:2]} if arrays else {"w1": said[0], "w2": said[1]}
        assert answer_from_json(json.dumps(many), Constraint(allowed, 2), arrays=arrays) == " ".join(allowed[:2])


def test_an_answer_is_kept_once_for_both_spellings(tmp_path: Path) -> None:
    inner = FakeLLM(["caf\u00e9"], constraint="grammar")
    llm = CachedLLM(inner, ResponseCache(tmp_path / "r.sqlite"))

    async def ask(allowed: tuple[str, ...]) -> str:
        return (await llm.complete("which?", constraint=Constraint(allowed))).text

    assert [asyncio.run(ask(allowed)) for allowed in (SEPARATE, COMPOSED)] == [SEPARATE[0], COMPOSED[0]]
    assert len(inner.calls) == 1
    llm.cache.close()


def test_a_prompt_of_ones_own_is_sent_as_it_was_typed() -> None:
    llm = FakeLLM("x")
    llm.complete_sync(nfd("caf\u00e9?"))
    assert llm.calls[0].prompt.text == nfd("caf\u00e9?")
