"""LangChain's forms of things: settings, usage, reasons to finish, errors; read from objects without importing it.

Knows: names that LangChain and the packages around it use. Refuses to know: when and how a model is asked.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from icl_vision.contracts import Profile, Prompt, Usage
from icl_vision.errors import LLMError, LLMGarbledError, LLMTimeoutError, LLMUnavailableError, PromptTooLongError
from icl_vision.llms.answers import Said
from icl_vision.llms.redaction import quote, redacted_url, shown_url, url_secrets
from icl_vision.llms.remote.errors.foreign_errors import failure_of
from icl_vision.llms.remote.errors.provider_errors import error_in
from icl_vision.llms.remote.errors.sdk_errors import SHORTER, Translator, error_detail
from icl_vision.llms.remote.langchain.object_identity import Description, hides
from icl_vision.llms.remote.openai.answers import text_of, thought
from icl_vision.llms.tokens import count_tokens

# Our name of a setting, and the fields by which models know it, the usual one first.
_FIELDS: dict[str, tuple[str, ...]] = {
    "max_tokens": ("max_tokens", "max_output_tokens", "max_new_tokens"),
    "temperature": ("temperature",),
    "seed": ("seed",),
}
SETTINGS = ("stop", *_FIELDS)

# Keys whose value nobody told us: a provider's message may repeat part of a request.
_KEY_LIKE = re.compile(r"\b(?:sk|pk|xai|gsk|hf|AIza)[-_A-Za-z0-9]{12,}|(?i:bearer)\s+\S+")
_ADDRESS = re.compile(r"(?:^|_)(?:base|url|endpoint|host)(?:$|_)", re.IGNORECASE)
_HIDDEN = re.compile(r"key|secret|header|password|auth|client|callback|token$", re.IGNORECASE)


def without_keys(text: str) -> str:
    """The text with everything blotted out that looks like a key."""
    return _KEY_LIKE.sub("***", text)


def translated(error: Exception, inner: Any, profile: Profile, prompt: Prompt) -> Exception:
    """A model's error in our tree, without what its text may hold of keys.

    LangChain's packages raise their SDK's classes, lately with LangChain's own mixed in: told by name and attributes.
    """
    hidden = secrets(inner)
    text = quote(without_keys(str(error)), hidden)
    message = f"{profile.name!r} failed with {type(error).__name__}: {text}"
    kinds = {base.__name__ for base in type(error).__mro__}
    failure = failure_of(error)
    if failure.status is not None:
        detail = error_detail(failure.body)
        said = without_keys(str(detail.get("message") or error))
        translator = Translator(profile.name, "", "the model's key", profile.context_window)
        return translator.status_error(failure.status, detail, said, hidden, prompt.text, failure.retry_after)
    if failure.kind == "timeout":
        return LLMTimeoutError(message)
    if failure.kind == "connection":
        return LLMUnavailableError(message)
    if "ContextOverflowError" in kinds and profile.context_window is not None:
        tokens = count_tokens(prompt.text, model_name(inner)).tokens
        if tokens > profile.context_window:
            return PromptTooLongError(tokens, profile.context_window, SHORTER)
    # An error object inside an answer with status 200: the packages raise it as the argument of a ValueError.
    reported = error_in({"error": error.args[0]}) if error.args and isinstance(error.args[0], Mapping) else None
    if reported is not None:
        translator = Translator(profile.name, "", "the model's key", profile.context_window)
        said = without_keys(reported.message)
        return translator.status_error(reported.status, reported.detail, said, hidden, prompt.text)
    if "JSONDecodeError" in kinds:
        return LLMGarbledError(f"{profile.name!r} answered what is not JSON ({text})")
    if isinstance(error, TypeError) and "unexpected keyword argument" in text:
        return LLMError(f"{message}; leave out what it refuses, with connect(model, settings=('stop',))")
    return LLMError(message)


def innermost(model: Any) -> Any:
    """The language model inside the wrappers that ``bind``, ``with_retry`` and the like put around it."""
    for _ in range(32):
        if any(base.__name__ == "BaseLanguageModel" for base in type(model).__mro__):
            break
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None:
            break
        model = inner
    return model


def retries_by_itself(model: Any, inner: Any) -> bool:
    """Whether a failed request is tried again before we hear of it."""
    # The packages' own field: None is "the SDK's default", which is to try again.
    wrapped = any(base.__name__ in ("RunnableRetry", "RunnableWithFallbacks") for base in type(model).__mro__)
    return wrapped or getattr(inner, "max_retries", 0) != 0


def described(inner: Any) -> Mapping[str, Any]:
    """LangChain's profile of the model: a beta feature, so anything may be missing."""
    profile = getattr(inner, "profile", None)
    return profile if isinstance(profile, Mapping) else {}


