"""A linear probe: multinomial logistic regression on a handful of vectors, in numpy.

Knows: the fit. Refuses to know: images, episodes, what the vectors are.

The objective is scikit-learn's ``LogisticRegression``:  sum_n -log p(y_n | x_n) + |W|^2 / (2 C), the intercept free.
It is minimised by Boehning's bound (D. Boehning, "Multinomial logistic regression algorithm", Ann. Inst. Statist.
Math. 44, 1992): the Hessian of the data term never exceeds 1/2 X'X for each class (on the subspace where the classes'
rows sum to zero, which the steps never leave), so that one inverse serves all steps, each step lowers the objective,
and there is no step size to choose. The same input gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icl_vision.errors import UsageError

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


def fit(
    vectors: npt.ArrayLike, labels: Sequence[str], *, c: float = STRENGTH, tolerance: float = 1e-6, steps: int = 10_000
) -> LinearProbe:
    """Fit a probe to vectors scaled to length 1 and centred on their mean.

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
        UsageError: as ``fit``.
    """
    return fit(support, support_labels, c=c).predict(queries)


def _unit(vectors: npt.ArrayLike) -> Array:
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
