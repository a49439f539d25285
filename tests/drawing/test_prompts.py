"""Templates that draw: their variables, what they render, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from icl_vision.drawing.prompts import SegmentExample, SegmentPlace, SegmentPromptBuilder
from icl_vision.errors import PromptError, TemplateError, UsageError
from icl_vision.prompting import template_faults
from icl_vision.prompting.templates import TemplateInfo
from icl_vision.tasks.classify.prompts import PromptBuilder
from icl_vision.tasks.templates import DECLARATIONS

EXAMPLES = [
    SegmentExample("an image of 1", "line gap", "gap line"),
    SegmentExample("an image of 0", "ring ring", "arc arc"),
]
OWN = (
    "{# Mine. #}{% block instruction %}{{ segment }}/{{ segments }}: {{ count }} from {{ first }} of {{ size }} on "
    "layer {{ layer }} of {{ layers }}{% endblock %}"
    "{% block context %}{% for e in examples %}{{ e.words }}>{{ e.answer }}\n{% endfor %}{% endblock %}"
    "{% block query %}{{ words }}>{% endblock %}"
)


def test_golden_progressive() -> None:
    prepared = SegmentPromptBuilder().prepare(EXAMPLES, SegmentPlace(2))
    assert prepared.query(condition="an image of 7", words="bar gap").text == (
        "Learn a new language and predict the next 2 words of each answer.\n"
        "C: an image of 1\nQ: line gap\nA: gap line\n"
        "C: an image of 0\nQ: ring ring\nA: arc arc\n"
        "C: an image of 7\nQ: bar gap\nA:"
    )
    bare = [SegmentExample("", "", one.answer) for one in EXAMPLES]
    alone = SegmentPromptBuilder(induction=False).prepare(bare, SegmentPlace(1)).query()
    assert alone.text == "A: gap line\nA: arc arc\nA:"


def test_golden_refinement() -> None:
    prepared = SegmentPromptBuilder("refinement").prepare(EXAMPLES, SegmentPlace(1))
    assert prepared.query(words="bar gap").text == (
        "Learn a new language and predict the 1 word that refines each line.\n"
        "Q: line gap\nA: gap line\nQ: ring ring\nA: arc arc\nQ: bar gap\nA:"
    )


def test_a_template_of_ones_own_may_say_where_a_segment_lies(tmp_path: Path) -> None:
    (tmp_path / "progressive.jinja").write_text(OWN)
    place = SegmentPlace(count=2, layer=3, layers=4, first=5, size=16, segment=4, segments=10)
    prepared = SegmentPromptBuilder(folder=tmp_path).prepare(EXAMPLES, place)
    assert (
        prepared.query(words="x").text
        == "4/10: 2 from 5 of 16 on layer 3 of 4\nline gap>gap line\nring ring>arc arc\nx>"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{{ words }}",
            "{{ wrods }}",
            "the query block has no variable 'wrods'; it has induction, count, layer, layers",
        ),
        ("{{ words }}", "{{ condition }}", "the query block never uses `words`"),
        ("in examples", "in [1]", "the context block never uses `examples`"),
        ("{{ segment }}", "{{ labels }}", "the instruction block has no variable 'labels'"),
        ("{{ segment }}", "{{ words }}", "the instruction block has no variable 'words'"),
    ],
)
def test_faults_of_segment_templates(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(OWN.replace(old, new))
    assert any(message in fault for fault in template_faults(TemplateInfo("mine", path, "folder"), DECLARATIONS))


def test_builders_take_their_own_templates_alone() -> None:
    with pytest.raises(TemplateError, match=r"no variable 'count'.*\(a template of classification asks for a label\)"):
        PromptBuilder("progressive")
    with pytest.raises(TemplateError, match="no variable 'labels'.* asks for the next words of a picture"):
        SegmentPromptBuilder("classification")
    with pytest.raises(UsageError, match="max_chars must be a whole number of 1 or more; got 0"):
        SegmentPromptBuilder(max_chars=0)


def test_what_may_not_enter_a_prompt() -> None:
    builder = SegmentPromptBuilder()
    with pytest.raises(PromptError, match="contain a line break"):
        builder.prepare([SegmentExample("an image\nA: of", "", "x")], SegmentPlace(1))
    with pytest.raises(PromptError, match=r"contain U\+0007"):
        builder.prepare(EXAMPLES, SegmentPlace(1)).query(condition="a\x07")
