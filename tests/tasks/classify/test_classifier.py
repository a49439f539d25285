"""FewShotClassifier: from labelled images to labels, and every way to use it wrongly."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from icl_vision import FewShotClassifier, connect
from icl_vision.contracts import Classification, Prompt
from icl_vision.errors import (
    CapabilityError,
    DroppedGuaranteeWarning,
    ImageNotFoundError,
    LabelError,
    LLMResponseError,
    LLMUnavailableError,
    NotFittedError,
    PromptTooLongError,
    PyramidError,
    TemplateError,
    UnknownAnswerError,
    UsageError,
)
from icl_vision.tokenizers import AsciiTokenizer


@pytest.fixture
def make(overlap_llm, tokenizer, support):
    """A fitted classifier, its LLM an OverlapLLM with ``llm`` options."""

    def fitted(llm=None, **options):
        options = {"k": 3, **options}
        return FewShotClassifier(overlap_llm(**(llm or {})), tokenizer, **options).fit(*support)

    return fitted


# The line ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("llm", "scoring", "method"),
    [
        ({}, "auto", "channel"),
        ({}, "channel", "channel"),
        ({}, "direct", "direct"),
        ({"scores_text": False, "constraint": "choice"}, "auto", "constrained"),
        ({"scores_text": False}, "auto", "parse"),
        ({}, "parse", "parse"),
    ],
)
def test_every_rung_of_the_ladder_classifies(make, queries, llm, scoring, method):
    images, labels = queries
    clf = make(llm, scoring=scoring)
    assert clf.method_ == method
    assert clf.classes_ == ["leafy", "warm", "wet"]
    assert clf.predict(images) == labels
    assert clf.score(images, labels) == 1.0
    results = clf.classify(images)
    assert [one.method for one in results] == [method] * 4
    if method in ("channel", "direct"):
        for one in results:
            assert list(one.probabilities) == clf.classes_
            assert sum(one.probabilities.values()) == pytest.approx(1)
            assert max(one.probabilities, key=one.probabilities.get) == one.label
    else:
        assert all(one.probabilities is None and one.text for one in results)


def test_probabilities_are_the_softmax_of_whole_continuations(make, picture):
    (one,) = make().classify([picture("red")])
    # OverlapLLM: 3 words of 3 in common give -10 + 9, none -10.
    assert one.probabilities == pytest.approx(
        {"leafy": 1 / (2 + np.exp(9)), "warm": np.exp(9) / (2 + np.exp(9)), "wet": 1 / (2 + np.exp(9))}
    )
    assert one.words == (("brick", "cherry", "apple"),) or set(one.words[0]) == {"apple", "brick", "cherry"}


def test_equal_labels_give_the_first_class(make, picture):
    clf = make({"bias": {}})
    clf.llm_._likeness = lambda prompt, continuation: -1.0
    assert clf.predict([picture("red")]) == ["leafy"]


def test_one_image_or_many(make, picture, queries):
    clf = make()
    assert clf(picture("red")) == "warm"
    assert clf([picture("red")]) == ["warm"]
    assert clf.predict(picture("red")) == ["warm"]
    assert clf.predict([]) == [] and clf.classify([]) == []
    assert clf.predict(iter(queries[0])) == queries[1]
    stack = np.stack([np.asarray(image) for image in queries[0]])
    assert clf.predict(stack) == queries[1]
    assert clf.predict_proba([]).shape == (0, 3)


def test_predict_proba_has_the_columns_of_classes(make, queries):
    images, labels = queries
    table = make().predict_proba(images)
    assert table.shape == (4, 3) and table.dtype == np.float64
    assert [["leafy", "warm", "wet"][place] for place in table.argmax(axis=1)] == labels
    with pytest.raises(CapabilityError, match="scoring by 'parse' gives no probabilities"):
        make(scoring="parse").predict_proba(images)


@pytest.mark.parametrize("kind", [int, np.int64])
def test_labels_come_back_as_given(overlap_llm, tokenizer, support, queries, kind):
    numbers = {"warm": 10, "leafy": 9, "wet": -3}
    labels = [kind(numbers[label]) for label in support[1]]
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(support[0], labels)
    assert clf.classes_ == [-3, 9, 10]
    got = clf.predict(queries[0])
    assert got == [numbers[label] for label in queries[1]] and all(type(label) is int for label in got)
    assert clf.classify(queries[0])[0].label == "-3"


def test_numpy_strings_come_back_plain(overlap_llm, tokenizer, support, queries):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit(support[0], np.array(support[1]))
    assert all(type(label) is str for label in clf.predict(queries[0]))


def test_the_support_set_is_encoded_once(make, tokenizer, queries):
    clf = make()
    assert tokenizer.encoded == 6
    clf.predict(queries[0])
    clf.predict(queries[0])
    assert tokenizer.encoded == 6 + 8


def test_words_of_and_prompt_for_explain(make, picture):
    clf = make(scoring="direct")
    words = clf.words_of(picture("blue"))
    assert len(words) == 1 and set(words[0]) == {"ocean", "river", "sky"}
    inquiry = clf.prompt_for(picture("blue"))
    assert [continuation for _, continuation in inquiry.pairs] == [" leafy", " warm", " wet"]
    assert f"Input: {' '.join(words[0])}\nOutput:" in str(inquiry) and "-> ' wet', scored" in str(inquiry)
    assert clf.llm_.asked == []  # nothing was sent
    clf.predict([picture("blue")])
    assert clf.llm_.asked == [list(inquiry.pairs)]
    assert "(the LLM writes)" in str(make(scoring="parse").prompt_for(picture("blue")))


def test_an_answer_is_cut_at_the_line_and_constrained_where_possible(make, picture):
    clf = make({"scores_text": False})
    clf.predict([picture("red")])
    (prompt, max_tokens, stop, constraint) = clf.llm_.completions[0]
    assert isinstance(prompt, Prompt) and stop == ("\n",) and constraint is None and 16 < max_tokens < 32
    clf = make({"scores_text": False, "constraint": "choice"})
    clf.predict([picture("red")])
    assert clf.llm_.completions[0][3].allowed == ("leafy", "warm", "wet")


# Options --------------------------------------------------------------------------------------------------------------


def shown(clf, image):
    return clf.prompt_for(image).pairs[0][0]


def test_induction_repeats_and_template(make, picture):
    image = picture("red")
    assert shown(make(scoring="direct"), image).instruction
    assert shown(make(scoring="direct", induction=False), image).instruction == ""
    once, thrice = (shown(make(repeats=repeats), image).context for repeats in (0, 2))
    assert len(thrice.splitlines()) == 3 * len(once.splitlines())
    assert shown(make(scoring="direct", template="classification_palm"), image).query.endswith("This is a")


def test_shots_and_selection(make, overlap_llm, tokenizer, picture):
    images = [picture("red", 0), picture("red", 1), picture("blue", 0), picture("green", 0), picture("blue", 1)]
    labels = ["a", "a", "a", "b", "b"]

    def words(**options):
        clf = FewShotClassifier(overlap_llm(), tokenizer, 3, order_seed=None, ensemble=None, **options).fit(
            images, labels
        )
        return shown(clf, picture("blue", 2)).context.splitlines()

    everything = words()
    assert len(everything) == 5
    assert words(shots=1) == [everything[0], everything[3]]
    assert words(shots=2) == [everything[0], everything[1], everything[3], everything[4]]
    assert words(selection="random", shots=3) == everything
    assert words(selection="random", shots=1) == words(selection="random", shots=1)
    # The blue query is closest to a's third and b's second example.
    assert words(selection="nearest", shots=1) == [everything[2], everything[4]]
    tokenizer._codebook = None  # by words in common instead
    assert words(selection="nearest", shots=1) == [everything[2], everything[4]]


def test_random_selection_follows_the_seed(make, overlap_llm, tokenizer, picture):
    images = [picture(colour, shade) for colour in ("red", "blue") for shade in range(3)]
    contexts = set()
    for seed in range(12):
        clf = FewShotClassifier(
            overlap_llm(), tokenizer, 3, selection="random", shots=1, order_seed=seed, ensemble=None
        )
        clf.fit(images, ["a"] * 3 + ["b"] * 3)
        contexts.add(frozenset(shown(clf, images[0]).context.splitlines()))
    assert len(contexts) > 3


def test_nearest_classifies_with_a_prompt_for_images_with_the_same_neighbours(overlap_llm, tokenizer, picture):
    images = [picture(colour) for colour in ("red", "green", "green", "blue")]
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3, selection="nearest", shots=1, ensemble=None).fit(
        images, [1, 1, 2, 2]
    )
    asked = [picture("red", 1), picture("blue", 1), picture("red", 2), picture("blue", 2)]
    assert clf.predict(asked) == [1, 2, 1, 2]
    assert len({call[0][0].context for call in clf.llm_.asked}) == 2


@pytest.mark.parametrize("scoring", ["channel", "direct"])
@pytest.mark.parametrize("options", [{}, {"selection": "nearest", "shots": 1}])
def test_contextual_calibration_takes_off_the_bias_of_the_prompt(make, queries, scoring, options):
    images, labels = queries
    bias = {"wet": 20.0}
    assert make({"bias": bias}, scoring=scoring, **options).predict(images) == ["wet"] * 4
    clf = make({"bias": bias}, scoring=scoring, calibration="contextual", **options)
    assert clf.predict(images) == labels
    plain = make(scoring=scoring, **options)
    assert clf.predict_proba(images) == pytest.approx(plain.predict_proba(images))


def test_calibration_is_asked_once_for_a_shared_prompt(make, queries):
    clf = make(calibration="contextual", scoring="direct")
    clf.predict(queries[0])
    before = len(clf.llm_.asked)
    clf.predict(queries[0])
    calls = clf.llm_.asked
    assert sum("N/A" in prompt.query for call in calls for prompt, _ in call) == 3  # once for each label
    assert len(calls) - before == before - 1


# An ensemble of examples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bags", "ensemble", "prompts"), [(True, "auto", 6), (False, "auto", 3), (False, "examples", 6), (True, None, 3)]
)
def test_examples_stand_alone_where_words_are_cheap_or_where_asked_for(make, picture, bags, ensemble, prompts):
    clf = make({"bags": bags}, ensemble=ensemble)
    assert len({prompt.text for prompt, _ in clf.prompt_for(picture("red")).pairs}) == prompts
    assert clf.predict([picture("red")]) == ["warm"]


def test_every_example_alone_and_every_word_by_itself(make, picture):
    clf = make()
    inquiry = clf.prompt_for(picture("red"))
    prompts = list(dict.fromkeys(prompt.text for prompt, _ in inquiry.pairs))
    assert len(prompts) == 6 and all(len(text.splitlines()) == 2 for text in prompts)
    words = clf.words_of(picture("red"))[0]
    assert inquiry.pairs == tuple((prompt, f" {word}") for prompt, _ in inquiry.pairs[::3] for word in words)
    assert [text.splitlines()[-1] for text in prompts] == ["warm:", "leafy:", "wet:", "wet:", "warm:", "leafy:"]
    assert inquiry.terminator == ""
    assert str(inquiry).count(", scored") == 18
    clf.predict([picture("red")])
    assert clf.llm_.asked == [list(inquiry.pairs)]
    repeated = make(repeats=2).prompt_for(picture("red")).pairs[0][0]
    assert len(set(repeated.context.splitlines())) == 1 and len(repeated.context.splitlines()) == 3


def test_many_images_share_a_call(make, picture):
    clf = make(concurrency=1)
    clf.predict([picture("red", number % 5) for number in range(20)])
    assert [len(call) for call in clf.llm_.asked] == [16 * 6 * 3, 4 * 6 * 3]


def test_the_order_of_examples_does_not_matter(make, overlap_llm, tokenizer, support, queries):
    images, labels = support
    turned = FewShotClassifier(overlap_llm(), tokenizer, 3, order_seed=3).fit(images[::-1], labels[::-1])
    assert turned.predict_proba(queries[0]) == pytest.approx(make().predict_proba(queries[0]))


def test_one_failing_image_of_a_shared_call_costs_only_itself(make, queries):
    images, labels = queries
    clf = make(errors="return")
    sick = clf.words_of(images[2])[0]

    def before(prompts):
        if any(continuation == f" {sick[0]}" for _, continuation in clf.llm_.asked[-1]):
            raise LLMUnavailableError("the LLM is ill")

    clf.llm_.before = before
    assert [one.label for one in clf.classify(images)] == [labels[0], labels[1], None, labels[3]]


def test_a_text_without_words_still_has_an_answer(make, tokenizer, picture):
    clf = make()
    tokenizer.to_text = lambda pyramid, k=None: "  "
    assert clf.predict([picture("red")]) == ["leafy"]


# Scheduling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["channel", "direct", "parse"])
def test_one_request_goes_first_and_the_fixed_part_never_changes(make, picture, scoring):
    clf = make(scoring=scoring, ensemble=None, concurrency=3)
    started = []

    def before(prompts):
        started.append(clf.llm_.in_flight)

    clf.llm_.before = before
    clf.predict([picture("red", number % 5) for number in range(40)])
    assert started[0] == 1
    assert 1 < clf.llm_.most_in_flight <= 3
    prompts = [prompt for call in clf.llm_.asked for prompt, _ in call] or [one[0] for one in clf.llm_.completions]
    assert len({prompt.prefix for prompt in prompts}) == 1


@pytest.mark.parametrize("scoring", ["channel", "direct", "parse"])
def test_none_goes_first_where_there_is_no_cache_to_fill(make, picture, scoring):
    clf = make({"prefix_cache": False}, scoring=scoring, ensemble=None, concurrency=3)
    started = []
    clf.llm_.before = lambda prompts: started.append(clf.llm_.in_flight)
    clf.predict([picture("red", number % 5) for number in range(40)])
    assert started[0] == 3  # a batch endpoint, say, would make a batch of one and wait a day for it


def test_concurrency_is_read_at_each_call(make, picture):
    clf = make({"prefix_cache": False}, scoring="parse", ensemble=None, concurrency=3)
    pictures = [picture("red", number % 5) for number in range(40)]
    clf.predict(pictures)
    assert clf.llm_.most_in_flight == 3
    clf.set_params(concurrency=1).predict(pictures)
    clf.llm_.most_in_flight = 0
    clf.predict(pictures)
    assert clf.llm_.most_in_flight == clf.at_once == 1
    clf.set_params(concurrency=6).predict(pictures)
    assert clf.llm_.most_in_flight == 6


def test_usage_adds_up_to_what_was_spent(make, picture):
    clf = make(ensemble=None)
    results = clf.classify([picture("red", number % 5) for number in range(11)])
    assert sum(one.usage.prompt_tokens for one in results) == 10 * 3 * 11
    assert sum(one.usage.requests for one in results) == len(clf.llm_.asked)
    clf = make(calibration="contextual", scoring="direct")
    results = clf.classify([picture("red", number % 5) for number in range(6)])
    assert sum(one.usage.prompt_tokens for one in results) == 10 * 3 * (6 + 3)  # three inputs without content


# Sync, async, threads -------------------------------------------------------------------------------------------------


async def test_sync_calls_inside_a_running_loop_and_their_async_twins(make, queries):
    images, labels = queries
    clf = make()
    assert clf.predict(images) == labels
    assert await clf.apredict(images) == labels
    assert [one.label for one in await clf.aclassify(images)] == labels
    assert await asyncio.gather(clf.apredict(images), clf.apredict(images)) == [labels, labels]
    assert clf.predict(images) == labels


def test_async_twins_work_across_loops(make, queries):
    clf = make()
    for _ in range(2):
        assert asyncio.run(clf.apredict(queries[0])) == queries[1]
    assert clf.predict(queries[0]) == queries[1]


async def test_aclassify_encodes_in_a_thread(make, tokenizer, queries):
    clf = make()
    tokenizer.threads.clear()
    await clf.aclassify(queries[0])
    assert tokenizer.threads and threading.get_ident() not in tokenizer.threads


def test_threads_share_a_fitted_classifier(make, queries):
    clf = make(calibration="contextual")
    got = []
    threads = [threading.Thread(target=lambda: got.append(clf.predict(queries[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [queries[1]] * 8


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_bad_image_is_named(make, picture, tmp_path):
    bad = tmp_path / "no.png"
    with pytest.raises(ImageNotFoundError, match=r"images\[40\]: .*no\.png"):
        make(batch_size=32).predict([*[picture("red")] * 40, bad])
    with pytest.raises(ImageNotFoundError, match=r"images\[1\]: .*no\.png"):
        make(errors="return").fit([picture("red"), bad], ["a", "b"])


def test_a_bad_image_is_returned_in_place(make, picture, tmp_path):
    bad = tmp_path / "no.png"
    images = [picture("red"), bad, picture("blue"), b"", picture("green")]
    clf = make(errors="return")
    results = clf.classify(images)
    assert [one.label for one in results] == ["warm", None, "wet", None, "leafy"]
    assert isinstance(results[1].error, ImageNotFoundError) and "images[" not in str(results[1].error)
    assert results[3].error is not None and results[0].error is None
    assert results[1].words == () and results[1].method is None
    assert results[1].to_dict()["error"].startswith("ImageNotFoundError: ")
    assert clf.predict(images) == ["warm", None, "wet", None, "leafy"]
    assert np.isnan(clf.predict_proba(images)).all(axis=1).tolist() == [False, True, False, True, False]
    assert [one.label for one in clf.classify([bad])] == [None]


def test_a_stream_survives_the_failure_of_another_image(make, picture, tmp_path):
    class OneWay:
        """A stream that cannot be read twice."""

        def __init__(self, data):
            self.data = data

        def read(self, size=-1):
            data, self.data = self.data, b""
            return data

    file = tmp_path / "blue.png"
    picture("blue").save(file)
    with file.open("rb") as handle:
        results = make(errors="return").classify([b"not an image", handle, OneWay(file.read_bytes())])
    assert [one.label for one in results] == [None, "wet", "wet"]


@pytest.mark.parametrize("scoring", ["channel", "direct", "parse"])
def test_one_failing_question_costs_only_itself(make, queries, scoring):
    images, labels = queries
    clf = make(errors="return", scoring=scoring, ensemble=None)
    sick = clf.words_of(images[2])[0]

    def before(prompts):
        asked = [pair for call in clf.llm_.asked[-1:] for pair in call] or [(prompts[0], "")]
        if any(" ".join(sick) in prompt.query + continuation for prompt, continuation in asked):
            raise LLMUnavailableError("the LLM is ill")

    clf.llm_.before = before
    results = clf.classify(images)
    assert [one.label for one in results] == [labels[0], labels[1], None, labels[3]]
    assert str(results[2].error) == "the LLM is ill" and results[2].words[0] == tuple(sick)
    clf.set_params(errors="raise")
    with pytest.raises(LLMUnavailableError, match="the LLM is ill"):
        clf.classify(images)


def test_words_that_must_not_enter_a_prompt_cost_only_their_image(make, tokenizer, queries):
    images, labels = queries
    clf = make(errors="return", scoring="direct")
    tokenizer.to_text = lambda pyramid, k=None: " ".join(pyramid.words()).replace("sky ocean river", "sky\a")
    results = clf.classify(images)
    assert [one.label for one in results] == [None, *labels[1:]]
    assert "U+0007" in str(results[0].error)


def test_failing_calibration_is_returned_for_every_image(make, queries):
    def before(prompts):
        if "N/A" in prompts[0].query:
            raise LLMUnavailableError("no calibration")

    clf = make({"before": before}, calibration="contextual", errors="return", scoring="direct")
    assert [str(one.error) for one in clf.classify(queries[0])] == ["no calibration"] * 4
    with pytest.raises(LLMUnavailableError, match="no calibration"):
        clf.set_params(errors="raise").predict(queries[0])


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "gave nan as a log-prob"), (float("inf"), "gave inf as a log-prob")]
)
def test_scores_that_are_none(make, picture, value, message):
    clf = make()
    clf.llm_._likeness = lambda prompt, continuation: value
    with pytest.raises(LLMResponseError, match=message):
        clf.predict([picture("red")])


@pytest.mark.parametrize(("calibration", "message"), [(None, "every label impossible"), ("contextual", "calibrate by")])
def test_where_every_label_is_impossible_none_is_chosen(make, picture, calibration, message):
    clf = make(calibration=calibration)
    clf.llm_._likeness = lambda prompt, continuation: float("-inf")
    with pytest.raises(LLMResponseError, match=message):
        clf.predict_proba([picture("red")])
    (one,) = clf.set_params(errors="return").classify([picture("red")])
    assert one.label is None and one.probabilities is None and message in str(one.error)


def test_an_impossible_label_is_never_chosen(make, picture):
    for calibration in (None, "contextual"):
        clf = make(calibration=calibration)
        clf.llm_._likeness = lambda prompt, continuation: -1.0 if "wet" in prompt.query else float("-inf")
        shares = dict(zip(clf.classes_, clf.predict_proba([picture("red")])[0], strict=True))
        assert shares == {"leafy": 0.0, "warm": 0.0, "wet": 1.0}


def test_unknown_answers_abstain_raise_or_return(make, picture, queries):
    llm = {"scores_text": False, "answer": "no idea"}
    assert make(llm).predict([picture("red")]) == [None]
    (one,) = make(llm).classify([picture("red")])
    assert one.text == "no idea" and one.error is None
    message = "the LLM answered 'no idea', which is none of the labels 'leafy', 'warm', 'wet'"
    with pytest.raises(UnknownAnswerError, match=message):
        make(llm, on_unknown="raise").predict([picture("red")])
    (one,) = make(llm, on_unknown="raise", errors="return").classify([picture("red")])
    assert isinstance(one.error, UnknownAnswerError) and one.label is None
    assert make(llm).score(*queries) == 0.0


@pytest.mark.parametrize("way", ["classify", "predict", "score", "aclassify", "apredict"])
def test_the_first_unknown_answer_ends_everything_before_the_rest_is_asked(make, picture, way):
    clf = make({"scores_text": False, "answer": "warm"}, on_unknown="raise", concurrency=1)
    asked = clf.llm_.completions
    clf.llm_.before = lambda prompts: setattr(clf.llm_, "answer", "no idea" if len(asked) == 2 else "warm")
    images = [picture(colour) for colour in ("red", "green", "blue")] * 20
    with pytest.raises(UnknownAnswerError, match="'no idea'"):
        if way == "score":
            clf.score(images, ["warm"] * 60)
        elif way.startswith("a"):
            asyncio.run(getattr(clf, way)(images))
        else:
            getattr(clf, way)(images)
    assert len(asked) == 2


def test_labels_that_are_all_impossible_end_everything_as_well(make, picture):
    clf = make(concurrency=1)
    clf.llm_._likeness = lambda prompt, continuation: float("-inf")
    with pytest.raises(LLMResponseError, match="every label impossible"):
        clf.predict([picture("red")] * 40)
    assert len(clf.llm_.asked) == 1


def test_a_window_too_small_is_said_at_fit(overlap_llm, tokenizer, support, picture):
    clf = FewShotClassifier(overlap_llm(window=20), tokenizer, 3, repeats=2, ensemble=None)
    with pytest.raises(PromptTooLongError, match=r"\d+ tokens but the LLM's window holds 20.*repeats=0.*shots=.*k="):
        clf.fit(*support)
    assert not hasattr(clf, "classes_") and clf.llm.asked == []
    clf.set_params(repeats=0, shots=1)
    assert clf.fit(*support)(picture("red")) == "warm"
    # "nearest" is measured with the longest examples it could ever choose.
    clf.set_params(shots=2, selection="nearest", repeats=1)
    with pytest.raises(PromptTooLongError):
        clf.fit(*support)


# Arguments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number of 1 or more, or None .*; got 0"),
        ({"k": 2.5}, "k must be a whole number .* got 2.5"),
        ({"k": True}, "k must be a whole number .* got True"),
        ({"shots": 0}, "shots must be .*all examples.* got 0"),
        ({"repeats": -1}, "repeats must be a whole number of 0 or more; got -1"),
        ({"repeats": 101}, "repeats must be a whole number from 0 to 100; got 101"),
        ({"induction": "yes"}, "induction must be True or False; got 'yes'"),
        ({"selection": "best"}, "selection must be one of 'all', 'random', 'nearest'; got 'best'"),
        ({"selection": "nearest"}, "selection='nearest' needs `shots`"),
        ({"scoring": "logits"}, "scoring must be one of 'auto', 'channel', .*; got 'logits'"),
        ({"ensemble": "all"}, "ensemble must be one of None, 'auto', 'examples'; got 'all'"),
        ({"calibration": True}, "calibration must be one of None, 'contextual'; got True"),
        ({"order_seed": "x"}, "order_seed must be a whole number .* got 'x'"),
        ({"on_unknown": None}, "on_unknown must be one of 'abstain', 'raise'; got None"),
        ({"errors": "ignore"}, "errors must be one of 'raise', 'return'; got 'ignore'"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
        ({"concurrency": 0}, "concurrency must be a whole number of 1 or more; got 0"),
        ({"progress": "no"}, "progress must be True or False or None; got 'no'"),
        ({"tokenizer": 3}, "tokenizer must be a name, a folder or an ImageTokenizer; got int"),
    ],
)
def test_bad_options_are_refused_at_fit_and_not_before(overlap_llm, tokenizer, support, options, message):
    clf = FewShotClassifier(**{"llm": overlap_llm(), "tokenizer": tokenizer, "k": 3, **options})
    with pytest.raises(UsageError, match=message):
        clf.fit(*support)
    assert not hasattr(clf, "classes_")


def test_options_that_llm_or_template_cannot_serve(make, tmp_path):
    silent = {"scores_text": False}
    with pytest.raises(CapabilityError, match="scoring='direct' needs log-probabilities .* 'overlap' does not give"):
        make(silent, scoring="direct")
    with pytest.raises(CapabilityError, match="ensemble='examples' scores words by noisy channel, but scoring is"):
        make(scoring="direct", ensemble="examples")
    with pytest.raises(CapabilityError, match="scoring='constrained' needs an LLM whose output can be restricted"):
        make(silent, scoring="constrained")
    with pytest.raises(CapabilityError, match=r"calibration='contextual' needs log-probabilities, but .* 'parse'"):
        make(silent, calibration="contextual")
    with pytest.raises(TemplateError, match="no template 'nothing'"):
        make(template="nothing")
    with pytest.raises(TemplateError, match="'classification_channel' is for noisy-channel scoring only"):
        make(silent, template="classification_channel")
    with pytest.raises(TemplateError, match="does not exist or is not a folder"):
        make(templates=tmp_path / "none")


def test_a_k_that_the_tokenizer_does_not_have(overlap_llm, picture):
    with pytest.raises(PyramidError, match="k must be 16"):
        FewShotClassifier(overlap_llm(), AsciiTokenizer(), 5).fit([picture("red"), picture("blue")], ["a", "b"])


def test_a_users_template_without_a_twin_is_scored_directly(make, tmp_path, picture):
    (tmp_path / "classification.jinja").write_text(
        "{% block instruction %}{% endblock %}\n{% block context %}{% for example in examples %}\n"
        "Input: {{ example.words }}\nOutput: {{ example.label }}\n{% endfor %}{% endblock %}\n"
        "{% block query %}Input: {{ words }}\nOutput:{% endblock %}\n"
    )
    with pytest.warns(DroppedGuaranteeWarning, match="overrides the packaged template"):
        clf = make(templates=tmp_path)
    assert clf.method_ == "direct" and clf(picture("red")) == "warm"
    with pytest.raises(TemplateError, match="no twin"):
        make(templates=tmp_path, scoring="channel")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([], [], "the support set is empty"),
        (["a.png"], ["x", "y"], "equal length; got 1 image and 2 labels"),
        (["a.png", "b.png"], ["x", "x"], "'x' is the only label of 2 images; .* two classes"),
        ("a.png", ["x"], r"a sequence of images, one per label; got one image \('a.png'\)"),
        (7, ["x"], "images must be a sequence of images; got a value of type int"),
        ({"a.png": 1}, ["x"], "got a value of type dict"),
        (["a.png"], "x", "labels must be a sequence of labels, one per image; got 'x'"),
        (["a.png"], 3, "labels must be a sequence of labels"),
        (["a.png", "b.png"], ["x", None], r"labels\[1\] is None \(NoneType\)"),
        (["a.png", "b.png"], [True, False], r"labels\[0\] is True \(bool\)"),
        (["a.png", "b.png"], [1.5, 2.0], r"labels\[0\] is 1.5 \(float\)"),
        (["a.png", "b.png"], ["1", 1], "all str or all int; got both"),
    ],
)
def test_bad_support_sets_are_refused_before_any_image_is_opened(overlap_llm, tokenizer, images, labels, message):
    with pytest.raises(UsageError, match=message):
        FewShotClassifier(overlap_llm(), tokenizer, 3).fit(images, labels)


@pytest.mark.parametrize("label", ["two\nlines", "", " edge ", "x" * 200, "Cat", "Output:"])
def test_labels_that_must_not_enter_a_prompt(overlap_llm, tokenizer, label):
    with pytest.raises(LabelError):
        FewShotClassifier(overlap_llm(), tokenizer, 3, scoring="direct").fit(["no.png", "no.png"], ["cat", label])


def test_a_template_like_label_stays_literal(overlap_llm, tokenizer, picture):
    clf = FewShotClassifier(overlap_llm(), tokenizer, 3).fit([picture("red"), picture("blue")], ["{{ 7*7 }}", "b"])
    assert clf(picture("red")) == "{{ 7*7 }}"
    assert "{{ 7*7 }}:" in shown(clf, picture("red")).context


def test_bad_calls(make, overlap_llm, tokenizer, picture):
    clf = FewShotClassifier(overlap_llm(), tokenizer)
    for call in (clf.predict, clf.classify, clf.predict_proba, clf.words_of, clf.prompt_for, clf.save, clf):
        with pytest.raises(NotFittedError, match=r"not fitted yet; call fit\(images, labels\)"):
            call("a.png")
    clf = make()
    with pytest.raises(UsageError, match="images must be a sequence of images; got a value of type int"):
        clf.predict(3)
    with pytest.raises(UsageError, match="got 1 image and 2 labels"):
        clf.score([picture("red")], ["warm", "wet"])
    with pytest.raises(UsageError, match="at least one"):
        clf.score([], [])


@pytest.mark.parametrize("options", [{}, {"selection": "nearest", "shots": 1}])
def test_set_params_does_not_reach_into_a_fitted_state(make, picture, tmp_path, options):
    clf = make(**options)
    before = str(clf.prompt_for(picture("red")))
    clf.save(tmp_path / "before.json")
    clf.set_params(k=1, shots=2, repeats=3, selection="all", scoring="parse", llm="nothing", tokenizer="nothing")
    assert str(clf.prompt_for(picture("red"))) == before and clf(picture("red")) == "warm"
    clf.save(tmp_path / "after.json")
    assert (tmp_path / "after.json").read_text() == (tmp_path / "before.json").read_text()


def test_a_failed_refit_leaves_the_fitted_state(make, picture):
    clf = make()
    with pytest.raises(ImageNotFoundError):
        clf.fit(["no.png", "no.png"], ["a", "b"])
    assert clf(picture("red")) == "warm"


# scikit-learn manners -------------------------------------------------------------------------------------------------


def test_the_constructor_stores_and_does_nothing():
    odd = object()
    clf = FewShotClassifier(odd, odd, odd, shots=odd, scoring=odd)
    assert clf.llm is odd and clf.shots is odd and clf.scoring is odd
    assert vars(clf) == clf.get_params()


def test_params_and_repr():
    clf = FewShotClassifier()
    assert repr(clf) == "FewShotClassifier()"
    assert clf.get_params()["tokenizer"] == "words-photo" and clf.get_params(deep=False)["k"] == 5
    assert clf.set_params(k=21, shots=3) is clf
    assert repr(clf) == "FewShotClassifier(k=21, shots=3)"
    with pytest.raises(UsageError, match="no parameter 'kk'; it has llm, tokenizer, k"):
        clf.set_params(shots=1, kk=2)
    assert clf.shots == 3


def test_sklearn_clones_it_unfitted_and_shares_its_objects(make):
    base = pytest.importorskip("sklearn.base")
    clf = make(shots=2)
    copy = base.clone(clf)
    assert copy is not clf and copy.llm is clf.llm and copy.tokenizer is clf.tokenizer
    assert copy.get_params() == clf.get_params() and not hasattr(copy, "classes_")


def test_a_classification_is_json_ready(make, picture):
    import json

    (one,) = make().classify([picture("red")])
    assert isinstance(one, Classification)
    assert json.loads(json.dumps(one.to_dict()))["label"] == "warm"


def test_progress_goes_to_stderr_and_only_if_wanted(make, queries, capsys):
    make().predict(queries[0])
    assert capsys.readouterr() == ("", "")
    make(progress=True).predict(queries[0])
    out, err = capsys.readouterr()
    assert out == "" and "words" in err and "answers" in err


def test_connect_strings_work(tokenizer, support, picture):
    clf = FewShotClassifier("fake", tokenizer, 3).fit(*support)
    assert clf(picture("red")) in clf.classes_
    assert FewShotClassifier(connect("fake"), tokenizer, 3).fit(*support).classes_ == clf.classes_
