"""A scikit-learn estimator around ``FewShotClassifier``: for cross_val_score, GridSearchCV, Pipeline and their like.

Knows: what scikit-learn asks of an estimator. Refuses to know: how an image gets its label.

``FewShotClassifier`` looks like an estimator and works without scikit-learn; scikit-learn itself wants its own base
classes, arrays of labels and a label for every image, which is what this module adds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from icl_vision.errors import MissingExtraError, NotFittedError, UsageError
from icl_vision.images import ImageSource
from icl_vision.llms.redaction import without_secrets
from icl_vision.tasks import FewShotClassifier
from icl_vision.tasks.base import hidden
from icl_vision.tasks.inputs import Label, as_labels

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
except ImportError as error:
    raise MissingExtraError("FewShotImageClassifier", "sklearn") from error

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer

__all__ = ["FewShotImageClassifier"]


class FewShotImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """``FewShotClassifier`` as a scikit-learn classifier of images.

    ``X`` is a list (or a one-column array or table) of image paths, or a list of PIL images or arrays; ``y`` holds str
    or int labels.

    Args:
        llm, tokenizer, k, shots, repeats, induction, selection, scoring, ensemble, calibration, probabilities,
            order_seed, template, templates, batch_size, concurrency, progress: as for ``FewShotClassifier``.
        abstain_label: what ``predict`` gives where the LLM's answer is no label; None takes "" for text labels and -1
            for int labels. It must not be a class, so every metric counts it as a mistake.

    Attributes after ``fit``: ``classes_`` (array, sorted), ``classifier_`` (the fitted ``FewShotClassifier``).

    An LLM or a tokenizer given as an object is shared by clones, not copied. With ``n_jobs`` other than 1 give both as
    strings: processes share neither connections nor sessions.

    >>> model = FewShotImageClassifier(llm="local", shots=3)  # doctest: +SKIP
    >>> cross_val_score(model, paths, labels, cv=3)  # doctest: +SKIP
    """

    classes_: npt.NDArray[Any]
    classifier_: FewShotClassifier

    def __init__(
        self,
        llm: str | TextLLM = "local",
        tokenizer: str | os.PathLike[str] | Tokenizer = "words-photo",
        k: int | None = 5,
        *,
        shots: int | None = None,
        repeats: int = 0,
        induction: bool = True,
        selection: Literal["all", "random", "nearest"] = "all",
        scoring: Literal["auto", "channel", "direct", "constrained", "parse"] = "auto",
        ensemble: Literal["auto", "examples"] | None = "auto",
        calibration: Literal["contextual"] | None = None,
        probabilities: Literal["calibrated", "raw"] = "calibrated",
        order_seed: int | None = 0,
        template: str = "classification",
        templates: str | os.PathLike[str] | None = None,
        abstain_label: str | int | None = None,
        batch_size: int = 32,
        concurrency: int = 8,
        progress: bool | None = None,
    ) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.k = k
        self.shots = shots
        self.repeats = repeats
        self.induction = induction
        self.selection = selection
        self.scoring = scoring
        self.ensemble = ensemble
        self.calibration = calibration
        self.probabilities = probabilities
        self.order_seed = order_seed
        self.template = template
        self.templates = templates
        self.abstain_label = abstain_label
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.progress = progress

    def fit(self, X: Iterable[ImageSource], y: Iterable[Label]) -> Self:
        """Turn the labelled images into words.

        Raises:
            UsageError: an argument that cannot work; ``abstain_label`` is a class, or not of the classes' type.
            Exception: all that ``FewShotClassifier.fit`` raises.
        """
        params = self.get_params(deep=False)
        labels = as_labels(y)
        abstained = self._check_abstain_label(params.pop("abstain_label"), labels)
        classifier = FewShotClassifier(**params).fit(_images(X), labels)
        self.classes_, self.classifier_, self._abstained = np.asarray(classifier.classes_), classifier, abstained
        return self

    def predict(self, X: Iterable[ImageSource]) -> npt.NDArray[Any]:
        """A label for each image, array [N] of the classes' type; ``abstain_label`` where the answer is no label."""
        predicted = self._fitted().predict(_images(X))
        labels = [self._abstained if label is None else label for label in predicted]
        return np.asarray(labels, dtype=self.classes_.dtype if not labels else None)

    def predict_proba(self, X: Iterable[ImageSource]) -> npt.NDArray[np.float64]:
        """Probabilities, float64 [N, classes], columns as ``classes_``. CapabilityError where the LLM gives none."""
        return self._fitted().predict_proba(_images(X))

    def calibrate_probabilities(self, X: Iterable[ImageSource], y: Iterable[Label]) -> Self:
        """Fit the map from scores to probabilities to images that are not in the support set; see
        ``FewShotClassifier.calibrate_probabilities``."""
        self._fitted().calibrate_probabilities(_images(X), as_labels(y))
        return self

    @staticmethod
    def _check_abstain_label(wanted: Any, labels: Sequence[Label]) -> Label:
        texts = any(isinstance(label, str) for label in labels)
        if wanted is None:
            wanted = "" if texts else -1
        if isinstance(wanted, bool) or not isinstance(wanted, str if texts else int):
            raise UsageError(
                f"abstain_label must be {'a str' if texts else 'an int'}, as the labels are; got {wanted!r}"
            )
        if wanted in labels:
            raise UsageError(f"abstain_label must be no class, but {wanted!r} is one; give abstain_label another label")
        label: Label = wanted
        return label

    def _fitted(self) -> FewShotClassifier:
        if not hasattr(self, "classifier_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit(X, y) first")
        return self.classifier_

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return without_secrets(str(super().__repr__(N_CHAR_MAX)))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = hidden(dict(super().__getstate__()))  # as the classifier's own: no password goes along
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classifier_")

    def __sklearn_clone__(self) -> Self:
        # scikit-learn would copy every argument deeply, and an LLM or a tokenizer holds connections and sessions.
        return type(self)(**self.get_params(deep=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True  # images are checked where they are opened
        return tags


def _images(X: Any) -> Sequence[ImageSource]:
    """The images as a list: what a Pipeline or a table makes of a column of paths is that column again."""
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind in "OUT":
            values = values[:, 0]
        if values.ndim == 2 and values.dtype.kind in "OUT":
            raise UsageError(f"X must be one column of images; got an array of shape {values.shape}")
        return list(values)
    # Refused here: as one path for FewShotClassifier it would read as a batch of one.
    if isinstance(values, str | bytes | os.PathLike):
        raise UsageError(f"X must be a sequence of images; got one ({type(values).__name__})")
    return list(values)
