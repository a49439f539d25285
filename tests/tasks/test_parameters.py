"""Parameters of every task: a value of a wrong type is told by name, and what is good does not depend on the LLM."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import numpy as np
import pytest
from grey_pictures import GreyTokenizer
from PIL import Image

from icl_vision.errors import IclVisionError, LabelError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tasks.image_denoiser import ImageDenoiser
from icl_vision.tasks.image_generator import ImageGenerator

WRONG = [5, -1, 1.5, "nonsense", object(), [1], {"a": 1}, b"x", math.nan, True, None, (1, 2, 3), 10**30, [None], "\0"]


def pictures(count: int) -> list[Image.Image]:
    draws = np.random.default_rng(3)
    return [Image.fromarray(draws.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


def task(kind: type, **options: Any) -> Any:
    llm = FakeLLM(constraint="logit_bias")
    base = {"llm": llm, "tokenizer": GreyTokenizer()} | ({"context": 4} if kind is ImageDenoiser else {})
    return kind(**base | options)


def used(one: Any) -> None:
    shown = pictures(6)
    if isinstance(one, FewShotClassifier):
        one.fit(shown, ["a", "b"] * 3)
    elif isinstance(one, ImageGenerator):
        one.fit(shown, ["a", "b"] * 3).plan("a")
    else:
        one.fit(shown[:5]).plan(shown[5])


@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator, ImageDenoiser])
def test_a_parameter_of_a_wrong_type_is_told_by_its_name(kind: type) -> None:
    used(task(kind))
    for name in kind._defaults():  # type: ignore[attr-defined]
        for value in WRONG:
            try:
                used(task(kind, **{name: value}))
            except UsageError as error:
                assert name in str(error), (name, value, str(error))
            except IclVisionError:
                continue  # of the right type, and there is no such file, template, LLM


@pytest.mark.parametrize("value", [5, b"x", ["a"], 1.5])
@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator])
def test_templates_that_are_no_folder(kind: type, value: object) -> None:
    with pytest.raises(UsageError, match="templates must be the path of a folder, or None"):
        used(task(kind, templates=value))


@pytest.mark.parametrize("label", ["a ### b", "Output: dog", "the Input: of"])
def test_the_same_labels_are_good_for_every_llm(label: str) -> None:
    for llm in (FakeLLM(scores_text=False), FakeLLM(), FakeLLM(scores_bags=True)):
        for scoring in ("auto", "parse"):
            with pytest.raises(LabelError, match="which the template itself uses"):
                task(FewShotClassifier, llm=llm, scoring=scoring).fit(pictures(2), [label, "dog"])


@pytest.mark.parametrize("llm", [{}, {"scores_text": False, "constraint": "grammar"}, {"scores_text": False}])
def test_labels_spelled_in_composed_or_in_separate_characters_are_asked_alike(llm: dict[str, Any]) -> None:
    composed, separate = ["caf\u00e9", "\u00e5l", "zoo"], ["cafe\u0301", "a\u030al", "zoo"]
    shown, sent, found = pictures(7), [], []
    for labels in (composed, separate):
        asked = FakeLLM("caf\u00e9" if llm.get("constraint") is None else None, **llm)
        clf = FewShotClassifier(asked, GreyTokenizer()).fit(shown[:6], labels * 2)
        (one,) = clf.classify(shown[6])
        assert clf.classes_ == sorted(labels, key=composed_form) and one.label in labels
        assert clf.predict(shown[6]) == [one.label]
        if one.probabilities is not None:
            assert list(one.probabilities) == clf.classes_
            found.append([*one.probabilities.values()])
        sent.append([call.prompt for call in asked.calls])
    assert sent[0] == sent[1] and (not found or found[0] == found[1])


def composed_form(label: str) -> str:
    return unicodedata.normalize("NFC", label)


def test_two_spellings_of_one_label_are_refused() -> None:
    with pytest.raises(LabelError, match="given twice"):
        task(FewShotClassifier).fit(pictures(2), ["caf\u00e9", "cafe\u0301"])
