"""Any LangChain model as an LLM of this library: ``connect(ChatOpenAI(...))``, ``connect("langchain:openai:gpt-5.1")``.

The model keeps its own settings (key, address, timeouts, extra fields). What a call decides (stop, max_tokens,
temperature, seed) is handed over where the model has a field of that name, since others would refuse it.

The model is called through its blocking ``invoke``, in a thread of its own for every request. Its coroutines would run
on our background loop, and LangChain's packages share one async HTTP client among all models of an address: a
connection opened in a notebook's or an agent's loop cannot be used from another. The context goes along, so callbacks,
tags and usage handlers of a surrounding run see the call.

Knows: LangChain's messages, usage and errors. Refuses to know: any provider; templates, labels, images.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import hashlib
import json
import threading
import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from icl_vision.contracts import Completion, Constraint, Profile, Prompt
from icl_vision.errors import (
    DroppedGuaranteeWarning,
    IclVisionError,
    LLMResponseError,
    LLMSpecError,
    LLMUnavailableError,
    MissingExtraError,
    UsageError,
)
from icl_vision.llms import answers
from icl_vision.llms.answers import Said
from icl_vision.llms.base import BaseLLM
from icl_vision.llms.remote.guarded_http import hide_in_logs
from icl_vision.llms.remote.langchain import forms
from icl_vision.llms.remote.resilience import Resilience, RetryPolicy
from icl_vision.llms.remote.transport import Shared, Transport, make_resilience
from icl_vision.llms.tokens import count_tokens, estimate_tokens

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.language_models import BaseLLM as LangChainBaseLLM
    from langchain_core.runnables import Runnable

T = TypeVar("T")


def is_langchain_model(value: object) -> bool:
    """Whether an object is a LangChain model, or a Runnable that may hold one; by its classes' names, no import."""
    return any(
        (base.__module__.partition(".")[0], base.__name__) == ("langchain_core", "Runnable")
        for base in type(value).__mro__
    )


