"""What a file may name by itself, and what only whoever reads it may.

A saved task, a configuration, a checkpoint or an episode file is often somebody else's. Followed blindly, a name in it
could send the user's key and pictures to a server of its author's choice, import a provider's package, or open files
of this machine. So a name is followed by itself only where it can lead nowhere else: packaged things, and the LLMs of
two providers, whose hosts are fixed in their SDKs (or by the user's own environment: OPENAI_BASE_URL belongs to the
user). Any other name is refused, in words that say how to allow it: the reader's own argument, or trust in the file.

Knows: which names lead elsewhere. Refuses to know: files' forms, and what a name is used for.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from icl_vision.errors import UntrustedNameError

ALONE = ("local", "fake")
"""LLMs that are whole without a further name: nothing is looked up that a file could point at."""
FIXED_HOSTS = ("openai", "anthropic")
"""Providers whose adapters take a model's name and no address."""
SHOWN = 200
_PASSWORD = re.compile("//.*@", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reader:
    """How the names of one file are judged.

    source: the file, for messages. trust: the reader's word that its names may be followed. how: how that word is
    given, such as "trust=True" or "--trust".
    """

    source: str
    trust: bool = False
    how: str = "trust=True"

    def llm(self, spec: str, instead: str) -> str:
        """The ``connect`` string of a file, where it may be followed. instead: how to pass an LLM oneself."""
        return spec if self.trust else self._refused("LLM", spec, llm_leads_to(spec), instead)

    def packaged(self, what: str, name: str, known: Collection[str], instead: str) -> str:
        """A name that may be one of the packaged ``known``; any other could be a folder, or a repository of a hub."""
        leads = None if self.trust or name in known else f"a folder or a download (packaged are {', '.join(known)})"
        return self._refused(what, name, leads, instead)

    def place(self, what: str, path: str, instead: str) -> str:
        """A path."""
        return path if self.trust else self._refused(what, path, "a place on this machine", instead)

    def inside(self, what: str, name: str, instead: str) -> str:
        """A name of a file in a folder that the reader gave; whatever leads out of it is a place of its own."""
        parts = PurePosixPath(name)
        own = PureWindowsPath(name)
        leaves = parts.is_absolute() or own.is_absolute() or bool(own.drive) or ".." in (*parts.parts, *own.parts)
        return self.place(what, name, instead) if leaves else name

    def _refused(self, what: str, name: str, leads: str | None, instead: str) -> str:
        if leads is None:
            return name
        # A configuration of one's own may hold a password; a message must not.
        whole = _PASSWORD.sub("//***@", name.partition("?")[0]) if "://" in name else name
        shown = whole if len(whole) <= SHOWN else whole[:SHOWN] + "..."
        raise UntrustedNameError(
            f"{self.source!r} names the {what} {shown!r}, which leads to {leads}; pass {instead} to say yourself what "
            f"is used, or {self.how} if you trust whoever made the file"
        )


def is_llm_alone(spec: str) -> bool:
    """Whether a ``connect`` string names an LLM of this package or of the two providers."""
    kind, colon, rest = spec.partition(":")
    return (kind in ALONE and not colon) or (kind in FIXED_HOSTS and bool(rest) and "://" not in rest)


def llm_leads_to(spec: str) -> str | None:
    """What a ``connect`` string leads to beyond the package and the two providers' own hosts; None where nothing.

    A string that names no LLM at all is left to ``connect``, which refuses it without looking anything up.
    """
    kind, colon, _ = spec.partition(":")
    if is_llm_alone(spec):
        return None
    return {
        "local": "a file on this machine",
        "replay": "a file on this machine",
        "openai-compatible": "a server, which would get your prompts and the key of OPENAI_COMPATIBLE_API_KEY",
        "langchain": "whatever package and server LangChain finds by that name",
    }.get(kind, "something else than a packaged LLM or one of " + " and ".join(FIXED_HOSTS) if colon else None)
