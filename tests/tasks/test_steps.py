"""The parts of a few-shot task by themselves: bias, verdicts, rungs, what fits the window."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.asking.inquiries import Inquiry, Reply
from icl_vision.contracts import Profile, Prompt, Usage
from icl_vision.errors import LLMResponseError, PromptTooLongError
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.loop import run_sync
from icl_vision.prompting import PromptSize
from icl_vision.tasks.classify.ensemble import pool
from icl_vision.tasks.classify.fitted import Asker
from icl_vision.tasks.classify.scoring import log_bias, log_softmax, verdict, written_label

finite = st.floats(-1000, 0)


@pytest.mark.parametrize("lowest", [-1e4, -1e30, -3.4e38, -1e308])
def test_labels_as_unlikely_as_a_mask_says_share_what_there_is(lowest):
    assert np.exp(log_softmax([lowest, lowest])).tolist() == pytest.approx([0.5, 0.5])
    assert np.exp(log_softmax([lowest, -1.0, -float("inf")])).tolist() == pytest.approx([0.0, 1.0, 0.0])


@given(st.lists(finite, min_size=2, max_size=6))
def test_log_softmax_is_a_distribution_in_the_same_order(logprobs):
    shares = np.exp(log_softmax(logprobs))
    assert shares.sum() == pytest.approx(1)
    assert log_softmax(logprobs)[int(np.argmax(logprobs))] == log_softmax(logprobs).max()


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=4))
def test_log_bias_is_the_mean_probability(rows):
    expected = np.mean([np.exp(log_softmax(row)) for row in rows], axis=0)
    assert np.exp(log_bias(rows)) == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(log_bias(rows)).all()


def test_calibration_of_zhao_et_al_by_hand():
    # p = (.6, .4) for a query, p_cf = mean of (.9, .1) and (.7, .3): W = diag(1/.8, 1/.2), so (.75, 2) normalised.
    bias = log_bias([[math.log(0.9), math.log(0.1)], [math.log(0.7), math.log(0.3)]])
    calibrated = np.exp(log_softmax(np.log([0.6, 0.4]) - bias))
    assert calibrated == pytest.approx(np.array([0.75, 2.0]) / 2.75)


def test_a_label_impossible_for_inputs_without_content_does_not_become_certain():
    bias = log_bias([[-1.0, -math.inf, -2.0]])
    assert np.isfinite(bias).all() and bias[1] == bias[2]


def test_inputs_that_make_every_label_impossible_say_nothing():
    some = [math.log(0.9), math.log(0.1)]
    assert log_bias([some, [-math.inf, -math.inf]]) == pytest.approx(log_bias([some]))
    with pytest.raises(LLMResponseError, match="every label impossible for inputs without content"):
        log_bias([[-math.inf, -math.inf]])


def test_an_image_whose_labels_are_all_impossible_is_not_classified():
    one = verdict(
        Reply((-math.inf, -math.inf), usage=Usage(2)), (("cat",),), "direct", ["a", "b"], unknown_is_error=False
    )
    assert (one.label, one.probabilities, one.usage) == (None, None, Usage(2))
    assert isinstance(one.error, LLMResponseError) and "impossible (log-probability -inf): 'a', 'b'" in str(one.error)
    one = verdict(Reply((-math.inf, -2.0)), (("cat",),), "direct", ["a", "b"], unknown_is_error=False)
    assert (one.label, one.probabilities, one.error) == ("b", {"a": 0.0, "b": 1.0}, None)


def test_profiles_decide_the_rung():
    from icl_vision.errors import CapabilityError, TemplateError
    from icl_vision.tasks.classify.prompts import PromptBuilder
    from icl_vision.tasks.classify.scoring import choose_method

    builder = PromptBuilder()
    assert choose_method("auto", Profile("x", scores_text=True), builder) == "channel"
    assert choose_method("direct", Profile("x", scores_text=True), builder) == "direct"
    assert choose_method("auto", Profile("x", constraint="grammar"), builder) == "constrained"
    assert choose_method("parse", Profile("x", scores_text=True), builder) == "parse"
    few = Profile("x", constraint="json_schema", constraint_limit=3)
    assert choose_method("auto", few, builder, 3) == "constrained"
    assert choose_method("auto", few, builder, 4) == "parse"
    with pytest.raises(CapabilityError, match=r"among 4 labels is more than 'x' can be restricted to \(3\)"):
        choose_method("constrained", few, builder, 4)
    only_channel = builder.channel()
    assert choose_method("auto", Profile("x", scores_text=True), only_channel) == "channel"
    with pytest.raises(TemplateError, match="for noisy-channel scoring only, but scoring is 'direct'"):
        choose_method("direct", Profile("x", scores_text=True), only_channel)


@pytest.mark.parametrize(("text", "method"), [(" cat", "constrained"), ("a cat, I think", "parse"), ("none", "parse")])
def test_a_broken_restriction_is_not_called_constrained(text: str, method: str):
    assert verdict(Reply(None, text), (("w",),), "constrained", ["cat", "dog"], unknown_is_error=False).method == method


def test_a_class_is_the_mixture_of_its_examples():
    logs = np.log([[0.5, 0.2], [0.1, 0.4], [0.3, 0.3]])  # three examples, two words
    found = pool(logs.ravel(), ("a", "a", "b"), ("b", "a"))
    assert found == pytest.approx((np.log(0.3 * 0.3), np.log((0.5 + 0.1) / 2 * (0.2 + 0.4) / 2)))
    # More examples of a class are no advantage in themselves.
    assert pool([-2.0, -2.0, -2.0], ("a", "a", "b"), ("a", "b")) == pytest.approx((-2.0, -2.0))
    assert pool([-np.inf, -np.inf], ("a", "b"), ("a", "b")) == (-np.inf, -np.inf)


class ArtLLM(FakeLLM):
    """A tokenizer that knows runs of one character, as LLMs' do: art of equal size has very different numbers of
    tokens."""

    def __init__(self, window):
        super().__init__(context_window=window)
        self.counted = []

    async def _count_tokens(self, text):
        self.counted.append(text)
        return len(re.findall(r"(.)\1{0,15}|\n", text))

    def _check_fits(self, text):
        return 1


@given(st.lists(st.text(alphabet="#. \u732b", min_size=1, max_size=60), min_size=1, max_size=8), st.integers(20, 200))
def test_no_inquiry_is_sent_that_does_not_fit_the_window(texts, window):
    """Whatever was counted before: what fits passes, what does not is refused."""
    llm = ArtLLM(window)
    asker = Asker(llm, "direct", ("a", "b"), False, PromptSize(), 0)
    for text in texts:
        inquiry = Inquiry(((Prompt("", "", text), " a"), (Prompt("", "", text), " \u732b b")))
        counts = [len(re.findall(r"(.)\1{0,15}|\n", text + label + "\n")) for label in (" a", " \u732b b")]
        if max(counts) > window:
            with pytest.raises(PromptTooLongError):
                run_sync(asker.check_window(inquiry))
        else:
            run_sync(asker.check_window(inquiry))


def test_a_text_that_fits_by_its_bytes_is_not_counted():
    llm = ArtLLM(100)
    asker = Asker(llm, "direct", ("a", "b"), False, PromptSize(), 0)
    run_sync(asker.check_window(Inquiry(((Prompt("", "", "x" * 90), " a"),))))
    assert not llm.counted
    run_sync(asker.check_window(Inquiry(((Prompt("", "", "x" * 99), " a"),))))
    assert len(llm.counted) == 1


def test_the_room_for_an_answer_is_that_of_the_label_with_the_most_tokens():
    llm = ArtLLM(1000)
    labels = ("aaaaaaaaaaaaaaaaaaaa", "abcabcabc")  # the longer one has fewer tokens
    asker = Asker(llm, "parse", labels, False, PromptSize(), 0)
    run_sync(asker.prepare(Inquiry.written(Prompt("", "", "x"), written_label("parse", labels))))
    assert asker.room == 16 + 10
