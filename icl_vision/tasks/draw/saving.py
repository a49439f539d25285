"""A fitted image generator as one JSON file: options and the examples' words; no images, no keys.

Knows: the file's form and what makes it unreadable. Refuses to know: how a generator draws.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.drawing.drawing import Pair
from icl_vision.errors import IclVisionError, UsageError
from icl_vision.llms.remote.redaction import without_secrets
from icl_vision.prompting import template_hashes
from icl_vision.pyramid import TokenPyramid
from icl_vision.tasks.classify.saving import Explained
from icl_vision.tasks.saved_files import SavedForm, allowed_names, check_same_templates, check_same_tokenizer
from icl_vision.tokenizers.wrapping import fingerprint

if TYPE_CHECKING:
    from icl_vision.tasks.draw.generator import ImageGenerator

    G = TypeVar("G", bound=ImageGenerator)

FORM = SavedForm(
    "icl_vision.ImageGenerator", 1, {"params": dict, "llm": dict, "tokenizer": dict, "examples": list}, "generator"
)

_NOT_KEPT = ("llm", "tokenizer", "budget", "prices")


def save(generator: ImageGenerator, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all. Budget and prices are not written: they are of a day, not of a task.

    Raises:
        StorageError: the file cannot be written.
    """
    params = {name: value for name, value in generator.get_params().items() if name not in _NOT_KEPT}
    if params["templates"] is not None:
        params["templates"] = os.fspath(params["templates"])
    llm, tokenizer = generator.llm, generator.tokenizer
    document = {
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
        "templates": template_hashes(generator.template, generator.templates),
        "examples": [{"text": str(pair.condition), "words": pair.target.to_dict()} for pair in generator.pairs_],
    }
    FORM.write(path, document)


def load(
    cls: type[G],
    path: str | os.PathLike[str],
    *,
    llm: str | TextLLM | None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None,
    templates: str | os.PathLike[str] | None,
    trust: bool,
) -> G:
    """Read the file and fit a generator to its examples, in their order; see ``ImageGenerator.load``."""
    document = FORM.read(path)
    names = allowed_names(path, document, llm=llm, tokenizer=tokenizer, templates=templates, trust=trust)
    generator = cls(names.llm, names.tokenizer)
    try:
        generator.set_params(**document["params"] | {"templates": names.templates})
        generator._check()
    except (UsageError, TypeError) as error:
        raise FORM.damaged(path, str(error)) from error
    if templates is None:
        check_same_templates(path, document, generator.template, names.templates)
    with Explained(document, "llm", llm is None):
        connected = generator._connect_llm()
    with Explained(document, "tokenizer", tokenizer is None):
        words = generator._connect_tokenizer()
    check_same_tokenizer(path, document, words, otherwise="draw something else")
    try:
        pairs = [
            Pair(str(one["text"]), TokenPyramid.from_dict(one["words"], words.vocabulary))
            for one in document["examples"]
        ]
        if not pairs:
            raise ValueError("no examples")
    except (IclVisionError, KeyError, TypeError, ValueError) as error:
        raise FORM.damaged(path, f"{type(error).__name__}: {error}") from error
    generator._finish(pairs, words, connected)
    return generator
