"""Parameters of every task: a value of a wrong type is told by name, and what is good does not depend on the LLM."""

from __future__ import annotations

import copy
import math
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grey_pictures import GreyTokenizer
from PIL import Image

from icl_vision.errors import IclVisionError, LabelError, NotFittedError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import Captioner, FewShotClassifier, VisualQA
from icl_vision.tasks.base import CALL_OPTIONS
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
    elif isinstance(one, VisualQA):
        one.fit(shown, "what?", ["aa", "bb"] * 3).answers(shown[0], "what?")
    elif isinstance(one, Captioner):
        one.fit(shown, ["a picture", "b"] * 3).caption(shown[0])
    elif isinstance(one, ImageGenerator):
        one.fit(shown, ["a", "b"] * 3).plan("a")
    else:
        one.fit(shown[:5]).plan(shown[5])


@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator, ImageDenoiser, VisualQA, Captioner])
def test_a_parameter_of_a_wrong_type_is_told_by_its_name(kind: type) -> None:
    used(task(kind))
    for name in kind._defaults():  # type: ignore[attr-defined]  # every task has it
        for value in WRONG:
            try:
                used(task(kind, **{name: value}))
            except UsageError as error:
                assert name in str(error), (name, value, str(error))
            except IclVisionError:
                continue  # of the right type, and there is no such file, template, LLM


@pytest.mark.parametrize("value", [5, b"x", ["a"], 1.5])
@pytest.mark.parametrize("kind", [FewShotClassifier, ImageGenerator, VisualQA, Captioner])
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


# What is changed after fit --------------------------------------------------------------------------------------------

CHANGES: dict[type, dict[str, Any]] = {
    FewShotClassifier: {
        "llm": "nothing", "tokenizer": "nothing", "k": 1, "shots": 1, "repeats": 3, "induction": False,
        "selection": "random", "scoring": "parse", "ensemble": None, "calibration": "contextual", "order_seed": 9,
        "template": "nothing", "templates": "nowhere",
    },
    ImageGenerator: {
        "llm": "nothing", "tokenizer": "nothing", "shots": 1, "passes": "par", "stride": 2, "upper": 2,
        "allowed": "layer", "temperature": 0.5, "guidance": 1.0, "best_of": 2, "longest_run": 2, "template": "nothing",
        "templates": "nowhere", "induction": True, "constrain": "never", "asks": 1, "fill": True, "seed": 3,
    },
    ImageDenoiser: {
        "llm": "nothing", "tokenizer": "nothing", "task": "rotation", "protocol": "paper", "layers": 1, "stride": 1,
        "window": "all", "refine": "none", "context": 2, "corruption": (0.1, 0.1), "keep_known": False,
        "allowed": "vocabulary", "own": False, "align": False, "degrade": False, "guidance": 3.0, "temperature": 0.5,
        "longest_run": 1, "most_uses": 1, "constrain": "never", "seed": 5,
    },
    VisualQA: {
        "llm": "nothing", "tokenizer": "nothing", "k": 1, "shots": 1, "ways": 1, "repeats": 2, "selection": "random",
        "induction": False, "prompts": 2, "choices": ["aa", "bb"], "scoring": "greedy", "vision_weight": 3.0,
        "show_words": True, "focus": False, "order_seed": 9, "template": "nothing", "templates": "nowhere",
    },
    Captioner: {
        "llm": "nothing", "tokenizer": "nothing", "k": 1, "shots": 1, "repeats": 2, "selection": "random",
        "induction": False, "prompts": 2, "order_seed": 9, "template": "nothing", "templates": "nowhere",
    },
}  # fmt: skip
"""Every parameter of the snapshot, at another value than its default: most would change what is asked, or stop it."""

SETTINGS = [
    (FewShotClassifier, {}),
    (FewShotClassifier, {"selection": "nearest", "shots": 1, "k": 5}),
    (FewShotClassifier, {"scoring": "direct", "repeats": 1}),
    (ImageGenerator, {}),
    (ImageGenerator, {"passes": "two-stage", "stride": [1, 2, 4], "guidance": 2.0}),
    (ImageDenoiser, {}),
    (ImageDenoiser, {"protocol": "paper"}),
    (VisualQA, {}),
    (VisualQA, {"choices": ["aa", "bb"], "prompts": 3, "selection": "random"}),
    (Captioner, {}),
]


def fitted(one: Any) -> Any:
    if isinstance(one, ImageDenoiser):
        return one.fit(pictures(5))
    if isinstance(one, VisualQA):
        return one.fit(pictures(6), "what?", ["aa", "bb", "cc"] * 2)
    return one.fit(pictures(6), ["aa", "bb", "cc"] * 2)


def said(one: Any, path: Path) -> tuple[Any, ...]:
    """Everything that a fitted task does with what it was fitted with."""
    one.save(path)
    query = pictures(8)[6]
    if isinstance(one, FewShotClassifier):
        answers: Any = [result.to_dict() for result in one.classify(query)], str(one), one.words_of(query)
        answers += (str(one.prompt_for(query)), one.classes_, one.examples_, one.method_)
    elif isinstance(one, VisualQA | Captioner):
        asked = (query, "what?") if isinstance(one, VisualQA) else (query,)
        found = one.answers(*asked) if isinstance(one, VisualQA) else one.caption(query)
        answers = [answer.to_dict() for answer in found], str(one.prompt_for(*asked)), one.examples_, one.run_config()
    elif isinstance(one, ImageGenerator):
        drawn = one.generate("aa")
        answers = (
            [one_drawn.to_dict() for one_drawn in drawn],
            one.plan("bb").to_dict(),
            one.prompt_for("cc"),
            one.texts_,
        )
    else:
        restored = one.denoise(query)
        answers = [result.to_dict() for result in restored], one.plan(query).to_dict(), one.leaking, one.parts_
    return (answers, path.read_text(), [(call.prompt, call.settings) for call in one.llm_.calls])


