"""What the files of all saved tasks have in common: how they are read, written, and found wrong.

Knows: a document's head (format, version, LLM, tokenizer), which of its names are followed, what its hashes are for.
Refuses to know: what a task keeps besides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.errors import (
    ArtefactError,
    IclVisionError,
    StorageError,
    TemplateError,
    UntrustedNameError,
    UsageError,
)
from icl_vision.files.reading import MOST_DOCUMENT, loads, read_text
from icl_vision.files.storage import write_json
from icl_vision.files.trust import Reader, is_llm_alone
from icl_vision.tokenizers import zoo
from icl_vision.tokenizers.wrapping import fingerprint

JUDGED_APART = ("llm", "tokenizer", "budget", "prices")
"""Parameters that are not among the written ones: two have places of their own, where they are judged; budget and
prices are of a day, not of a task."""


@dataclass(frozen=True)
class SavedForm:
    """A kind of file. format, version: what its head says. keys: the parts that only this kind has, with their type.
    noun: what it holds, for messages. otherwise: what words of another tokenizer would do."""

    format: str
    version: int
    keys: Mapping[str, type]
    noun: str
    otherwise: str

    def head(self) -> dict[str, Any]:
        """What a document of this kind begins with."""
        from icl_vision._version import __version__

        return {"format": self.format, "format_version": self.version, "icl_vision": __version__}

    def write(self, path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
        """Write ``document``, whole or not at all. Raises StorageError."""
        self._check_path(path)
        try:
            write_json(Path(path), document)
        except OSError as error:
            raise StorageError(
                f"the {self.noun} cannot be written to {os.fspath(path)!r}: {error.strerror or error}"
            ) from error

    def read(self, path: str | os.PathLike[str]) -> Any:
        """The document, whatever it is; ``checked`` says whether it is one of this kind. Raises StorageError."""
        self._check_path(path)
        source = os.fspath(path)
        try:
            text = read_text(path, most=MOST_DOCUMENT)
        except FileNotFoundError as error:
            raise StorageError(f"there is no file {source!r}") from error
        except OSError as error:
            raise StorageError(f"{source!r} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise self.damaged(source, "not UTF-8 text") from error
        try:
            return loads(text, finite=False)
        except ValueError as error:
            raise self.damaged(source, f"not JSON: {error}") from error

    def checked(self, document: Any, source: str) -> dict[str, Any]:
        """The document, its head and the types of its parts checked. source: for messages. Raises StorageError."""
        if not isinstance(document, dict) or document.get("format") != self.format:
            other = document.get("format") if isinstance(document, dict) else None
            task = other.removeprefix("icl_vision.") if isinstance(other, str) else ""
            if task != other and task.isidentifier():
                raise StorageError(f"{source!r} is no saved {self.noun}: it holds what {task}.load reads; use that")
            raise self.damaged(source, f"its 'format' is not {self.format!r}")
        if document.get("format_version") != self.version:
            raise StorageError(
                f"{source!r} has format_version {document.get('format_version')!r}; this icl_vision reads "
                f"{self.version}: use the version that wrote it ({document.get('icl_vision')}), or fit again"
            )
        for key, kind in {"params": dict, "llm": dict, "tokenizer": dict, **self.keys}.items():
            if not isinstance(document.get(key), kind):
                raise self.damaged(source, f"{key!r} is missing or is no {'object' if kind is dict else 'list'}")
        for key in ("llm", "tokenizer"):
            if not isinstance(document[key].get("spec"), str) or not isinstance(document[key].get("object"), bool):
                raise self.damaged(source, f"{key!r} holds no 'spec' or 'object'")
        saved = document.get("templates", {})
        if not isinstance(saved, dict) or not all(isinstance(digest, str) for digest in saved.values()):
            raise self.damaged(source, "'templates' holds no hashes")
        if not all(isinstance(document["tokenizer"].get(key), str) for key in ("name", "hash")):
            raise self.damaged(source, "'tokenizer' holds no 'name' or 'hash'")
        for name in JUDGED_APART:
            if name in document["params"]:
                raise self.damaged(source, f"'params' holds {name!r}")
        if not isinstance(document["params"].get("templates"), str | None):
            raise self.damaged(source, "'templates' is no folder")
        return document

    def _check_path(self, path: object) -> None:
        if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
            raise UsageError(f"a saved {self.noun} is named by a path, a str or an os.PathLike; got {path!r}")

    def damaged(self, source: str, why: str) -> StorageError:
        """What to raise where the document cannot be used."""
        return StorageError(
            f"{source!r} is not a saved {self.noun}, or is damaged: {why}; save it again from a fitted one"
        )


def plain(value: Any) -> Any:
    """A parameter as JSON has it: numpy's whole numbers and booleans as Python's, a path as a text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


