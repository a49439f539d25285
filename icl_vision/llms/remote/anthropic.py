"""Anthropic's models: ``connect("anthropic:MODEL")``, through the Messages endpoint.

Knows: the endpoint's requests and answers. Refuses to know: which model can do what (``profiles``), retries and errors
(``remote``).

What the endpoint does not give is said in docs/providers/anthropic.md; in short: no temperature, no seed, no
log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Prompt, Usage
from icl_vision.errors import UsageError
from icl_vision.llms.answers import REASONING_ROOM, Said, sent_stops
from icl_vision.llms.profiles import profile_for
from icl_vision.llms.remote.guarded_http import guarded_client
from icl_vision.llms.remote.openai.answers import count, mapping
from icl_vision.llms.remote.structured import check_constraint, constraint_schema, schema_room
from icl_vision.llms.remote.transport import RemoteLLM, Transport

_THINKING_OFF = ("disabled", "between_tools")


class AnthropicLLM(RemoteLLM):
    """A model of Anthropic; made by ``connect("anthropic:MODEL")``.

    Args:
        model: Anthropic's name of it.
        api: "chat" or "auto", which are the same: there is one endpoint.
        api_key: the key, or a function that returns it; None reads ANTHROPIC_API_KEY at each call.
        base_url: another address for the same API; None is ANTHROPIC_BASE_URL or Anthropic's own.
        effort: "low", "medium", "high" ...: lets a model think that would otherwise be told not to, because a label or
            a word needs no thinking. None is the least the model allows.
        reasoning_room: tokens of thinking allowed beside ``max_tokens`` where the model thinks.
        prompt_cache: "5m" or "1h" keeps the fixed part of a prompt so long after its last use, True is "5m"; False
            keeps nothing. Writing costs more than plain input tokens, reading much less. Parts shorter than the
            model's minimum are never marked.
        extra_body, context_window, transport: as for every remote LLM, see ``RemoteLLM`` and ``Transport``.
    """

    sdk = "anthropic"
    key_variable = "ANTHROPIC_API_KEY"
    _more_room = "raise reasoning_room or lower effort"

    def __init__(
        self,
        model: str,
        *,
        api: Literal["auto", "chat"] = "auto",
        api_key: str | Callable[[], str] | None = None,
        base_url: str | None = None,
        effort: str | None = None,
        reasoning_room: int = REASONING_ROOM,
        prompt_cache: bool | Literal["5m", "1h"] = True,
        extra_body: Mapping[str, Any] | None = None,
        context_window: int | None = None,
        **transport: Unpack[Transport],
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise UsageError(f"the model must be one of Anthropic's names, like 'claude-haiku-4-5'; got {model!r}")
        if api not in ("auto", "chat"):
            raise UsageError(f"api for {model!r} must be 'auto' or 'chat': Anthropic has no other; got {api!r}")
        reasoning_room = checks.count("reasoning_room", reasoning_room, least=0, of="tokens")
        if prompt_cache not in (True, False, "5m", "1h"):
            raise UsageError(f"prompt_cache must be True, False, '5m' or '1h'; got {prompt_cache!r}")
        profile = profile_for(f"anthropic:{model}")
        self._thinking_off = effort is None and profile.least_reasoning in _THINKING_OFF
        self._effort = effort
        if effort is None and profile.reasoning == "always":
            self._effort = profile.least_reasoning
        self._reasons = profile.reasoning == "always" or effort is not None
        self._reasoning_room = reasoning_room
        self._ttl = "5m" if prompt_cache is True else prompt_cache
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
        return most if constraint is None else most + schema_room(constraint, arrays=False)

    def marks_prefix(self, prompt: Prompt) -> bool:
        return self._ttl is not False and super().marks_prefix(prompt)

    def _new_client(self, module: Any, key: str, base_url: str | None, timeout: float) -> Any:
        options = {} if base_url is None else {"base_url": base_url}
        http = guarded_client(module, self.profile.name, timeout, self._address())
        return module.AsyncAnthropic(api_key=key, max_retries=0, timeout=timeout, http_client=http, **options)

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
        self._kept_seed(seed)
        params: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.most_tokens(max_tokens, constraint),
            "messages": self._messages(prompt),
        }
        if prompt.instruction:
            mark = not prompt.context and self.marks_prefix(prompt)
            params["system"] = [self._block(prompt.instruction, mark=mark)]
        stops = sent_stops(stop, self.profile.stop_strings)
        if stops and constraint is None:
            params["stop_sequences"] = stops
        config: dict[str, Any] = {}
        if constraint is not None:
            config["format"] = {"type": "json_schema", "schema": constraint_schema(constraint, arrays=False)}
        if self._effort is not None:
            config["effort"] = self._effort
        if config:
            params["output_config"] = config
        if self._thinking_off:
            params["thinking"] = {"type": self.profile.least_reasoning}
        elif self._effort is not None and self.profile.reasoning == "never":
            # These models think only when asked to.
            params["thinking"] = {"type": "adaptive"}
        if self._extra_body:
            params["extra_body"] = self._extra_body
        return params

    async def _send(self, client: Any, params: dict[str, Any]) -> bytes:
        answer = await client.messages.with_raw_response.create(**params)
        return bytes(await answer.read())

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        blocks = []
        if prompt.context:
            blocks.append(self._block(prompt.context + "\n", mark=self.marks_prefix(prompt)))
        if prompt.query:
            blocks.append(self._block(prompt.query, mark=False))
        return [{"role": "user", "content": blocks}]

    def _block(self, text: str, *, mark: bool) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": text}
        if mark:
            # Everything up to here is byte-identical for all queries of an episode; the query is a block of its own.
            block["cache_control"] = {"type": "ephemeral", "ttl": self._ttl}
        return block

    # ---- answers ----

    def completion_of(
        self, answer: Mapping[str, Any], *, stop: Sequence[str], constraint: Constraint | None
    ) -> Completion:
        blocks = answer.get("content")
        if not isinstance(blocks, list):
            raise self._wrong_form("content", answer)
        kinds = [str(block.get("type")) for block in blocks if isinstance(block, Mapping)]
        text = "".join(
            block["text"]
            for block in blocks
            if isinstance(block, Mapping) and block.get("type") == "text" and isinstance(block.get("text"), str)
        )
        reason = answer.get("stop_reason")
        said = Said(
            text,
            reason if isinstance(reason, str) else None,
            _usage(mapping(answer.get("usage"))),
            thoughts=any("thinking" in kind for kind in kinds),
            tools=any(kind.endswith("tool_use") for kind in kinds),
            stopped=answer.get("stop_sequence"),
        )
        return self._finished(said, answer, stop, constraint, arrays=False)


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Anthropic counts what went through its cache apart from input_tokens; our prompt_tokens count everything."""
    read, written = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    return Usage(
        requests=1,
        prompt_tokens=count(usage.get("input_tokens")) + read + written,
        cached_tokens=read,
        completion_tokens=count(usage.get("output_tokens")),
        cache_write_tokens=written,
    )
