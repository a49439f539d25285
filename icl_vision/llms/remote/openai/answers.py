"""Answers of OpenAI's endpoints: text, finish reason and usage out of their JSON.

Knows: the forms of Chat Completions, plain completions and Responses. Refuses to know: clients, requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icl_vision.contracts import Usage
from icl_vision.errors import LLMResponseError
from icl_vision.llms.answers import Said, Written, ending, tokens_told

_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "reasoning_text", "thinking", "thinking_blocks")
"""Fields of a message in which servers put what a model thought."""

_TEXT_PARTS = ("text", "output_text")


def read_chat(answer: Mapping[str, Any], name: str) -> Said:
    """What a Chat Completions answer says; ``name`` is the LLM's, for the error where it has not the form of one."""
    choice, finish = first_choice(answer, name)
    usage = chat_usage(answer)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        if ending(finish) == "withheld":  # some filters leave out the whole message
            return Said("", finish, usage)
        raise wrong_form(name, "choices[0].message", answer)
    content, refusal = message.get("content"), message.get("refusal")
    text, thoughts, refused = text_of(content)
    if text is None:
        raise wrong_form(name, "choices[0].message.content", answer)
    return Said(
        text,
        finish,
        usage,
        refusal=refusal if isinstance(refusal, str) and refusal.strip() else refused,
        thoughts=thoughts or thought(message) or _reasoned(answer),
        tools=bool(message.get("tool_calls") or message.get("function_call")),
        stopped=choice.get("stop_reason"),  # vLLM names the stop string it met
        written=_written(choice.get("logprobs")),
    )


def read_completion(answer: Mapping[str, Any], name: str) -> Said:
    """What a plain completion says."""
    choice, finish = first_choice(answer, name)
    text = choice.get("text")
    if not isinstance(text, str) and not ("text" in choice and text is None):
        raise wrong_form(name, "choices[0].text", answer)
    return Said(
        text or "",
        finish,
        chat_usage(answer),
        thoughts=thought(choice) or _reasoned(answer),
        stopped=choice.get("stop_reason"),
        written=_written(choice.get("logprobs")),
    )


def _written(logprobs: object) -> Written:
    """The tokens of a choice's ``logprobs``: a list of entries, or plain completions' lists of tokens and numbers."""
    told = mapping(logprobs)
    tokens, values = told.get("tokens"), told.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values):
        return tokens_told([{"token": token, "logprob": value} for token, value in zip(tokens, values, strict=True)])
    return tokens_told(told.get("content"))


def text_of(content: object) -> tuple[str | None, bool, str]:
    """Text, whether there are thoughts, and a refusal, out of a message's content: a string, its parts, or nothing.

    The text is None where the content is of no known form. Nothing but reasoning, or a filter, leaves no content.
    """
    if content is None or isinstance(content, str):
        return content or "", False, ""
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return None, False, ""
    texts: list[str] = []
    refusals: list[str] = []
    thoughts = False
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            kind = part.get("type", "text")
            if kind in _TEXT_PARTS:
                text = part.get("text")
                texts.append(text if isinstance(text, str) else str(mapping(text).get("value") or ""))
            elif kind == "refusal":
                refusals.append(str(part.get("refusal") or ""))
            elif isinstance(kind, str) and ("think" in kind or "reason" in kind):
                thoughts = True
    return "".join(texts), thoughts, "".join(refusals)


def thought(message: Mapping[str, Any]) -> bool:
    """Whether there are thoughts beside a message's text."""
    return any(message.get(name) not in (None, "", [], {}) for name in _THOUGHTS)


def _reasoned(answer: Mapping[str, Any]) -> bool:
    details = mapping(mapping(answer.get("usage")).get("completion_tokens_details"))
    return count(details.get("reasoning_tokens")) > 0


def first_choice(answer: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str | None]:
    """The first choice and its finish reason."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        raise wrong_form(name, "choices", answer)
    finish = choice.get("finish_reason")
    return choice, finish if isinstance(finish, str) and finish else None


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


def read_response(answer: Mapping[str, Any], name: str) -> Said:
    """What a Responses answer says."""
    output = answer.get("output")
    if not isinstance(output, list):
        raise wrong_form(name, "output", answer)
    items = [item for item in output if isinstance(item, Mapping)]
    kinds = [str(item.get("type")) for item in items]
    texts: list[str] = []
    refusals: list[str] = []
    tokens: list[tuple[bytes, float]] = []
    thoughts = "reasoning" in kinds
    for item in items:
        if item.get("type") == "message":
            content = item.get("content")
            text, also, refusal = text_of(content)
            texts.append(text or "")
            for part in content if isinstance(content, list) else ():
                tokens += tokens_told(mapping(part).get("logprobs"))
            refusals.append(refusal)
            thoughts = thoughts or also
    usage = mapping(answer.get("usage"))
    details = mapping(usage.get("input_tokens_details"))
    spent = Usage(
        requests=1,
        prompt_tokens=count(usage.get("input_tokens")),
        cached_tokens=count(details.get("cached_tokens")),
        completion_tokens=count(usage.get("output_tokens")),
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )
    reason = mapping(answer.get("incomplete_details")).get("reason")
    status = answer.get("status")
    finish = str(reason) if reason else str(status) if isinstance(status, str) and status != "completed" else None
    tools = any(kind.endswith("_call") for kind in kinds)
    return Said("".join(texts), finish, spent, "".join(refusals), thoughts, tools, written=tuple(tokens))


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, an empty one where it is not."""
    return value if isinstance(value, Mapping) else {}


def count(value: object) -> int:
    """The value where it is a positive whole number, else 0: a wrong usage must not cost an answer."""
    return value if isinstance(value, int) and value > 0 else 0
