"""What the answer would have been without reading: the baselines every accuracy is printed beside.

Knows: class means, cosines, neighbours, a linear probe, and asking an LLM with the words withheld.
Refuses to know: files, pages, settings, how images become words.

    blind            the same LLM and support set, but the query's words are withheld: what it guesses unseen
    prior            the most frequent label of the support set; on a tie (every balanced support set) the first
                     label of the episode, so a constant guess whose accuracy is the share of the first class
    words_prototype  no LLM: each class is the mean codebook vector of its support words; nearest by cosine
    words_knn        no LLM: the label of the one support image whose words are nearest
    label_name       no support set: the label's own words against the query's words, where the codebook holds them
    image_prototype  no LLM and no words: the prototype on the tokenizer's own image vectors, a ceiling words cannot see
    image_knn        the same with the nearest support image
    linear_probe     the same with a logistic regression fitted to the support images (the papers' MAE + linear row)
    untrained        the LLM reads words that a randomly initialised encoder chose (the papers' untrained row)

All are computed on the very same queries as the result they stand beside. ``ROWS`` names them for whoever makes a
table; rows whose ``answer`` is None need the LLM, and the table's maker asks it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError
from icl_vision.llms.scores import all_impossible, checked_logprobs
from icl_vision.spelling import composed

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tasks.classify.prompts import PreparedPrompt
    from icl_vision.vocabulary import Vocabulary

Array = npt.NDArray[np.float64]

STRENGTH = 10.0
"""Default of ``c``, the inverse of the L2 penalty."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe. labels: C classes. weights: float64 [C, D] and intercepts [C], of the vectors as ``scale`` left
    them. mean: [D], subtracted first. steps: how many the fit took."""

    labels: tuple[str, ...]
    weights: Array
    intercepts: Array
    mean: Array
    steps: int

    def probabilities(self, vectors: npt.ArrayLike) -> Array:
        """Softmax over the classes, float64 [M, C], of vectors [M, D]."""
        return _softmax((_unit(vectors) - self.mean) @ self.weights.T + self.intercepts)

    def predict(self, vectors: npt.ArrayLike) -> list[str]:
        """The likeliest label of each of the vectors [M, D]; ties go to the label that appeared first."""
        return [self.labels[index] for index in np.argmax(self.probabilities(vectors), axis=1)]


def fit_probe(
    vectors: npt.ArrayLike, labels: Sequence[str], *, c: float = STRENGTH, tolerance: float = 1e-6, steps: int = 10_000
) -> LinearProbe:
    """Fit a probe to vectors scaled to length 1 and centred on their mean: multinomial logistic regression, in numpy.

    The objective is scikit-learn's ``LogisticRegression``:  sum_n -log p(y_n | x_n) + |W|^2 / (2 C), the intercept
    free. It is minimised by Boehning's bound (D. Boehning, "Multinomial logistic regression algorithm", Ann. Inst.
    Statist. Math. 44, 1992): the Hessian of the data term never exceeds 1/2 X'X for each class (on the subspace where
    the classes' rows sum to zero, which the steps never leave), so that one inverse serves all steps, each step lowers
    the objective, and there is no step size to choose. The same input gives the same answer.

    Features are not scaled one by one: with one example of a class, their deviations are noise.

    Args:
        vectors: [N, D], finite.
        labels: N labels, at least two different ones.
        c: inverse of the L2 penalty, above 0.
        tolerance: the fit ends when no gradient entry is larger.
        steps: the fit ends after so many steps in any case.

    Raises:
        UsageError: as many labels as vectors are not given, fewer than two labels, or a ``c`` that is not above 0.
    """
    rows = _unit(vectors)
    if len(rows) != len(labels):
        raise UsageError(f"{len(rows)} support vectors need as many labels; got {len(labels)}")
    names = tuple(dict.fromkeys(labels))
    if len(names) < 2:
        raise UsageError(f"a linear probe needs vectors of two or more labels; got {list(names)}")
    if not c > 0:
        raise UsageError(f"c, the inverse of the penalty, must be above 0; got {c!r}")
    mean = rows.mean(axis=0)
    # The best weights lie in the span of the vectors, so the fit runs in at most N dimensions instead of D.
    left, sizes, basis = np.linalg.svd(rows - mean, full_matrices=False)
    inner = np.hstack([left * sizes, np.ones((len(rows), 1))])
    truth = np.asarray([[label == name for name in names] for label in labels], dtype=np.float64)
    penalty = np.full(inner.shape[1], 1 / c)
    penalty[-1] = 0.0
    step = np.linalg.inv(0.5 * inner.T @ inner + np.diag(penalty))
    weights = np.zeros((inner.shape[1], len(names)))
    taken = 0
    while taken < steps:
        gradient = inner.T @ (_softmax(inner @ weights) - truth) + penalty[:, None] * weights
        if np.abs(gradient).max() < tolerance:
            break
        weights -= step @ gradient
        taken += 1
    return LinearProbe(names, (basis.T @ weights[:-1]).T, weights[-1], mean, taken)


def linear_probe(
    support: npt.ArrayLike, support_labels: Sequence[str], queries: npt.ArrayLike, *, c: float = STRENGTH
) -> list[str]:
    """The likeliest label of each query under a probe fitted to the support set.

    Args:
        support: [N, D] image vectors. support_labels: N labels, two or more different ones. queries: [M, D].
        c: inverse of the L2 penalty.

    Returns:
        M labels.

    Raises:
        UsageError: as ``fit_probe``.
    """
    return fit_probe(support, support_labels, c=c).predict(queries)


def _unit(vectors: npt.ArrayLike) -> Array:
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


Vectors = npt.NDArray[np.float32]
Need = Literal["codebook", "vocabulary", "vectors", "llm"]

WITHHELD = "N/A"
"""What the blind baseline puts in the place of the query's words: the content-free input of Zhao et al. 2021."""


