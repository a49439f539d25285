"""What the files of all saved tasks have in common: how they are read, written, and found wrong.

Knows: the form's head (format, version, LLM, tokenizer), which of its names are followed, and the hashes of templates.
Refuses to know: what a task keeps besides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.contracts import TextLLM, Tokenizer
from icl_vision.errors import ArtefactError, StorageError, TemplateError, UntrustedNameError, UsageError
from icl_vision.files.reading import MOST_DOCUMENT, loads, read_text
from icl_vision.files.storage import write_json
from icl_vision.files.trust import Reader, is_llm_alone
from icl_vision.prompting import Twin, template_hashes
from icl_vision.tokenizers import zoo
from icl_vision.tokenizers.wrapping import fingerprint


@dataclass(frozen=True)
class SavedForm:
    """A kind of file. format, version: what its head says. keys: the parts it must have, with their type. noun: what it
    holds, for messages."""

    format: str
    version: int
    keys: Mapping[str, type]
    noun: str

    def write(self, path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
        """Write the head and ``document``, whole or not at all. Raises StorageError."""
        from icl_vision._version import __version__

        self._check_path(path)
        head = {"format": self.format, "format_version": self.version, "icl_vision": __version__}
        try:
            write_json(Path(path), {**head, **document})
        except OSError as error:
            raise StorageError(
                f"the {self.noun} cannot be written to {os.fspath(path)!r}: {error.strerror or error}"
            ) from error

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The whole document, its head and the types of its parts checked. Raises StorageError."""
        self._check_path(path)
        try:
            text = read_text(path, most=MOST_DOCUMENT)
        except FileNotFoundError as error:
            raise StorageError(f"there is no file {os.fspath(path)!r}") from error
        except OSError as error:
            raise StorageError(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise self.damaged(path, "not UTF-8 text") from error
        try:
            document = loads(text, finite=False)
        except ValueError as error:
            raise self.damaged(path, f"not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("format") != self.format:
            raise self.damaged(path, f"its 'format' is not {self.format!r}")
        if document.get("format_version") != self.version:
            raise StorageError(
                f"{os.fspath(path)!r} has format_version {document.get('format_version')!r}; this icl_vision reads "
                f"{self.version}: use the version that wrote it ({document.get('icl_vision')}), or fit again"
            )
        for key, kind in self.keys.items():
            if not isinstance(document.get(key), kind):
                raise self.damaged(path, f"{key!r} is missing or is no {'object' if kind is dict else 'list'}")
        for key in ("llm", "tokenizer"):
            if not isinstance(document[key].get("spec"), str) or not isinstance(document[key].get("object"), bool):
                raise self.damaged(path, f"{key!r} holds no 'spec' or 'object'")
        saved = document.get("templates", {})
        if not isinstance(saved, dict) or not all(isinstance(one, str) for one in saved.values()):
            raise self.damaged(path, "'templates' holds no hashes")
        if not all(isinstance(document["tokenizer"].get(key), str) for key in ("name", "hash")):
            raise self.damaged(path, "'tokenizer' holds no 'name' or 'hash'")
        for name in ("llm", "tokenizer", "budget", "prices"):
            if name in document["params"]:  # they have places of their own, where they are judged, or none
                raise self.damaged(path, f"'params' holds {name!r}")
        if not isinstance(document["params"].get("templates"), str | None):
            raise self.damaged(path, "'templates' is no folder")
        return document

    def _check_path(self, path: object) -> None:
        if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
            raise UsageError(f"a saved {self.noun} is named by a path, a str or an os.PathLike; got {path!r}")

    def damaged(self, path: str | os.PathLike[str], why: str) -> StorageError:
        """What to raise where the file cannot be used."""
        return StorageError(
            f"{os.fspath(path)!r} is not a saved {self.noun}, or is damaged: {why}; save it again from a fitted one"
        )


@dataclass(frozen=True, slots=True)
class Names:
    """What a task is loaded with, every name of it allowed: the reader's own, packaged, or trusted."""

    llm: str | TextLLM
    tokenizer: str | os.PathLike[str] | Tokenizer
    templates: str | os.PathLike[str] | None


def allowed_names(
    path: str | os.PathLike[str],
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
    reader = Reader(os.fspath(path), trust)
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
    path: str | os.PathLike[str],
    document: Mapping[str, Any],
    name: str,
    folder: str | os.PathLike[str] | None,
    twin: Twin | None = None,
) -> None:
    """Raises TemplateError where a template says something else than when the task was saved.

    twin: the second template that the task declares, if any. A file of 0.1.0 does not know what its templates said; it
    is taken with those that are there.
    """
    saved = document.get("templates")
    if saved is None:
        return
    found = template_hashes(name, folder, twin)
    changed = [one for one in sorted({*found, *saved}) if found.get(one) != saved.get(one)]
    if changed:
        where = "the packaged templates" if folder is None else repr(os.fspath(folder))
        raise TemplateError(
            f"{os.fspath(path)!r} was saved with another text of the template{'s' * (len(changed) > 1)} "
            f"{', '.join(changed)} than {where} "
            f"{'have' if folder is None else 'has'} now, and would ask other questions: restore it, pass "
            "templates=FOLDER to use the texts of that folder whatever they say, or fit and save again"
        )


def check_same_tokenizer(
    path: str | os.PathLike[str], document: Mapping[str, Any], tokenizer: Tokenizer, *, otherwise: str
) -> None:
    """Raises ArtefactError where the tokenizer is not the one of the file. otherwise: what its words would do."""
    saved = document["tokenizer"]
    if fingerprint(tokenizer) != saved["hash"]:
        raise ArtefactError(
            f"the tokenizer {tokenizer.name!r} is not the one that made the words in {os.fspath(path)!r} "
            f"({saved['name']!r}, hash {saved['hash'][:12]}): its words would {otherwise}; pass that one as "
            "tokenizer=..., or fit again"
        )
