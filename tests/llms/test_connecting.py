"""connect(): what each string gives, and what a wrong one says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from icl_vision import connect
from icl_vision.errors import LLMSpecError, UsageError
from icl_vision.llms import FakeLLM, OpenAICompatibleLLM


def test_objects_pass_through():
    llm = FakeLLM()
    assert connect(llm) is llm
    with pytest.raises(UsageError, match=r"options \(threads, api\) go with a string only"):
        connect(llm, api="chat", threads=2)


@pytest.mark.parametrize(
    "spec", ["", "loca", "local:", "gpt-5", "fake:", "fake:x", "openai", "replay:", "http://localhost:1/v1", ":x"]
)
def test_strings_that_name_nothing(spec):
    with pytest.raises(LLMSpecError, match=r"names no LLM; valid are 'local', 'local:PATH.gguf', 'openai-compat"):
        connect(spec)


@pytest.mark.parametrize("spec", [None, 3, object()])
def test_things_that_are_no_llm(spec):
    with pytest.raises(LLMSpecError, match=r"takes a string or an LLM object; got (NoneType|int|object)"):
        connect(spec)


@pytest.mark.parametrize(
    "spec", ["openai-compatible:m", "openai-compatible:@http://h/v1", "openai-compatible:m@ftp://h"]
)
def test_openai_compatible_needs_model_and_url(spec):
    with pytest.raises(LLMSpecError, match="needs a model and a URL"):
        connect(spec)


def test_openai_compatible_splits_at_the_last_url():
    llm = connect("openai-compatible:org/m@2:x@http://u:pw@localhost:8000/v1?key=s")
    assert isinstance(llm, OpenAICompatibleLLM)
    assert llm.model == "org/m@2:x"
    assert "pw" not in repr(llm) and "key" not in repr(llm)
    assert llm.profile.name == "openai-compatible:org/m@2:x@http://localhost:8000/v1"


def test_options_and_api_that_cannot_work():
    with pytest.raises(UsageError, match="connect\\('fake'\\) does not take the option 'thread'"):
        connect("fake", thread=2)
    with pytest.raises(UsageError, match="api must be 'auto', 'chat', 'completions' or 'responses'; got 'char'"):
        connect("fake", api="char")
    with pytest.raises(UsageError, match="'fake' has no api='responses'"):
        connect("fake", api="responses")
    with pytest.raises(UsageError, match="leave api out"):
        connect("replay:file", api="chat")


def test_a_spec_and_local_options_load_no_sdk():
    script = (
        "import sys; from icl_vision import connect; connect('fake').complete_sync('text');"
        "heavy = {'openai', 'anthropic', 'httpx2', 'torch', 'langchain_core', 'xllamacpp', 'numpy', 'tiktoken'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_the_embedded_llm_is_known_by_what_changes_its_answers() -> None:
    pytest.importorskip("xllamacpp")
    plain = connect("local").identity
    assert plain == connect("local", threads=1).identity
    assert len({plain, connect("local", deterministic=True).identity, connect("local", context=512).identity}) == 3