@dataclass(frozen=True, slots=True)
class Names:
    """What a task is loaded with, every name of it allowed: the reader's own, packaged, or trusted."""

    llm: str | TextLLM
    tokenizer: str | os.PathLike[str] | Tokenizer
    templates: str | os.PathLike[str] | None


def allowed_names(
    source: str,
    document: Mapping[str, Any],
    *,
    llm: str | TextLLM | None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None,
    templates: str | os.PathLike[str] | None,
    trust: bool,
) -> Names:
    """The reader's own LLM, tokenizer and templates, or else those that the document names.

    Raises:
        UntrustedNameError: the document names something that leads elsewhere; see ``icl_vision.files.trust``.
    """
    if not isinstance(trust, bool):
        raise UsageError(f"trust must be True or False; got {trust!r}")
    reader = Reader(source, trust)
    if llm is None:
        spec = document["llm"]["spec"]
        if document["llm"]["object"] and not trust and not is_llm_alone(spec):
            raise _object("llm", spec)
        llm = reader.llm(spec, "llm=...")
    if tokenizer is None:
        name = document["tokenizer"]["spec"]
        if document["tokenizer"]["object"] and not trust and name not in zoo.available():
            raise _object("tokenizer", name)
        tokenizer = reader.packaged("tokenizer", name, zoo.available(), "tokenizer=...")
    if templates is None and document["params"].get("templates") is not None:
        templates = reader.place("folder of templates", document["params"]["templates"], "templates=FOLDER")
    return Names(llm, tokenizer, templates)


def _object(what: str, name: str) -> UntrustedNameError:
    return UntrustedNameError(
        f"the {what} was saved from an object, by its name {name!r}, and the object itself is not in the file; "
        f"pass it: load(path, {what}=...)"
    )


def check_same_templates(
    source: str, document: Mapping[str, Any], now: Mapping[str, str], folder: str | os.PathLike[str] | None
) -> None:
    """Raises TemplateError where a template says something else than when the task was saved.

    A file of 0.1.0 does not know what its templates said; it is taken with those that are there.

    now: what they say, by name. folder: where they were looked for first.
    """
    saved = document.get("templates")
    if saved is None:
        return
    changed = [name for name in sorted({*now, *saved}) if now.get(name) != saved.get(name)]
    if changed:
        where = "the packaged templates" if folder is None else repr(os.fspath(folder))
        instead = "restore it, pass templates=FOLDER to use the texts of that folder whatever they say, or fit and save"
        if "templates" not in document["params"]:
            instead = "use the version of icl_vision that saved it, or fit and save"
        raise TemplateError(
            f"{source!r} was saved with another text of the template{'s' * (len(changed) > 1)} "
            f"{', '.join(changed)} than {where} "
            f"{'have' if folder is None else 'has'} now, and would ask other questions: {instead} again"
        )


def check_same_tokenizer(source: str, document: Mapping[str, Any], tokenizer: Tokenizer, *, otherwise: str) -> None:
    """Raises ArtefactError where the tokenizer is not the one of the file. otherwise: what its words would do."""
    saved = document["tokenizer"]
    if fingerprint(tokenizer) != saved["hash"]:
        raise ArtefactError(
            f"the tokenizer {tokenizer.name!r} is not the one that made the words in {source!r} "
            f"({saved['name']!r}, hash {saved['hash'][:12]}): its words would {otherwise}; pass that one as "
            "tokenizer=..., or fit again"
        )


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
