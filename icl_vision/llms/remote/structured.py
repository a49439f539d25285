"""A Constraint as a JSON schema for providers with structured outputs, and their JSON back as plain text.

Knows: the schema forms the providers accept. Refuses to know: requests, providers' names.
"""

from __future__ import annotations

import json
from typing import Any

from icl_vision.contracts import Constraint, Profile
from icl_vision.errors import CapabilityError
from icl_vision.spelling import composed

SCHEMA_NAME = "answer"


def check_constraint(constraint: Constraint, profile: Profile) -> None:
    """Raise CapabilityError where the profile says that the provider bears fewer or shorter allowed strings."""
    limit = profile.too_much(constraint.allowed)
    if limit:
        raise CapabilityError(
            f"{profile.name!r} bears {limit}; allow fewer or shorter ones, or leave the constraint out and repair the "
            "answer"
        )


def constraint_schema(constraint: Constraint, *, arrays: bool) -> dict[str, Any]:
    """A strict JSON schema whose only instances are the answers that the constraint allows.

    One answer is ``{"answer": "one of allowed"}``. Several are an array of exactly that many where the provider knows
    ``minItems`` and ``maxItems`` (``arrays``), and numbered properties where it does not.
    """
    word = {"type": "string", "enum": list(dict.fromkeys(constraint.allowed))}
    if constraint.count == 1:
        return _object({"answer": word})
    if arrays:
        many = {"type": "array", "items": word, "minItems": constraint.count, "maxItems": constraint.count}
        return _object({"answer": many})
    # The strings stand once, under $defs, and not once for every place.
    schema = _object({name: {"$ref": "#/$defs/word"} for name in _names(constraint.count)})
    return schema | {"$defs": {"word": word}}


def schema_room(constraint: Constraint, *, arrays: bool) -> int:
    """Tokens that the JSON around the answer may take beyond the answer's own; generous: nothing else is written."""
    return 16 + constraint.count * (4 if arrays else 10)


def answer_from_json(text: str, constraint: Constraint, *, arrays: bool) -> str | None:
    """The allowed strings, one space between them, or None where ``text`` is not what the schema asked for."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if constraint.count == 1:
        words: list[Any] = [document.get("answer")]
    elif arrays:
        answered = document.get("answer")
        words = answered if isinstance(answered, list) else []
    else:
        words = [document.get(name) for name in _names(constraint.count)]
    # A model may write an accent as a character of its own.
    allowed = {composed(string): string for string in reversed(constraint.allowed)}
    spelled = [allowed[composed(word)] for word in words if isinstance(word, str) and composed(word) in allowed]
    return " ".join(spelled) if len(spelled) == len(words) == constraint.count else None


def _names(count: int) -> list[str]:
    width = len(str(count))
    return [f"w{number:0{width}d}" for number in range(1, count + 1)]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
