"""Whose LLM a saved task may ask when a server loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_vision import FewShotClassifier
from icl_vision.errors import StorageError, UntrustedNameError
from icl_vision.llms.fake import FakeLLM
from icl_vision.serving.saved import load_saved
from icl_vision.tokenizers import ImageTokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    red, blue = (np.full((16, 16, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 50, 200)))
    FewShotClassifier("fake", "words-photo").fit([red, blue], ["red", "blue"]).save(tmp_path / "walls.json")
    return tmp_path / "walls.json"


def asking(file: Path, spec: str) -> Path:
    """The file, asking another LLM."""
    document: dict[str, Any] = json.loads(file.read_text())
    document["llm"]["spec"] = spec
    file.write_text(json.dumps(document))
    return file


def test_a_local_llm_is_asked(file: Path) -> None:
    assert load_saved(FewShotClassifier, file).llm_.profile.name == "fake"


@pytest.mark.parametrize(
    "spec", ["openai:gpt-4o", "anthropic:claude", "openai-compatible:m@http://attacker.example/v1", "local:other.gguf"]
)
def test_any_other_must_be_named_by_whoever_starts_the_server(file: Path, spec: str) -> None:
    asking(file, spec)
    with pytest.raises(UntrustedNameError, match="not local; name it with --llm") as caught:
        load_saved(FewShotClassifier, file)
    assert str(file) in str(caught.value)
    named = FakeLLM(name="named")
    assert load_saved(FewShotClassifier, file, llm=named).llm_ is named


def test_a_tokenizer_that_is_loaded_is_shared_where_it_is_the_files(file: Path) -> None:
    own = ImageTokenizer.from_pretrained("words-photo")
    other = ImageTokenizer.from_pretrained("ascii")
    assert load_saved(FewShotClassifier, file, tokenizer=own).tokenizer_ is own
    assert load_saved(FewShotClassifier, file, tokenizer=other).tokenizer_.name == "words-photo"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for content in ("", "{}", '{"format": "icl_vision.VisualQA"}', "[" * 100):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(StorageError):
            load_saved(FewShotClassifier, tmp_path / "x.json")
    with pytest.raises(StorageError, match="there is no file"):
        load_saved(FewShotClassifier, tmp_path / "missing.json")
