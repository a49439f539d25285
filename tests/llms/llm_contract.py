"""What every LLM of ours keeps, whatever answers behind it: one suite, and the adapters it is run over.

Knows: ``contracts.TextLLM``. Refuses to know: pytest's parametrisation (``test_contract``), any provider's wire format.

Each ``check_*`` takes an LLM that answers, and raises AssertionError at the first broken promise. ``ADAPTERS`` are the
adapters with a loopback server behind them.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from llm_servers import (
    CANARY,
    AnthropicMessages,
    Compatible,
    LoopbackServer,
    OpenAIChat,
    OpenAIResponses,
    Provider,
)

from icl_vision import connect
from icl_vision.contracts import Completion, Constraint, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.llms.remote.resilience import Limiter, Resilience, RetryPolicy

PROMPT = Prompt("Name the animal.", "tail whiskers fur: cat\nfeathers beak wing: bird", "bark fetch leash:")
LABELS = ("golden retriever", "cat", "sea lion")


def quick(**policy: Any) -> Resilience:
    """Retries without waiting, for tests."""
    given = {"attempts": 3, "attempt_timeout": 5.0, "total_timeout": 20.0, "wait_initial": 0.001, "wait_maximum": 0.002}
    return Resilience(RetryPolicy(**given | policy), Limiter())


@dataclass
class Adapter:
    """One adapter before one loopback provider.

    connects: makes the LLM for a server, with options. exact: ``max_tokens`` bounds the visible answer. wire: errors of
    the wire are this adapter's own to translate.
    """

    name: str
    provider: Callable[..., Provider]
    connects: Callable[..., TextLLM]
    exact: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def llm(self, server: LoopbackServer, **options: Any) -> TextLLM:
        options = {**self.options, **options}
        if "resilience" not in options:
            options["resilience"] = quick()
        return self.connects(server, **options)

    def __str__(self) -> str:
        return self.name


def _openai(model: str) -> Callable[..., TextLLM]:
    return lambda server, **options: connect(
        f"openai:{model}", base_url=server.url, **{"api_key": server.provider.key, **options}
    )


def _anthropic(model: str) -> Callable[..., TextLLM]:
    return lambda server, **options: connect(
        f"anthropic:{model}", base_url=server.url, **{"api_key": server.provider.key, **options}
    )


def _compatible(server: LoopbackServer, **options: Any) -> TextLLM:
    return connect(f"openai-compatible:a-model@{server.url}", **{"api_key": server.provider.key, **options})


def _langchain(server: LoopbackServer, **options: Any) -> TextLLM:
    models = pytest.importorskip("langchain_openai")
    key = options.pop("api_key", server.provider.key)
    return connect(models.ChatOpenAI(model="gpt-4o-mini", base_url=server.url, api_key=key, max_retries=0), **options)


def _dialect(dialect: str) -> Callable[..., Provider]:
    return lambda **options: Compatible(dialect, **options)


ADAPTERS = [
    Adapter("openai-chat", OpenAIChat, _openai("gpt-4o-mini")),
    Adapter("openai-reasoning-off", OpenAIChat, _openai("gpt-5.1")),
    Adapter("openai-marked-prefix", OpenAIChat, _openai("gpt-5.6-luna")),
    Adapter("openai-reasoning", OpenAIChat, _openai("gpt-6-astra"), exact=False),
    Adapter("openai-unknown", OpenAIChat, _openai("codename-7"), exact=False),
    Adapter("openai-responses", OpenAIResponses, _openai("gpt-5.1"), options={"api": "responses"}, exact=False),
    Adapter("openai-responses-only", OpenAIResponses, _openai("gpt-5.2-pro"), exact=False),
    Adapter("anthropic", AnthropicMessages, _anthropic("claude-haiku-4-5")),
    Adapter("anthropic-thinking-off", AnthropicMessages, _anthropic("claude-sonnet-5-5")),
    Adapter("anthropic-thinking", AnthropicMessages, _anthropic("claude-opus-5-5"), exact=False),
    Adapter("anthropic-unknown", AnthropicMessages, _anthropic("claude-next"), exact=False),
    Adapter("compatible-chat", Compatible, _compatible),
    Adapter("compatible-completions", Compatible, _compatible, options={"api": "completions"}),
    Adapter("vllm-echo", _dialect("vllm"), _compatible, options={"dialect": "vllm", "echo": True}),
    Adapter(
        "vllm-prompt-logprobs", _dialect("vllm"), _compatible, options={"dialect": "vllm", "echo": "prompt_logprobs"}
    ),
    Adapter("vllm-chat", _dialect("vllm"), _compatible, options={"dialect": "vllm"}),
    Adapter("vllm-0.11", _dialect("vllm-0.11"), _compatible, options={"dialect": "vllm-0.11"}),
    Adapter("llama.cpp", _dialect("llama.cpp"), _compatible, options={"dialect": "llama.cpp", "api": "completions"}),
    Adapter("llama.cpp-chat", _dialect("llama.cpp"), _compatible, options={"dialect": "llama.cpp"}),
    Adapter("ollama", _dialect("ollama"), _compatible, options={"dialect": "ollama"}),
    Adapter("langchain", OpenAIChat, _langchain),
]


# ---- the contract ----


async def check_complete(llm: TextLLM) -> None:
    """An answer, why it ended, and what it used."""
    for prompt in (PROMPT, "bark fetch leash:", Prompt("Only an instruction.", "", "bark:")):
        answer = await llm.complete(prompt, max_tokens=64)
        assert isinstance(answer, Completion) and isinstance(answer.text, str) and answer.text.strip()
        assert answer.finish_reason in ("stop", "length")
        assert answer.usage.requests == 1 and answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
        assert answer.usage.prompt_tokens >= answer.usage.cached_tokens + answer.usage.cache_write_tokens
        assert isinstance(answer.usage, Usage) and "choices" not in answer.text


async def check_stop(llm: TextLLM) -> None:
    """No stop string is part of an answer: at the end of a line, one of many, or one string by itself."""
    for stop in (["\n"], ["\n", "?", "!", ";", "and"], "\n"):
        answer = await llm.complete(PROMPT, max_tokens=64, stop=stop)
        assert not any(one in answer.text for one in stop)


async def check_max_tokens(llm: TextLLM) -> None:
    """An answer that was cut says so."""
    answer = await llm.complete(PROMPT, max_tokens=1)
    assert answer.finish_reason == "length"
    assert len(answer.text.split()) <= 1 and answer.usage.completion_tokens <= 1


async def check_constraint(llm: TextLLM) -> None:
    """A constraint is kept or refused, never ignored in silence."""
    for count in (1, 3):
        constraint = Constraint(LABELS[:2] if count > 1 else LABELS, count)
        if llm.profile.constraint is None:
            with pytest.raises(CapabilityError, match="cannot restrict its answers"):
                await llm.complete(PROMPT, constraint=constraint)
            continue
        answer = await llm.complete(PROMPT, max_tokens=24, constraint=constraint)
        rest = answer.text.strip()
        for _ in range(count):
            word = next((one for one in constraint.allowed if rest.startswith(one)), None)
            assert word is not None, f"{answer.text!r} is not {count} of {constraint.allowed}"
            rest = rest.removeprefix(word).lstrip()
        assert rest == ""


async def check_score(llm: TextLLM) -> None:
    """Log-probabilities of whole continuations, in the order asked; or a refusal."""
    pairs = [(PROMPT, " cat"), (PROMPT, " golden retriever"), (PROMPT, " cat")]
    if not llm.profile.scores_text:
        with pytest.raises(CapabilityError, match="log-probabilities"):
            await llm.score(pairs)
        return
    scores = await llm.score(pairs)
    assert isinstance(scores, Scores) and len(scores.logprobs) == 3
    assert all(math.isfinite(value) and value <= 0 for value in scores.logprobs)
    assert scores.logprobs[0] == pytest.approx(scores.logprobs[2], abs=0.05)
    assert scores.usage.requests >= 1 and scores.usage.prompt_tokens > 0
    # The terminator counts: without it a continuation is likelier.
    bare = await llm.score(pairs[:1], terminator="")
    assert bare.logprobs[0] >= scores.logprobs[0] - 0.05


async def check_count_tokens(llm: TextLLM) -> None:
    """A whole number that grows with the text; 0 for nothing."""
    try:
        few, more = await llm.count_tokens("cat"), await llm.count_tokens("cat dog bird " * 20)
    except CapabilityError:
        return
    assert isinstance(few, int) and 1 <= few < more
    assert await llm.count_tokens("") == 0


async def check_sync_twins(llm: TextLLM) -> None:
    """The twins work inside a running loop and in other threads, and say what the coroutines say."""
    awaited = await llm.complete(PROMPT, max_tokens=8)
    assert llm.complete_sync(PROMPT, max_tokens=8).text == awaited.text
    assert (await asyncio.to_thread(llm.complete_sync, PROMPT, max_tokens=8)).text == awaited.text
    if llm.profile.scores_text:
        assert len(llm.score_sync([(PROMPT, " cat")]).logprobs) == 1
    twins = ("complete", "score", "count_tokens")
    for name in twins:
        here, there = getattr(llm, name), getattr(llm, name + "_sync")
        assert list(inspect.signature(here).parameters) == list(inspect.signature(there).parameters)


async def check_concurrency(llm: TextLLM) -> None:
    """Many at once, from one loop: each gets its own answer."""
    answers = await asyncio.gather(*(llm.complete(f"bark {number}:", max_tokens=8) for number in range(12)))
    assert len(answers) == 12 and all(answer.text for answer in answers)


async def check_bad_arguments(llm: TextLLM) -> None:
    """Wrong arguments are named before anything is sent."""
    for arguments, message in (
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 3}, "a string or an icl_vision Prompt; got int"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens must be a whole number of 1 or more; got 0"),
        ({"prompt": "a", "temperature": -1}, "temperature must be a number of 0 or more"),
        ({"prompt": "a", "stop": [""]}, "every stop must be a string that is not empty"),
        ({"prompt": "a", "seed": -1}, "seed must be a whole number from 0"),
    ):
        with pytest.raises(UsageError, match=message):
            await llm.complete(**arguments)
    with pytest.raises(UsageError, match="at least one"):
        await llm.score([])


async def check_profile(llm: TextLLM) -> None:
    """A profile with a name, which the repr shows; an identity for caches that holds no key."""
    assert isinstance(llm, TextLLM)
    assert llm.profile.name and llm.profile.name in repr(llm)
    assert llm.profile == llm.profile
    assert CANARY not in f"{llm!r} {llm.profile!r} {getattr(llm, 'identity', '')}"


CHECKS = [
    check_complete,
    check_stop,
    check_max_tokens,
    check_constraint,
    check_score,
    check_count_tokens,
    check_sync_twins,
    check_concurrency,
    check_bad_arguments,
    check_profile,
]


def all_text_of(error: BaseException) -> str:
    """Everything an exception would print, notes and chained exceptions too."""
    lines = traceback.format_exception(error)
    chain: list[BaseException | None] = [error]
    seen: list[str] = []
    while chain:
        one = chain.pop()
        if one is None:
            continue
        seen += [repr(one), str(one), repr(one.args), repr(vars(one))]
        request = getattr(one, "request", None)
        seen += [repr(dict(request.headers))] if request is not None else []
        chain += [one.__cause__, one.__context__]
    return "".join([*lines, *seen])
