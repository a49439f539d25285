"""What every LLM behind an SDK of the OpenAI/Anthropic family shares: keys, clients, one retry layer.

Knows: when a key is read, how a client is kept, how a request is tried again. Refuses to know: request bodies and the
answers' forms (the adapters do).

- The SDKs' own retries are off (``max_retries=0``); ``resilience.Resilience`` is the one layer that tries again.
- A key is read for each call, from ``api_key`` or the environment, and never put into a message, a repr or a log.
- The SDKs are imported at the first call: they cost a second or two.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import json
import os
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

from icl_vision import checks
from icl_vision.contracts import Completion, Constraint, Profile, Prompt
from icl_vision.errors import (
    DroppedGuaranteeWarning,
    LLMError,
    LLMGarbledError,
    LLMResponseError,
    LLMUnavailableError,
    UsageError,
)
from icl_vision.llms import answers
from icl_vision.llms.answers import Said
from icl_vision.llms.base import BaseLLM, Settings
from icl_vision.llms.loop import run_sync
from icl_vision.llms.redaction import (
    Secret,
    check_url,
    query_mark,
    quote,
    shown_url,
    url_secrets,
    without_login,
    without_secrets,
)
from icl_vision.llms.remote.errors.provider_errors import error_in
from icl_vision.llms.remote.errors.sdk_errors import Translator
from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy
from icl_vision.llms.remote.structured import answer_from_json
from icl_vision.llms.tokens import count_tokens, estimate_tokens

T = TypeVar("T")


class Transport(TypedDict, total=False):
    """Options every remote LLM takes. They say how to ask, never what is answered, so no cache key holds them.

    attempts: tries in all. attempt_timeout, total_timeout: seconds for one try, and for a call with its waits.
    concurrency: requests in flight at most. requests_per_minute, tokens_per_minute: budgets of your account.
    resilience: a ``Resilience`` of your own, for several LLMs that share one account; instead of all the others.
    """

    attempts: int
    attempt_timeout: float
    total_timeout: float
    concurrency: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    resilience: Resilience | None


def make_resilience(
    *,
    attempts: int = 6,
    attempt_timeout: float = 60.0,
    total_timeout: float = 300.0,
    concurrency: int = 64,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> Resilience:
    """A retry policy and a limiter of one's own from the options of ``Transport``."""
    concurrency = checks.count("concurrency", concurrency, of="requests")
    return Resilience(
        RetryPolicy(attempts=attempts, attempt_timeout=attempt_timeout, total_timeout=total_timeout),
        Limiter(
            start=min(8, concurrency),
            maximum=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        ),
    )


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Connection:
    """What belongs to one event loop: the SDK's client for one key, and the limiter."""

    loop: asyncio.AbstractEventLoop
    resilience: Resilience
    client: Any = None
    key: Secret | None = None
    process: int = field(default_factory=os.getpid)
    making: asyncio.Future[Any] | None = None


_of_parents: list[_Connection] = []
"""Connections that a forked child has from its parent."""

_closing: set[asyncio.Task[None]] = set()
"""Clients that are being closed: a task that nobody holds may vanish."""


def _close_later(loop: asyncio.AbstractEventLoop, client: Any, process: int) -> None:
    """Close the client of an LLM that nobody has any more; from any thread."""

    async def close() -> None:
        with contextlib.suppress(Exception):  # nobody is left to be told
            await client.close()

    def begin() -> None:
        task = loop.create_task(close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    if process == os.getpid():
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
            loop.call_soon_threadsafe(begin)


_open: weakref.WeakSet[_Connection] = weakref.WeakSet()
"""Connections with a client."""


@atexit.register
def _close_idle() -> None:
    """Close what is open and idle when the program ends; before the loop is frozen, since this was registered later."""

    async def close(clients: list[Any]) -> None:
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)

    idle = [
        connection
        for connection in list(_open)
        if connection.process == os.getpid() and not connection.resilience.limiter.in_use
    ]
    if idle:
        with contextlib.suppress(LLMError, UsageError):
            run_sync(close([connection.client for connection in idle]), timeout=1.0)


