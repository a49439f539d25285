"""Classifiers and generators that 0.1.0 saved: they load, and answer as they did."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from icl_vision import FewShotClassifier, ImageGenerator
from icl_vision.errors import UsageError

FILES = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"

CLASSIFIERS = sorted(path.stem for path in (FILES / "classifiers").glob("*.json") if "expected" not in path.name)
GENERATORS = sorted(path.stem for path in (FILES / "generators").glob("*.json") if "expected" not in path.name)


def load(kind: Any, path: Path, llm: Any) -> Any:
    """What was saved, with the object for an LLM that was one.

    A file that leads elsewhere, to a folder of templates, may want that said again; then the message says how.
    """
    options = {"llm": llm} if json.loads(path.read_text(encoding="utf-8"))["llm"]["object"] else {}
    try:
        return kind.load(path, **options)
    except UsageError as error:
        assert path.stem == "templates" and re.search("templates=|trust=True", str(error)), str(error)
        assert "templates" in inspect.signature(kind.load).parameters
        return kind.load(path, templates="templates", **options)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_saved_classifier_answers_as_it_did(name: str, files: Path, work: Path) -> None:
    from calls import classifiers, llm_of, queries, support
    from kinds import differences

    expected = json.loads((files / "classifiers" / f"{name}.expected.json").read_text(encoding="utf-8"))
    _, folder, labels = classifiers()[name]
    classifier = load(FewShotClassifier, files / "classifiers" / f"{name}.json", llm_of(name))
    asked = queries() if folder == "support" else support(folder, labels)[0]
    # (First: what calibrates is asked for once, and counted with the first answer.)
    assert differences(expected["answers"], [one.to_dict() for one in classifier.classify(asked)]) == []
    assert classifier.method_ == expected["method"] and classifier.predict(asked) == expected["labels"]
    # Saved anew and loaded again it is still the same.
    classifier.save(work / f"{name}.json")
    again = load(FewShotClassifier, work / f"{name}.json", llm_of(name))
    assert again.predict(asked) == expected["labels"]


def test_a_classifier_fitted_today_is_the_saved_one(files: Path, work: Path) -> None:
    from calls import classifiers, support

    for name, (classifier, folder, labels) in classifiers().items():
        classifier.fit(*support(folder, labels)).save(work / "today.json")
        today = json.loads((work / "today.json").read_text(encoding="utf-8"))
        old = json.loads((files / "classifiers" / f"{name}.json").read_text(encoding="utf-8"))
        assert today["examples"] == old["examples"] and today["classes"] == old["classes"]
        missing = set(old["params"]) - set(today["params"])
        assert not missing and all(today["params"][key] == value for key, value in old["params"].items())


@pytest.mark.parametrize("name", GENERATORS)
def test_a_saved_generator_draws_as_it_did(name: str, files: Path, work: Path) -> None:
    from calls import DRAWN, llm_of

    expected = json.loads((files / "generators" / f"{name}.expected.json").read_text(encoding="utf-8"))
    generator = load(ImageGenerator, files / "generators" / f"{name}.json", llm_of(name))
    assert [one.pyramid.to_dict() for one in generator.generate(list(DRAWN))] == expected
    assert generator.texts_ == sorted(DRAWN)


def test_the_files_cover_what_a_classifier_can_be_told() -> None:
    params = [json.loads((FILES / "classifiers" / f"{name}.json").read_text())["params"] for name in CLASSIFIERS]
    given = "k shots repeats induction selection scoring ensemble calibration order_seed template templates on_unknown"
    for option in given.split():
        assert len({str(one[option]) for one in params}) > 1, option
