"""The baselines against hand-worked cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from icl_vision import Example, PromptBuilder
from icl_vision.contracts import Completion, Profile, Prompt, Scores
from icl_vision.errors import LLMResponseError, UsageError
from icl_vision.evaluation.few_shot import baselines
from icl_vision.llms.fake import FakeLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["fur", "whisker", "bark", "cat", "dog"])
CODEBOOK = np.asarray([[1, 1], [2, 0], [0, 3], [5, 0.5], [0.1, 1]], dtype=np.float32)


def pyramid(*words: str) -> TokenPyramid:
    ids = np.asarray([VOCABULARY.id(word) for word in words], dtype=np.int32).reshape(1, -1)
    return TokenPyramid((ids,), PyramidLayout.flat(len(words)), VOCABULARY)


def test_words_vectors_are_means_of_unit_rows() -> None:
    vectors = baselines.words_vectors([pyramid("whisker", "bark"), pyramid("fur")], CODEBOOK)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.5, 0.5], [2**-0.5, 2**-0.5]], rtol=1e-6)
    assert baselines.words_vectors([], CODEBOOK).shape == (0, 2)


def test_unit_keeps_zero_rows() -> None:
    np.testing.assert_array_equal(baselines.unit([[0, 0], [3, 4]]), np.asarray([[0, 0], [0.6, 0.8]], np.float32))


def test_nearest_prototype_is_cosine_to_the_class_mean() -> None:
    support = [[1, 0], [10, 1], [0, 1], [1, 9]]
    labels = ["cat", "cat", "dog", "dog"]
    assert baselines.nearest_prototype(support, labels, [[30, 20], [0.1, 0.2]]) == ["cat", "dog"]


def test_nearest_prototype_ties_go_to_the_first_label() -> None:
    assert baselines.nearest_prototype([[1, 0], [0, 1]], ["b", "a"], [[1, 1]]) == ["b"]


@pytest.mark.parametrize(("support", "labels"), [([[1.0, 0.0]], ["a", "b"]), ([], [])])
def test_nearest_prototype_needs_a_label_per_vector(support: Any, labels: list[str]) -> None:
    with pytest.raises(UsageError, match="support vectors need as many labels"):
        baselines.nearest_prototype(support, labels, [[1, 0]])


def test_words_prototype_reads_the_same_words() -> None:
    support = [pyramid("whisker", "fur"), pyramid("bark", "fur")]
    queries = [pyramid("whisker"), pyramid("bark")]
    assert baselines.words_prototype(support, ["cat", "dog"], queries, CODEBOOK) == ["cat", "dog"]


def test_prior_is_the_majority_then_the_first() -> None:
    assert baselines.prior(["a", "b", "b"]) == "b"
    assert baselines.prior(["b", "a", "a", "b"]) == "b"
    with pytest.raises(UsageError, match="empty support set"):
        baselines.prior([])


class Words:
    """As much of a tokenizer as a label's name needs."""

    vocabulary = VOCABULARY
    codebook = CODEBOOK


def test_label_name_needs_every_word_of_every_label() -> None:
    tokenizer: Any = Words()
    assert baselines.label_name(["cat", "dog"], tokenizer, [pyramid("whisker"), pyramid("bark")]) == ["cat", "dog"]
    assert baselines.label_name(["Cat", "dog bark"], tokenizer, [pyramid("whisker")]) == ["Cat"]
    assert baselines.label_name(["cat", "wolf"], tokenizer, [pyramid("whisker")]) is None
    tokenizer.codebook = None
    assert baselines.label_name(["cat", "dog"], tokenizer, [pyramid("whisker")]) is None


class Guesser:
    """An LLM that likes one label, and remembers what it was asked."""

    def __init__(self, favourite: str, *, scores: bool) -> None:
        self.profile = Profile("guesser", scores_text=scores)
        self.favourite = favourite
        self.asked: list[str] = []

    def score_sync(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str = "\n") -> Scores:
        self.asked += [prompt.text + continuation for prompt, continuation in pairs]
        return Scores(tuple(0.0 if continuation == " " + self.favourite else -1.0 for _, continuation in pairs))

    def complete_sync(self, prompt: Prompt, **options: Any) -> Completion:
        self.asked.append(prompt.text)
        return Completion(f" {self.favourite}.", "stop")


@pytest.mark.parametrize("scores", [True, False])
def test_blind_withholds_the_words_of_the_query_only(scores: bool) -> None:
    llm: Any = Guesser("dog", scores=scores)
    prepared = PromptBuilder().prepare([Example("fur whisker", "cat"), Example("fur bark", "dog")], ["cat", "dog"])
    assert baselines.blind(llm, prepared, ["cat", "dog"]) == "dog"
    assert len(llm.asked) == (2 if scores else 1)
    assert all("fur whisker" in text and text.count(baselines.WITHHELD) == 1 for text in llm.asked)


