"""FakeLLM: fixed, queued and computed answers; learning in context by word overlap; what it records."""

from __future__ import annotations

import pytest

from icl_vision.contracts import Constraint, Prompt, Usage
from icl_vision.errors import CapabilityError, LLMResponseError, LLMStatusError, PromptTooLongError, UsageError
from icl_vision.llms import FakeLLM, connect

DIRECT = Prompt(
    "", "###\nInput: fur paw tail\nOutput: dog\n###\nInput: sail sea hull\nOutput: boat", "###\nInput: {}\nOutput:"
)
CHANNEL = Prompt("", "dog: fur paw tail\nboat: sail sea hull", "")


def direct(words: str) -> Prompt:
    return Prompt("", DIRECT.context, f"###\nInput: {words}\nOutput:")


def test_fixed_queued_and_computed_answers():
    assert [FakeLLM("a").complete_sync("p").text for _ in range(2)] == ["a", "a"]
    llm = FakeLLM(["a", LLMStatusError("busy", 429), "b"])
    assert llm.complete_sync("p").text == "a"
    with pytest.raises(LLMStatusError, match="busy"):
        llm.complete_sync("p")
    assert llm.complete_sync("p").text == "b"
    with pytest.raises(LLMResponseError, match="no answers left; it was given 3"):
        llm.complete_sync("p")
    assert FakeLLM(lambda text: text.upper()).complete_sync("p q").text == "P Q"


def test_stop_and_length():
    llm = FakeLLM(" one two three\nfour")
    cut = llm.complete_sync("p", stop=["\n", " three"])
    assert (cut.text, cut.finish_reason) == (" one two", "stop")
    short = llm.complete_sync("p q", max_tokens=1)
    assert (short.text, short.finish_reason, short.usage) == (" one", "length", Usage(1, 2, 0, 1))


def test_default_answers_learn_from_the_examples():
    llm = connect("fake")
    assert llm.complete_sync(direct("paw grass tail")).text == " dog"
    assert llm.complete_sync(direct("sea sky hull")).text == " boat"
    assert llm.complete_sync("no examples").text == ""


def test_default_scores_learn_in_both_directions():
    llm = FakeLLM()
    dog, boat = llm.score_sync([(direct("paw grass"), " dog"), (direct("paw grass"), " boat")]).logprobs
    assert dog > boat
    pairs = [(Prompt("", CHANNEL.context, f"{label}:"), " sea sky") for label in ("dog", "boat")]
    dog, boat = llm.score_sync(pairs).logprobs
    assert boat > dog
    assert max(dog, boat) <= 0


def test_constraint_is_kept_where_claimed():
    llm = FakeLLM(constraint="choice")
    assert llm.complete_sync(direct("sea"), constraint=Constraint(("dog", "boat"))).text == " boat"
    assert llm.complete_sync(direct("sea"), constraint=Constraint(("dog", "boat"), 2)).text == " boat boat"


def test_scores_by_a_function_and_without():
    llm = FakeLLM(score=lambda prompt, text: -float(len(text)))
    assert llm.score_sync([(Prompt.of("p"), " ab"), (Prompt.of("p"), " a")]).logprobs == (-3.0, -2.0)
    with pytest.raises(CapabilityError, match="'mute' gives no log-probabilities"):
        FakeLLM(scores_text=False, name="mute").score_sync([(Prompt.of("p"), " a")])


def test_window():
    with pytest.raises(PromptTooLongError, match="the prompt has 5 tokens but the LLM's window holds 4"):
        FakeLLM("a", context_window=4).complete_sync("one two three four five")
    with pytest.raises(UsageError, match="context_window must be a whole number of 1 or more tokens, or None .*got 0"):
        FakeLLM(context_window=0)


def test_calls_are_recorded():
    llm = FakeLLM("a")
    llm.complete_sync("p", stop="x", seed=3)
    llm.score_sync([(Prompt.of("q"), " b")])
    first, second = llm.calls
    assert (first.kind, first.prompt.query, first.settings["stop"], first.settings["seed"]) == (
        "complete",
        "p",
        ("x",),
        3,
    )
    assert (second.kind, second.settings) == ("score", {"continuation": " b", "terminator": "\n"})
