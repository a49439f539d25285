"""What known LLMs can do, as data; and how a user says what theirs can.

Knows: names and numbers, with where each comes from (``families`` for hosted models). Refuses to know: clients.
"""

from __future__ import annotations

import fnmatch
from dataclasses import fields
from typing import Any

from icl_vision.contracts import Profile
from icl_vision.errors import UsageError
from icl_vision.forks import ForkLock
from icl_vision.llms.families import RULES

GEMMA_3_270M_NAME = "gemma-3-270m-q4_k_m"
GEMMA_3_270M_CONTEXT = 32768
"""``gemma3.context_length`` in the packaged GGUF file's header."""

# The packaged file is the base model: its header has no ``tokenizer.chat_template``, so it is asked through plain
# completions. (Gemma's instruct files do carry one.)

_registered: list[tuple[str, dict[str, Any]]] = []
_lock = ForkLock()
_FIELDS = frozenset(field.name for field in fields(Profile)) - {"name"}


def register_profile(pattern: str, **facts: Any) -> None:
    """Say what models of a name can do; holds for every ``connect`` after it, and beats what was said before.

        register_profile("openai:my-model*", context_window=64_000, constraint="json_schema", seed=True)

    Args:
        pattern: a name as ``connect`` takes it; "*" stands for anything. Letter case counts.
        facts: fields of ``Profile`` but its name; what is left out stays as the other rules that fit say.

    Raises:
        UsageError: an empty pattern, or a field that ``Profile`` does not have.
    """
    if not isinstance(pattern, str) or ":" not in pattern:
        raise UsageError(f"a profile's pattern is a provider, a colon and a model, like 'openai:my-*'; got {pattern!r}")
    unknown = sorted(set(facts) - _FIELDS)
    if unknown:
        raise UsageError(f"a profile has no field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}")
    with _lock:
        _registered.append((pattern, dict(facts)))


def profile_for(name: str, **facts: Any) -> Profile:
    """The profile of a hosted model: every rule that fits its name, built-in ones first, then the registered.

    Args:
        name: as ``connect`` takes it. A fine-tuned model ("openai:ft:gpt-4o-mini:me::1") is what it was tuned from.
        facts: fields that hold where no rule names them.
    """
    known = name.replace(":ft:", ":", 1)
    merged: dict[str, Any] = dict(facts)
    with _lock:
        rules = [*RULES, *_registered]
    for pattern, said in rules:
        if fnmatch.fnmatchcase(known, pattern) or fnmatch.fnmatchcase(name, pattern):
            merged |= said
    return Profile(name=name, **merged)