class LangChainLLM(BaseLLM):
    """A LangChain chat or completion model; made by ``connect(model)`` or ``connect("langchain:PROVIDER:MODEL")``.

    Args:
        model: a ``BaseChatModel`` or ``BaseLLM`` of LangChain, or one in a wrapper that leaves its answers as they are
            (``model.bind(...)``, ``.with_config``, ``.with_retry``, ``.with_fallbacks``).
        settings: which of "stop", "max_tokens", "temperature", "seed" a call hands over; None for "stop" and all that
            the model has a field for. A model that refuses one is used with the others: ``settings=("stop",)``.
            "stop" is also applied to the answer here, since not every model keeps it.
        reasoning_room: tokens of thinking allowed beside ``max_tokens``; None is 4096 where LangChain's profile of the
            model says that it reasons, and none otherwise.
        transport: retries, timeouts and concurrency, as for every remote LLM; see ``remote.Transport``. A model that
            tries again by itself (its ``max_retries`` is not 0) is by default not tried again here, since retries in
            two places multiply; what it is told to wait is then its own affair.

    A chat model gets the instruction as system message and context with query as one user message; a completion model
    gets the plain text. No log-probabilities, no constraint: labels are read from the answer.

    Raises:
        UsageError: not a LangChain model, or a setting of another name.
    """

    def __init__(
        self,
        model: BaseChatModel | LangChainBaseLLM | Runnable[Any, Any],
        *,
        settings: Collection[str] | None = None,
        reasoning_room: int | None = None,
        **transport: Unpack[Transport],
    ) -> None:
        super().__init__()
        inner = forms.innermost(model)
        from langchain_core.language_models import BaseChatModel, BaseLanguageModel

        if not isinstance(inner, BaseLanguageModel):
            raise UsageError(
                f"a LangChain model must be a chat model or an LLM, or one with options bound to it; got "
                f"{type(model).__name__}"
            )
        if settings is not None and (isinstance(settings, str) or not set(settings) <= set(forms.SETTINGS)):
            raise UsageError(f"settings must be some of {', '.join(map(repr, forms.SETTINGS))}; got {settings!r}")
        # Its packages log addresses as they are.
        hide_in_logs(forms.secrets_around(model))
        self.model = model
        self._inner = inner
        self._chat = isinstance(inner, BaseChatModel)
        self._names = forms.setting_names(inner, settings)
        self._stop = settings is None or "stop" in settings
        self._warned = False
        self._closed = False
        options: dict[str, Any] = dict(transport)
        shared = options.pop("resilience", None)
        if shared is not None and options:
            raise UsageError(f"resilience= says all that {', '.join(sorted(options))} say; give one or the other")
        if forms.retries_by_itself(model, inner):
            options.setdefault("attempts", 1)
            # The one attempt holds all of the model's own.
            options.setdefault("attempt_timeout", options.get("total_timeout", RetryPolicy().total_timeout))
        make_resilience(**options)  # a wrong value should be told here, not at the first prompt
        self._make_resilience = functools.partial(make_resilience, **options) if shared is None else Shared(shared)
        self._resilience: tuple[asyncio.AbstractEventLoop, Resilience] | None = None
        described = forms.described(inner)
        self._profile = Profile(
            name=f"langchain:{forms.model_name(inner)}",
            context_window=forms.whole(described.get("max_input_tokens")),
            api="chat" if self._chat else "completions",
            seed="seed" in self._names,
            temperature="temperature" in self._names,
            reasoning="optional" if described.get("reasoning_output") is True else "never",
        )
        self._reasoning_room = answers.reasoning_room_of(reasoning_room, self._profile)

    @property
    def profile(self) -> Profile:
        return self._profile

    @property
    def identity(self) -> str:
        """The model, its own settings and what is bound to it, for the response cache: the same again for the same
        model, and no secret. From all of its public fields: a model's own account of itself may leave some out."""
        kept = forms.plain(getattr(self._inner, "_identifying_params", {}))
        fields, wrapping = forms.public_fields(self._inner), forms.wrapping(self.model)
        kind = f"{type(self._inner).__module__}.{type(self._inner).__qualname__}"
        where = forms.addresses(self._inner)
        known = [kind, kept, fields, wrapping, sorted(self._names), where]
        text = json.dumps(known, sort_keys=True, default=str)
        return f"{self._profile.name}#{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def unknown_to_caches(self) -> str:
        """Which of the model's fields hold what shows nothing of itself, so that no cache could tell two such models
        apart; "" where none does."""
        hidden = forms.opaque_fields(self.model)
        if not hidden:
            return ""
        return (
            f"{self._profile.name!r} holds in {', '.join(hidden)} what cannot be told from another (an object without "
            "public fields, an iterator or a function of its own); use plain values there to have answers cached"
        )

    async def _complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...],
        temperature: float,
        seed: int | None,
        constraint: Constraint | None,
    ) -> Completion:
        if seed is not None and "seed" not in self._names:
            self._warn_of_seed()
        max_tokens = self.most_tokens(max_tokens, constraint)
        given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        options: dict[str, Any] = {
            name: given[setting] for setting, name in self._names.items() if given[setting] is not None
        }
        sent = answers.sent_stops(stop, 4) if self._stop else []
        if sent:
            # OpenAI takes four; all of them are cut from the answer here.
            options["stop"] = sent
        resilience = self._connect()
        tokens = estimate_tokens(prompt.text) + max_tokens if resilience.limiter.counts_tokens else 0

        async def ask() -> tuple[Said, dict[str, Any]]:
            try:
                return await _in_thread(lambda: self._ask(prompt, options))
            except IclVisionError:
                raise
            except Exception as error:
                failure = forms.translated(error, self._inner, self._profile, prompt)
            raise failure  # outside the handler: the original may hold the request with its key

        said, raw = await resilience.call(ask, tokens=tokens)
        hidden = forms.secrets_around(self.model)
        answer = answers.read(said, self._profile.name, raw, stops=stop, secrets=hidden)
        # Not every model keeps stop strings, and completion models among them write on and on.
        return answers.cut(answer, stop)

    def __getstate__(self) -> dict[str, Any]:
        # A model holds its key and its clients; where LangChain makes one that does not, it goes along.
        if forms.secrets_around(self.model):
            raise TypeError(
                f"{self._profile.name!r} holds a key, and a key is not pickled: make the model where it is used"
            )
        return self.__dict__ | {"_resilience": None}

    async def _close(self) -> None:
        self._closed = True  # the model is its maker's to close

    def _connect(self) -> Resilience:
        if self._closed:
            raise LLMUnavailableError(f"{self._profile.name!r} was closed; connect() again")
        loop = asyncio.get_running_loop()
        if self._resilience is None or self._resilience[0] is not loop:  # a forked child has a loop of its own
            self._resilience = (loop, self._make_resilience())
        return self._resilience[1]

    async def _count_tokens(self, text: str) -> int:
        # Not the model's get_num_tokens: it downloads a tokenizer.
        return (await asyncio.to_thread(count_tokens, text, forms.model_name(self._inner))).tokens if text else 0

    def most_tokens(self, max_tokens: int, constraint: Constraint | None) -> int:
        """Tokens a completion may be billed for: more than ``max_tokens`` where reasoning is given room."""
        return max_tokens + self._reasoning_room

    def _ask(self, prompt: Prompt, options: dict[str, Any]) -> tuple[Said, dict[str, Any]]:
        if self._chat:
            from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

            messages: list[SystemMessage | HumanMessage] = [HumanMessage(replace(prompt, instruction="").text)]
            if prompt.instruction:
                messages.insert(0, SystemMessage(prompt.instruction))
            answer = self.model.invoke(messages, **options)
            if not isinstance(answer, AIMessage):
                raise LLMResponseError(
                    f"{self._profile.name!r} gave a {type(answer).__name__}, expected an AIMessage; do not wrap the "
                    "model in an output parser"
                )
            metadata = {key: value for key, value in answer.response_metadata.items() if key != "headers"}
            return forms.said_by_message(answer, metadata), metadata
        from langchain_core.runnables.config import ensure_config, merge_configs

        seen = forms.result_collector()
        text = self.model.invoke(prompt.text, merge_configs(ensure_config(), {"callbacks": [seen]}), **options)
        if not isinstance(text, str):
            raise LLMResponseError(f"{self._profile.name!r} gave a {type(text).__name__}, expected a string")
        output, info = seen.found()
        return Said(text, forms.finish_word({**output, **info}), forms.usage_of_output(output)), info

    def _warn_of_seed(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._profile.name!r} takes no seed: equal calls may give different answers",
                DroppedGuaranteeWarning,
                stacklevel=2,
            )


