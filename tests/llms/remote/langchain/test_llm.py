"""LangChain models as LLMs of this library."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, BaseLLM, FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult
from langchain_core.runnables import RunnableBinding, RunnableLambda
from pydantic import Field, SecretStr

from icl_vision import connect
from icl_vision.contracts import Completion, Constraint, Prompt, TextLLM, Usage
from icl_vision.errors import (
    CapabilityError,
    DroppedGuaranteeWarning,
    LLMError,
    LLMResponseError,
    LLMSpecError,
    LLMStatusError,
    LLMTimeoutError,
    LLMUnavailableError,
    PromptTooLongError,
    UsageError,
)
from icl_vision.llms import Budget
from icl_vision.llms.remote.langchain.llm import LangChainLLM, is_langchain_model
from icl_vision.llms.remote.resilience import Resilience

CANARY = "canary-5f1d0c9a7b"
PROMPT = Prompt("Name the animal.", "Input: a b\nOutput: cat", "Input: c d\nOutput:")


class Chat(BaseChatModel):
    """Answers with ``reply``, or raises it; keeps what it was asked."""

    reply: Any = "cat"
    temperature: float | None = None
    max_tokens: int | None = None
    api_key: SecretStr = SecretStr(CANARY)
    model_name: str = "chat-1"
    metadata_out: dict[str, Any] = Field(default_factory=lambda: {"finish_reason": "stop"})
    calls: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list)
    threads: list[threading.Thread] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "temperature": self.temperature, "api_key": self.api_key}

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        self.calls.append((messages, {"stop": stop, **kwargs}))
        self.threads.append(threading.current_thread())
        reply = self.reply(len(self.calls)) if callable(self.reply) else self.reply
        if isinstance(reply, Exception):
            raise reply
        usage: Any = {
            "input_tokens": 10,
            "output_tokens": 2,
            "total_tokens": 12,
            "input_token_details": {"cache_read": 6, "cache_creation": 3},
        }
        message = AIMessage(reply, usage_metadata=usage, response_metadata=self.metadata_out)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Writer(BaseLLM):
    """A completion model that ignores stop strings."""

    seed: int | None = None
    calls: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "writer"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.calls.append({"prompt": prompts[0], "stop": stop, **kwargs})
        generation = Generation(text=" cat\n###\nInput: e f", generation_info={"finish_reason": "length"})
        usage = {"token_usage": {"prompt_tokens": 30, "completion_tokens": 9}}
        return LLMResult(generations=[[generation]], llm_output=usage)


class Parsed(RunnableBinding[Any, Any]):
    """A model that gives something else than its answers."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return super().invoke(input, config, **kwargs).text


