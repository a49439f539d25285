"""Accents as characters of their own or with their letters: prompts hold one form, whatever way the text came in."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from icl_vision.contracts import Prompt
from icl_vision.drawing.prompts import SegmentExample, SegmentPlace, SegmentPromptBuilder
from icl_vision.errors import LabelError
from icl_vision.prompting import (
    check_label,
    check_words,
)
from icl_vision.tasks.classify.prompts import Example, PromptBuilder

LABELS = ("caf\u00e9", "\u00e5l", "zoo")
WORDS = "na\u00efve \u00fcber \ud55c\uad6d"


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def same(text: str) -> str:
    return text


def prompts(builder: PromptBuilder, form: Any) -> list[Prompt]:
    labels = [form(label) for label in LABELS]
    prepared = builder.prepare([Example(form(WORDS), label) for label in labels], labels)
    assert prepared.labels == tuple(labels) and {one.label for one in prepared.examples} == set(labels)
    if builder.kind == "direct":
        return [prepared.query(words=form(WORDS))]
    return [prepared.query(label=label) for label in (*labels, *LABELS)]


@pytest.mark.parametrize("template", ["classification", "classification_channel"])
@pytest.mark.parametrize("order_seed", [None, 0, 3])
def test_a_prompt_is_the_same_in_either_spelling(template: str, order_seed: int | None) -> None:
    builder = PromptBuilder(template, order_seed=order_seed, repeats=1)
    one, other = prompts(builder, same), prompts(builder, nfd)
    assert one == other
    assert all(unicodedata.is_normalized("NFC", prompt.text) and "caf\u00e9" in prompt.text for prompt in one)


def test_examples_and_labels_may_differ_in_spelling() -> None:
    prepared = PromptBuilder().prepare([Example("a", nfd("caf\u00e9"))], ["caf\u00e9", "zoo"])
    assert prepared.examples == (Example("a", "caf\u00e9"),)


def test_the_users_own_template_may_be_spelled_either_way(tmp_path: Path) -> None:
    source = (
        "{% block instruction %}R\u00e9sum\u00e9 {{ labels | join(', ') }} {{ labels[0] | length }}{% endblock %}\n"
        "{% block context %}{% for one in examples %}{{ one.words }}: {{ one.label }}\n{% endfor %}{% endblock %}\n"
        "{% block query %}{{ words }} \u00e9:{% endblock %}\n"
    )
    found = []
    for name, form in (("one", same), ("two", nfd)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.jinja").write_text(form(source), encoding="utf-8")
        found.append(prompts(PromptBuilder("own", folder=tmp_path / name), form))
    assert found[0] == found[1] and "zoo 4" in found[0][0].text


def test_a_segment_prompt_is_the_same_in_either_spelling() -> None:
    builder = SegmentPromptBuilder()
    found = [
        builder.prepare([SegmentExample(form(LABELS[0]), form(WORDS), form("\u00fcber"))], SegmentPlace(1)).query(
            condition=form(LABELS[0]), words=form(WORDS)
        )
        for form in (same, nfd)
    ]
    assert found[0] == found[1] and unicodedata.is_normalized("NFC", found[0].text)


@pytest.mark.parametrize("form", [same, nfd])
def test_what_may_enter_a_prompt_does_not_depend_on_the_spelling(form: Any) -> None:
    assert check_label(form("\u00e9" * 80)) == form("\u00e9" * 80)
    with pytest.raises(LabelError, match="has 81 characters"):
        check_label(form("\u00e9" * 81))
    with pytest.raises(LabelError, match="which the template itself uses"):
        check_label(form("the r\u00e9ponse: cat"), ["r\u00e9ponse:"])
    assert check_words(form("\u00e9.") + "\n" + "..")