class WordVectors(Protocol):
    """Words and their vectors: as much of a tokenizer as a label's name needs."""

    @property
    def vocabulary(self) -> Vocabulary | None: ...
    @property
    def codebook(self) -> npt.NDArray[np.float32] | None: ...


@dataclass(frozen=True, slots=True)
class View:
    """All that a baseline may look at in one episode.

    labels: the episode's labels, in its order. support_words, support_labels: the N support images' words and labels.
    query_words: the M queries' words. codebook and vocabulary: of the tokenizer, None where it has none.
    support_vectors, query_vectors: float32 [N, D] and [M, D], the tokenizer's image vectors, None where it has none.
    """

    labels: tuple[str, ...]
    support_words: tuple[TokenPyramid, ...]
    support_labels: tuple[str, ...]
    query_words: tuple[TokenPyramid, ...]
    codebook: npt.NDArray[np.float32] | None = None
    vocabulary: Vocabulary | None = None
    support_vectors: npt.NDArray[np.float32] | None = None
    query_vectors: npt.NDArray[np.float32] | None = None

    def lacks(self, needs: frozenset[Need]) -> str:
        """Why a row with these needs cannot be had from this view ("" when it can); "llm" is not looked at."""
        if "codebook" in needs and self.codebook is None:
            return "not available: the tokenizer has no codebook"
        if "vocabulary" in needs and self.vocabulary is None:
            return "not available: the tokenizer has no vocabulary"
        if "vectors" in needs and (self.support_vectors is None or self.query_vectors is None):
            return "not available: the tokenizer has no image vectors"
        return ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of baselines.

    name: as in results. meaning: one line for people. scorer: as ``Accuracy.scorer``. needs: what the episode's
    ``View`` (or an "llm") must give. answer: a label for each query, None for a query it cannot answer; None as the
    whole answer when it can answer none of this episode. ``answer`` itself is None where the LLM must be asked.
    llm_calls: calls for each query. transductive: it looks at other queries. constrained: it can only answer labels.
    """

    name: str
    meaning: str
    scorer: str
    needs: frozenset[Need]
    answer: Callable[[View], list[str | None] | None] | None = None
    llm_calls: float = 0.0
    transductive: bool = False
    constrained: bool = True

    def __call__(self, view: View) -> list[str | None] | None:
        """The row's answers to the queries of ``view``; None when it has none, for want of something it needs.

        Raises:
            UsageError: a row that only an LLM can answer.
        """
        if self.answer is None:
            raise UsageError(f"the row {self.name!r} is answered by an LLM, not from words and vectors alone")
        return None if view.lacks(self.needs) else self.answer(view)


def unit(vectors: npt.ArrayLike) -> Vectors:
    """Rows scaled to length 1; a zero row stays zero. [N, D] -> float32 [N, D]."""
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def words_vectors(pyramids: Sequence[TokenPyramid], codebook: npt.ArrayLike) -> Vectors:
    """One vector per image: the mean of its words' unit codebook vectors.

    Args:
        pyramids: the words of N images, all from the codebook's vocabulary.
        codebook: [T, D], one row per word.

    Returns:
        float32 [N, D].
    """
    table = np.asarray(codebook)
    means = []
    for pyramid in pyramids:
        ids = np.concatenate([np.asarray(layer).ravel() for layer in pyramid.ids])
        means.append(unit(table[ids]).mean(axis=0))
    return np.stack(means).astype(np.float32) if means else np.zeros((0, table.shape[1]), np.float32)


def nearest_prototype(support: npt.ArrayLike, support_labels: Sequence[str], queries: npt.ArrayLike) -> list[str]:
    """The label whose mean support vector has the largest cosine with the query's vector.

    Args:
        support: [N, D], one row per support image.
        support_labels: their N labels; classes keep the order of first appearance, which decides ties.
        queries: [M, D].

    Returns:
        M labels.

    Raises:
        UsageError: no support, or as many labels as rows are not given.
    """
    rows, asked = unit(support), unit(queries)
    _check_support(len(rows), support_labels)
    labels = list(dict.fromkeys(support_labels))
    of_label = np.asarray([labels.index(label) for label in support_labels])
    prototypes = unit(np.stack([rows[of_label == index].mean(axis=0) for index in range(len(labels))]))
    return [labels[index] for index in np.argmax(asked @ prototypes.T, axis=1)]


def nearest_neighbours(
    support: npt.ArrayLike, support_labels: Sequence[str], queries: npt.ArrayLike, *, k: int = 1
) -> list[str]:
    """The most frequent label among the ``k`` support vectors with the largest cosine.

    Equally near images count in the order of the support set; of equally frequent labels, the one whose image is
    nearest wins.

    Args:
        support: [N, D]. support_labels: N labels. queries: [M, D].
        k: neighbours that vote, 1 to N.

    Returns:
        M labels.

    Raises:
        UsageError: no support, as many labels as rows are not given, or a ``k`` outside 1 to N.
    """
    rows, asked = unit(support), unit(queries)
    _check_support(len(rows), support_labels)
    if not 1 <= k <= len(rows):
        raise UsageError(f"k neighbours must be between 1 and the {len(rows)} support images; got {k}")
    labels = []
    for nearest in np.argsort(-(asked @ rows.T), axis=1, kind="stable")[:, :k]:
        # A Counter keeps the order of first appearance, so equal counts go to the nearer image.
        labels.append(Counter(support_labels[index] for index in nearest).most_common(1)[0][0])
    return labels


def _check_support(rows: int, support_labels: Sequence[str]) -> None:
    if len(support_labels) == 0 or rows != len(support_labels):
        raise UsageError(f"{rows} support vectors need as many labels; got {len(support_labels)}")


def prior(support_labels: Sequence[str]) -> str:
    """The most frequent label of the support set, the first to appear on a tie."""
    if not support_labels:
        raise UsageError("the prior of an empty support set is not defined; give at least one label")
    return max(dict.fromkeys(support_labels), key=list(support_labels).count)


def label_name(labels: Sequence[str], tokenizer: WordVectors, queries: Sequence[TokenPyramid]) -> list[str] | None:
    """Zero-shot: each label's own words, as codebook vectors, against the query's words.

    Returns:
        One label per query, or None when the codebook does not hold every word of every label
        (then the baseline cannot be had for this episode, and a partial one would flatter or slander).
    """
    if tokenizer.codebook is None or tokenizer.vocabulary is None:
        return None
    vectors = []
    for label in labels:
        words = label.casefold().split()
        if not words or any(word not in tokenizer.vocabulary for word in words):
            return None
        vectors.append(unit(tokenizer.codebook[tokenizer.vocabulary.ids(words)]).mean(axis=0))
    return nearest_prototype(np.stack(vectors), list(labels), words_vectors(queries, tokenizer.codebook))


def words_prototype(
    support: Sequence[TokenPyramid],
    support_labels: Sequence[str],
    queries: Sequence[TokenPyramid],
    codebook: npt.ArrayLike,
) -> list[str]:
    """``nearest_prototype`` on the mean codebook vectors of the same words the LLM reads."""
    return nearest_prototype(words_vectors(support, codebook), support_labels, words_vectors(queries, codebook))


def words_knn(
    support: Sequence[TokenPyramid],
    support_labels: Sequence[str],
    queries: Sequence[TokenPyramid],
    codebook: npt.ArrayLike,
    *,
    k: int = 1,
) -> list[str]:
    """``nearest_neighbours`` on the mean codebook vectors of the same words the LLM reads."""
    support_vectors, query_vectors = words_vectors(support, codebook), words_vectors(queries, codebook)
    return nearest_neighbours(support_vectors, support_labels, query_vectors, k=k)


def image_knn(
    support: npt.ArrayLike, support_labels: Sequence[str], queries: npt.ArrayLike, *, k: int = 1
) -> list[str]:
    """``nearest_neighbours`` on the tokenizer's image vectors, [N, D] and [M, D]; words play no part."""
    return nearest_neighbours(support, support_labels, queries, k=k)


