"""What is asked through a cache, a fallback and a meter is checked once, and goes straight to the LLM that answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from icl_vision import connect
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import LLMUnavailableError, UsageError
from icl_vision.llms import Budget, FakeLLM, base, record
from icl_vision.llms.wrappers.fallback import FallbackLLM

PROMPT = Prompt("Name the animal.", "wet nose: dog", "whiskers:")
PAIRS = [(PROMPT, " dog"), (PROMPT, " cat"), (Prompt("", "", "milk:"), " cow")]


@pytest.fixture
def checks(monkeypatch) -> Counter[str]:
    """How often each check was made, and how often a prompt was encoded for it."""
    made: Counter[str] = Counter()

    def counting(name: str) -> None:
        check = getattr(base, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            made["a prompt's text" if name == "_check_text" and arguments[0] == "the prompt" else name] += 1
            return check(*arguments, **options)

        monkeypatch.setattr(base, name, counted)

    for name in ("check_prompt", "check_settings", "_check_pairs", "_check_text", "composed_constraint"):
        counting(name)
    return made


@pytest.fixture
def llm(tmp_path) -> TextLLM:
    first = FakeLLM([LLMUnavailableError("away")] * 9, score=_never, name="first", constraint="choice")
    second = FakeLLM("cat", name="second", constraint="choice", scores_bags=False)
    wrapped = connect(first, fallback=[second], budget=Budget(requests=99), cache=tmp_path / "answers.sqlite")
    return record(wrapped, tmp_path / "recording.jsonl")


def _never(prompt: Prompt, continuation: str) -> float:
    raise LLMUnavailableError("away")


def test_a_completion_is_checked_once(llm, checks):
    assert llm.complete_sync(PROMPT, stop="\n", constraint=Constraint(("cat", "dog"))).text == "cat"
    # Record, cache, fallback, two meters, two LLMs: seven on the way, and one check.
    assert checks == {
        "check_prompt": 1, "a prompt's text": 1, "check_settings": 1, "_check_text": 1, "composed_constraint": 1
    }  # fmt: skip


def test_scores_are_checked_once_and_a_prompt_once_for_all_its_continuations(llm, checks):
    assert len(llm.score_sync(PAIRS).logprobs) == 3
    assert checks == {"_check_pairs": 1, "check_prompt": 2, "a prompt's text": 2, "_check_text": 3}


def test_words_to_learn_and_to_share_are_checked_once(tmp_path, checks):
    class Learning(FakeLLM):
        learns_words = tells_shares = True

        async def _learn_words(self, prompts, words, done):
            return Usage(len(prompts))

        async def _share_words(self, prompt, words):
            return Scores((-1.0,) * len(words))

    metered = connect(Learning(), budget=Budget(requests=99))
    assert base.run_sync(metered.learn_words([PROMPT], ["cat"])).requests == 1
    assert base.run_sync(metered.share_words(PROMPT, ["cat", "dog"])).logprobs == (-1.0, -1.0)
    assert checks["check_prompt"] == checks["a prompt's text"] == 2


class Own:
    """An LLM of the user's own, without this library's base class: its methods are its only way in."""

    profile = Profile("own", scores_text=True)

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def complete(self, prompt, *, max_tokens=16, stop=(), temperature=0.0, seed=None, constraint=None):
        self.asked.append("complete")
        return Completion("mine", "stop")

    async def score(self, pairs, *, terminator="\n"):
        self.asked.append("score")
        return Scores((-1.0,) * len(pairs))

    async def count_tokens(self, text):
        return len(text)

    def complete_sync(self, prompt, **settings): ...

    def score_sync(self, pairs, **settings): ...

    def count_tokens_sync(self, text): ...


class Renamed(FakeLLM):
    """A subclass that changes a public method: what it changed counts, under wrappers too."""

    async def complete(self, prompt, **settings):
        answer = await super().complete(prompt, **settings)
        return Completion(answer.text.upper(), "stop")

    async def score(self, pairs, *, terminator="\n"):
        return Scores((-7.0,) * len(pairs))


def test_public_methods_of_the_users_own_are_asked(tmp_path):
    own = Own()
    cached = connect(own, cache=tmp_path / "a.sqlite")
    assert cached.complete_sync("a").text == "mine"
    assert cached.score_sync(PAIRS).logprobs == (-1.0, -1.0, -1.0)
    assert own.asked == ["complete", "score"]
    renamed = connect(Renamed("cat"), cache=tmp_path / "b.sqlite", budget=Budget(requests=9))
    assert renamed.complete_sync("a").text == "CAT"
    assert renamed.score_sync(PAIRS).logprobs == (-7.0, -7.0, -7.0)


def test_an_instance_that_was_changed_is_asked_as_it_is_now():
    fake = FakeLLM("cat", name="a")

    async def complete(prompt, **settings):
        return Completion("changed", "stop")

    fake.complete = complete
    assert FallbackLLM([fake, FakeLLM(name="b")]).complete_sync("a").text == "changed"


def test_a_user_is_told_by_the_outermost(tmp_path):
    fake = FakeLLM("cat")
    with pytest.raises(UsageError, match="the prompt is empty"):
        connect(fake, cache=tmp_path / "a.sqlite", budget=Budget(requests=9)).complete_sync("")
    assert not fake.calls
