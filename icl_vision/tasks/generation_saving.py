"""A fitted image generator as one JSON file: options and the examples' words; no images, no keys.

Knows: the file's form and what makes it unreadable. Refuses to know: how a generator draws.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.decoding.drawing import Pair
from icl_vision.errors import ArtefactError, IclVisionError, StorageError, UsageError
from icl_vision.pyramid import TokenPyramid
from icl_vision.storage import write_json
from icl_vision.tasks.saving import Explained, without_secrets
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.tasks.image_generator import ImageGenerator

    G = TypeVar("G", bound=ImageGenerator)

FORMAT = "icl_vision.ImageGenerator"
FORMAT_VERSION = 1
KEYS = {"params": dict, "llm": dict, "tokenizer": dict, "examples": list}

_NOT_KEPT = ("llm", "tokenizer", "budget", "prices")


def save(generator: ImageGenerator, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all. Budget and prices are not written: they are of a day, not of a task.

    Raises:
        StorageError: the file cannot be written.
    """
    from icl_vision._version import __version__

    params = {name: value for name, value in generator.get_params().items() if name not in _NOT_KEPT}
    if params["templates"] is not None:
        params["templates"] = os.fspath(params["templates"])
    llm, tokenizer = generator.llm, generator.tokenizer
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "icl_vision": __version__,
        "params": params,
        "llm": {
            "spec": without_secrets(llm if isinstance(llm, str) else generator.llm_.profile.name),
            "object": not isinstance(llm, str),
        },
        "tokenizer": {
            "spec": os.fspath(tokenizer) if isinstance(tokenizer, str | os.PathLike) else generator.tokenizer_.name,
            "object": not isinstance(tokenizer, str | os.PathLike),
            "name": generator.tokenizer_.name,
            "hash": fingerprint(generator.tokenizer_),
        },
        "examples": [{"text": str(pair.condition), "words": pair.target.to_dict()} for pair in generator.pairs_],
    }
    try:
        write_json(Path(path), document)
    except OSError as error:
        raise StorageError(
            f"the generator cannot be written to {os.fspath(path)!r}: {error.strerror or error}"
        ) from error


def load(
    cls: type[G],
    path: str | os.PathLike[str],
    *,
    llm: str | TextLLM | None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None,
) -> G:
    """Read the file and fit a generator to its examples, in their order; see ``ImageGenerator.load``."""
    document = _read(path)
    generator = cls(
        document["llm"]["spec"] if llm is None else llm,
        document["tokenizer"]["spec"] if tokenizer is None else tokenizer,
    )
    try:
        generator.set_params(**document["params"])
        generator._check()
    except (UsageError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    with Explained(document, "llm", llm is None):
        connected = generator._connect_llm()
    with Explained(document, "tokenizer", tokenizer is None):
        words = generator._connect_tokenizer()
    if fingerprint(words) != document["tokenizer"]["hash"]:
        raise ArtefactError(
            f"the tokenizer {words.name!r} is not the one that made the words in {os.fspath(path)!r} "
            f"({document['tokenizer']['name']!r}, hash {document['tokenizer']['hash'][:12]}): its words would draw "
            "something else; pass that one as tokenizer=..., or fit again"
        )
    try:
        pairs = [
            Pair(str(one["text"]), TokenPyramid.from_dict(one["words"], words.vocabulary))
            for one in document["examples"]
        ]
        if not pairs:
            raise ValueError("no examples")
    except (IclVisionError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    generator._finish(pairs, words, connected)
    return generator


def _read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"there is no file {os.fspath(path)!r}") from error
    except OSError as error:
        raise StorageError(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
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
    return document


def _damaged(path: str | os.PathLike[str], why: str) -> StorageError:
    return StorageError(
        f"{os.fspath(path)!r} is not a saved generator, or is damaged: {why}; save it again from a fitted one"
    )