def blind(llm: TextLLM, prepared: PreparedPrompt, labels: Sequence[str]) -> str | None:
    """What the LLM answers when the query's words are withheld (``WITHHELD`` stands in their place).

    The answer cannot depend on the query, so one call serves a whole episode. With log-probabilities
    each label is scored after the direct prompt; without, the answer is read as free text. None (counted as wrong)
    means that it names no label, or holds every label impossible.

    Args:
        llm: the LLM under test.
        prepared: the prepared DIRECT prompt of the episode's support set.
        labels: the episode's labels.
    """
    prompt = prepared.query(words=WITHHELD)
    if llm.profile.scores_text:
        scores = llm.score_sync([(prompt, " " + composed(label)) for label in labels])
        logprobs = checked_logprobs(scores, len(labels), llm.profile.name)
        return None if all_impossible(logprobs) else labels[int(np.argmax(logprobs))]
    from icl_vision.evaluation.kit.metrics import prefix_match

    answer = llm.complete_sync(prompt, stop=("\n",)).text
    named = [label for label in labels if prefix_match(answer, label)]
    return max(named, key=len) if named else None


# -- the rows of a table


def _prior_row(view: View) -> list[str | None]:
    return [prior(view.support_labels)] * len(view.query_words)


def _label_name_row(view: View) -> list[str | None] | None:
    labels = label_name(view.labels, view, view.query_words)
    return None if labels is None else [*labels]


