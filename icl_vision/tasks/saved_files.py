"""What the files of all saved tasks have in common: how they are read, written, and found wrong.

Knows: the form's head (format, version, LLM, tokenizer). Refuses to know: what a task keeps besides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_vision.contracts import Tokenizer
from icl_vision.errors import ArtefactError, StorageError
from icl_vision.storage import write_json
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

        head = {"format": self.format, "format_version": self.version, "icl_vision": __version__}
        try:
            write_json(Path(path), {**head, **document})
        except OSError as error:
            raise StorageError(
                f"the {self.noun} cannot be written to {os.fspath(path)!r}: {error.strerror or error}"
            ) from error

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The whole document, its head and the types of its parts checked. Raises StorageError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise StorageError(f"there is no file {os.fspath(path)!r}") from error
        except OSError as error:
            raise StorageError(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise self.damaged(path, "not UTF-8 text") from error
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
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
        if not all(isinstance(document["tokenizer"].get(key), str) for key in ("name", "hash")):
            raise self.damaged(path, "'tokenizer' holds no 'name' or 'hash'")
        return document

    def damaged(self, path: str | os.PathLike[str], why: str) -> StorageError:
        """What to raise where the file cannot be used."""
        return StorageError(
            f"{os.fspath(path)!r} is not a saved {self.noun}, or is damaged: {why}; save it again from a fitted one"
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
