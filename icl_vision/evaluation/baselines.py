"""What the answer would have been without reading: the baselines every accuracy is printed beside.

Knows: class means, cosines, and asking an LLM with the words withheld. Refuses to know: files, pages, settings.

    blind            the same LLM and support set, but the query's words are withheld: what it guesses unseen
    prior            the most frequent label of the support set; on a tie (every balanced support set) the first
                     label of the episode, so a constant guess whose accuracy is the share of the first class
    words_prototype  no LLM: each class is the mean codebook vector of its support words; nearest by cosine
    image_prototype  no LLM and no words: the same on the tokenizer's own image vectors, a ceiling words cannot see
    label_name       no support set: the label's own words against the query's words, where the codebook holds them

All are computed on the very same queries as the result they stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer
    from icl_vision.prompting import PreparedPrompt
    from icl_vision.pyramid import TokenPyramid

Vectors = npt.NDArray[np.float32]

WITHHELD = "N/A"
"""What the blind baseline puts in the place of the query's words: the content-free input of Zhao et al. 2021."""


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
    if len(support_labels) == 0 or len(rows) != len(support_labels):
        raise UsageError(f"{len(rows)} support vectors need as many labels; got {len(support_labels)}")
    labels = list(dict.fromkeys(support_labels))
    of_label = np.asarray([labels.index(label) for label in support_labels])
    prototypes = unit(np.stack([rows[of_label == index].mean(axis=0) for index in range(len(labels))]))
    return [labels[index] for index in np.argmax(asked @ prototypes.T, axis=1)]


def prior(support_labels: Sequence[str]) -> str:
    """The most frequent label of the support set, the first to appear on a tie."""
    if not support_labels:
        raise UsageError("the prior of an empty support set is not defined; give at least one label")
    return max(dict.fromkeys(support_labels), key=list(support_labels).count)


def label_name(labels: Sequence[str], tokenizer: Tokenizer, queries: Sequence[TokenPyramid]) -> list[str] | None:
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


def blind(llm: TextLLM, prepared: PreparedPrompt, labels: Sequence[str]) -> str | None:
    """What the LLM answers when the query's words are withheld (``WITHHELD`` stands in their place).

    The answer cannot depend on the query, so one call serves a whole episode. With log-probabilities
    each label is scored after the direct prompt; without, the answer is read as free text, and None
    (counted as wrong) means that it names no label.

    Args:
        llm: the LLM under test.
        prepared: the prepared DIRECT prompt of the episode's support set.
        labels: the episode's labels.
    """
    prompt = prepared.query(words=WITHHELD)
    if llm.profile.scores_text:
        scores = llm.score_sync([(prompt, " " + label) for label in labels])
        return labels[int(np.argmax(scores.logprobs))]
    from icl_vision.evaluation.metrics import prefix_match

    answer = llm.complete_sync(prompt, stop=("\n",)).text
    found = [label for label in labels if prefix_match(answer, label)]
    return max(found, key=len) if found else None
