"""What servers add to OpenAI's protocol: how each of them restricts an answer, and vLLM's prompt_logprobs.

Knows: vLLM's, llama.cpp's and Ollama's fields. Refuses to know: clients, whole requests.

Sources: vLLM, features/structured_outputs (``structured_outputs`` since 0.12, ``guided_*`` until 0.11); llama.cpp,
tools/server/README (``grammar`` on both endpoints); Ollama, api/openai-compatibility (``response_format``, chat only).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from icl_vision.contracts import Constraint, Profile
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.llms.local.grammar import MAX_GRAMMAR_STRINGS, constraint_grammar
from icl_vision.llms.remote.structured import SCHEMA_NAME, constraint_schema, schema_room
from icl_vision.spelling import composed

Dialect = Literal["generic", "vllm", "vllm-0.11", "llama.cpp", "ollama"]


def facts(dialect: str, endpoint: str) -> dict[str, Any]:
    """Fields of a Profile that follow from the server's kind.

    Raises:
        UsageError: a dialect nobody knows.
    """
    if dialect not in get_args(Dialect):
        raise UsageError(f"dialect must be one of {', '.join(map(repr, get_args(Dialect)))}; got {dialect!r}")
    if dialect in ("vllm", "vllm-0.11"):
        # vLLM caches prefixes by itself (automatic prefix caching, on by default).
        return {
            "constraint": "choice",
            "stop_strings": 64,
            "prefix_cache": True,
            "prompt_cache": "automatic",
            "logprobs": True,
        }
    if dialect == "llama.cpp":
        return {
            "scores_text": endpoint == "completions",  # token by token, see llama_remote
            "scores_bags": endpoint == "completions",
            "constraint": "grammar",
            "constraint_limit": MAX_GRAMMAR_STRINGS,
            "stop_strings": 64,
            "prefix_cache": True,
            "prompt_cache": "automatic",
            "logprobs": True,
        }
    if dialect == "ollama":
        return {"constraint": "json_schema"} if endpoint == "chat" else {}
    return {}


def constraint_fields(
    constraint: Constraint, profile: Profile, dialect: Dialect
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What restricts the answer: fields of the protocol, and fields of the server's own.

    Raises:
        CapabilityError: the profile claims a kind that cannot be asked for through this protocol.
    """
    spaced = profile.api == "completions"  # a continuation begins with its own space
    if profile.constraint == "json_schema" and profile.api == "chat":
        schema = {"name": SCHEMA_NAME, "strict": True, "schema": constraint_schema(constraint, arrays=True)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}, {}
    if profile.constraint == "grammar":
        return {}, {"grammar": constraint_grammar(constraint, leading_space=spaced)}
    if profile.constraint == "choice":
        value: list[str] | str
        if constraint.count == 1:
            kind, value = "choice", [" " + allowed if spaced else allowed for allowed in constraint.allowed]
        else:
            word = "(" + "|".join(map(re.escape, constraint.allowed)) + ")"
            kind, value = "regex", f"{' ' if spaced else ''}{word}( {word}){{{constraint.count - 1}}}"
        if dialect == "vllm-0.11":
            return {}, {f"guided_{kind}": value}
        return {}, {"structured_outputs": {kind: value}}
    raise CapabilityError(
        f"{profile.name!r} cannot be asked for a {profile.constraint!r} constraint on its {profile.api!r} endpoint; "
        "leave constraint out and parse the answer"
    )


def room(constraint: Constraint | None, profile: Profile) -> int:
    """Tokens beside the answer's own that its form takes."""
    if constraint is None or profile.constraint != "json_schema":
        return 0
    return schema_room(constraint, arrays=True)


def keeps(text: str, constraint: Constraint) -> bool:
    """Whether a plain answer consists of what was allowed."""
    text = composed(text.strip())
    allowed = [composed(string) for string in constraint.allowed]
    if constraint.count == 1:
        return text in {string.strip() for string in allowed}
    word = "(?:" + "|".join(map(re.escape, allowed)) + ")"
    return re.fullmatch(f"{word}(?: {word}){{{constraint.count - 1}}}", text) is not None


def prompt_logprobs(positions: Any) -> dict[str, Any] | None:
    """vLLM's prompt_logprobs (for each token a mapping of ids to entries, null for the first) as an echo has them."""
    if not isinstance(positions, list):
        return None
    tokens: list[str] = []
    values: list[float | None] = []
    for index, position in enumerate(positions):
        if position is None and index == 0:
            # The start token, or the first of the text where there is none: nothing precedes it.
            continue
        entry = next(iter(position.values()), None) if isinstance(position, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(entry.get("decoded_token"), str):
            return None
        tokens.append(entry["decoded_token"])
        values.append(entry.get("logprob"))
    return {"tokens": tokens, "token_logprobs": values}
