"""Guidance: what the condition changes in the probabilities, weighed."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from drawn_pictures import SMALL, pairs, picture

from icl_vision.contracts import Prompt
from icl_vision.drawing import Decoding, ProgressiveDecoder, Query, Stage, par
from icl_vision.drawing.word_by_word import Guidance, WordByWordWriter
from icl_vision.errors import CapabilityError, LLMResponseError, UsageError
from icl_vision.llms.fake import FakeLLM

GIVEN, WITHOUT = Prompt("", "", "u ->"), Prompt("", "", "->")
SHARES = {("u ->", " a"): 0.30, ("u ->", " b"): 0.40, ("->", " a"): 0.10, ("->", " b"): 0.60}


def score(prompt: Prompt, continuation: str) -> float:
    return math.log(SHARES.get((prompt.text, continuation), 0.01))


def write(weight: float, places: Any = (("a", "b"),), seed: int = 0, temperature: float = 0.0) -> tuple[str, ...]:
    writer = WordByWordWriter(FakeLLM(score=score))
    return asyncio.run(writer.write(GIVEN, WITHOUT, places, Guidance(weight, temperature), seed))[0]


def test_the_weight_decides_between_the_frequent_and_the_fitting_word() -> None:
    # log(.3/.4) + w * ... turns where (.3/.4) ** w * (.1/.6) ** (1 - w) = 1, at w = 1.19.
    assert [write(weight) for weight in (0.0, 1.0, 1.1, 1.3, 3.0)] == [("b",), ("b",), ("b",), ("a",), ("a",)]


def test_sampling_follows_the_guided_distribution() -> None:
    drawn = [write(2.0, seed=seed, temperature=1.0)[0] for seed in range(400)]
    shares = np.array([0.3 / 0.7, 0.4 / 0.7]) ** 2 / np.array([0.1 / 0.7, 0.6 / 0.7])
    assert drawn.count("a") / 400 == pytest.approx(shares[0] / shares.sum(), abs=0.06)
    assert drawn == [write(2.0, seed=seed, temperature=1.0)[0] for seed in range(400)]


def test_later_words_are_asked_after_earlier_ones_and_nothing_is_asked_twice() -> None:
    llm = FakeLLM(score=score)
    writer = WordByWordWriter(llm)
    places = (("a", "b"), ("c",), ("a", "b"))
    words, usage = asyncio.run(writer.write(GIVEN, WITHOUT, places, Guidance(3.0), 0))
    assert words[:2] == ("a", "c")
    assert {call.prompt.text for call in llm.calls} == {"u ->", "->", "u -> a c", "-> a c"}
    assert usage.requests == 8
    assert asyncio.run(writer.write(GIVEN, WITHOUT, places, Guidance(3.0), 0))[1].requests == 0


def test_a_decoder_with_guidance_draws_allowed_words_only() -> None:
    llm = FakeLLM()
    stages = par(2, allowed="place", decoding=Decoding(guidance=2.0, longest_run=2))
    shown = pairs(4)
    decoder = ProgressiveDecoder(llm, stages)
    (drawing,) = decoder.decode_sync(shown, [Query("an image of 2", known={3: picture(9).words()[3]})])
    assert drawing.complete and drawing.constrained
    words = [pair.target.words() for pair in shown]
    for place, word in enumerate(drawing.pyramid.words()):
        assert word == picture(9).words()[3] if place == 3 else word in {one[place] for one in words}
    assert all(call.kind == "score" for call in llm.calls)
    assert {call.prompt.text.endswith("\nA:") for call in llm.calls} == {True, False}
    assert any("C: an image of 2\nA:" in call.prompt.text for call in llm.calls)


def test_guidance_of_one_asks_as_before_and_a_stage_without_condition_has_none() -> None:
    llm = FakeLLM(constraint="logit_bias")
    ProgressiveDecoder(llm, par(4, decoding=Decoding(guidance=1.0))).decode_sync(pairs(3), [Query("an image of 1")])
    assert {call.kind for call in llm.calls} == {"complete"}
    stage = Stage(stride=4, condition="none", decoding=Decoding(guidance=2.0))
    ProgressiveDecoder(FakeLLM(constraint="logit_bias"), [stage]).decode_sync(pairs(3), [Query()])


def test_the_plan_counts_two_requests_a_distribution() -> None:
    llm = FakeLLM(scores_bags=True)
    queries = [Query("an image of 1"), Query("an image of 2")]
    decoder = ProgressiveDecoder(llm, [Stage(stride=1, given="none", decoding=Decoding(guidance=2.0))])
    assert decoder.plan(pairs(3), queries).usage.requests == 37 * 3 * 2


def test_what_cannot_guide_is_refused() -> None:
    with pytest.raises(UsageError, match="guidance must be a number of 0 or more; got -1"):
        Decoding(guidance=-1)
    with pytest.raises(CapabilityError, match="'fake' does not give"):
        ProgressiveDecoder(FakeLLM(scores_text=False), par(1, decoding=Decoding(guidance=2.0)))


def test_the_prompt_of_a_segment() -> None:
    decoder = ProgressiveDecoder(FakeLLM(), par(1))
    assert decoder.prompt(pairs(2), Query("an image of 1")).query == "C: an image of 1\nA:"
    with pytest.raises(UsageError, match="there are segments 1 to 37; got 0"):
        decoder.prompt(pairs(2), Query("an image of 1"), 0)


# A limit to how often a word is written -------------------------------------------------------------------------------


def limited(most: int, places: int, used: dict[str, int] | None = None) -> tuple[str, ...]:
    """Words of a writer who likes a, b and c in that order, whatever comes before."""
    llm = FakeLLM(score=lambda prompt, continuation: -ord(continuation.strip()) / 10)
    writer = WordByWordWriter(llm)
    chosen = [("a", "b", "c")] * places
    return asyncio.run(writer.write(GIVEN, None, chosen, Guidance(most_uses=most), 0, used=used))[0]


def test_a_word_that_is_used_up_is_left_out() -> None:
    assert limited(1, 3) == ("a", "b", "c")
    assert limited(2, 5) == ("a", "a", "b", "b", "c")
    assert limited(1, 2, {"a": 1}) == ("b", "c")
    # Where all are used up, the least used are better than none.
    assert limited(1, 7) == ("a", "b", "c", "a", "b", "c", "a")
    assert limited(1, 3, {"a": 2, "b": 1, "c": 1}) == ("b", "c", "a")


def test_segments_that_see_each_other_share_the_limit() -> None:
    shown = pairs(6)
    # By their probabilities, or, of an LLM that gives none, by asking again.
    for llm in (FakeLLM(scores_bags=True), FakeLLM(constraint="logit_bias")):
        free, limited = (
            ProgressiveDecoder(llm, par(4, allowed="layer", decoding=Decoding(most_uses=most))).decode_sync(
                shown, [Query("an image of 2")]
            )[0]
            for most in (None, 1)
        )
        for layer in range(1, 5):
            allowed = {word for pair in shown for word in pair.target.words(layer)}
            words = limited.pyramid.words(layer)
            assert len(set(words)) == min(len(words), len(allowed))
        assert len(set(free.pyramid.words(4))) < len(set(limited.pyramid.words(4)))


def test_an_llm_that_chats_is_kept_from_repeating_as_far_as_its_requests_go() -> None:
    shown = pairs(6)
    for most, kinds in ((None, {1}), (1, {2, 3, 4})):
        llm = FakeLLM(constraint="logit_bias", api="chat")
        stages = par(4, allowed="layer", decoding=Decoding(most_uses=most))
        (drawing,) = ProgressiveDecoder(llm, stages).decode_sync(shown, [Query("an image of 2")])
        row = drawing.pyramid.words(2)
        assert len(set(row)) in kinds and len(llm.calls) <= 3 * 10
        assert bool(drawing.changes) is (most == 1)


def test_most_uses_is_checked() -> None:
    with pytest.raises(UsageError, match="most_uses must be a whole number of 1 or more"):
        Decoding(most_uses=0)


# Words that the LLM holds impossible ---------------------------------------------------------------------------------

NO = -math.inf


def impossible(given: dict[str, float], without: dict[str, float], **settings: Any) -> list[str]:
    """The words chosen by several seeds, greedily and sampled, of log-probabilities with the condition and without."""
    logs = {GIVEN.text: given, WITHOUT.text: without}
    llm = FakeLLM(score=lambda prompt, continuation: logs[prompt.text][continuation.strip()])
    return [
        asyncio.run(
            WordByWordWriter(llm).write(
                GIVEN, WITHOUT if without else None, [tuple(given)], Guidance(temperature=temperature, **settings), seed
            )
        )[0][0]
        for seed in range(20)
        for temperature in (0.0, 1.0, 50.0, 1e-320)
    ]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_a_word_that_is_impossible_with_and_without_the_condition_never_wins(weight: float) -> None:
    assert set(impossible({"a": NO, "b": -9.0}, {"a": NO, "b": -1.0}, weight=weight)) == {"b"}
    assert set(impossible({"b": -9.0, "a": NO}, {"b": -1.0, "a": NO}, weight=weight)) == {"b"}


@pytest.mark.parametrize("weight", [0.5, 1.0, 1.5, 4.0])
def test_a_word_that_is_impossible_after_the_condition_never_wins(weight: float) -> None:
    assert set(impossible({"a": NO, "b": -9.0}, {"a": -1.0, "b": NO}, weight=weight)) == {"b"}
    assert set(impossible({"a": NO, "b": -9.0}, {}, weight=weight)) == {"b"}


def test_a_word_that_is_impossible_only_without_the_condition_does_not_become_certain() -> None:
    given, without = {"a": math.log(0.2), "b": math.log(0.5), "c": math.log(0.3)}, {"a": NO, "b": -1.0, "c": -2.0}
    # As if it were as likely without the condition as c: it then stands to c as .2 to .3.
    chosen = [word for word in impossible(given, without, weight=1.5) if word]
    assert set(chosen) == {"a", "b", "c"} and chosen.count("a") < chosen.count("c")


def test_a_place_without_any_possible_word_is_an_error_that_names_it() -> None:
    for given, without in (({"a": NO, "b": NO}, {"a": -1.0, "b": -1.0}), ({"a": -1.0, "b": -1.0}, {"a": NO, "b": NO})):
        with pytest.raises(LLMResponseError, match=r"'fake' holds each of 2 allowed words impossible after .*'a', 'b'"):
            impossible(given, without, weight=2.0)
    with pytest.raises(LLMResponseError, match="'fake' gave nan as a log-probability"):
        impossible({"a": math.nan, "b": -1.0}, {}, weight=1.0)


def test_a_possible_word_goes_before_one_that_was_written_less_often() -> None:
    assert set(impossible({"a": -1.0, "b": NO, "c": NO}, {}, most_uses=1)) == {"a"}
    logs = {" a": -1.0, " b": NO, " c": NO}
    llm = FakeLLM(score=lambda prompt, continuation: logs[continuation])
    words, _ = asyncio.run(WordByWordWriter(llm).write(GIVEN, None, [("a", "b", "c")] * 3, Guidance(most_uses=1), 0))
    assert words == ("a", "a", "a")


def test_candidates_that_are_all_impossible_are_not_told_apart() -> None:
    target = picture(3, SMALL).words()
    stages = (Stage(layers=(2, 2), stride=4, decoding=Decoding(temperature=0.7, best_of=2)),)
    answers = [" ".join(target[1:][::-1]), " ".join(target[1:])]
    query = Query("an image of 3", known={0: target[0]})
    with pytest.raises(LLMResponseError, match="'fake' holds all 2 candidates impossible"):
        ProgressiveDecoder(FakeLLM(answers, score=lambda *_: NO), stages).decode_sync(pairs(5, SMALL), [query])
    with pytest.raises(LLMResponseError, match="gave nan as a log-probability"):
        ProgressiveDecoder(FakeLLM(answers, score=lambda *_: math.nan), stages).decode_sync(pairs(5, SMALL), [query])