class StatusError(Exception):
    """As SDKs have it: a status, the provider's body, a response with headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"Error code: {status} - {body} for key {CANARY}")
        self.status_code = status
        self.body = body
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()


class TestConnect:
    def test_models_are_told_without_importing_langchain(self) -> None:
        assert all(is_langchain_model(one) for one in (Chat(), Writer(), Chat().bind(stop=["x"]), Chat().with_retry()))
        assert not is_langchain_model("chat") and not is_langchain_model(object())
        code = "import sys, icl_vision.llms.remote.langchain.llm as m; m.is_langchain_model(1); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "langchain_core" not in done.stdout.split()

    def test_connect_takes_models(self) -> None:
        for model in (Chat(), Writer(), Chat().bind(stop=["x"]), Chat().with_retry()):
            llm = connect(model)
            assert isinstance(llm, LangChainLLM) and isinstance(llm, TextLLM)
        assert connect(Chat(), settings=("stop",)).profile.temperature is False

    def test_profile(self) -> None:
        profile = connect(Chat(profile={"max_input_tokens": 4096})).profile
        assert (profile.name, profile.context_window, profile.api) == ("langchain:chat-1", 4096, "chat")
        assert (profile.scores_text, profile.constraint) == (False, None)
        assert (profile.seed, profile.temperature) == (False, True)
        profile = connect(Writer()).profile
        assert (profile.name, profile.context_window, profile.api) == ("langchain:Writer", None, "completions")
        assert (profile.seed, profile.temperature) == (True, False)

    def test_refused(self) -> None:
        with pytest.raises(UsageError, match="must be a chat model or an LLM, .*; got RunnableLambda"):
            connect(RunnableLambda(str))
        with pytest.raises(UsageError, match="settings must be some of 'stop', 'max_tokens', .*; got \\('top_p',\\)"):
            connect(Chat(), settings=("top_p",))
        with pytest.raises(UsageError, match="leave api out \\(got 'chat'\\)"):
            connect(Chat(), api="chat")
        with pytest.raises(UsageError, match="leave api out"):
            connect("langchain:openai:gpt-test", api="chat")
        with pytest.raises(UsageError, match="attempts must be a whole number of 1 or more"):
            connect(Chat(), attempts=0)
        with pytest.raises(UsageError, match="resilience= says all that attempts say"):
            connect(Chat(), resilience=Resilience(), attempts=2)
        with pytest.raises(LLMSpecError, match="names no LLM"):
            connect("langchain:")
        with pytest.raises(LLMSpecError, match="LangChain cannot make 'langchain:nobody-knows-this'"):
            connect("langchain:nobody-knows-this")

    def test_closed(self) -> None:
        llm = connect(Chat())
        llm.close()
        with pytest.raises(LLMUnavailableError, match="'langchain:chat-1' was closed; connect\\(\\) again"):
            llm.complete_sync("x")


class TestAsking:
    def test_chat(self) -> None:
        model = Chat()
        answer = connect(model).complete_sync(PROMPT, max_tokens=5, stop=["\n", "Input:"])
        assert answer == Completion("cat", "stop", Usage(1, 10, 6, 2, 3), {"finish_reason": "stop"})
        messages, settings = model.calls[0]
        question = HumanMessage("Input: a b\nOutput: cat\nInput: c d\nOutput:")
        assert messages == [SystemMessage("Name the animal."), question]
        assert settings == {"stop": ["Input:"], "max_tokens": 5, "temperature": 0.0}
        connect(model).complete_sync("just this")
        assert model.calls[1][0] == [HumanMessage("just this")]

    async def test_completions(self) -> None:
        model = Writer()
        answer = await connect(model).complete(PROMPT, stop=["###", "\n"], seed=7)
        # Cut at the first stop string, although the model wrote on.
        assert (answer.text, answer.finish_reason, answer.usage) == (" cat", "stop", Usage(1, 30, 0, 9))
        assert model.calls == [{"prompt": PROMPT.text, "stop": ["###"], "seed": 7}]
        uncut = await connect(model).complete(PROMPT)
        assert uncut.finish_reason == "length" and uncut.text.endswith("e f")

    def test_langchains_own_fakes(self) -> None:
        assert connect(FakeListChatModel(responses=["a", "b"])).complete_sync("x").text == "a"
        assert connect(FakeListLLM(responses=["a"])).complete_sync("x").text == "a"
        script = GenericFakeChatModel(messages=iter([AIMessage("only once")]))
        assert connect(script).complete_sync("x").usage == Usage(requests=1)  # it counts no tokens
        with pytest.raises(LLMError, match="no more answers"):
            connect(script).complete_sync("x")

    def test_which_settings_are_handed_over(self) -> None:
        refuses = Chat(profile={"temperature": False})  # LangChain's profile of the model says so
        connect(refuses).complete_sync("x", stop=["###"])
        assert refuses.calls[0][1] == {"stop": ["###"], "max_tokens": 16}
        model = Chat()
        connect(model, settings=()).complete_sync("x", stop=["###"])
        assert model.calls[0][1] == {"stop": None}
        connect(model, settings=("seed",)).complete_sync("x", seed=3)  # asked for by name, although there is no field
        assert model.calls[1][1] == {"stop": None, "seed": 3}
        connect(model.bind(top_p=0.5)).complete_sync("x")
        assert model.calls[2][1] == {"stop": None, "max_tokens": 16, "temperature": 0.0, "top_p": 0.5}

    def test_a_seed_that_is_not_kept_is_told_once(self) -> None:
        llm = connect(Chat())
        with pytest.warns(DroppedGuaranteeWarning, match="'langchain:chat-1' takes no seed"):
            llm.complete_sync("x", seed=1)
        llm.complete_sync("x", seed=1)

    def test_what_it_cannot_do(self) -> None:
        llm = connect(Chat())
        with pytest.raises(CapabilityError, match="cannot restrict its answers"):
            llm.complete_sync("x", constraint=Constraint(("a", "b")))
        with pytest.raises(CapabilityError, match="gives no log-probabilities"):
            llm.score_sync([(PROMPT, " cat")])

    def test_tokens_are_counted_without_a_download(self) -> None:
        assert connect(Chat()).count_tokens_sync("one two three") == 3
        assert connect(Chat()).count_tokens_sync("") == 0

    def test_answers_of_another_form(self) -> None:
        blocks = Chat(reply=[{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "dog"}])
        assert connect(blocks).complete_sync("x").text == "dog"
        with pytest.raises(LLMResponseError, match="gave a TextAccessor, expected an AIMessage; do not wrap"):
            connect(Parsed(bound=Chat())).complete_sync("x")

    @pytest.mark.parametrize(
        ("metadata", "reason"),
        [
            ({"stop_reason": "end_turn"}, "stop"),
            ({"stop_reason": "max_tokens"}, "length"),
            ({"finish_reason": "MAX_TOKENS"}, "length"),
            ({"done_reason": "stop"}, "stop"),
            ({"finish_reason": "another_word"}, "another_word"),
            ({}, "stop"),
        ],
    )
    def test_reasons_to_finish(self, metadata: dict[str, Any], reason: str) -> None:
        assert connect(Chat(metadata_out=metadata)).complete_sync("x").finish_reason == reason

    def test_identity_names_what_decides_answers_and_no_key(self) -> None:
        identity = connect(Chat()).identity
        assert identity == connect(Chat(api_key=SecretStr("another"))).identity
        assert identity != connect(Chat(temperature=1.0)).identity
        assert identity != connect(Chat().bind(top_p=0.5)).identity
        assert CANARY not in identity + repr(connect(Chat()))

    def test_identity_is_of_all_public_fields_through_every_wrapper(self) -> None:
        class Mine(Chat):
            style: str = "one"
            options: Any = None
            my_api_key: str = ""

            @property
            def _identifying_params(self) -> dict[str, Any]:
                return {}

        plain = connect(Mine()).identity
        assert plain == connect(Mine(my_api_key="another")).identity == connect(Mine().with_retry()).identity
        others = [
            Mine(style="two"),
            Mine(options={"a": [1, 2]}),
            Mine(options={"a": [2, 1]}),
            Mine().bind(top_p=0.5),
            Mine().bind(top_p=0.6).with_retry(),
            Mine().with_retry().bind(top_p=0.7),
            Mine().with_fallbacks([Mine(style="two")]),
            Mine().with_fallbacks([Mine(style="three")]),
            Mine(style="two").with_retry(),
        ]
        found = [connect(one).identity for one in others]
        assert found[0] == found[-1] and len({plain, *found}) == len(others)

    def test_identity_tells_addresses_apart(self) -> None:
        class Placed(Chat):
            openai_api_base: str | None = None

        here, there, same = (
            connect(Placed(openai_api_base=url)).identity
            for url in ("http://here/v1", "http://there/v1", "http://me:pw@here/v1?token=1")
        )
        assert here != there and here == same and here != connect(Placed()).identity


class TestThreads:
    async def test_requests_run_side_by_side_and_not_on_an_event_loop(self) -> None:
        barrier = threading.Barrier(8, timeout=20)

        def wait(call: int) -> str:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            barrier.wait()  # passes only when eight are under way
            return "ok"

        model = Chat(reply=wait)
        llm = connect(model, concurrency=8)
        answers = await asyncio.gather(*(llm.complete(f"question {number}") for number in range(8)))
        assert [answer.text for answer in answers] == ["ok"] * 8
        assert all(thread.daemon for thread in model.threads)

    async def test_cancelling_does_not_wait_for_the_model(self) -> None:
        held = threading.Event()
        llm = connect(Chat(reply=lambda call: "late" if held.wait(20) else ""))
        task = asyncio.create_task(llm.complete("x"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not held.is_set()
        held.set()
        assert (await llm.complete("x")).text == "late"

    async def test_attempt_timeout(self) -> None:
        held = threading.Event()
        llm = connect(Chat(reply=lambda call: "late" if held.wait(20) else ""), attempts=1, attempt_timeout=0.05)
        with pytest.raises(LLMTimeoutError, match="no answer within 0.05 s"):
            await llm.complete("x")
        held.set()

    @pytest.mark.parametrize("awaited", [False, True])
    @pytest.mark.parametrize("model", [Chat(), Writer()], ids=["chat", "completions"])
    async def test_a_surrounding_run_sees_the_call(self, model: Any, awaited: bool) -> None:
        seen: list[Any] = []

        class Watch(BaseCallbackHandler):
            def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
                seen.append((kwargs["parent_run_id"] is not None, kwargs["tags"]))

            def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
                seen.append((kwargs["parent_run_id"] is not None, kwargs["tags"]))

            def on_llm_end(self, response: Any, **kwargs: Any) -> None:
                seen.append("end")

        llm = connect(model)

        async def ask(text: str) -> str:
            return (await llm.complete(text)).text

        chain = RunnableLambda(lambda text: llm.complete_sync(text).text, afunc=ask)
        config: Any = {"callbacks": [Watch()], "tags": ["mine"]}
        text = await chain.ainvoke("x", config) if awaited else chain.invoke("x", config)
        assert text.strip().startswith("cat")
        assert seen == [(True, ["mine"]), "end"]


class TestErrors:
    def test_errors_of_our_tree_without_keys(self) -> None:
        cases: list[tuple[Exception, type[Exception], str]] = [
            (StatusError(401, {"error": {"message": f"bad key {CANARY}"}}), LLMStatusError, "401: bad key \\*\\*"),
            (StatusError(400, {"message": "no such field"}), LLMStatusError, "status 400: no such field"),
            (TimeoutError("slow"), LLMTimeoutError, "failed with TimeoutError: slow"),
            (ConnectionError(f"refused {CANARY}"), LLMUnavailableError, "ConnectionError: refused \\*\\*\\*"),
            (ValueError("Bearer abcdef and sk-abcdefghijklmnop"), LLMError, "ValueError: \\*\\*\\* and \\*\\*\\*"),
            (TypeError("got an unexpected keyword argument 'seed'"), LLMError, "settings=\\('stop',\\)"),
        ]  # fmt: skip
        for raised, kind, message in cases:
            with pytest.raises(kind, match=message) as found:
                connect(Chat(reply=raised), attempts=1).complete_sync("x")
            assert type(found.value) is kind
            assert CANARY not in str(found.value)
            chain, error = [], found.value
            while error is not None:
                chain.append(str(error))
                error = error.__cause__ or error.__context__
            assert CANARY not in " ".join(chain)

    def test_status_code_and_wait_are_kept(self) -> None:
        body = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        with pytest.raises(LLMStatusError) as found:
            connect(Chat(reply=StatusError(429, body, {"retry-after": "7"})), attempts=1).complete_sync("x")
        assert (found.value.status, found.value.code, found.value.retry_after) == (429, "rate_limit_exceeded", 7.0)

    def test_a_status_is_found_wherever_the_package_keeps_it(self) -> None:
        class Throttled(Exception):
            code = 429
            details: ClassVar[Any] = {"error": {"code": 429, "details": [{"retryDelay": "0.001s"}]}}

        class Wrapping(Exception):
            pass

        def wrapped() -> Exception:
            error = Wrapping(f"the model failed with {CANARY}")
            error.__cause__ = StatusError(503, {}, {"retry-after-ms": "1"})
            return error

        metadata = {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "0.001"}}
        amazon = Exception("An error occurred (ThrottlingException)")
        amazon.response = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": metadata}  # type: ignore[attr-defined]  # the fake's own kind of error
        inside = ValueError({"message": "try again in 1ms", "code": 429})  # as ChatOpenAI tells of an error in a 200
        for error, status in ((Throttled("busy"), 429), (wrapped(), 503), (amazon, 429), (inside, 429)):
            model = Chat(reply=lambda call, error=error: error if call == 1 else "cat")
            assert connect(model).complete_sync("x").text == "cat"
            assert len(model.calls) == 2
            with pytest.raises(LLMStatusError) as found:
                connect(Chat(reply=error), attempts=1).complete_sync("x")
            assert (found.value.status, found.value.retry_after) == (status, 0.001)
            assert CANARY not in str(found.value)

    def test_a_prompt_too_long(self) -> None:
        said = {"error": {"message": "maximum context length is 8192 tokens, resulted in 9000 tokens"}}
        with pytest.raises(PromptTooLongError, match="9000 tokens but the LLM's window holds 8192"):
            connect(Chat(reply=StatusError(400, said))).complete_sync("x")

        class ContextOverflowError(Exception):
            pass

        model = Chat(reply=ContextOverflowError("too long"), profile={"max_input_tokens": 2})
        with pytest.raises(PromptTooLongError, match="3 tokens but the LLM's window holds 2"):
            connect(model).complete_sync("one two three")

    def test_a_failed_request_is_made_again(self) -> None:
        def second_time(call: int) -> Any:
            return StatusError(429, {}, {"retry-after-ms": "1"}) if call == 1 else "cat"

        model = Chat(reply=second_time)
        assert connect(model).complete_sync("x").text == "cat"
        assert len(model.calls) == 2

    def test_not_where_the_model_does_so_itself(self) -> None:
        class Patient(Chat):
            max_retries: int | None = None  # as ChatOpenAI has it: None is "the SDK's default"

        for model, tries in ((Patient(), 1), (Patient(max_retries=0), 2)):
            model.reply = lambda call: StatusError(429, {}, {"retry-after-ms": "1"})
            with pytest.raises(LLMStatusError):
                connect(model, **({"attempts": 2} if tries == 2 else {})).complete_sync("x")
            assert len(model.calls) == tries

        def second_time(call: int) -> Any:
            return ConnectionError("gone") if call == 1 else "cat"

        model = Patient(reply=second_time)
        retrying = model.with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
        assert connect(retrying).complete_sync("x").text == "cat"
        spare = Chat(reply=ConnectionError("gone")).with_fallbacks([Chat(reply="dog")])
        assert connect(spare).complete_sync("x").text == "dog"


def test_many_requests_end_and_leave_no_thread() -> None:
    llm = connect(Chat())

    async def all_of_them() -> list[Completion]:
        return await asyncio.gather(*(llm.complete(str(number)) for number in range(300)))

    before = threading.active_count()
    assert len(asyncio.run(all_of_them())) == 300
    deadline = time.monotonic() + 10
    while threading.active_count() > before + 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before + 4


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "icl-vision-langchain":
            thread.join(20)


class Hidden:
    """Keeps what it is in private."""

    def __init__(self, style: str) -> None:
        self._style = style


class Styled(Chat):
    style: Any = None

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        said = getattr(self.style, "_style", "plain")
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])


class TestCaching:
    def test_a_model_that_cannot_be_told_from_another_is_not_cached_and_says_so_once(self, tmp_path: Any) -> None:
        made = [
            lambda style: Styled(style=Hidden(style)),
            lambda style: Styled(style=[{"deep": Hidden(style)}]).with_retry(),
            lambda style: Styled().with_fallbacks([Styled(style=Hidden(style))]),
            lambda style: Styled().bind(extra=Hidden(style)),
        ]
        for make in made:
            for style in ("one", "two"):
                with pytest.warns(DroppedGuaranteeWarning, match="answers are not cached: .*(style|extra)") as warned:
                    llm = connect(make(style), cache=tmp_path / "r.sqlite")
                    texts = [llm.complete_sync("which?").text for _ in range(2)]
                assert len(warned) == 1 and texts[0] == texts[1]
                assert llm.cache.hits == 0 and len(llm.cache) == 0  # type: ignore[attr-defined]  # llm is a cached one here
                llm.cache.close()  # type: ignore[attr-defined]  # llm is a cached one here
        assert connect(Styled(style=Hidden("one"))).complete_sync("x").text == "one"  # nothing to warn of

    def test_the_answers_are_those_of_each(self, tmp_path: Any) -> None:
        for style in ("one", "two"):
            with pytest.warns(DroppedGuaranteeWarning, match="not cached"):
                llm = connect(Styled(style=Hidden(style)), cache=tmp_path / "r.sqlite")
            assert llm.complete_sync("which?").text == style
            llm.cache.close()  # type: ignore[attr-defined]  # llm is a cached one here

    def test_through_other_wrappers(self, tmp_path: Any) -> None:
        with pytest.warns(DroppedGuaranteeWarning, match="not cached"):
            llm = connect(
                Styled(style=Hidden("one")), cache=tmp_path / "r.sqlite", budget=Budget(requests=9), fallback=["fake"]
            )
        assert llm.complete_sync("which?").text == "one"

    def test_a_plain_model_is_cached(self, tmp_path: Any) -> None:
        llm = connect(Styled(style="x"), cache=tmp_path / "r.sqlite")
        assert llm.complete_sync("which?").text == llm.complete_sync("which?").text == "plain"
        assert llm.cache.hits == 1  # type: ignore[attr-defined]  # llm is a cached one here
        llm.cache.close()  # type: ignore[attr-defined]  # llm is a cached one here