def setting_names(inner: Any, wanted: Collection[str] | None) -> dict[str, str]:
    """Which of our settings a call hands over, and under which name: those the model has a field for, or ``wanted``."""
    known: set[str] = set()
    for name, field in type(inner).model_fields.items():
        known |= {name, *([field.alias] if field.alias else [])}
    fields = {
        setting: next((name for name in names if name in known), None)
        for setting, names in _FIELDS.items()
        if wanted is None or setting in wanted
    }
    if wanted is None and described(inner).get("temperature") is False:
        fields.pop("temperature", None)  # the provider refuses it
    missing = [setting for setting, name in fields.items() if name is None]
    if wanted is not None and missing:
        # Asked for by name: handed over under the usual name.
        fields.update({setting: _FIELDS[setting][0] for setting in missing})
    return {setting: name for setting, name in fields.items() if name is not None}


def model_name(inner: Any) -> str:
    """The provider's name of the model where it has one, else its class's."""
    for name in ("model_name", "model", "model_id", "deployment_name"):
        value = getattr(inner, name, None)
        if isinstance(value, str) and value:
            return value
    return type(inner).__name__


def addresses(inner: Any) -> dict[str, str]:
    """Where the model's requests go, by field, without passwords: LangChain's own settings of a model leave it out."""
    fields = {name: getattr(inner, name, None) for name in type(inner).model_fields if _ADDRESS.search(name)}
    return {
        name: shown_url(value) if "://" in value else redacted_url(value)
        for name, value in fields.items()
        if isinstance(value, str) and value
    }


def whole(value: object) -> int | None:
    """A positive whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def finish_word(metadata: Mapping[str, Any]) -> str | None:
    """The provider's word for why the answer ended, in small letters; None where it gives none."""
    for name in ("finish_reason", "stop_reason", "done_reason"):
        value = metadata.get(name)
        if isinstance(value, str) and value:
            return value.lower()
    # The Responses endpoint through LangChain.
    details = metadata.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    status = metadata.get("status")
    word = reason or (status if status != "completed" else None)
    return word.lower() if isinstance(word, str) and word else None


def said_by_message(answer: Any, metadata: Mapping[str, Any]) -> Said:
    """What an ``AIMessage`` says. metadata: its response's, without headers."""
    more = answer.additional_kwargs
    blocks = answer.content if isinstance(answer.content, list) else []
    kinds = [str(block.get("type")) for block in blocks if isinstance(block, Mapping)]
    _, thoughts, refused = text_of(blocks)
    refusal = more.get("refusal")
    usage = answer.usage_metadata or {}
    reasoned = (usage.get("output_token_details") or {}).get("reasoning")
    return Said(
        str(answer.text),
        finish_word(metadata),
        usage_of_message(usage),
        refusal=refusal if isinstance(refusal, str) and refusal.strip() else refused,
        thoughts=thoughts or thought(more) or thought(metadata) or bool(reasoned),
        tools=bool(answer.tool_calls or answer.invalid_tool_calls or more.get("function_call"))
        or any(kind.endswith(("tool_use", "_call")) for kind in kinds),
        stopped=metadata.get("stop_sequence"),
    )


def usage_of_message(metadata: Any) -> Usage:
    """``AIMessage.usage_metadata``: its input_tokens count every token of the prompt, the cached ones included."""
    told = metadata or {}
    details = told.get("input_token_details") or {}
    return Usage(
        requests=1,
        prompt_tokens=int(told.get("input_tokens") or 0),
        cached_tokens=int(details.get("cache_read") or 0),
        completion_tokens=int(told.get("output_tokens") or 0),
        cache_write_tokens=int(details.get("cache_creation") or 0),
    )


def usage_of_output(output: Mapping[str, Any]) -> Usage:
    """``LLMResult.llm_output`` of a completion model, in the form OpenAI's has and others copy."""
    told = output.get("token_usage") or {}
    return Usage(
        requests=1,
        prompt_tokens=int(told.get("prompt_tokens") or 0),
        completion_tokens=int(told.get("completion_tokens") or 0),
    )


def result_collector() -> Any:
    """A callback handler for one call of a completion model."""
    from langchain_core.callbacks import BaseCallbackHandler

    class Collector(BaseCallbackHandler):
        """Keeps what ``invoke`` of a completion model leaves out: usage, and why the text ended."""

        def __init__(self) -> None:
            self.results: list[Any] = []

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.results.append(response)

        def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
            if not self.results:
                return {}, {}
            last = self.results[-1]
            generations = last.generations[0] if last.generations else []
            info = generations[0].generation_info if generations else None
            return dict(last.llm_output or {}), dict(info or {})

    return Collector()


