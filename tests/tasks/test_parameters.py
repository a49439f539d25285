"""Parameters of every task: a value of a wrong type is told by name, and what is good does not depend on the LLM."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey_pictures import GreyTokenizer
from PIL import Image

from icl_vision.errors import IclVisionError, LabelError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tasks.denoise.denoiser import ImageDenoiser
from icl_vision.tasks.draw.generator import ImageGenerator

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


CHANGES: dict[str, Any] = {
    "llm": "nothing", "tokenizer": "nothing", "k": 1, "shots": 1, "repeats": 3, "induction": False,
    "selection": "random", "scoring": "parse", "ensemble": None, "calibration": "contextual",
    "order_seed": 9, "template": "nothing",
    "templates": "nowhere", "concurrency": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, {"selection": "nearest", "shots": 1, "k": 5}, {"scoring": "direct", "repeats": 1}]
)
def test_a_fitted_classifier_goes_on_as_it_was_fitted(tmp_path: Path, options: dict[str, Any]) -> None:
    shown, made = pictures(6), []
    for change in (None, *CHANGES, "all"):
        llm = FakeLLM(score=lambda prompt, continuation: -(1.0 + len(prompt.text + continuation) % 13))
        clf = FewShotClassifier(llm, GreyTokenizer(), **options).fit(shown, ["a", "b", "c"] * 2)
        if change is not None:
            clf.set_params(**(CHANGES if change == "all" else {change: CHANGES[change]}))
        clf.save(tmp_path / "clf.json")
        found = clf.classify(pictures(8)[6:])
        made.append(
            (
                str(clf),
                str(clf.prompt_for(shown[0])),
                found,
                (tmp_path / "clf.json").read_text(),
                clf.words_of(shown[0]),
            )
        )
        sent = [(call.prompt, call.settings) for call in llm.calls]
        made[-1] = (*made[-1], sent)
    assert all(one == made[0] for one in made[1:])


def test_what_each_call_of_a_classifier_reads_is_checked_then() -> None:
    clf = task(FewShotClassifier, llm=FakeLLM("neither"), scoring="parse").fit(pictures(4), ["aa", "bb"] * 2)
    assert clf.predict(pictures(1)) == [None]
    with pytest.raises(IclVisionError, match="none of the labels"):
        clf.set_params(on_unknown="raise").predict(pictures(1))
    (kept,) = clf.set_params(errors="return").classify(pictures(1))
    assert kept.error is not None
    for wrong in ({"on_unknown": "guess"}, {"errors": "hide"}, {"batch_size": 0}, {"progress": "yes"}):
        again = task(FewShotClassifier).fit(pictures(4), ["aa", "bb"] * 2).set_params(**wrong)
        with pytest.raises(UsageError, match=next(iter(wrong))):
            again.predict(pictures(1))


GENERATOR_CHANGES: dict[str, Any] = {
    "llm": "nothing", "tokenizer": "nothing", "shots": 1, "passes": "par", "stride": 2, "upper": 2, "allowed": "layer",
    "temperature": 0.5, "guidance": 1.0, "best_of": 2, "longest_run": 2, "template": "nothing", "templates": "nowhere",
    "induction": True, "constrain": "never", "asks": 1, "fill": True, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("change", GENERATOR_CHANGES)
def test_a_generator_changed_after_fit_mixes_nothing(change: str, tmp_path: Path) -> None:
    generator = task(ImageGenerator).fit(pictures(4), ["aa", "bb"] * 2)
    kept = generator.pairs_, generator.texts_
    generator.set_params(**{change: GENERATOR_CHANGES[change]})
    uses = [
        lambda: generator.generate("aa"),
        lambda: generator("aa"),
        lambda: generator.plan("aa"),
        lambda: generator.prompt_for("aa"),
        lambda: generator.save(tmp_path / "x.json"),
        lambda: next(generator.stream("aa")),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="set_params changed this ImageGenerator after fit; call fit again"):
            use()
    assert (generator.pairs_, generator.texts_) == kept and not (tmp_path / "x.json").exists()
    back = task(ImageGenerator)._defaults()[change]
    if change not in ("llm", "tokenizer"):
        assert generator.set_params(**{change: back}).plan("aa").queries == 1  # as it was: nothing is mixed
