"""A fitted few-shot classifier as one JSON file: options, classes and words; no images, no keys.

Knows: the file's form and what makes it unreadable. Refuses to know: how a classifier is built from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.llms.remote.redaction import without_secrets
from icl_vision.probabilities import ProbabilityMap
from icl_vision.prompting import template_hashes
from icl_vision.tasks.checks import as_labels, check_options
from icl_vision.tasks.classify.prompts import CHANNEL
from icl_vision.tasks.classify.selection import SupportExample
from icl_vision.tasks.saved_files import SavedForm, allowed_names, check_same_templates, check_same_tokenizer
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.tasks.classify.classifier import FewShotClassifier

    C = TypeVar("C", bound=FewShotClassifier)

FORM = SavedForm(
    "icl_vision.FewShotClassifier",
    1,
    {"params": dict, "llm": dict, "tokenizer": dict, "classes": list, "examples": list},
    "classifier",
)


def save(classifier: FewShotClassifier, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    params = dict(classifier._fitted)
    llm, tokenizer = params.pop("llm"), params.pop("tokenizer")
    if params["templates"] is not None:
        params["templates"] = os.fspath(params["templates"])
    document = {
        "params": {name: _plain(value) for name, value in params.items()},
        "llm": {
            "spec": without_secrets(llm if isinstance(llm, str) else classifier.llm_.profile.name),
            "object": not isinstance(llm, str),
        },
        "tokenizer": {
            "spec": os.fspath(tokenizer) if isinstance(tokenizer, str | os.PathLike) else classifier.tokenizer_.name,
            "object": not isinstance(tokenizer, str | os.PathLike),
            "name": classifier.tokenizer_.name,
            "hash": fingerprint(classifier.tokenizer_),
        },
        "templates": _hashes(classifier),
        "classes": classifier.classes_,
        "examples": [
            {"label": classifier.classes_[one.label], "text": one.text, "words": one.pyramid.to_dict()}
            for one in classifier.examples_
        ],
        # What the examples' pictures show, as hashes: none of them may calibrate probabilities.
        "pictures": [one.digest for one in classifier.examples_],
    }
    own = classifier.probability_map_
    if own is not None and own.source == "own":  # a packaged one is found again where it is known
        document["probabilities"] = own.to_dict()
    FORM.write(path, document)


def load(
    cls: type[C],
    path: str | os.PathLike[str],
    *,
    llm: str | TextLLM | None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None,
    templates: str | os.PathLike[str] | None,
    trust: bool,
) -> C:
    """Read the file and fit a classifier to its words; see ``FewShotClassifier.load``."""
    document = FORM.read(path)
    names = allowed_names(path, document, llm=llm, tokenizer=tokenizer, templates=templates, trust=trust)
    classifier = cls(names.llm, names.tokenizer)
    # Files of version 0.1.0 know nothing of calibrated probabilities and go on giving the numbers they gave.
    params = {"probabilities": "raw", **document["params"], "templates": names.templates}
    try:
        own = ProbabilityMap.from_dict(document["probabilities"]) if "probabilities" in document else None
        classifier.set_params(**params)
        check_options(classifier.get_params())
    except (UsageError, TypeError) as error:
        raise FORM.damaged(path, str(error)) from error
    if templates is None:
        check_same_templates(path, document, classifier.template, names.templates, CHANNEL)
    with Explained(document, "llm", llm is None):
        connected = classifier._connect_llm()
    with Explained(document, "tokenizer", tokenizer is None):
        words = classifier._connect_tokenizer()
    check_same_tokenizer(path, document, words, otherwise="not be comparable")
    try:
        classes, examples = _examples(document, words)
    except (IclVisionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FORM.damaged(path, f"{type(error).__name__}: {error}") from error
    classifier._finish(connected, words, classes, examples)
    if own is not None:
        classifier.probability_map_ = own
    return classifier


def _hashes(classifier: FewShotClassifier) -> dict[str, str]:
    """Of the template in use, as it was when the classifier was fitted, and of its twin."""
    used = classifier._builder.template
    found = template_hashes(classifier._fitted["template"], classifier._fitted["templates"], CHANNEL)
    return found | {used.info.name: hashlib.sha256(used.source.encode()).hexdigest()}


class Explained:
    """A context that says, where a saved name leads nowhere, that the thing itself can be passed.

    document: as read. what: "llm" or "tokenizer". from_file: whether the name is the document's, not the caller's.
    """

    def __init__(self, document: Mapping[str, Any], what: str, from_file: bool) -> None:
        self.saved, self.what, self.from_file = document[what], what, from_file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.from_file and isinstance(error, IclVisionError):
            how = "was saved from an object, by its name" if self.saved["object"] else "was saved by its name"
            raise UsageError(
                f"the {self.what} {how} {self.saved['spec']!r}, which cannot be used here ({error}); "
                f"pass it: load(path, {self.what}=...)"
            ) from error


def _examples(document: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[list[Any], list[SupportExample]]:
    from icl_vision.pyramid import TokenPyramid

    classes: list[Any] = as_labels(document["classes"])
    examples = []
    pictures = document.get("pictures", [])  # files of version 0.1.0 have none
    if not isinstance(pictures, list) or not all(isinstance(digest, str | None) for digest in pictures):
        raise ValueError(f"'pictures' is {pictures!r:.80}")
    for one, digest in zip(document["examples"], chain(pictures, repeat(None)), strict=False):
        pyramid = TokenPyramid.from_dict(one["words"], tokenizer.vocabulary)
        # The text is written for people who read the file; what counts are the ids.
        examples.append(SupportExample(pyramid, tokenizer.to_text(pyramid), classes.index(one["label"]), digest))
    missing = [label for place, label in enumerate(classes) if all(one.label != place for one in examples)]
    if len(classes) < 2 or len(set(classes)) < len(classes) or missing:
        raise ValueError(f"classes {classes!r} without examples: {missing!r}")
    return classes, examples


def _plain(value: Any) -> Any:
    """numpy's whole numbers and booleans as Python's."""
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value
