"""Tasks that were saved to a file, for a server: whose LLM they may ask.

A saved task names an LLM, and a server would send it the words of other people's pictures, and ask it with the key of
whoever started the server. So the file's own LLM is asked only where it is local; any other must be named by whoever
starts the server, and then that one is asked.

Knows: that rule. Refuses to know: what else a file may name (``tasks.saving`` refuses it), what a task does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from icl_vision.errors import UntrustedNameError
from icl_vision.files.trust import ALONE
from icl_vision.tasks.base import Task

if TYPE_CHECKING:
    from icl_vision.contracts import TextLLM, Tokenizer

T = TypeVar("T", bound=Task[Any])


def load_saved(
    kind: type[T],
    path: str | os.PathLike[str],
    *,
    llm: str | TextLLM | None = None,
    tokenizer: Tokenizer | None = None,
) -> T:
    """The task that ``save`` wrote, fitted.

    Args:
        kind: its class: ``FewShotClassifier``, ``VisualQA``, ``ImageGenerator``.
        llm: what is asked instead of the LLM that the file names; None where nobody named one.
        tokenizer: one that is loaded already; taken where it is the file's.

    Raises:
        UntrustedNameError: the file names an LLM that is not local, and ``llm`` names none; or it names anything else
            that leads elsewhere.
        StorageError, TemplateError: as ``Task.load``.
    """
    source = os.fspath(path)
    document = kind.form.checked(kind.form.read(path), source)
    if llm is None and document["llm"]["spec"] not in ALONE:
        raise UntrustedNameError(
            f"{source!r} asks the LLM {document['llm']['spec'][:80]!r}, which is not local; name it with --llm, so "
            "that the words of pictures go there by your word and not by the file's"
        )
    from icl_vision.tokenizers.wrapping import fingerprint

    same = tokenizer is not None and fingerprint(tokenizer) == document["tokenizer"]["hash"]
    return kind.load(path, llm=llm, tokenizer=tokenizer if same else None)
