"""What known LLMs can do, as data; and how a user says what theirs can.

Knows: names, name patterns and facts, with where each comes from. Refuses to know: clients, how a fact is used.

Every rule whose pattern fits a name applies, in this order, so a later one corrects an earlier one; "*" stands for
anything. The first rule of a provider is what is assumed of a model nobody has heard of: nothing that it could refuse.

Sources, as of November 2026:
[sdk] doc strings of the openai 3.54 and anthropic 2.12 packages.
[pai] pydantic-ai-slim 2.68, profiles/openai.py and profiles/anthropic.py, whose notes name live checks.
[insp] inspect-ai 0.3.285, model/_openai.py.
[oai] OpenAI's guide to structured outputs, "Limitations on enum size" and "on total string size".
[lite] the price file of litellm 1.109: windows (tokens a prompt may have), endpoints, smallest cached prefix.
"""

from __future__ import annotations

import fnmatch
from dataclasses import fields
from typing import Any

from icl_vision.contracts import Profile
from icl_vision.errors import UsageError
from icl_vision.forks import ForkLock

GEMMA_3_270M_NAME = "gemma-3-270m-q4_k_m"
GEMMA_3_270M_CONTEXT = 32768
"""``gemma3.context_length`` in the packaged GGUF file's header."""

# The packaged file is the base model: its header has no ``tokenizer.chat_template``, so it is asked through plain
# completions. (Gemma's instruct files do carry one.)


Rule = tuple[str, dict[str, Any]]

_EFFORT_OFF = {"reasoning": "optional", "least_reasoning": "none", "temperature": True}
_ALWAYS = {"reasoning": "always", "temperature": False}
_RESPONSES = {"api": "responses", "seed": False}

# Sampling parameters, "up to 4" stop strings, log-probabilities of the tokens written, a best-effort seed in Chat
# Completions [sdk].
_PLAIN = {
    "reasoning": "never",
    "temperature": True,
    "seed": True,
    "stop_strings": 4,
    "logprobs": True,
    "batch": True,
}
# "Supported schemas" of OpenAI's guide to structured outputs: 1,000 enum values; 120,000 characters of names and enum
# values; 15,000 characters in an enum of more than 250 values [oai]. Some are kept free for the names around them.
_SCHEMA = {
    "constraint": "json_schema",
    "constraint_limit": 1000,
    "constraint_characters": 119_000,
    "constraint_characters_many": 15_000,
}

OPENAI: tuple[Rule, ...] = (
    (
        "openai:*",
        {
            "api": "chat",
            "prefix_cache": True,
            # prompt_cache_key is a field of every model; the cache itself works from 1,024 tokens [sdk].
            "prompt_cache": "key",
            "prompt_cache_minimum": 1024,
            # An unknown model may be a reasoning one, which refuses sampling parameters [insp: is_latest_model].
            **_ALWAYS,
        },
    ),
    # Models that do not reason.
    *((pattern, _PLAIN) for pattern in ("openai:gpt-3.5*", "openai:gpt-4*", "openai:chatgpt-4o*")),
    ("openai:gpt-3.5*", {"context_window": 16_385, "tokenizer": "cl100k_base"}),
    ("openai:gpt-4*", {"context_window": 8_192, "tokenizer": "cl100k_base"}),
    ("openai:gpt-4-32k*", {"context_window": 32_768}),
    *(
        (pattern, {"context_window": 128_000})
        for pattern in ("openai:gpt-4-turbo*", "openai:gpt-4-1106*", "openai:gpt-4-0125*", "openai:gpt-4-vision*")
    ),
    # Structured outputs: gpt-4o-2024-08-06 and gpt-4o-mini onwards [pai]; at most 1,000 enum values, from memory.
    *(
        (pattern, _SCHEMA | {"context_window": 128_000, "tokenizer": "o200k_base"})
        for pattern in ("openai:gpt-4o*", "openai:chatgpt-4o*")
    ),
    ("openai:gpt-4o-2024-05-13*", {"constraint": None}),
    ("openai:chatgpt-4o*", {"constraint": None}),
    ("openai:gpt-4.1*", _SCHEMA | {"context_window": 1_047_576, "tokenizer": "o200k_base"}),
    # Search models take no sampling parameters and answer from the web.
    ("openai:gpt-4o*search*", {"temperature": False, "seed": False, "stop_strings": 0, "logprobs": False}),
    # The o-series always reasons, at low at the least [pai]; stop "not supported with o3 and o4-mini" [sdk].
    *(
        (
            f"openai:{name}*",
            _ALWAYS
            | _SCHEMA
            | {"least_reasoning": "low", "context_window": 200_000, "tokenizer": "o200k_base", "batch": True},
        )
        for name in ("o1", "o3", "o4")
    ),
    # The two previews of 2024 know neither reasoning_effort nor structured outputs.
    *(
        (f"openai:{name}*", {"least_reasoning": None, "constraint": None, "context_window": 128_000})
        for name in ("o1-mini", "o1-preview")
    ),
    # gpt-5 and everything after it; stop strings are cut here, as gpt-5 refuses the parameter.
    (
        "openai:gpt-[5-9]*",
        _ALWAYS | _SCHEMA | {"context_window": 272_000, "tokenizer": "o200k_base", "batch": True},
    ),
    # gpt-5.0 reasons always, at minimal at the least [pai].
    *((f"openai:{name}", {"least_reasoning": "minimal"}) for name in ("gpt-5", "gpt-5-*")),
    (
        "openai:gpt-5-chat*",
        {"reasoning": "never", "least_reasoning": None, "temperature": True, "context_window": 128_000},
    ),
    # gpt-5.1 to 5.4 reason only when asked; 5.5 and later do by default and take "none" [pai, insp].
    *((f"openai:gpt-5.{minor}*", _EFFORT_OFF) for minor in range(1, 10)),
    *((f"openai:{name}*", _EFFORT_OFF) for name in ("gpt-6-sol", "gpt-6-luna", "gpt-6.1-terra")),
    # A fixed medium effort that takes no word [pai].
    *(
        (f"openai:gpt-5.{minor}-chat*", _ALWAYS | {"least_reasoning": None, "context_window": 128_000})
        for minor in range(1, 4)
    ),
    # These refuse "none" and, reasoning always, every sampling parameter [pai, insp].
    *((f"openai:{name}*", _ALWAYS | {"least_reasoning": "low"}) for name in ("gpt-6-astra", "gpt-6.1-sol", "gpt-6.2")),
    *((f"openai:gpt-5.{minor}*", {"context_window": 1_050_000}) for minor in (4, 5)),
    *((f"openai:gpt-5.4-{size}*", {"context_window": 272_000}) for size in ("mini", "nano")),
    # 5.6 made prompt caching explicit: without a marked block its one breakpoint lies behind the query [sdk, pai].
    *((f"openai:{name}*", {"context_window": 922_000, "prompt_cache": "breakpoints"}) for name in ("gpt-5.6", "gpt-6")),
    # tiktoken 0.14 has no vocabulary for gpt-6; nobody says which it has.
    ("openai:gpt-6*", {"tokenizer": None}),
    ("openai:gpt-5.6-cyber*", {"context_window": 400_000}),
    # Only on the Responses endpoint [lite].
    *(
        (f"openai:{name}*", _RESPONSES | _ALWAYS | {"least_reasoning": least})
        for name, least in (
            ("o1-pro", "low"),
            ("o3-pro", "low"),
            ("o3-deep-research", None),
            ("o4-mini-deep-research", None),
            ("computer-use", None),
            ("codex", None),
            ("gpt-daybreak", None),
            ("gpt-5-codex", None),
            ("gpt-5.1-codex", None),
            ("gpt-5-pro", "high"),
            ("gpt-5.2-pro", "medium"),
            ("gpt-5.4-pro", "medium"),
            ("gpt-5.5-pro", "medium"),
        )
    ),
    *((f"openai:gpt-5.{minor}-codex*", _RESPONSES) for minor in (2, 3)),
)

