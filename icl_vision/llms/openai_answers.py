"""Answers of OpenAI's endpoints: text, finish reason and usage out of their JSON.

Knows: the forms of Chat Completions, plain completions and Responses. Refuses to know: clients, requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_vision.contracts import Usage
from icl_vision.errors import LLMResponseError

Answer = tuple[str, str, Usage]
"""Text, finish reason, usage."""


def read_chat(answer: Mapping[str, Any], name: str) -> Answer:
    """What a Chat Completions answer says; ``name`` is the LLM's, for the error where it says nothing."""
    choice, finish = first_choice(answer, name)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise wrong_form(name, "choices[0].message", answer)
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal, "refusal", chat_usage(answer)
    # Nothing but reasoning, or a content filter, leaves null here.
    if not isinstance(content, str) and content is not None:
        raise wrong_form(name, "choices[0].message.content", answer)
    return content or "", finish, chat_usage(answer)


def read_completion(answer: Mapping[str, Any], name: str) -> Answer:
    """What a plain completion says."""
    choice, finish = first_choice(answer, name)
    text = choice.get("text")
    if not isinstance(text, str):
        raise wrong_form(name, "choices[0].text", answer)
    return text, finish, chat_usage(answer)


def first_choice(answer: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The first choice and its finish reason."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        raise wrong_form(name, "choices", answer)
    finish = choice.get("finish_reason")
    return choice, finish if isinstance(finish, str) and finish else "stop"


def wrong_form(name: str, what: str, answer: Mapping[str, Any]) -> LLMResponseError:
    """The error for an answer without what every answer has; names its fields, not its values."""
    fields = ", ".join(sorted(map(str, answer))[:12]) or "none"
    return LLMResponseError(f"{name!r} answered without {what}; the answer's fields are: {fields}")


def chat_usage(answer: Mapping[str, Any]) -> Usage:
    """OpenAI's prompt_tokens include what was read from the cache."""
    usage = mapping(answer.get("usage"))
    details = mapping(usage.get("prompt_tokens_details"))
    return Usage(
        requests=1,
        prompt_tokens=count(usage.get("prompt_tokens")),
        cached_tokens=count(details.get("cached_tokens")),
        completion_tokens=count(usage.get("completion_tokens")),
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )


def read_response(answer: Mapping[str, Any], name: str) -> Answer:
    """What a Responses answer says."""
    output = answer.get("output")
    if not isinstance(output, list):
        raise wrong_form(name, "output", answer)
    items = [item for item in output if isinstance(item, Mapping) and item.get("type") == "message"]
    parts = [part for item in items for part in item.get("content") or () if isinstance(part, Mapping)]
    text = "".join(str(part["text"]) for part in parts if part.get("type") == "output_text" and "text" in part)
    refusal = "".join(str(part.get("refusal", "")) for part in parts if part.get("type") == "refusal")
    usage = mapping(answer.get("usage"))
    details = mapping(usage.get("input_tokens_details"))
    spent = Usage(
        requests=1,
        prompt_tokens=count(usage.get("input_tokens")),
        cached_tokens=count(details.get("cached_tokens")),
        completion_tokens=count(usage.get("output_tokens")),
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )
    if refusal:
        return refusal, "refusal", spent
    reason = mapping(answer.get("incomplete_details")).get("reason")
    finish = {"max_output_tokens": "length", None: "stop"}.get(reason, str(reason))
    if not parts and finish == "stop":
        raise wrong_form(name, "an output message", answer)
    return text, finish, spent


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, an empty one where it is not."""
    return value if isinstance(value, Mapping) else {}


def count(value: object) -> int:
    """The value where it is a positive whole number, else 0: a wrong usage must not cost an answer."""
    return value if isinstance(value, int) and value > 0 else 0
