"""Errors of the openai and anthropic SDKs as errors of our tree.

Knows: the exception classes both SDKs share, and what providers say when a prompt is too long. Refuses to know:
requests, retries.

The SDKs' exceptions hold the request with its headers, the key among them: what leaves here holds neither.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_vision.errors import (
    LLMError,
    LLMResponseError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
)
from icl_vision.llms.redaction import quote
from icl_vision.llms.remote.errors.retry_hints import hint_of
from icl_vision.llms.tokens import estimate_tokens

# The transport's errors after a request has left: the answer is lost, not the bill.
_CUT_LATER = frozenset({"ReadError", "RemoteProtocolError", "ReadTimeout", "DecodingError"})

SHORTER = "use fewer shots, ways, inner shots or repeats, or fewer words per image"
WINDOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})

# What providers say where they give no code, and the two numbers in it: tokens of the prompt, and the window.
_TOO_LONG = re.compile(
    r"prompt is too long|input is too long|maximum context length|exceed(?:s|ed)?[^.]{0,40}context"
    r"|context (?:size|limit)",
    re.IGNORECASE,
)
_COUNTS = (
    # Anthropic: "prompt is too long: 210000 tokens > 200000 maximum", and with what is to be written,
    # "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"
    re.compile(r"(?P<tokens>\d+) \+ (?P<more>\d+) > (?P<window>\d+)"),
    re.compile(r"(?P<tokens>\d+) tokens > (?P<window>\d+) maximum"),
    # OpenAI and vLLM: "maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens"
    re.compile(
        r"maximum context length (?:is|of) (?P<window>\d+) tokens.*?(?P<tokens>\d+) (?:input )?tokens", re.DOTALL
    ),
    # llama.cpp: "the request (9000 tokens) exceeds the available context size (8192 tokens)"
    re.compile(r"\((?P<tokens>\d+) tokens\)[^.]*context size \((?P<window>\d+) tokens\)"),
)


@dataclass(frozen=True, slots=True)
class Translator:
    """Translates for one LLM.

    name: as its profile has it. sdk: the SDK's module. key_variable: named where a key is wrong. window: tokens, for a
    provider that does not say its own.
    """

    name: str
    sdk: str
    key_variable: str
    window: int | None

    def translate(self, error: Exception, secrets: Sequence[str], prompt_text: str) -> Exception | None:
        """Our error for one of the SDK's; None where it is not the SDK's.

        secrets: what must not show. prompt_text: to estimate its tokens where the provider finds it too long.
        """
        module = importlib.import_module(self.sdk)
        if isinstance(error, module.APITimeoutError):
            return LLMTimeoutError(f"{self.name!r} gave no answer within one attempt's time; raise attempt_timeout")
        if isinstance(error, module.APIConnectionError):
            cause = error.__cause__ or error
            detail = f"{type(cause).__name__}: {quote(str(cause), secrets)}"
            unavailable = LLMUnavailableError(f"{self.name!r} cannot be reached, or the connection was cut ({detail})")
            unavailable.sent = type(cause).__name__ in _CUT_LATER
            return unavailable
        if isinstance(error, module.APIStatusError):
            return self._status(error, secrets, prompt_text)
        if isinstance(error, module.APIResponseValidationError):
            return LLMResponseError(f"{self.name!r} answered in a form that its SDK does not know")
        if type(error).__module__.partition(".")[0] == self.sdk:
            return LLMError(f"{self.name!r} was not asked: {type(error).__name__}: {quote(str(error), secrets)}")
        return None

    def _status(self, error: Any, secrets: Sequence[str], prompt_text: str) -> Exception:
        status = int(error.status_code)
        detail = error_detail(error.body)
        message = str(detail.get("message") or error.response.text or error.response.reason_phrase)
        asked = hint_of(status, [error.response.headers], [error.body, message])
        return self.status_error(status, detail, message, secrets, prompt_text, asked)

    def status_error(
        self,
        status: int,
        detail: Mapping[str, Any],
        message: str,
        secrets: Sequence[str],
        prompt_text: str,
        retry_after: float | None = None,
    ) -> Exception:
        """Our error for a status and the provider's error object.

        retry_after: seconds it asks to wait, where something else than the error object says so.
        """
        code = error_code(detail)
        if status in (400, 413, 422) and (code in WINDOW_CODES or _TOO_LONG.search(message)):
            too_long = self._too_long(detail, message, prompt_text)
            if too_long is not None:
                return too_long
        hint = f"; is {self.key_variable} (or api_key=) the right key?" if status == 401 else ""
        return LLMStatusError(
            f"{self.name!r} answered with status {status}: {quote(message, secrets)}{hint}",
            status,
            code=code,
            retry_after=hint_of(status, (), [detail, message]) if retry_after is None else retry_after,
        )

    def _too_long(self, detail: Mapping[str, Any], message: str, prompt_text: str) -> PromptTooLongError | None:
        """The error for a prompt that is too long by the provider's numbers, or by our estimate where it gives none.

        None where the tokens fit: the words were about something else, or nobody can say what they were about.
        """
        tokens, window = detail.get("n_prompt_tokens"), detail.get("n_ctx")  # llama.cpp
        for pattern in _COUNTS:
            match = pattern.search(message)
            if match:
                tokens, window = int(match["tokens"]), int(match["window"])
                tokens += int(match.groupdict().get("more") or 0)
                break
        said = isinstance(tokens, int) and isinstance(window, int)
        window = window if isinstance(window, int) else self.window
        if window is None:
            return None
        counted = tokens if isinstance(tokens, int) else estimate_tokens(prompt_text)
        # A server that counts may want room for a token of its answer, and then refuses what just fits.
        too_many = counted >= window if said and error_code(detail) in WINDOW_CODES else counted > window
        return PromptTooLongError(counted, window, SHORTER) if too_many else None


def error_detail(body: object) -> Mapping[str, Any]:
    """The provider's error object, wherever its SDK left it."""
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error")
    if isinstance(inner, Mapping):
        return inner
    return {"message": inner} if isinstance(inner, str) else body


def error_code(detail: Mapping[str, Any]) -> str | None:
    """The most telling code of an error object: Anthropic's ``details.error_code``, then ``code``, then ``type``."""
    details = detail.get("details")
    inner = details.get("error_code") if isinstance(details, Mapping) else None
    codes = (inner, detail.get("code"), detail.get("type"))
    return next((code for code in codes if isinstance(code, str) and code), None)
