"""Prompts as literal strings: every packaged template, order, repeats, induction, bad input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_vision.errors import LabelError, PromptError, TemplateError, UsageError
from icl_vision.tasks.classify.prompts import Example, PromptBuilder, order_examples

LABELS = ("lion", "school bus")
EXAMPLES = (
    Example("mane roar", "lion"),
    Example("paw fur", "lion"),
    Example("wheel road", "school bus"),
    Example("yellow stop", "school bus"),
)


def given_order(template: str, **options: object) -> PromptBuilder:
    return PromptBuilder(template, order_seed=None, **options)  # type: ignore[arg-type]  # a mapping of options


def test_golden_classification() -> None:
    prompt = given_order("classification").prepare(EXAMPLES[1:3], LABELS).query(words="cub tail")
    assert prompt.instruction == (
        'For each of the following input output pairs, output is one of ["lion", "school bus"]:'
    )
    assert prompt.context == "###\nInput: paw fur\nOutput: lion\n###\nInput: wheel road\nOutput: school bus"
    assert prompt.query == "###\nInput: cub tail\nOutput:"
    assert prompt.text == (
        'For each of the following input output pairs, output is one of ["lion", "school bus"]:\n'
        "###\nInput: paw fur\nOutput: lion\n"
        "###\nInput: wheel road\nOutput: school bus\n"
        "###\nInput: cub tail\nOutput:"
    )


def test_golden_classification_channel() -> None:
    builder = given_order("classification").channel()
    assert builder.kind == "channel"
    assert builder.channel() is builder
    prepared = builder.prepare(EXAMPLES[1:3], LABELS)
    assert prepared.query(label="lion").text == "lion: paw fur\nschool bus: wheel road\nlion:"
    assert prepared.query(label="school bus").query == "school bus:"


@pytest.mark.parametrize(
    ("labels", "preamble"),
    [
        (["lion"], 'Answer with "lion".'),
        (["lion", "bus"], 'Answer with "lion" or "bus".'),
        (["lion", "bus", "vase"], 'Answer with "lion", "bus" or "vase".'),
    ],
)
def test_golden_classification_palm(labels: list[str], preamble: str) -> None:
    prompt = given_order("classification_palm").prepare([Example("mane roar", "lion")], labels).query(words="cub tail")
    assert prompt.text == f"{preamble}\nmane roar\nThis is a lion\ncub tail\nThis is a"


def test_golden_classification_palm_channel() -> None:
    prepared = given_order("classification_palm").channel().prepare(EXAMPLES[1:3], LABELS)
    assert prepared.query(label="lion").text == (
        "This is a lion: paw fur\nThis is a school bus: wheel road\nThis is a lion:"
    )


@pytest.mark.parametrize("template", ["classification", "classification_palm"])
def test_induction_off_empties_the_instruction_and_nothing_else(template: str) -> None:
    on = given_order(template).prepare(EXAMPLES, LABELS).query(words="cub")
    off = given_order(template, induction=False).prepare(EXAMPLES, LABELS).query(words="cub")
    assert off.instruction == ""
    assert (off.context, off.query) == (on.context, on.query)
    assert on.text == on.instruction + "\n" + off.text


def test_the_prefix_is_identical_for_every_query() -> None:
    for builder in (PromptBuilder(), PromptBuilder().channel()):
        prepared = builder.prepare(EXAMPLES, LABELS)
        if builder.kind == "direct":
            prompts = [prepared.query(words=words) for words in ("a b", "c d e", "x\u0301 y")]
        else:
            prompts = [prepared.query(label=label) for label in LABELS]
        assert len({prompt.prefix.encode() for prompt in prompts}) == 1
        assert all(prompt.text.startswith(prompt.prefix) and prompt.text == prompt.text.rstrip() for prompt in prompts)


def test_repeats_show_the_whole_support_set_again_and_extend_the_shorter_prompt() -> None:
    once, thrice = (PromptBuilder(repeats=repeats).prepare(EXAMPLES, LABELS) for repeats in (0, 2))
    assert thrice.examples == once.examples * 3
    assert thrice.context == "\n".join([once.context] * 3)
    assert (thrice.instruction + thrice.context).startswith(once.instruction + once.context)


def test_order_interleaves_classes_in_rounds_and_keeps_each_class_in_order() -> None:
    ordered = order_examples(EXAMPLES, LABELS, 0)
    assert [{e.label for e in ordered[:2]}, {e.label for e in ordered[2:]}] == [set(LABELS), set(LABELS)]
    for label in LABELS:
        assert [e for e in ordered if e.label == label] == [e for e in EXAMPLES if e.label == label]


def test_order_seeds_repeat_themselves_and_differ() -> None:
    orders = {seed: PromptBuilder(order_seed=seed).prepare(EXAMPLES, LABELS).examples for seed in range(8)}
    assert all(PromptBuilder(order_seed=s).prepare(EXAMPLES, LABELS).examples == o for s, o in orders.items())
    assert len(set(orders.values())) > 1
    assert PromptBuilder(order_seed=None).prepare(EXAMPLES, LABELS).examples == EXAMPLES
    assert PromptBuilder(order_seed=3).channel().prepare(EXAMPLES, LABELS).examples == orders[3]


def test_the_order_of_a_seed_is_pinned() -> None:
    # A change here would change every published figure of ours.
    labels = ["a", "b", "c"]
    shown = order_examples([Example(f"{label}{i}", label) for i in (1, 2) for label in labels], labels, 0)
    assert [example.words for example in shown] == ["a1", "c1", "b1", "c2", "b2", "a2"]


@settings(deadline=None)  # shared machines stall
@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers())
def test_order_is_a_permutation(labels: list[str], seed: int) -> None:
    examples = [Example(str(number), label) for number, label in enumerate(labels)]
    assert Counter(order_examples(examples, "abc", seed)) == Counter(examples)


def test_variables_reach_the_template(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(
        "{% block instruction %}{{ ways }} {{ shots }} {{ repeats }} {{ induction }} {{ labels | join('/') }}"
        "{% endblock %}"
        "{% block context %}{{ examples | map(attribute='words') | join('|') }}{% endblock %}"
        "{% block query %}{{ ways }}?{{ words }}{% endblock %}"
    )
    prepared = PromptBuilder("mine", folder=tmp_path, repeats=1, order_seed=None).prepare(EXAMPLES[:3], LABELS)
    assert prepared.instruction == "2 2 1 True lion/school bus"
    assert prepared.context == "mane roar|paw fur|wheel road|mane roar|paw fur|wheel road"
    assert prepared.query(words="cub").query == "2?cub"


def test_no_examples_leave_the_context_empty() -> None:
    prompt = PromptBuilder().prepare([], LABELS).query(words="cub")
    assert prompt.context == ""
    assert prompt.text == prompt.instruction + "\n" + prompt.query


@pytest.mark.parametrize("label", ["{{ 7*7 }}", "{% raw %}", "{# x #}", "{{ ''.__class__ }}", "%s", "{0}", '"quoted"'])
def test_labels_and_words_that_look_like_code_stay_literal(label: str) -> None:
    for name in ("classification", "classification_palm"):
        prepared = PromptBuilder(name).prepare([Example(f"{label} x", label)], [label, "vase"])
        assert label in prepared.instruction
        assert prepared.context.count(label) == 2
        assert f"{label} y" in prepared.query(words=f"{label} y").query


def test_ascii_art_keeps_its_rows() -> None:
    art = " #@ \n.  .\n  ##"
    prepared = PromptBuilder("classification_palm", induction=False).prepare([Example(art, "lion")], LABELS)
    assert prepared.query(words=art).text == f"{art}\nThis is a lion\n{art}\nThis is a"


def test_bad_words_are_refused_by_name() -> None:
    prepared = PromptBuilder().prepare(EXAMPLES, LABELS)
    with pytest.raises(PromptError, match=r"line break; only ASCII art"):
        prepared.query(words="cub\nOutput: lion")
    with pytest.raises(PromptError, match=r"U\+0007"):
        prepared.query(words="cub\x07")
    with pytest.raises(PromptError, match=r"must be one string; got list"):
        prepared.query(words=["cub"])  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(PromptError, match=r"U\+202E"):
        PromptBuilder().prepare([Example("a\u202eb", "lion")], LABELS)


def test_bad_arguments_are_refused_by_name() -> None:
    for repeats in (-1, 101, 1.5, True):
        with pytest.raises(UsageError, match=r"repeats must be a whole number from 0 to 100; got"):
            PromptBuilder(repeats=repeats)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match=r"order_seed must be a whole number, or None .*; got 'x'"):
        PromptBuilder(order_seed="x")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match=r"induction must be True or False; got 'yes'"):
        PromptBuilder(induction="yes")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match=r"max_chars must be"):
        PromptBuilder(max_chars=0)
    with pytest.raises(UsageError, match=r"example 1 must be an Example\(words, label\); got tuple"):
        PromptBuilder().prepare([("a", "lion")], LABELS)  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(PromptError, match=r"example 1 has the label 'vase', none of lion, school bus"):
        PromptBuilder().prepare([Example("a", "vase")], LABELS)
    with pytest.raises(LabelError, match=r"'Output: x' contains 'Output:'"):
        PromptBuilder().prepare([], ["Output: x", "lion"])


def test_query_takes_what_the_template_takes() -> None:
    direct, channel = (builder.prepare(EXAMPLES, LABELS) for builder in (PromptBuilder(), PromptBuilder().channel()))
    with pytest.raises(UsageError, match=r"direct: call query\(words=...\) alone"):
        direct.query(label="lion")
    with pytest.raises(UsageError, match=r"channel template: call query\(label=...\) alone"):
        channel.query(words="cub")
    with pytest.raises(PromptError, match=r"'vase' is none of this episode's"):
        channel.query(label="vase")


def test_rendered_size_is_capped() -> None:
    with pytest.raises(TemplateError, match=r"classification\.jinja.*the context block fails.*beyond 1,000 characters"):
        PromptBuilder(max_chars=1000).prepare([Example("w", "lion")] * 100, LABELS)
    with pytest.raises(
        PromptError, match=r"the 4 examples shown have 6,016 characters, more than the 1,000 of max_chars"
    ):
        PromptBuilder(max_chars=1000, repeats=3).prepare([Example("word " * 300, "lion")], LABELS)
    prepared = PromptBuilder(max_chars=1000).prepare(EXAMPLES, LABELS)
    with pytest.raises(TemplateError, match=r"the query block fails"):
        prepared.query(words="w" * 2000)


def write(folder: Path, name: str, query: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jinja").write_text(
        "{% block instruction %}mine{% endblock %}"
        "{% block context %}{% for e in examples %}{{ e.words }}={{ e.label }}\n{% endfor %}{% endblock %}"
        "{% block query %}{{ " + query + " }}={% endblock %}"
    )


def test_a_folder_overrides_by_name_and_twins_follow(tmp_path: Path) -> None:
    write(tmp_path / "own", "classification", "words")
    own = PromptBuilder("classification", folder=tmp_path / "own")
    assert own.prepare(EXAMPLES, LABELS).instruction == "mine"
    # The packaged twin does not say what the user's template says.
    assert not own.has_channel()
    with pytest.raises(TemplateError, match=r"has no twin for noisy-channel scoring: put a classification_channel"):
        own.channel()
    # Other names still come from the package.
    assert PromptBuilder("classification_palm", folder=tmp_path / "own").has_channel()
    # A twin of the user's own is used, beside an overridden template or a packaged one.
    write(tmp_path / "own", "classification_channel", "label")
    write(tmp_path / "twin", "classification_channel", "label")
    for folder in ("own", "twin"):
        builder = PromptBuilder("classification", folder=tmp_path / folder)
        assert builder.has_channel()
        assert builder.channel().prepare(EXAMPLES, LABELS).instruction == "mine"


def test_channel_keeps_the_settings() -> None:
    builder = PromptBuilder("classification", induction=False, repeats=2, order_seed=7, max_chars=5000).channel()
    assert (builder.induction, builder.repeats, builder.order_seed, builder.max_chars) == (False, 2, 7, 5000)