class RemoteLLM(BaseLLM):
    """Base of the adapters that speak through an SDK.

    Args:
        profile: what the model can do.
        model: its name for the provider.
        api_key: the key, or a function that returns it; None reads the environment at each call.
        base_url: where to send requests; None is the provider's own address.
        extra_body: fields added to every request's JSON, for what this library does not name.
        context_window: tokens, where you know better than the profile.
        transport: see ``Transport``.
    """

    sdk: ClassVar[str]
    """Name of the SDK's module."""
    key_variable: ClassVar[str]
    """The environment variable that holds the key."""
    key_required: ClassVar[bool] = True
    _OF_A_LOOP: ClassVar[tuple[str, ...]] = ("_connection",)
    """Attributes that belong to one event loop."""
    _more_room: ClassVar[str] = answers.RAISE_ROOM
    """What to do where thoughts used up the tokens."""

    def __init__(
        self,
        profile: Profile,
        model: str,
        *,
        api_key: str | Callable[[], str] | None = None,
        base_url: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        context_window: int | None = None,
        **transport: Unpack[Transport],
    ) -> None:
        super().__init__()
        if api_key is not None and not (isinstance(api_key, str) or callable(api_key)):
            raise UsageError(f"api_key must be a string or a function that returns one; got {type(api_key).__name__}")
        if extra_body is not None and not isinstance(extra_body, Mapping):
            raise UsageError(f"extra_body must be a mapping of JSON fields; got {type(extra_body).__name__}")
        if context_window is not None:
            profile = replace(profile, context_window=checks.count("context_window", context_window, of="tokens"))
        self.model = model
        self._profile = profile
        self._secret = None if api_key is None else Secret(api_key)
        self._base_url = None if base_url is None else Secret(check_url(base_url))
        self._extra_body = dict(extra_body or {})
        self._resilience = _resilience_maker(transport)
        self.translator = Translator(profile.name, self.sdk, self.key_variable, profile.context_window)
        self._connection: _Connection | None = None
        self._closed = False
        self._warned: set[str] = set()

    @property
    def profile(self) -> Profile:
        return self._profile

    def __getstate__(self) -> dict[str, Any]:
        """For pickle (joblib, processes): connections are made anew. A key never goes along; where it is needed it is
        read from the environment, or given by a function. Neither do a password and a query of the address."""
        if self._secret is not None and isinstance(self._secret.source, str):
            raise TypeError(
                f"{self.profile.name!r} was given its key as text, and a key is not pickled: set {self.key_variable}, "
                "or give connect() a function as api_key="
            )
        state = dict.fromkeys(self._OF_A_LOOP, None) | {
            name: value for name, value in self.__dict__.items() if name not in self._OF_A_LOOP
        }
        state["_secret"] = None if self._secret is None else self._secret.source
        state["_base_url"] = None if self._base_url is None else without_secrets(self._base_url.reveal())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("_secret", "_base_url"):
            setattr(self, name, None if state[name] is None else Secret(state[name]))

    @property
    def identity(self) -> str:
        """What decides the answers, beside prompt and decoding settings: for a cache's keys. Holds no key."""
        address = self._address()
        where = "" if address is None else shown_url(check_url(address)) + query_mark(address)
        settings = json.dumps(self._settings(), sort_keys=True, default=str)
        return f"{self.profile.name}|{self.profile.api}|{where}|{settings}"

    def _address(self) -> str | None:
        """Where requests go, None for the provider's own address. The SDKs, too, look for one in the environment."""
        if self._base_url is not None:
            return self._base_url.reveal()
        return os.environ.get(f"{self.sdk.upper()}_BASE_URL", "").strip() or None

    def _settings(self) -> dict[str, Any]:
        """Options that decide answers; adapters add their own."""
        return {"extra_body": self._extra_body}

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for: more than ``max_tokens`` where reasoning or JSON needs room."""
        return max_tokens

    def marks_prefix(self, prompt: Prompt) -> bool:
        """Whether the provider is told to keep the prompt's fixed part, so that writing it there may be billed."""
        if self.profile.prompt_cache not in ("breakpoints", "cache_control") or not prompt.prefix:
            return False
        return _has_tokens(prompt.prefix, self.profile.prompt_cache_minimum)

    # ---- for adapters ----

    @abstractmethod
    def _new_client(self, module: Any, key: str, base_url: str | None, timeout: float) -> Any:
        """The SDK's asynchronous client, with its own retries off."""

    @abstractmethod
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
        """One request as keyword arguments of the SDK's method; JSON values only."""

    @abstractmethod
    async def _send(self, client: Any, params: dict[str, Any]) -> bytes:
        """Make the request, once; the body of the answer."""

    @abstractmethod
    def completion_of(
        self, answer: Mapping[str, Any], *, stop: Sequence[str], constraint: Constraint | None
    ) -> Completion:
        """What an answer of the provider says."""

    def check_answer(self, answer: object, prompt_text: str) -> None:
        """Raise the error that a provider, or a proxy before it, reports in an answer that looks fine from outside."""
        reported = error_in(answer)
        if reported is not None:
            raise self.translator.status_error(
                reported.status, reported.detail, reported.message, self.secrets(), prompt_text
            )

    # ---- one request ----

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        constraint = settings["constraint"]
        params = self.request_params(prompt, **settings)
        answer = await self._post(params, prompt, self.most_tokens(settings["max_tokens"], constraint))
        return self.completion_of(answer, stop=settings["stop"], constraint=constraint)

    async def _post(self, params: dict[str, Any], prompt: Prompt, most: int) -> dict[str, Any]:
        """The JSON object that the provider answers with. most: tokens it may write, for the limiter's budget."""
        text = prompt.text

        async def attempt(client: Any) -> dict[str, Any]:
            return self._parse(await self._send(client, params), text)

        tokens = estimate_tokens(text) + most if self._connect().resilience.limiter.counts_tokens else 0
        return await self.call(attempt, tokens=tokens, prompt_text=text)

    async def call(
        self,
        attempt: Callable[[Any], Awaitable[T]],
        resilience: Resilience | None = None,
        *,
        tokens: int = 0,
        prompt_text: str = "",
    ) -> T:
        """The result of ``attempt(client)``, tried again where that can help; on the background loop only.

        attempt: one use of the SDK's client; its errors become ours. resilience: another than this LLM's own.
        tokens: for the limiter's budget. prompt_text: to say how long it is where the provider finds it too long.
        """
        connection = self._connect()
        client = await self._client(connection)

        async def once() -> T:
            try:
                return await attempt(client)
            except LLMError:
                raise
            except Exception as error:
                # What the guarded client raises one of the SDKs takes for a lost connection.
                cause = error.__cause__
                failure: Exception | None = cause if isinstance(cause, LLMError) else None
                failure = failure or self.translator.translate(error, self.secrets(), prompt_text)
                if failure is None:
                    raise
            raise failure  # outside the handler: as its context the SDK's exception would keep the request's headers

        return await (resilience or connection.resilience).call(once, tokens=tokens)

    def secrets(self) -> list[str]:
        """What must not show in a message: the key last used, and what the address hides."""
        key = self._connection.key if self._connection is not None else None
        address = self._address()
        hidden = [] if address is None else url_secrets(address)
        return hidden if key is None else [key.reveal(), *hidden]

    def _parse(self, content: bytes, prompt_text: str) -> dict[str, Any]:
        # Raised outside the handler: as its context the decoder's exception would keep the whole body, key or no key.
        name = self.profile.name
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = content
        if isinstance(answer, bytes):
            shown = quote(content, self.secrets())
            raise LLMGarbledError(f"{name!r} answered {shown!r}, which is not JSON" if shown else _silent(name))
        self.check_answer(answer, prompt_text)
        if not isinstance(answer, dict):
            raise LLMResponseError(f"{name!r} answered a JSON {_json_kind(answer)}, expected an object")
        return answer

    def _connect(self) -> _Connection:
        if self._closed:
            raise LLMUnavailableError(f"{self.profile.name!r} was closed; connect() again")
        loop = asyncio.get_running_loop()
        # A forked child has a loop of its own; the parent's sockets and waiting queues are not ours there.
        if self._connection is None or self._connection.loop is not loop:
            if self._connection is not None:
                # Kept, not freed: closing them would touch what is shared with the parent.
                _of_parents.append(self._connection)
            self._connection = _Connection(loop, self._resilience())
        return self._connection

    async def _client(self, connection: _Connection) -> Any:
        # A function may ask somebody for the key: not on the loop that serves every other LLM.
        asks = self._secret is not None and self._secret.is_function
        key = await asyncio.to_thread(self._read_key) if asks else self._read_key()
        if connection.client is None:
            if connection.making is None:
                # Importing an SDK takes a second or two, and reading the certificates of this machine its time too.
                timeout = connection.resilience.policy.attempt_timeout
                connection.key = Secret(key)
                connection.making = asyncio.ensure_future(asyncio.to_thread(self._made_client, key, timeout))
            making = connection.making
            try:
                client = await asyncio.shield(making)
            except BaseException:
                if making.done() and connection.making is making:
                    connection.making = None  # whoever asks next tries again
                raise
            if self._closed:
                await client.close()
                raise LLMUnavailableError(f"{self.profile.name!r} was closed; connect() again")
            if connection.client is None:
                connection.client = client
                _open.add(connection)
                # An LLM that is dropped without a word leaves no open sockets: they are closed on their own loop.
                weakref.finalize(self, _close_later, connection.loop, client, os.getpid()).atexit = False
        if connection.key is None or key != connection.key.reveal():
            connection.client = connection.client.with_options(api_key=key)  # shares the sockets
        connection.key = Secret(key)
        return connection.client

    def _made_client(self, key: str, timeout: float) -> Any:
        module = importlib.import_module(self.sdk)
        # Without its user and password, which go into a header: an address is logged, shown in errors, and more. One in
        # the environment is the SDK's to find, unless it holds a login.
        address = self._address()
        plain, login = (None, None) if address is None else without_login(check_url(address))
        base_url = plain if self._base_url is not None or login is not None else None
        client = self._new_client(module, key, base_url, timeout)
        _ = getattr(client, "messages", None)  # imported by the SDK at first use
        return client

    def _read_key(self) -> str:
        key = os.environ.get(self.key_variable, "") if self._secret is None else self._secret.reveal()
        if not isinstance(key, str) or not all("!" <= character <= "~" for character in key):
            # The value is not shown: most often it is a key with a line end behind it.
            raise UsageError(f"the key for {self.profile.name!r} holds a space, a line end or another sign no key has")
        if not key and self.key_required:
            raise LLMUnavailableError(
                f"{self.profile.name!r} needs a key: set {self.key_variable}, or give connect() api_key="
            )
        return key

    async def _close(self) -> None:
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None and connection.client is not None and connection.loop is asyncio.get_running_loop():
            await connection.client.close()

    # ---- what adapters share ----

    async def _count_tokens(self, text: str) -> int:
        if not text:
            return 0
        return (await asyncio.to_thread(count_tokens, text, self.model, encoding=self.profile.tokenizer)).tokens

    def _dropped(self, guarantee: str, why: str) -> None:
        """Warn, once for this object, that something asked for is not kept."""
        if guarantee not in self._warned:
            self._warned.add(guarantee)
            warnings.warn(f"{self.profile.name!r} keeps no {guarantee}: {why}", DroppedGuaranteeWarning, stacklevel=2)

    def _kept_seed(self, seed: int | None) -> int | None:
        if seed is not None and not self.profile.seed:
            self._dropped("seed", "it takes none, so sampled answers differ from call to call")
            return None
        return seed

    def _wrong_form(self, what: str, answer: Mapping[str, Any]) -> LLMResponseError:
        """The error for an answer without what every answer has; names its fields, not its values."""
        fields = ", ".join(sorted(map(str, answer))[:12]) or "none"
        return LLMResponseError(f"{self.profile.name!r} answered without {what}; the answer's fields are: {fields}")

    def _finished(
        self, said: Said, raw: Mapping[str, Any], stop: Sequence[str], constraint: Constraint | None, *, arrays: bool
    ) -> Completion:
        """The answer as the contract has it: plain text, cut at the stop strings, or what the constraint allows.

        Its log-probability is there where the answer tells those of its tokens.

        Raises:
            LLMNoAnswerError: nothing was answered; see ``answers.read``.
        """
        secrets = self.secrets()
        answer = answers.read(said, self.profile.name, raw, stops=stop, secrets=secrets, room=self._more_room)
        if constraint is not None and answer.finish_reason in ("stop", "length"):
            text = answer_from_json(answer.text, constraint, arrays=arrays)
            if text is not None:
                return replace(answer, text=text, finish_reason="stop")
            if answer.finish_reason == "length" and answer.text.lstrip().startswith("{"):
                raise LLMResponseError(
                    f"{self.profile.name!r} did not finish its constrained answer in the tokens it had; raise "
                    "max_tokens"
                )
            self._dropped("constraint", "it answered with something else than what was allowed")
        return answers.cut(answer, stop, said)


@functools.lru_cache(maxsize=64)
def _has_tokens(text: str, minimum: int) -> bool:
    """Whether a text has so many tokens, by estimate; asked again and again of one prefix."""
    # A token has a character at least: a text that short need not be counted.
    return len(text) >= minimum and estimate_tokens(text) >= minimum


def _resilience_maker(transport: Transport) -> Callable[[], Resilience]:
    """What makes the Resilience of one event loop; wrong values are told now, not at the first prompt."""
    options: dict[str, Any] = dict(transport)
    shared = options.pop("resilience", None)
    if shared is None:
        make_resilience(**options)
        return functools.partial(make_resilience, **options)
    if options:
        raise UsageError(f"resilience= says all that {', '.join(sorted(options))} say; give one or the other")
    return Shared(shared)


class Shared:
    """Gives a Resilience that several LLMs share. In another process the account's limits are its own."""

    def __init__(self, resilience: Resilience) -> None:
        self._resilience = resilience

    def __call__(self) -> Resilience:
        return self._resilience

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (make_resilience,)


def _silent(name: str) -> str:
    return f"{name!r} answered with an empty body"


def _json_kind(value: object) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