_CLAUDE_4_6_ON = {"context_window": 1_000_000, "constraint": "json_schema"}
_THINKS_UNLESS_TOLD = {"reasoning": "optional", "least_reasoning": "disabled", "prompt_cache_minimum": 512}
_THINKS_ALWAYS = {"reasoning": "always", "least_reasoning": "low", "prompt_cache_minimum": 512}

ANTHROPIC: tuple[Rule, ...] = (
    (
        "anthropic:*",
        {
            "api": "chat",
            # API version 2026-10-21, which the SDK sends, takes neither temperature nor seed nor logprobs [insp, sdk].
            "temperature": False,
            "stop_strings": 64,
            "prefix_cache": True,
            "prompt_cache": "cache_control",
            "prompt_cache_minimum": 4096,
            "batch": True,
            # An unknown Claude may think before it answers and refuse to be told not to.
            "reasoning": "always",
        },
    ),
    # Up to 4.5: no thinking unless asked for, 200k [pai, lite].
    *(
        (
            f"anthropic:claude-{name}*",
            {"reasoning": "never", "context_window": 200_000, "prompt_cache_minimum": 1024},
        )
        for name in ("3", "opus-4", "sonnet-4", "haiku-4")
    ),
    *((f"anthropic:claude-{name}*", {"prompt_cache_minimum": 4096}) for name in ("opus-4-5", "haiku-4-5")),
    # Structured outputs [pai].
    *(
        (f"anthropic:claude-{name}*", {"constraint": "json_schema"})
        for name in ("haiku-4-5", "sonnet-4-5", "opus-4-1", "opus-4-5")
    ),
    ("anthropic:claude-sonnet-4-6*", _CLAUDE_4_6_ON),
    ("anthropic:claude-opus-4-6*", _CLAUDE_4_6_ON | {"prompt_cache_minimum": 4096}),
    ("anthropic:claude-opus-4-7*", _CLAUDE_4_6_ON | {"prompt_cache_minimum": 2048}),
    ("anthropic:claude-opus-4-8*", _CLAUDE_4_6_ON),
    # The fifth generation thinks by default; most take {"type": "disabled"} [pai: thinking_always_enabled].
    *(
        (f"anthropic:claude-{name}*", _CLAUDE_4_6_ON | _THINKS_UNLESS_TOLD)
        for name in ("opus-5", "sonnet-5", "haiku-5-5")
    ),
    ("anthropic:claude-sonnet-5", {"prompt_cache_minimum": 1024}),
    # Refuses "disabled" and names "between_tools" as the way to turn thinking off [pai].
    ("anthropic:claude-sonnet-5-5*", {"least_reasoning": "between_tools"}),
    # Cannot be turned off; effort "low" is the least of it [pai].
    *((f"anthropic:claude-{name}*", _CLAUDE_4_6_ON | _THINKS_ALWAYS) for name in ("opus-5-5", "fable-5", "mythos-5")),
    # The preview is not among the models with structured outputs or an effort setting [pai].
    ("anthropic:claude-mythos-preview*", {"context_window": 1_000_000, "prompt_cache_minimum": 512}),
)

RULES: tuple[Rule, ...] = OPENAI + ANTHROPIC

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
