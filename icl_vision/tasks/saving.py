"""A fitted few-shot classifier as one JSON file: options, classes and words; no images, no keys.

Knows: the file's form and what makes it unreadable. Refuses to know: how a classifier is built from it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.errors import ArtefactError, IclVisionError, StorageError, UsageError
from icl_vision.storage import write_json
from icl_vision.tasks.checks import as_labels, check_options
from icl_vision.tasks.selection import SupportExample
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.tasks.few_shot import FewShotClassifier

    C = TypeVar("C", bound=FewShotClassifier)

FORMAT = "icl_vision.FewShotClassifier"
FORMAT_VERSION = 1
KEYS = {"params": dict, "llm": dict, "tokenizer": dict, "classes": list, "examples": list}

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"(?<=\S)\?\S*$")


def save(classifier: FewShotClassifier, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    from icl_vision._version import __version__

    params = dict(classifier._fitted)
    llm, tokenizer = params.pop("llm"), params.pop("tokenizer")
    if params["templates"] is not None:
        params["templates"] = os.fspath(params["templates"])
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "icl_vision": __version__,
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
        "classes": classifier.classes_,
        "examples": [
            {"label": classifier.classes_[one.label], "text": one.text, "words": one.pyramid.to_dict()}
            for one in classifier.examples_
        ],
    }
    try:
        write_json(Path(path), document)
    except OSError as error:
        raise StorageError(
            f"the classifier cannot be written to {os.fspath(path)!r}: {error.strerror or error}"
        ) from error


def load(
    cls: type[C],
    path: str | os.PathLike[str],
    *,
    llm: str | TextLLM | None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None,
) -> C:
    """Read the file and fit a classifier to its words; see ``FewShotClassifier.load``."""
    document = _read(path)
    classifier = cls(
        document["llm"]["spec"] if llm is None else llm,
        document["tokenizer"]["spec"] if tokenizer is None else tokenizer,
    )
    try:
        classifier.set_params(**document["params"])
        check_options(classifier.get_params())
    except (UsageError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    with Explained(document, "llm", llm is None):
        connected = classifier._connect_llm()
    with Explained(document, "tokenizer", tokenizer is None):
        words = classifier._connect_tokenizer()
    if fingerprint(words) != document["tokenizer"]["hash"]:
        raise ArtefactError(
            f"the tokenizer {words.name!r} is not the one that made the words in {os.fspath(path)!r} "
            f"({document['tokenizer']['name']!r}, hash {document['tokenizer']['hash'][:12]}): its words would not be "
            "comparable; pass that one as tokenizer=..., or fit again"
        )
    try:
        classes, examples = _examples(document, words)
    except (IclVisionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    classifier._finish(connected, words, classes, examples)
    return classifier


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


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StorageError(f"there is no file {os.fspath(path)!r}") from error
    except OSError as error:
        raise StorageError(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "not UTF-8 text") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f"its 'format' is not {FORMAT!r}")
    if document.get("format_version") != FORMAT_VERSION:
        raise StorageError(
            f"{os.fspath(path)!r} has format_version {document.get('format_version')!r}; this icl_vision reads "
            f"{FORMAT_VERSION}: use the version that wrote it ({document.get('icl_vision')}), or fit again"
        )
    for key, kind in KEYS.items():
        if not isinstance(document.get(key), kind):
            raise _damaged(path, f"{key!r} is missing or is no {'object' if kind is dict else 'list'}")
    for key in ("llm", "tokenizer"):
        if not isinstance(document[key].get("spec"), str) or not isinstance(document[key].get("object"), bool):
            raise _damaged(path, f"{key!r} holds no 'spec' or 'object'")
    if not all(isinstance(document["tokenizer"].get(key), str) for key in ("name", "hash")):
        raise _damaged(path, "'tokenizer' holds no 'name' or 'hash'")
    return document


def _examples(document: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[list[Any], list[SupportExample]]:
    from icl_vision.pyramid import TokenPyramid

    classes: list[Any] = as_labels(document["classes"])
    examples = []
    for one in document["examples"]:
        pyramid = TokenPyramid.from_dict(one["words"], tokenizer.vocabulary)
        # The text is written for people who read the file; what counts are the ids.
        examples.append(SupportExample(pyramid, tokenizer.to_text(pyramid), classes.index(one["label"])))
    missing = [label for place, label in enumerate(classes) if all(one.label != place for one in examples)]
    if len(classes) < 2 or len(set(classes)) < len(classes) or missing:
        raise ValueError(f"classes {classes!r} without examples: {missing!r}")
    return classes, examples


def _plain(value: Any) -> Any:
    """numpy's whole numbers and booleans as Python's."""
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


def without_secrets(spec: str) -> str:
    """A connect string without a user, password or query, which may be keys."""
    return _QUERY.sub("", _CREDENTIALS.sub("", spec))


def _damaged(path: str | os.PathLike[str], why: str) -> StorageError:
    return StorageError(
        f"{os.fspath(path)!r} is not a saved classifier, or is damaged: {why}; save it again from a fitted one"
    )