def test_blind_scores_that_say_nothing() -> None:
    prepared = PromptBuilder().prepare([Example("fur", "cat"), Example("bark", "dog")], ["cat", "dog"])
    assert baselines.blind(FakeLLM(score=lambda *_: -math.inf), prepared, ["cat", "dog"]) is None
    with pytest.raises(LLMResponseError, match="'fake' gave nan as a log-probability"):
        baselines.blind(FakeLLM(score=lambda *_: math.nan), prepared, ["cat", "dog"])


def test_blind_answer_that_names_no_label_is_none() -> None:
    llm: Any = Guesser("wolf", scores=False)
    prepared = PromptBuilder().prepare([Example("fur", "cat"), Example("bark", "dog")], ["cat", "dog"])
    assert baselines.blind(llm, prepared, ["cat", "dog"]) is None


def test_nearest_neighbours_is_cosine_to_single_examples() -> None:
    support = [[1, 0], [0, 10], [1, 1]]
    labels = ["cat", "dog", "cow"]
    assert baselines.nearest_neighbours(support, labels, [[5, 0.1], [0.1, 1], [3, 3]]) == ["cat", "dog", "cow"]


def test_nearest_neighbours_ties_go_to_the_first_example() -> None:
    assert baselines.nearest_neighbours([[2, 0], [1, 0]], ["b", "a"], [[3, 0]]) == ["b"]
    # Two votes each: the label whose image is nearest.
    support, labels = [[1, 0.3], [1, 0], [1, 0.1], [1, 0.2]], ["a", "b", "a", "b"]
    assert baselines.nearest_neighbours(support, labels, [[1, 0]], k=4) == ["b"]
    assert baselines.nearest_neighbours(support, labels, [[1, 0.31]], k=3) == ["a"]


@pytest.mark.parametrize("k", [0, 3])
def test_nearest_neighbours_refuses_a_k_that_cannot_be(k: int) -> None:
    with pytest.raises(UsageError, match=f"between 1 and the 2 support images; got {k}"):
        baselines.image_knn([[1, 0], [0, 1]], ["a", "b"], [[1, 1]], k=k)


def test_words_knn_reads_single_examples() -> None:
    support = [pyramid("whisker"), pyramid("bark"), pyramid("bark")]
    assert baselines.words_knn(support, ["cat", "dog", "cat"], [pyramid("bark", "fur")], CODEBOOK) == ["dog"]
    assert baselines.words_knn(support, ["cat", "dog", "cat"], [pyramid("bark", "fur")], CODEBOOK, k=3) == ["cat"]


def view(**changes: Any) -> baselines.View:
    parts: dict[str, Any] = {
        "labels": ("cat", "dog"),
        "support_words": (pyramid("whisker"), pyramid("bark")),
        "support_labels": ("cat", "dog"),
        "query_words": (pyramid("bark"), pyramid("whisker")),
        "codebook": CODEBOOK,
        "vocabulary": VOCABULARY,
        "support_vectors": np.asarray([[0, 1], [1, 0]], np.float32),
        "query_vectors": np.asarray([[0.1, 1], [1, 0.1]], np.float32),
    }
    return baselines.View(**{**parts, **changes})


def test_every_row_answers_every_query() -> None:
    by_words, by_vectors = ["dog", "cat"], ["cat", "dog"]
    expected = {
        "prior": ["cat", "cat"],
        "words_prototype": by_words,
        "words_knn": by_words,
        "label_name": by_words,
        "image_prototype": by_vectors,
        "image_knn": by_vectors,
        "linear_probe": by_vectors,
    }
    assert {name: row(view()) for name, row in baselines.ROWS.items() if row.answer} == expected
    assert [name for name, row in baselines.ROWS.items() if row.answer is None] == ["blind", "untrained"]
    for name, row in baselines.ROWS.items():
        assert row.name == name
        assert row.meaning
        assert ("llm" in row.needs) == (row.answer is None) == (row.llm_calls > 0)


@pytest.mark.parametrize(
    ("lacking", "names", "why"),
    [
        ("codebook", {"words_prototype", "words_knn", "label_name"}, "not available: the tokenizer has no codebook"),
        ("vocabulary", {"label_name"}, "not available: the tokenizer has no vocabulary"),
        ("query_vectors", {"image_prototype", "image_knn", "linear_probe"}, "the tokenizer has no image vectors"),
    ],
)
def test_a_row_without_what_it_needs_says_why(lacking: str, names: set[str], why: str) -> None:
    poor = view(**{lacking: None})
    assert {name for name, row in baselines.ROWS.items() if row.answer and row(poor) is None} == names
    assert all(why in poor.lacks(baselines.ROWS[name].needs) for name in names)


def test_a_row_of_the_llm_is_not_answered_here() -> None:
    with pytest.raises(UsageError, match="'blind' is answered by an LLM"):
        baselines.ROWS["blind"](view())


def test_the_label_row_passes_over_unknown_labels() -> None:
    assert baselines.ROWS["label_name"](view(labels=("cat", "wolf"))) is None
