"""Any server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama and the like, chat or plain completions.

Knows: the two endpoints' bodies and answers, echo scoring. Refuses to know: the models of api.openai.com and their
rules; what servers add of their own (``dialects``); keys, clients and retries (``remote`` does those).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, Unpack

from icl_vision.contracts import Completion, Constraint, Prompt, Scores, Usage
from icl_vision.errors import CapabilityError, LLMResponseError, LLMSpecError, UsageError
from icl_vision.llms.answers import ending, reasoning_room_of, sent_stops, without_thoughts
from icl_vision.llms.forced_requests import Lead
from icl_vision.llms.local.remote import RemoteLlama, root_of
from icl_vision.llms.profiles import profile_for
from icl_vision.llms.redaction import check_url, redacted_url, shown_url, without_login
from icl_vision.llms.remote.guarded_http import guarded_client
from icl_vision.llms.remote.openai import dialects
from icl_vision.llms.remote.openai.answers import chat_usage, first_choice, read_chat, read_completion
from icl_vision.llms.remote.openai.echo_scoring import echoed_logprob
from icl_vision.llms.remote.openai.requests import send
from icl_vision.llms.remote.structured import check_constraint
from icl_vision.llms.remote.transport import RemoteLLM, Transport
from icl_vision.llms.scores import PartialScores, attach, score_each, take

MAX_TOKENS = "max_tokens"

OWN_ENDPOINT = "own endpoint"
"""Stands among a request's parameters where it goes to an endpoint of the server's own, whose address is the value."""

PROBE = "The sky is"
PROBE_ENDS = (" blue", " seven hundred and eleven wooden spoons")
"""Two continuations that no model holds equally likely."""


class OpenAICompatibleLLM(RemoteLLM):
    """Made by ``connect("openai-compatible:MODEL@http://HOST:PORT/v1")``.

    Args:
        model: its name on the server.
        base_url: up to and with the version, "http://localhost:8000/v1".
        api: "completions" continues plain text, right for base models; "chat" sends the instruction as the system
            message and the rest as one user message, right for instruct models; "auto" is "completions" with
            ``echo`` and "chat" without, since no server says which kind its model is.
        dialect: which server it is, so that answers can be constrained: "vllm" (0.12 and later), "vllm-0.11" (and
            earlier), "llama.cpp", "ollama" (chat only). "generic" sends nothing that the protocol does not have.
        echo: the server returns log-probabilities of the prompt, so that texts can be scored. True asks by ``echo``
            with ``logprobs``, "prompt_logprobs" by vLLM's field of that name. Ollama's and most hosted servers have
            neither. A server that ignores the field is found out: before the first score is used, once a connection,
            two continuations must score differently; where those asked about do not, two short requests are made.
            llama.cpp's has neither too, and needs none: with dialect="llama.cpp" and api="completions" texts
            are scored through its own endpoints.
        api_key: sent as bearer token; default: the environment variable OPENAI_COMPATIBLE_API_KEY, read at each call,
            or a word that servers without keys ignore. OPENAI_API_KEY is for api.openai.com and is not sent to
            whatever host a spec names.
        max_tokens_field: the field that bounds an answer's tokens, for servers that know "max_tokens" under another
            name ("max_completion_tokens"), or refuse it: None leaves it out, and how long an answer gets is then the
            server's affair.
        reasoning_room: tokens of thinking allowed beside ``max_tokens``; None is 4096 where the profile says that the
            model reasons (``register_profile(..., reasoning="always")``), and none otherwise.
        context_window, extra_body, transport: see ``RemoteLLM`` and ``Transport``.
    """

    sdk: ClassVar[str] = "openai"
    key_variable: ClassVar[str] = "OPENAI_COMPATIBLE_API_KEY"
    key_required: ClassVar[bool] = False
    _OF_A_LOOP: ClassVar[tuple[str, ...]] = ("_connection", "_scoring", "_proving")

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api: Literal["auto", "chat", "completions"] = "auto",
        dialect: dialects.Dialect = "generic",
        echo: bool | Literal["prompt_logprobs"] = False,
        api_key: str | Callable[[], str] | None = None,
        max_tokens_field: str | None = MAX_TOKENS,
        reasoning_room: int | None = None,
        context_window: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **transport: Unpack[Transport],
    ) -> None:
        if max_tokens_field is not None and not (isinstance(max_tokens_field, str) and max_tokens_field.strip()):
            raise UsageError(
                f"max_tokens_field must be a field's name, like 'max_completion_tokens', or None; got "
                f"{max_tokens_field!r}"
            )
        if api not in ("auto", "chat", "completions"):
            raise UsageError(f"api for an OpenAI-compatible LLM must be 'auto', 'chat' or 'completions'; got {api!r}")
        if echo not in (True, False, "prompt_logprobs"):
            raise UsageError(f"echo must be True, False or 'prompt_logprobs'; got {echo!r}")
        if echo and api == "chat":
            raise UsageError(f"echo={echo!r} scores through completions, which api='chat' rules out; leave one out")
        endpoint = "completions" if api == "completions" or echo else "chat"
        known: dict[str, Any] = {"api": endpoint, "scores_text": bool(echo), "seed": True, "stop_strings": 4}
        name = f"openai-compatible:{model}@{shown_url(check_url(base_url))}"
        profile = profile_for(name, **known | dialects.facts(dialect, endpoint))
        super().__init__(
            profile,
            model,
            api_key=api_key,
            base_url=base_url,
            context_window=context_window,
            extra_body=extra_body,
            **transport,
        )
        self._max_tokens_field = max_tokens_field
        self._reasoning_room = reasoning_room_of(reasoning_room, profile)
        self._dialect: dialects.Dialect = dialect
        self._scoring: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._proving: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._proven = False
        self._echo = echo

    def _settings(self) -> dict[str, Any]:
        # A server ignores the fields of another dialect, and with them the constraint.
        settings = super()._settings() | {"dialect": self._dialect}
        # Only where they are not what they always were: older caches and run folders go on.
        if self._max_tokens_field != MAX_TOKENS:
            settings["max_tokens_field"] = self._max_tokens_field
        if self._reasoning_room:
            settings["room"] = self._reasoning_room
        return settings

    def _new_client(self, module: Any, key: str, base_url: str | None, timeout: float) -> Any:
        http = guarded_client(module, self.profile.name, timeout, self._address())
        return module.AsyncOpenAI(
            api_key=key or "not-needed", base_url=base_url, timeout=timeout, max_retries=0, http_client=http
        )

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        return max_tokens + self._reasoning_room + dialects.room(constraint, self.profile)

    @property
    def score_checks(self) -> int:
        """Two, until an echo is proven."""
        return len(PROBE_ENDS) if self._echo and not self._proven else 0

    @property
    def llama_lead(self) -> Lead:
        """Others use the server too: what its cache holds is not known."""
        return "unknown"

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
        """One request, for ``/completions`` where it has a ``prompt`` and for ``/chat/completions`` otherwise."""
        params: dict[str, Any] = {"model": self.model}
        if self._max_tokens_field is not None:
            params[self._max_tokens_field] = self.most_tokens(max_tokens, constraint)
        if self.profile.temperature:
            params["temperature"] = temperature
        extra = self._extra_body
        if constraint is not None:
            check_constraint(constraint, self.profile)
            fields, own = dialects.constraint_fields(constraint, self.profile, self._dialect)
            params |= fields
            extra = own | extra
        elif stops := sent_stops(stop, self.profile.stop_strings):
            # More than it takes are cut from the answer here.
            params["stop"] = stops
        if (kept := self._kept_seed(seed)) is not None:
            params["seed"] = kept
        if self.profile.api == "completions":
            params["prompt"] = prompt.text
        else:
            messages = [{"role": "system", "content": prompt.instruction}] if prompt.instruction else []
            params["messages"] = [*messages, {"role": "user", "content": replace(prompt, instruction="").text}]
        if logprobs:
            # A switch of the one endpoint; of the other, how many tokens are told at each place (the written one is).
            params["logprobs"] = 1 if self.profile.api == "completions" else True
        return params | ({"extra_body": extra} if extra else {})

    async def _send(self, client: Any, params: dict[str, Any]) -> bytes:
        if OWN_ENDPOINT in params:
            return await send(client, params[OWN_ENDPOINT], {k: v for k, v in params.items() if k != OWN_ENDPOINT})
        return await send(client, "/completions" if "prompt" in params else "/chat/completions", params)

    def completion_of(
        self, answer: Mapping[str, Any], *, stop: Sequence[str], constraint: Constraint | None
    ) -> Completion:
        """What an answer of either endpoint says."""
        read = read_chat if self.profile.api == "chat" else read_completion
        said = read(answer, self.profile.name)
        if constraint is not None and self.profile.constraint != "json_schema":
            if ending(said.finish) == "stop" and not dialects.keeps(without_thoughts(said.text)[0], constraint):
                self._dropped("constraint", "it answered with something else than what was allowed")
            constraint = None  # not JSON: the answer is what it is
        return self._finished(said, answer, stop, constraint, arrays=True)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        if not self.profile.scores_text:
            raise CapabilityError(
                f"{self.profile.name!r} is not known to give log-probabilities of given text; if its server does "
                "(vLLM: echo with logprobs), connect with echo=True, otherwise classify with scoring='parse'"
            )
        if not self._echo and self._dialect == "llama.cpp":
            return await self._score_by_tokens(pairs, terminator)
        method = "prompt_logprobs" if self._echo == "prompt_logprobs" else "echo"
        try:
            scores = await score_each([partial(self._score_one, *pair, terminator) for pair in pairs], method=method)
        except BaseException as error:
            came = take(error)
            known = list(came.logprobs)
            told = _told_apart([pairs[index] for index in known], list(came.logprobs.values()))
            # What an unproven echo gave is paid for, but is no score yet.
            attach(error, came if self._proven or told else replace(came, logprobs={}))
            raise
        if self._proven:
            return scores
        if _told_apart(pairs, scores.logprobs):
            self._proven = True
            return scores
        try:
            return replace(scores, usage=scores.usage + await self._prove(method))
        except BaseException as error:
            came = take(error)
            attach(error, PartialScores({}, scores.usage + came.usage, method))
            raise

    async def _prove(self, method: str) -> Usage:
        """Find out, once for a connection, whether the server scores what it is given; what that cost.

        Raises:
            CapabilityError: two texts as different as can be score alike: whatever it reports, it is not of the text.
        """
        loop = asyncio.get_running_loop()
        if self._proving is None or self._proving[0] is not loop:
            self._proving = (loop, asyncio.Lock())
        async with self._proving[1]:
            if self._proven:
                return Usage()
            asks = [partial(self._score_one, Prompt.of(PROBE), text, "") for text in PROBE_ENDS]
            scores = await score_each(asks, method=method)
            if len(set(scores.logprobs)) == 1:
                error = CapabilityError(
                    f"the server of {self.profile.name!r} gives every text the same log-probability "
                    f"({scores.logprobs[0]:g}, for {PROBE + PROBE_ENDS[0]!r} as for {PROBE + PROBE_ENDS[1]!r}): it "
                    f"does not score what it is sent; connect without echo={self._echo!r}"
                )
                attach(error, PartialScores({}, scores.usage, method))
                raise error
            self._proven = True
            return scores.usage

    async def _score_by_tokens(self, pairs: Sequence[tuple[Prompt, str]], terminator: str) -> Scores:
        assert self._base_url is not None
        root = root_of(without_login(self._base_url.reveal())[0])
        longest = max((prompt.text + text for prompt, text in pairs), key=len)

        async def post(path: str, document: dict[str, Any]) -> dict[str, Any]:
            params = {OWN_ENDPOINT: root + path, **document}
            return await self._post(params, Prompt("", "", longest), 1)

        loop = asyncio.get_running_loop()
        if self._scoring is None or self._scoring[0] is not loop:  # a forked child has a loop of its own
            self._scoring = (loop, asyncio.Lock())
        # One after the other: each finds the prefix of the one before in the server's cache.
        async with self._scoring[1]:
            return await RemoteLlama(post).score(pairs, terminator)

    async def _score_one(self, prompt: Prompt, continuation: str, terminator: str) -> tuple[float, Usage]:
        whole = prompt.text + continuation + terminator
        # One token is generated and dropped: some servers refuse max_tokens=0.
        params: dict[str, Any] = {"model": self.model, "prompt": whole, "temperature": 0.0}
        if self._max_tokens_field is not None:
            params[self._max_tokens_field] = 1
        extra = dict(self._extra_body)
        if self._echo == "prompt_logprobs":
            extra["prompt_logprobs"] = 0
        else:
            params |= {"logprobs": 1, "echo": True}
        answer = await self._post(params | ({"extra_body": extra} if extra else {}), Prompt("", "", whole), 1)
        choice, _ = first_choice(answer, self.profile.name)
        told = choice.get("logprobs")
        if self._echo == "prompt_logprobs":
            told = dialects.prompt_logprobs(choice.get("prompt_logprobs", answer.get("prompt_logprobs")))
        try:
            logprob = echoed_logprob(told, len(prompt.text), whole)
        except ValueError as error:
            raise LLMResponseError(f"the echo of {self.profile.name!r} {error}") from None
        if logprob is None:
            raise CapabilityError(
                f"the server of {self.profile.name!r} does not echo log-probabilities of the prompt, so it cannot "
                f"score given text; connect without echo={self._echo!r}"
            )
        return logprob, chat_usage(answer)


def _told_apart(pairs: Sequence[tuple[Prompt, str]], logprobs: Sequence[float]) -> bool:
    """Whether two continuations of one prompt have different log-probabilities."""
    seen: dict[str, float] = {}
    return any(
        seen.setdefault(prompt.text, logprob) != logprob for (prompt, _), logprob in zip(pairs, logprobs, strict=True)
    )


def parse_spec(rest: str) -> tuple[str, str]:
    """Model and URL of "MODEL@URL", split at the last "@http": model names may hold "@" too."""
    at = max(rest.rfind("@http://"), rest.rfind("@https://"))
    if at < 1 or not rest[:at].strip():
        raise LLMSpecError(
            f"'openai-compatible:{redacted_url(rest)}' needs a model and a URL: "
            "'openai-compatible:MODEL@http://HOST:PORT/v1'"
        )
    return rest[:at], rest[at + 1 :]
