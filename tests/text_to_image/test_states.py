"""Hidden states: padding, prompts, blocks apart, the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_t2i import tiny_llm

from icl_vision.errors import ArtefactNotFoundError, LLMUnavailableError, UsageError
from icl_vision.text_to_image import llm_folders
from icl_vision.text_to_image import states as states_module
from icl_vision.text_to_image.states import FrozenLLM, TextStates

TEXTS = ["draw the digit seven", "two", "the number 3 of the number four"]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_text_among_longer_ones_has_the_states_it_has_alone(kind: str):
    llm = tiny_llm(kind)
    together = llm.states(TEXTS)
    assert together.values.shape == (3, 7, 32) and together.mask.sum(1).tolist() == [4, 1, 7]
    assert not together.values[~together.mask].any()
    for row, text in enumerate(TEXTS):
        alone = llm.states([text]).values[0]
        torch.testing.assert_close(together.values[row, : len(alone)], alone)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_blocks_apart_equal_the_whole_exactly(kind: str):
    llm = tiny_llm(kind)
    whole = llm.states(TEXTS)
    for below in (0, 1, 2):
        entering = llm.states(TEXTS, below=below)
        with torch.no_grad():
            again = llm.upper(below)(entering.values, entering.mask)
        assert torch.equal(again * whole.mask.unsqueeze(-1), whole.values)
    # And the LLM itself is left as it was.
    assert torch.equal(llm.states(TEXTS).values, whole.values)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_prompt_that_is_gone_through_once_gives_the_states_of_each_text_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    llm = tiny_llm(kind, prompt="draw a number 2 the digit 3 draw {} digit")
    wanted = llm.states(TEXTS)
    monkeypatch.setattr(llm, "_forward", None)
    found = llm.cached_states(TEXTS, folder=tmp_path, progress=False)
    assert torch.equal(found.mask, wanted.mask)
    torch.testing.assert_close(found.values, wanted.values)


def test_a_prompt_is_around_the_text():
    plain, asked = tiny_llm(), tiny_llm(prompt="draw {} digit")
    assert torch.equal(asked.states(["seven"]).values, plain.states(["draw seven digit"]).values)
    with pytest.raises(UsageError, match=r"prompt must hold \{\} once"):
        tiny_llm(prompt="draw")


def test_states_are_kept_by_model_prompt_place_and_texts(llm: FrozenLLM, tmp_path: Path):
    first = llm.cached_states(TEXTS, folder=tmp_path, progress=False)
    fresh = llm.states(TEXTS)
    torch.testing.assert_close(first.values, fresh.values)
    assert torch.equal(first.mask, fresh.mask)
    (file,) = tmp_path.iterdir()
    llm.model = None  # what is kept needs no model
    again = llm.cached_states(TEXTS, folder=tmp_path, progress=False)
    assert torch.equal(again.values, first.values) and torch.equal(again.mask, first.mask)
    other = tiny_llm(seed=1)
    other.cached_states(TEXTS, folder=tmp_path, progress=False)
    other.cached_states(TEXTS, below=1, folder=tmp_path, progress=False)
    other.cached_states(TEXTS[:2], folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 4
    file.write_bytes(b"damaged")
    repaired = tiny_llm().cached_states(TEXTS, folder=tmp_path, progress=False)
    torch.testing.assert_close(repaired.values, first.values)


def test_who_is_stopped_goes_on_where_he_was(llm: FrozenLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(states_module, "_FILE", 2)
    whole = llm.states([*TEXTS, "a nine"])
    kept = states_module._save

    def stopped(path: Path, found: TextStates) -> None:
        kept(path, found)
        raise KeyboardInterrupt

    monkeypatch.setattr(states_module, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        llm.cached_states([*TEXTS, "a nine"], folder=tmp_path, progress=False)
    monkeypatch.setattr(states_module, "_save", kept)
    seen: list[list[str]] = []
    monkeypatch.setattr(
        llm, "_many", lambda texts, *rest: seen.append(list(texts)) or FrozenLLM._many(llm, texts, *rest)
    )
    found = llm.cached_states([*TEXTS, "a nine"], folder=tmp_path, progress=False)
    assert [text for part in seen for text in part] == [*TEXTS, "a nine"][2:], "the first two were kept"
    torch.testing.assert_close(found.values, whole.values)
    assert torch.equal(found.mask, whole.mask)


def test_some_of_them_without_empty_columns(llm: FrozenLLM):
    some = llm.states(TEXTS).take(torch.tensor([1, 0]))
    assert some.values.shape == (2, 4, 32) and some.mask.sum(1).tolist() == [1, 4] and len(some) == 2


def test_texts_that_cannot_be_read(llm: FrozenLLM):
    with pytest.raises(UsageError, match="not one string: put 'seven' in a list"):
        llm.states("seven")
    with pytest.raises(UsageError, match="something in it; got ' '"):
        llm.states([" "])
    with pytest.raises(UsageError, match="a text of 70 tokens is longer than the 64"):
        llm.states(["two " * 70])


def test_names_of_llms(tmp_path: Path, cache: Path):
    with pytest.raises(UsageError, match="llm must be smollm2, gemma, local:FILE.gguf.*got 'nothing'"):
        llm_folders.llm_folder("nothing")
    with pytest.raises(ArtefactNotFoundError, match="no config.json"):
        llm_folders.llm_folder(str(tmp_path))
    with pytest.raises(LLMUnavailableError, match="no model file"):
        llm_folders.llm_folder("local:none.gguf")
    assert llm_folders.llm_folder("owner/name").path == "owner/name"


def test_a_folder_of_transformers(tmp_path: Path):
    made = tiny_llm()
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    opened = FrozenLLM.open(str(tmp_path))
    torch.testing.assert_close(opened.states(TEXTS).values, made.states(TEXTS).values)
    assert opened.width == 32 and len(opened.blocks) == 3
    assert not any(weight.requires_grad for weight in opened.model.parameters())


@pytest.mark.slow
def test_smollm2_is_dequantised_once(cache: Path):
    pytest.importorskip("accelerate")
    try:
        llm_folders.smollm2_file()
    except ArtefactNotFoundError as error:
        pytest.skip(str(error))
    first = llm_folders.llm_folder("smollm2", progress=False)
    stamp = (Path(first.path) / "model.safetensors").stat().st_mtime_ns
    again = llm_folders.llm_folder("smollm2", progress=False)
    assert again == first and (Path(again.path) / "model.safetensors").stat().st_mtime_ns == stamp
    llm = FrozenLLM.open("smollm2")
    assert llm.width == 576 and len(llm.blocks) == 30 and 134e6 < llm.parameters < 135e6
