"""OpenAI's own models: ``connect("openai:MODEL")``, through Chat Completions or Responses.

Knows: the two endpoints' requests and answers. Refuses to know: which model can do what (``profiles``), retries and
errors (``remote``), servers of others that speak the same protocol (``openai.compatible``).

What the endpoints do not give is said in docs/providers/openai.md; in short: no log-probabilities of given text, a
seed only as best effort and only in Chat Completions, no temperature while a model reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Prompt
from icl_vision.errors import UsageError
from icl_vision.llms.answers import REASONING_ROOM, sent_stops
from icl_vision.llms.profiles import profile_for
from icl_vision.llms.remote.guarded_http import guarded_client
from icl_vision.llms.remote.openai.answers import read_chat, read_response
from icl_vision.llms.remote.openai.requests import send
from icl_vision.llms.remote.structured import SCHEMA_NAME, check_constraint, constraint_schema, schema_room
from icl_vision.llms.remote.transport import RemoteLLM, Transport

SMALLEST_RESPONSE = 16
"""The Responses endpoint refuses a smaller ``max_output_tokens``."""


class OpenAILLM(RemoteLLM):
    """A model of OpenAI; made by ``connect("openai:MODEL")``.

    Args:
        model: OpenAI's name of it.
        api: "chat" (Chat Completions), "responses", or "auto": what the model's profile says.
        api_key: the key, or a function that returns it; None reads OPENAI_API_KEY at each call.
        base_url: another address for the same API, a proxy of yours say; None is OPENAI_BASE_URL or OpenAI's own.
        reasoning_effort: "none", "minimal", "low" ...; None takes the least that the model allows, because a label or
            a word needs no thinking. More makes temperature and seed go unheeded.
        reasoning_room: tokens of thinking allowed beside ``max_tokens`` where the model reasons.
        prompt_cache: point out the fixed part of a prompt, so that OpenAI caches it; False asks for nothing.
        extra_body, context_window, transport: as for every remote LLM, see ``RemoteLLM`` and ``Transport``.
    """

    sdk = "openai"
    key_variable = "OPENAI_API_KEY"
    _more_room = "raise reasoning_room or lower reasoning_effort"

    def __init__(
        self,
        model: str,
        *,
        api: Literal["auto", "chat", "responses"] = "auto",
        api_key: str | Callable[[], str] | None = None,
        base_url: str | None = None,
        reasoning_effort: str | None = None,
        reasoning_room: int = REASONING_ROOM,
        prompt_cache: bool = True,
        extra_body: Mapping[str, Any] | None = None,
        context_window: int | None = None,
        **transport: Unpack[Transport],
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError(f"the model must be one of OpenAI's names, like 'gpt-5.1'; got {model!r}")
        if api not in ("auto", "chat", "responses"):
            raise UsageError(
                f"api for {model!r} must be 'auto', 'chat' or 'responses'; got {api!r}. For plain completions use "
                "'openai-compatible:MODEL@https://api.openai.com/v1'"
            )
        reasoning_room = checks.count("reasoning_room", reasoning_room, least=0, of="tokens")
        profile = profile_for(f"openai:{model}")
        if api != "auto":
            profile = replace(profile, api=api)
        if profile.api == "responses":
            # The endpoint has neither field.
            profile = replace(profile, seed=False, stop_strings=0)
        if not prompt_cache:
            profile = replace(profile, prompt_cache="automatic" if profile.prompt_cache else None)
        self._effort = reasoning_effort if reasoning_effort is not None else profile.least_reasoning
        self._reasons = profile.reasoning == "always" or (
            profile.reasoning == "optional" and self._effort not in (None, "none")
        )
        self._reasoning_room = reasoning_room
        if self._reasons:
            profile = replace(profile, logprobs=False)  # refused, like every sampling parameter
        super().__init__(
            profile,
            model,
            api_key=api_key,
            base_url=base_url,
            extra_body=extra_body,
            context_window=context_window,
            **transport,
        )

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"effort": self._effort, "room": self._reasoning_room if self._reasons else 0}

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        most = max_tokens + (self._reasoning_room if self._reasons else 0)
        if constraint is not None:
            most += schema_room(constraint, arrays=True)
        return max(most, SMALLEST_RESPONSE) if self.profile.api == "responses" else most

    def _new_client(self, module: Any, key: str, base_url: str | None, timeout: float) -> Any:
        options = {} if base_url is None else {"base_url": base_url}
        http = guarded_client(module, self.profile.name, timeout, self._address())
        return module.AsyncOpenAI(api_key=key, max_retries=0, timeout=timeout, http_client=http, **options)

    # ---- requests ----

    def request_params(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
        logprobs: bool = False,
    ) -> dict[str, Any]:
        if constraint is not None:
            check_constraint(constraint, self.profile)
        most = self.most_tokens(max_tokens, constraint)
        seed = self._kept_seed(seed)
        fields = self._shared_fields(prompt, temperature)
        if self.profile.api == "responses":
            told = {"include": ["message.output_text.logprobs"]} if logprobs else {}
            return fields | self._response_fields(prompt, most, constraint) | told
        return (
            fields | self._chat_fields(prompt, most, stop, seed, constraint) | ({"logprobs": True} if logprobs else {})
        )

    async def _send(self, client: Any, params: dict[str, Any]) -> bytes:
        return await send(client, "/responses" if self.profile.api == "responses" else "/chat/completions", params)

    def _shared_fields(self, prompt: Prompt, temperature: float) -> dict[str, Any]:
        fields: dict[str, Any] = {"model": self.model}
        # A tuning wish: while a model reasons it would be refused, and then nothing is said about it.
        if self.profile.temperature and not self._reasons:
            fields["temperature"] = temperature
        if self.profile.prompt_cache in ("key", "breakpoints") and prompt.prefix:
            # Requests with one key go to one machine; that of another episode would only crowd it.
            fields["prompt_cache_key"] = "icl-" + hashlib.sha256(prompt.prefix.encode()).hexdigest()[:32]
        if self.marks_prefix(prompt):
            # Otherwise the one implicit breakpoint lies behind the query, where no other query finds it.
            fields["prompt_cache_options"] = {"mode": "explicit"}
        if self._extra_body:
            fields["extra_body"] = self._extra_body
        return fields

    def _chat_fields(
        self, prompt: Prompt, most: int, stop: Sequence[str], seed: int | None, constraint: Constraint | None
    ) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        if prompt.instruction:
            messages.append({"role": "system", "content": self._content(prompt, prompt.instruction, "", "text")})
        messages.append({"role": "user", "content": self._content(prompt, prompt.context, prompt.query, "text")})
        fields: dict[str, Any] = {"messages": messages, "max_completion_tokens": most}
        # More than it takes are cut here, like those of models that take none.
        stops = sent_stops(stop, self.profile.stop_strings)
        if stops and constraint is None:
            fields["stop"] = stops
        if seed is not None:
            fields["seed"] = seed
        if self._effort is not None:
            fields["reasoning_effort"] = self._effort
        if constraint is not None:
            schema = {"name": SCHEMA_NAME, "strict": True, "schema": constraint_schema(constraint, arrays=True)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        return fields

    def _response_fields(self, prompt: Prompt, most: int, constraint: Constraint | None) -> dict[str, Any]:
        content = self._content(prompt, prompt.context, prompt.query, "input_text")
        fields: dict[str, Any] = {
            "input": [{"role": "user", "content": content}],
            "max_output_tokens": most,
            "store": False,  # the default would keep every prompt for 30 days
        }
        if prompt.instruction:
            fields["instructions"] = prompt.instruction
        if self._effort is not None:
            fields["reasoning"] = {"effort": self._effort}
        if constraint is not None:
            schema = constraint_schema(constraint, arrays=True)
            fields["text"] = {"format": {"type": "json_schema", "name": SCHEMA_NAME, "strict": True, "schema": schema}}
        return fields

    def _content(self, prompt: Prompt, fixed: str, query: str, kind: str) -> str | list[dict[str, Any]]:
        """A message: one string, or two blocks where the provider has to be shown the end of the fixed part."""
        if not fixed or not query or not self.marks_prefix(prompt):
            return "\n".join(part for part in (fixed, query) if part)
        return [
            {"type": kind, "text": fixed + "\n", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": kind, "text": query},
        ]

    # ---- answers ----

    def completion_of(
        self, answer: Mapping[str, Any], *, stop: Sequence[str], constraint: Constraint | None
    ) -> Completion:
        read = read_response if self.profile.api == "responses" else read_chat
        return self._finished(read(answer, self.profile.name), answer, stop, constraint, arrays=True)