def scored(prompt: Any, continuation: str) -> float:
    return -(1.0 + len(prompt.text + continuation) % 13)


@pytest.mark.parametrize(("kind", "options"), SETTINGS)
def test_a_fitted_task_goes_on_as_it_was_fitted(tmp_path: Path, kind: type, options: dict[str, Any]) -> None:
    before = None
    for change in ({}, *({name: value} for name, value in CHANGES[kind].items()), CHANGES[kind]):
        told = dict(options) | {name: [*options[name]] for name in ("stride", "choices") if name in options}
        one = fitted(task(kind, llm=FakeLLM(score=scored, constraint="logit_bias"), **told))
        one.set_params(**change)
        for name in {"stride", "choices"} & set(told):
            told[name].append(9)  # nor does what was handed in reach into it
        after = said(one, tmp_path / "task.json")
        assert before is None or after == before, change
        before = after
        assert {name: one.get_params()[name] for name in change} == change  # told, and waiting for the next fit


def test_every_parameter_is_of_the_snapshot_or_of_a_call() -> None:
    for kind, changes in CHANGES.items():
        assert set(changes) == set(kind._defaults()) - set(CALL_OPTIONS)  # type: ignore[attr-defined]  # every task has it


@pytest.mark.parametrize(
    ("kind", "name"),
    [(FewShotClassifier, "classes_"), (FewShotClassifier, "examples_"), (ImageGenerator, "pairs_"),
     (ImageGenerator, "texts_"), (ImageDenoiser, "pairs_"), (VisualQA, "examples_"), (Captioner, "examples_")],
)  # fmt: skip
def test_what_fit_found_out_is_not_changed_from_outside(kind: type, name: str) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet; call fit"):
        getattr(task(kind), name)
    assert not hasattr(task(kind), name)
    one = fitted(task(kind))
    kept = getattr(one, name)
    assert kept
    with pytest.raises(AttributeError):
        setattr(one, name, [])
    getattr(one, name).clear()
    assert getattr(one, name) == kept
    with pytest.raises(AttributeError):
        one.fitted.kept = None
    with pytest.raises(TypeError):
        one.fitted.params["llm"] = "another"


def test_what_is_changed_after_fit_holds_from_the_next_fit_on() -> None:
    generator = fitted(task(ImageGenerator)).set_params(shots=1)
    assert len(generator.pairs_) == 6 and len(fitted(generator).pairs_) == 3
    denoiser = fitted(task(ImageDenoiser)).set_params(context=2)
    assert len(denoiser.pairs_) == 4 and len(fitted(denoiser).pairs_) == 2


@pytest.mark.parametrize("kind", CHANGES)
def test_options_of_a_call_are_read_and_checked_at_each_call(kind: type, tmp_path: Path) -> None:
    wrong = {
        "errors": "hide", "on_unknown": "guess", "probabilities": "sure", "batch_size": 0, "concurrency": 0,
        "progress": "yes", "max_tokens": 0, "budget": 5, "prices": 5,
    }  # fmt: skip
    assert set(wrong) == set(CALL_OPTIONS)
    for name in set(wrong) & set(kind._defaults()):  # type: ignore[attr-defined]  # every task has it
        one = fitted(task(kind)).set_params(**{name: wrong[name]})
        with pytest.raises(UsageError, match=name):
            said(one, tmp_path / "task.json")
        assert not (tmp_path / "task.json").exists()
    one = fitted(task(kind)).set_params(errors="return")
    one.save(tmp_path / "task.json")
    assert kind.load(tmp_path / "task.json", llm=FakeLLM(), tokenizer=GreyTokenizer()).errors == "return"  # type: ignore[attr-defined]  # every task has it


@pytest.mark.parametrize("kind", CHANGES)
def test_a_fitted_task_is_copied_and_pickled_as_it_was_fitted(kind: type) -> None:
    one = task(kind, llm="fake", **({"constrain": "never", "fill": True} if kind is ImageGenerator else {}))
    seeded = "seed" in kind._defaults()  # type: ignore[attr-defined]  # every task has it
    one = fitted(one).set_params(tokenizer="nothing", seed=9) if seeded else fitted(one)
    twins = [copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))]  # noqa: S301 - our own bytes
    for twin in twins:
        assert twin.get_params() | {"tokenizer": 0} == one.get_params() | {"tokenizer": 0}
        assert twin.fitted.kept == one.fitted.kept
        assert dict(twin.fitted.params) | {"tokenizer": 0} == dict(one.fitted.params) | {"tokenizer": 0}
    assert twins[1].llm_ is one.llm_ and twins[2].llm_ is not one.llm_
    fresh = one.__sklearn_clone__()
    assert fresh.get_params() == one.get_params() and not fresh.__sklearn_is_fitted__() and one.__sklearn_is_fitted__()


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
