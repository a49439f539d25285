"""The linear probe against scikit-learn, and on cases that have one answer."""

from __future__ import annotations

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.baselines import fit_probe, linear_probe


def cloud(classes: int, shots: int, width: int, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Support vectors around class centres, their labels, and queries."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, width))
    support = np.concatenate([centres + 0.8 * random.normal(size=centres.shape) for _ in range(shots)])
    labels = [f"class {index}" for _ in range(shots) for index in range(classes)]
    return support, labels, random.normal(size=(20, width)) + centres[random.integers(classes, size=20)]


@pytest.mark.parametrize("c", [0.1, 10.0, 100.0])
@pytest.mark.parametrize(("classes", "shots", "width"), [(2, 1, 50), (5, 1, 50), (5, 5, 50), (3, 20, 7)])
def test_agrees_with_scikit_learn(classes: int, shots: int, width: int, c: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    support, labels, queries = cloud(classes, shots, width)
    probe = fit_probe(support, labels, c=c, tolerance=1e-9)
    rows = support / np.linalg.norm(support, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    # Two classes in one row of weights are penalised half as much as in two rows.
    reference = linear_model.LogisticRegression(C=c * (2 if classes == 2 else 1), tol=1e-10, max_iter=10_000)
    reference.fit(rows - rows.mean(axis=0), labels)
    order = [list(reference.classes_).index(label) for label in probe.labels]
    expected = reference.predict_proba(asked - rows.mean(axis=0))[:, order]
    np.testing.assert_allclose(probe.probabilities(queries), expected, atol=2e-4)
    assert probe.predict(queries) == [probe.labels[index] for index in expected.argmax(axis=1)]


def test_one_example_of_each_class_behaves_like_the_nearest() -> None:
    assert linear_probe([[1, 0, 0], [0, 1, 0], [0, 0, 1]], ["a", "b", "c"], [[9, 1, 1], [1, 9, 1], [1, 1, 9]]) == [
        *"abc"
    ]


def test_vectors_are_taken_by_direction() -> None:
    support, labels, queries = cloud(4, 3, 30)
    scaled = support * np.linspace(0.1, 50, len(support))[:, None]
    np.testing.assert_allclose(fit_probe(support, labels).weights, fit_probe(scaled, labels).weights, atol=1e-6)
    assert linear_probe(support, labels, queries) == linear_probe(support, labels, 3 * queries)


def test_the_same_input_gives_the_same_bits() -> None:
    support, labels, queries = cloud(5, 5, 64)
    first, second = fit_probe(support, labels), fit_probe(support, labels)
    np.testing.assert_array_equal(first.probabilities(queries), second.probabilities(queries))
    assert 0 < first.steps == second.steps < 10_000


def test_equal_and_zero_vectors_leave_the_prior() -> None:
    probe = fit_probe(np.zeros((3, 4)), ["a", "b", "b"])
    np.testing.assert_allclose(probe.probabilities(np.zeros((1, 4))), [[1 / 3, 2 / 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "c", "message"),
    [
        (["a"], 1.0, "2 support vectors need as many labels; got 1"),
        (["a", "a"], 1.0, r"two or more labels; got \['a'\]"),
        (["a", "b"], 0.0, "must be above 0; got 0.0"),
    ],
)
def test_bad_input_is_told(labels: list[str], c: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_probe([[1, 0], [0, 1]], labels, c=c)