def from_string(name: str, **options: Any) -> LangChainLLM:
    """The LLM that ``"langchain:" + name`` names, by LangChain's ``init_chat_model``.

    name: "PROVIDER:MODEL", or a model whose provider LangChain can tell. options: those of ``LangChainLLM``; all others
        go to the model. The model's own retries are switched off: ours are on.

    Raises:
        MissingExtraError: LangChain is not installed.
        LLMUnavailableError: the provider's package is not installed, or the model cannot be made (a missing key).
        LLMSpecError: LangChain does not know the provider.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError(f"'langchain:{name}'", "langchain") from error
    ours = ("settings", "reasoning_room", *Transport.__annotations__)
    own = {key: options.pop(key) for key in ours if key in options}
    try:
        model: Any = init_chat_model(name, **options)
        if "max_retries" not in options and "max_retries" in type(model).model_fields:
            model = init_chat_model(name, max_retries=0, **options)
    except ImportError as error:
        raise LLMUnavailableError(f"'langchain:{name}' needs a package of its provider: {error}") from None
    except ValueError as error:
        raise LLMSpecError(f"LangChain cannot make 'langchain:{name}': {forms.without_keys(str(error))}") from None
    except Exception as error:  # each provider's own: no key, a bad address
        text = forms.without_keys(str(error))
        raise LLMUnavailableError(f"LangChain cannot make 'langchain:{name}': {type(error).__name__}: {text}") from None
    return LangChainLLM(model, **own)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, in a copy of this context.

    Not asyncio.to_thread: its pool has a handful of threads, and a process cannot end before they have.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled: nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = context.run(work)
        except StopIteration as error:  # cannot be set on a future; a scripted model that ran out of answers
            failure = RuntimeError("the model has no more answers (StopIteration)")
            failure.__cause__ = error
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="icl-vision-langchain", daemon=True).start()
    return await future