def plain(value: Any) -> Any:
    """The part of a model's settings that can decide an answer, as JSON; keys, headers and objects left out."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items() if not _HIDDEN.search(str(name))}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__


# Fields that decide no answer: what is told of a call, and how often and how fast it is made.
_NO_ANSWER = frozenset(
    {"cache", "verbose", "tags", "metadata", "name", "rate_limiter", "max_retries", "request_timeout", "timeout",
     "default_request_timeout", "custom_get_token_ids", "profile", "http_socket_options", "include_response_headers",
     "output_version"}
)  # fmt: skip


def public_fields(inner: Any) -> dict[str, Any]:
    """The model's fields that can decide an answer, whatever its class says of itself; keys, headers and clients left
    out, and what objects hold in private."""
    fields = [*type(inner).model_fields, *(getattr(inner, "__pydantic_extra__", None) or {})]
    described = Description()
    return {
        name: described.of(value)
        for name in fields
        if name not in _NO_ANSWER and not hides(name, value := getattr(inner, name, None))
    }


def opaque_fields(model: Any) -> list[str]:
    """Names of the fields, of a model and of what is bound around it, that hold what cannot be told from another."""
    names: dict[str, None] = {}

    def look(name: str, value: Any) -> None:
        described = Description()
        if not hides(name, value):
            described.of(value)
        if described.opaque:
            names[name] = None

    for _ in range(32):
        if any(base.__name__ == "BaseLanguageModel" for base in type(model).__mro__):
            break
        config = getattr(model, "config", None) or {}
        chosen = config.get("configurable") if isinstance(config, Mapping) else None
        for given in (getattr(model, "kwargs", None), chosen):
            for name, value in given.items() if isinstance(given, Mapping) else ():
                look(str(name), value)
        for fallback in getattr(model, "fallbacks", None) or ():
            names.update(dict.fromkeys(opaque_fields(fallback)))
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None:
            break
        model = inner
    for name in [*getattr(type(model), "model_fields", ()), *(getattr(model, "__pydantic_extra__", None) or {})]:
        if name not in _NO_ANSWER:
            look(name, getattr(model, name, None))
    return list(names)


def wrapping(model: Any) -> list[Any]:
    """What the wrappers around a model bind to its calls, from outside in, and the models that stand in for it."""
    layers: list[Any] = []
    for _ in range(32):
        if any(base.__name__ == "BaseLanguageModel" for base in type(model).__mro__):
            break
        bound = Description().of(getattr(model, "kwargs", None) or {})
        config = getattr(model, "config", None) or {}
        chosen = Description().of(config.get("configurable") or {}) if isinstance(config, Mapping) else {}
        others = [
            [type(innermost(fallback)).__name__, public_fields(innermost(fallback)), wrapping(fallback)]
            for fallback in getattr(model, "fallbacks", None) or ()
            if hasattr(type(innermost(fallback)), "model_fields")
        ]
        if bound or chosen or others:
            layers.append([bound, chosen, others])
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None:
            break
        model = inner
    return layers


def secrets(inner: Any) -> tuple[str, ...]:
    """What the model's fields keep secret: keys, and what addresses in them hide."""
    secrets_seen: list[str] = []

    def look(value: Any, depth: int = 4) -> None:
        reveal = getattr(value, "get_secret_value", None)
        if callable(reveal):
            secret = reveal()
            if isinstance(secret, str) and secret:
                secrets_seen.append(secret)
        elif isinstance(value, str):
            with contextlib.suppress(ValueError):  # no address after all
                secrets_seen.extend(url_secrets(value) if "://" in value else ())
        elif depth and isinstance(value, Mapping | list | tuple):
            for part in value.values() if isinstance(value, Mapping) else value:
                look(part, depth - 1)

    for value in [*vars(inner).values(), getattr(inner, "__pydantic_extra__", None)]:
        look(value)
    return tuple(dict.fromkeys(secrets_seen))


def secrets_around(model: Any) -> tuple[str, ...]:
    """``secrets`` of a model, of what is bound around it, and of those that stand in for it."""
    hidden: list[str] = []
    for _ in range(32):
        if hasattr(model, "__dict__"):
            hidden += secrets(model)
        for fallback in getattr(model, "fallbacks", None) or ():
            hidden += secrets_around(fallback)
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None or any(base.__name__ == "BaseLanguageModel" for base in type(model).__mro__):
            break
        model = inner
    return tuple(dict.fromkeys(hidden))