def _by_words(method: Callable[..., list[str]]) -> Callable[[View], list[str | None]]:
    return lambda view: [*method(view.support_words, view.support_labels, view.query_words, view.codebook)]


def _by_vectors(method: Callable[..., list[str]]) -> Callable[[View], list[str | None]]:
    return lambda view: [*method(view.support_vectors, view.support_labels, view.query_vectors)]


_CODEBOOK: frozenset[Need] = frozenset({"codebook"})
_VECTORS: frozenset[Need] = frozenset({"vectors"})
_LLM: frozenset[Need] = frozenset({"llm"})

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row("blind", "the same model and examples, the words of the photograph withheld", "likelihood", _LLM,
            llm_calls=1.0),
        Row("prior", "always the most frequent label of the examples (on a tie, the first)", "constant", frozenset(),
            _prior_row),
        Row("words_prototype", "no language model: the class whose examples' words are nearest on average",
            "nearest prototype", _CODEBOOK, _by_words(words_prototype)),
        Row("words_knn", "no language model: the class of the example whose words are nearest",
            "nearest neighbour", _CODEBOOK, _by_words(words_knn)),
        Row("label_name", "no examples: the label whose name is nearest to the words",
            "nearest label name", _CODEBOOK | {"vocabulary"}, _label_name_row),
        Row("image_prototype", "no words: the class whose examples' image vectors are nearest on average",
            "nearest prototype", _VECTORS, _by_vectors(nearest_prototype)),
        Row("image_knn", "no words: the class of the example whose image vector is nearest",
            "nearest neighbour", _VECTORS, _by_vectors(image_knn)),
        Row("linear_probe", "no words: a logistic regression fitted to the examples' image vectors",
            "linear probe", _VECTORS, _by_vectors(linear_probe)),
        Row("untrained", "the model reads words that a randomly initialised encoder chose",
            "likelihood", _LLM | _CODEBOOK, llm_calls=1.0),
    )
}  # fmt: skip
"""Every baseline of a table, by name, in the order of the table."""
