"""connect(): what each string gives, and what a wrong one says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from icl_vision import connect
from icl_vision.errors import LLMSpecError, PluginError, UsageError
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
    with pytest.raises(UsageError, match="api must be one of 'auto', 'chat', 'completions', 'responses'; got 'char'"):
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


# ---- LLMs of other packages ----

ECHO = """
from icl_vision.contracts import Completion, Profile
from icl_vision.llms import BaseLLM

class EchoLLM(BaseLLM):
    def __init__(self, model, *, api="auto", loud=False):
        self.loud, self.profile_ = loud, Profile("echo:" + model, api="chat" if api == "chat" else "completions")

    @property
    def profile(self):
        return self.profile_

    async def _complete(self, prompt, *, max_tokens, stop, temperature, seed, constraint):
        text = prompt.query.upper() if self.loud else prompt.query
        return Completion(text, "stop")

def local(model):
    raise AssertionError("this library's own kinds win")

def number(model):
    return 3

def broken(model):
    raise ValueError("no such model " + model)
"""


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Another package with LLMs, where Python finds it; not imported yet."""
    info = tmp_path / "plugged_llms-1.0.dist-info"
    info.mkdir()
    (tmp_path / "plugged_llms.py").write_text(ECHO)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-llms\nVersion: 1.0\n")
    kinds = {"echo": "EchoLLM", "fake": "local", "number": "number", "broken": "broken"}
    lines = "".join(f"{kind} = plugged_llms:{name}\n" for kind, name in kinds.items())
    (info / "entry_points.txt").write_text(f"[icl_vision.llms]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("plugged_llms", None)


def test_another_packages_llm_is_connected_like_our_own(echo, tmp_path):
    llm = connect("echo:m:1", loud=True, api="chat", cache=tmp_path / "a.sqlite")
    assert (llm.profile.name, llm.profile.api) == ("echo:m:1", "chat")
    assert llm.complete_sync("hello").text == "HELLO"


def test_our_own_kinds_win_and_nothing_is_imported_for_them(echo):
    assert isinstance(connect("fake"), FakeLLM)
    with pytest.raises(LLMSpecError, match=r"'gpt-5' names no LLM; .*'replay:FILE', .*'echo:MODEL' of plugged-llms"):
        connect("gpt-5")
    assert "plugged_llms" not in sys.modules


@pytest.mark.parametrize("spec", ["echo", "echo:"])
def test_another_packages_llm_never_stands_alone(echo, spec):
    with pytest.raises(LLMSpecError, match="names no LLM"):
        connect(spec)


def test_what_another_package_gets_wrong_is_told_with_its_name(echo):
    with pytest.raises(PluginError, match=r"the LLM provider 'number' of plugged-llms gave a int: it must give an"):
        connect("number:m")
    with pytest.raises(PluginError, match=r"'broken' of plugged-llms .* failed: ValueError: no such model m"):
        connect("broken:m")
    with pytest.raises(UsageError, match=r"'echo' of plugged-llms .* cannot be called so: .*'colour'"):
        connect("echo:m", colour="red")
