"""Templates: finding them by name, their faults with file and line, and everything the sandbox refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from icl_vision.errors import TemplateError
from icl_vision.prompting import find_template, list_templates, load_template, template_faults
from icl_vision.prompting.declarations import BLOCKS, Declaration, Sample
from icl_vision.prompting.templates import (
    MAX_TEMPLATE_BYTES,
    PromptTemplate,
    TemplateInfo,
    misnamed_files,
    packaged_folder,
)
from icl_vision.tasks.templates import DECLARATIONS

INSTRUCTION = "{% block instruction %}\nsay\n{% endblock %}\n"
CONTEXT = "{% block context %}\n{% for e in examples %}\n{{ e.words }}: {{ e.label }}\n{% endfor %}\n{% endblock %}\n"
QUERY = "{% block query %}\n{{ words }}:\n{% endblock %}\n"
VARIABLES = {"labels": ["a", "b"], "induction": True, "ways": 2, "shots": 1, "repeats": 0}
EXAMPLES = [{"words": "x y", "label": "a"}, {"words": "z", "label": "b"}]


def info(folder: Path, source: str | bytes, name: str = "mine") -> TemplateInfo:
    path = folder / f"{name}.jinja"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return TemplateInfo(name, path, "folder")


def said(instruction: str) -> str:
    """A template whose instruction block holds the given text, on line 2."""
    return INSTRUCTION.replace("say", instruction) + CONTEXT + QUERY


def template(folder: Path, instruction: str) -> PromptTemplate:
    """A template whose instruction block is given."""
    return load_template(
        info(folder, "{% block instruction %}" + instruction + "{% endblock %}" + CONTEXT + QUERY), DECLARATIONS
    )


def render(folder: Path, instruction: str, **more: object) -> str:
    return template(folder, instruction).render("instruction", {**VARIABLES, **more})


def test_packaged_templates_are_listed_and_good() -> None:
    infos = list_templates()
    assert [i.name for i in infos] == [
        "answer", "answer_operator", "answer_pica", "caption", "caption_pica",
        "classification", "classification_channel", "classification_palm", "classification_palm_channel", "edit",
        "progressive", "refinement", "route", "text_to_image",
    ]  # fmt: skip
    for i in infos:
        assert template_faults(i, DECLARATIONS) == []
        titles = {
            "answer": "Questions about pictures", "answer_pica": "Questions about", "caption": "Captions of pictures",
            "answer_operator": "Questions that stand between",
            "caption_pica": "Captions", "progressive": "Progressive decoding", "refinement": "Progressive",
            "edit": "A picture's words changed", "route": "Does a line want", "text_to_image": "Text to image",
        }  # fmt: skip
        assert i.description().startswith(titles.get(i.name, "Few-shot classification"))
        assert (i.origin, i.overrides) == ("packaged", False)
        assert "{#" in i.read()
        assert "Variables" in i.read()


def test_folder_overrides_by_name(tmp_path: Path) -> None:
    for name in ("classification", "fresh", "not a name"):
        info(tmp_path, INSTRUCTION + CONTEXT + QUERY, name)
    (tmp_path / "notes.txt").write_text("no template")
    found = {i.name: i for i in list_templates(tmp_path)}
    assert (found["classification"].origin, found["classification"].overrides) == ("folder", True)
    assert (found["fresh"].origin, found["fresh"].overrides) == ("folder", False)
    assert found["classification_palm"].origin == "packaged"
    assert "not a name" not in found
    assert [path.name for path, _ in misnamed_files(tmp_path)] == ["not a name.jinja"]


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a\\b", "/etc/passwd", "", "a.jinja", "x" * 65, "a\n", None, 3])
def test_names_that_are_paths_are_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"is no template name: use letters, digits"):
        find_template(name, tmp_path)


def test_missing_templates_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"no template 'nope' in the packaged templates; there are answer, "):
        find_template("nope")
    with pytest.raises(TemplateError, match=r"no template 'nope' in .* and the packaged templates"):
        find_template("nope", tmp_path)
    with pytest.raises(TemplateError, match=r"missing' does not exist or is not a folder"):
        list_templates(tmp_path / "missing")


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (CONTEXT + QUERY, 1, "the block 'instruction' is missing"),
        (INSTRUCTION + QUERY, 1, "the block 'context' is missing"),
        (INSTRUCTION + CONTEXT, 1, "the block 'query' is missing"),
        (INSTRUCTION + CONTEXT + QUERY + "{% block extra %}{% endblock %}", 12, "the block 'extra' is one too many"),
        (
            said("{% block b %}{% endblock %}"),
            2,
            "inside the block 'instruction'",
        ),
        ("{# c #}\n\nstray\n" + INSTRUCTION + CONTEXT + QUERY, 3, "text outside the three blocks"),
        ("{% set x = 1 %}\n" + INSTRUCTION + CONTEXT + QUERY, 1, "statements outside the three blocks"),
        (INSTRUCTION + CONTEXT + QUERY.replace("words", "wrods"), 10, "the query block has no variable 'wrods'"),
        (
            said("{{ words }}"),
            2,
            "the instruction block has no variable 'words'",
        ),
        (INSTRUCTION + CONTEXT.replace("examples", "labels") + QUERY, 4, "the context block never uses `examples`"),
        (INSTRUCTION + CONTEXT + QUERY.replace("{{ words }}", "x"), 9, "uses neither `words` nor `label`"),
        (INSTRUCTION + CONTEXT + QUERY.replace("words }}", "words }}{{ label }}"), 9, "uses both `words` and `label`"),
        (said("{% if %}"), 2, "jinja cannot read it"),
        (said("{{ labels | attr('x') }}"), 2, "there is no filter 'attr' here"),
        (said("{{ 1 is callable }}"), 2, "there is no test 'callable' here"),
        (said("{{ labels.__class__ }}"), 2, "'__class__' is private"),
        (said("{% include '../x' %}"), 2, "{% include %} is not allowed"),
        (said("{% import 'x' as y %}"), 2, "{% import %} is not allowed"),
        (
            said("{% from 'x' import y %}"),
            2,
            "{% from ... import %} is not allowed",
        ),
        ("{% extends 'classification.jinja' %}\n" + INSTRUCTION + CONTEXT + QUERY, 1, "{% extends %} is not allowed"),
        (
            said("{% macro m() %}{% endmacro %}"),
            2,
            "{% macro %} is not allowed",
        ),
        (said("{% set x %}y{% endset %}"), 2, "{% set %} with a body"),
        (said("{% filter upper %}y{% endfilter %}"), 2, "{% filter %} is not"),
        (
            said("{% for x in labels recursive %}{{ x }}{% endfor %}"),
            2,
            "a recursive {% for %}",
        ),
        (said("{{ self.context() }}"), 2, "has no variable 'self'"),
        (said("{{ lipsum() }}"), 2, "has no variable 'lipsum'"),
        (said("{{ " + "+".join(["ways"] * 8000) + " }}"), 1, "nested too deeply"),
        (said("{{ " + "(" * 5000 + ")" * 5000 + " }}"), 1, "nested too deeply"),
    ],
)
def test_faults_name_file_and_line(source: str, line: int, message: str, tmp_path: Path) -> None:
    bad = info(tmp_path, source)
    faults = template_faults(bad, DECLARATIONS)
    assert any(f.startswith(f"{bad.path}, line {line}: ") and message in f for f in faults), faults
    with pytest.raises(TemplateError) as caught:
        load_template(bad, DECLARATIONS)
    assert str(bad.path) in str(caught.value)
    assert message in str(caught.value)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    assert (
        len(
            template_faults(
                info(tmp_path, INSTRUCTION.replace("say", "{{ x }}") + QUERY.replace("words", "y")), DECLARATIONS
            )
        )
        == 4
    )


def test_file_limits(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"larger than 64 KB; shorten it"):
        load_template(info(tmp_path, INSTRUCTION + CONTEXT + QUERY + " " * MAX_TEMPLATE_BYTES), DECLARATIONS)
    with pytest.raises(TemplateError, match=r"not UTF-8 \(byte 0\); save it as UTF-8"):
        load_template(info(tmp_path, b"\xff\xfe"), DECLARATIONS)
    with pytest.raises(TemplateError, match=r"cannot be read \(No such file"):
        load_template(TemplateInfo("gone", tmp_path / "gone.jinja", "folder"), DECLARATIONS)


def test_name_and_kind_agree(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"has the ending '_channel', so its query block must use `label`"):
        load_template(info(tmp_path, INSTRUCTION + CONTEXT + QUERY, "mine_channel"), DECLARATIONS)
    with pytest.raises(TemplateError, match=r"lacks the ending '_channel', so its query block must use `words`"):
        load_template(info(tmp_path, INSTRUCTION + CONTEXT + QUERY.replace("words", "label")), DECLARATIONS)


def test_windows_files_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    source = (INSTRUCTION + CONTEXT + QUERY).replace("\n", "\r\n").encode("utf-8-sig")
    loaded = load_template(info(tmp_path, source), DECLARATIONS)
    assert loaded.render("context", {**VARIABLES, "examples": EXAMPLES}) == "x y: a\nz: b"


def test_parts_lose_newlines_at_their_ends_and_the_query_its_spaces(tmp_path: Path) -> None:
    source = INSTRUCTION.replace("say", "\n say \n\n") + CONTEXT + QUERY.replace(":", ": \t\n\n")
    loaded = load_template(info(tmp_path, source), DECLARATIONS)
    assert loaded.render("instruction", VARIABLES) == " say "
    assert loaded.render("query", {**VARIABLES, "words": "w"}) == "w:"


def test_literals_are_the_fixed_text_around_variables(tmp_path: Path) -> None:
    assert load_template(find_template("classification"), DECLARATIONS).literals == ("###", "Input:", "Output:")
    source = INSTRUCTION + CONTEXT.replace("{{ e.words }}:", "The {{ e.words }} is a") + QUERY
    assert load_template(info(tmp_path, source), DECLARATIONS).literals == ("is a",)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        # Ways out of the sandbox.
        ("{{ labels['__class__'] }}", "unsafe"),
        ("{{ labels | map(attribute='__class__') | first }}", "unsafe"),
        ("{{ labels | map('attr', '__class__') | first }}", "No filter named 'attr'"),
        ("{{ '{0.__class__}'.format(1) }}", "may not be called"),
        ("{{ '{x}'.format_map({}) }}", "may not be called"),
        ("{{ labels.append('c') }}", "is unsafe"),
        ("{{ labels.pop() }}", "is unsafe"),
        ("{{ {'a': 1}.update({}) }}", "is unsafe"),
        ("{{ range.mro() }}", "has no attribute 'mro'"),
        ("{{ 'a'.ljust(10) }}", "may not be called"),
        ("{{ 'a'.encode() }}", "may not be called"),
        ("{% for x in labels %}{{ loop(labels) }}{% endfor %}", "may not be called"),
        # Too much of anything.
        ("{{ 'a' * 10**9 }}", "more than 1,000,000 characters"),
        ("{{ 10**8 * 'a' }}", "more than 1,000,000 characters"),
        ("{{ [1] * 10**9 }}", "lists of more than 1,000,000 items"),
        ("{{ 10 ** 1000 }}", "exponent 1000"),
        ("{{ 10 ** 64 }}", "whole number beyond"),
        ("{% set x = 10 ** 18 %}{{ x * x }}", "whole number beyond"),
        ("{{ range(10**9) | list | length }}", "Range too big"),
        ("{{ range(10**18 * -1, 10**18) | length }}", "Range too big"),
        ("{{ '%1000000000d' % 1 }}", "formats text with %"),
        ("{% set x = 'abcdefghij' * 50000 %}" + "{% set x = x ~ x %}" * 40, "more than 1,000,000 characters"),
        ("{% set x = 'abcdefghij' * 50000 %}" + "{% set x = x + x %}" * 40, "more than 1,000,000 characters"),
        ("{% set x = 'abcdefghij' * 50000 %}{{ [x, x, x] | join }}", "more than 1,000,000 characters"),
        ("{% set x = 'a' * 1000 %}{{ x.replace('a', x * 100) }}", "may not be called"),
        ("{% set x = 'a' * 1000 %}{{ x | replace('a', x * 100) }}", "more than 1,000,000 characters"),
        ("{% for i in range(2000) %}{{ 'a' * 1000 }}{% endfor %}", "grows beyond 1,000,000 characters"),
        ("{% set y = 'a' * 900000 %}{% for i in range(99) %}{% set z = y[1:] %}{% endfor %}", "too many"),
        (
            "{% for a in range(900) %}{% for b in range(900) %}{% for c in range(900) %}"
            "{% endfor %}{% endfor %}{% endfor %}",
            "more than 200,000 rounds",
        ),
        ("{% set x = [1] %}{% set x = [x, x] %}", "puts a list into another one"),
        ("{% set x = (1,) %}{{ {x: 1} | length }}", "puts a list into another one"),
        ("{{ [labels | map('upper')] | length }}", "puts a list into another one"),
        ("{% set x = [1] * 600000 %}{% set y = x + x %}", "lists of more than 1,000,000 items"),
        # Mistakes.
        ("{{ labels }}", "must be text or a number, not list"),
        ("{{ none }}", "must be text or a number, not NoneType"),
        ("{{ labels | map('uppper') | join }}", "No filter named 'uppper'"),
        ("{{ labels[7] }}", "undefined|has no element"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for x in ways %}{% endfor %}", "not iterable"),
        ("{{ labels.nope }}", "has no attribute 'nope'"),
    ],
)
def test_rendering_is_refused_with_a_line(instruction: str, message: str, tmp_path: Path) -> None:
    loaded = template(tmp_path, "\n\n" + instruction)
    with pytest.raises(TemplateError, match=rf"mine\.jinja, line 3: the instruction block fails: .*(?:{message})"):
        loaded.render("instruction", VARIABLES)


def test_an_attribute_that_an_example_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    loaded = load_template(info(tmp_path, INSTRUCTION + CONTEXT.replace("e.words", "e.wrods") + QUERY), DECLARATIONS)
    with pytest.raises(TemplateError, match=r"line 6: the context block fails: .*has no attribute 'wrods'"):
        loaded.render("context", {**VARIABLES, "examples": EXAMPLES})


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("{{ labels | join(', ') }}", "a, b"),
        ("{% for l in labels %}{{ loop.index }}{{ l }}{{ loop.cycle('-', '+') }}{% endfor %}", "1a-2b+"),
        ("{% for l in labels %}{{ l }}{{ '' if loop.last else ' or ' }}{% endfor %}", "a or b"),
        ("{{ 'x' * 3 ~ ways ~ '!' }}", "xxx2!"),
        ("{{ labels[0] + labels[-1] }}", "ab"),
        ("{{ labels[:1] | length }}{{ 'abcdef'[1:3] }}{{ 'abc'[::-1] }}", "1bccba"),
        ("{{ 'a b c'.split() | join('+') }}", "a+b+c"),
        ("{% set n = ways * shots %}{{ n }}{{ 7 % 4 }}{{ 2 ** 5 }}", "2332"),
        ("{{ labels | map('upper') | sort(reverse=true) | join }}", "BA"),
        ("{{ 'a-b' | replace('-', ' ') }}", "a b"),
        ("{{ {'a': 'first', 'b': 'second'}[labels[1]] }}{{ 'a' in ['a', 'b'] }}", "secondTrue"),
        ("{% set x, y = 1, 2 %}{{ x }}{{ y }}", "12"),
        ("{% with x = 'y' %}{{ x }}{% endwith %}", "y"),
        ("{{ 'many' if ways > 1 else 'one' }}", "many"),
        ("{% for i in range(3) if i is odd %}{{ i }}{% else %}none{% endfor %}", "1"),
        ("{% for k, v in {'p': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "p1"),
        ("{% raw %}{{ labels }}{% endraw %}", "{{ labels }}"),
    ],
)
def test_what_templates_may_do(instruction: str, text: str, tmp_path: Path) -> None:
    assert render(tmp_path, instruction) == text


def test_rendered_control_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"the instruction block renders U\+0000"):
        render(tmp_path, "a\x00b")
    with pytest.raises(TemplateError, match=r"the instruction block renders U\+202E"):
        render(tmp_path, "a\u202eb")
    assert render(tmp_path, "a\tb\nc") == "a\tb\nc"


def test_a_rendering_cannot_change_what_the_next_one_sees(tmp_path: Path) -> None:
    loaded = template(tmp_path, "{% set labels = ['z'] %}{{ labels | join }}")
    assert [loaded.render("instruction", VARIABLES) for _ in range(2)] == ["z", "z"]
    assert VARIABLES["labels"] == ["a", "b"]


def test_the_cpu_limit_ends_a_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.prompting import sandbox

    monkeypatch.setattr(sandbox, "MAX_CPU_SECONDS", -1.0)
    with pytest.raises(TemplateError, match=r"computes for more than -1 seconds"):
        render(tmp_path, "{% for l in labels %}{{ l }}{% endfor %}")


def test_packaged_folder_holds_the_templates() -> None:
    assert (packaged_folder() / "classification.jinja").is_file()


# Declarations ---------------------------------------------------------------------------------------------------------


def question_and_words(name: str, folder: object, *, induction: bool = True, repeats: int = 0) -> Sample:
    raise NotImplementedError


ANSWER = Declaration(
    task="answering",
    purpose="asks for an answer",
    fixed=("induction",),
    asks={"answer": "question"},
    query=("words", "hints"),
    sample=question_and_words,
)
"""A task that this library does not have."""
ANSWERING = (
    "{% block instruction %}{% if induction %}Answer.{% endif %}{% endblock %}"
    "{% block context %}{% for e in examples %}{{ e.question }} {{ e.answer }}\n{% endfor %}{% endblock %}"
    "{% block query %}{{ words }} {{ question }}{% endblock %}"
)


def test_a_task_of_ones_own_needs_its_declaration_alone(tmp_path: Path) -> None:
    assert [ANSWER.variables(block) for block in BLOCKS] == [
        ("induction",), ("induction", "examples"), ("induction", "words", "hints", "question"),
    ]  # fmt: skip
    loaded = load_template(info(tmp_path, ANSWERING), (ANSWER,))
    assert (loaded.kind, loaded.declaration) == ("answer", ANSWER)
    assert loaded.render("query", {"words": "red bus", "question": "what?"}) == "red bus what?"


def test_a_template_belongs_to_the_task_that_knows_its_variables(tmp_path: Path) -> None:
    assert load_template(info(tmp_path, ANSWERING), (*DECLARATIONS, ANSWER)).declaration is ANSWER
    named = {
        "classification": "classification", "progressive": "drawing", "refinement": "drawing",
        "answer": "answering", "answer_operator": "answering", "answer_pica": "answering",
        "caption": "captioning", "caption_pica": "captioning",
    }  # fmt: skip
    for name, task in named.items():
        assert load_template(find_template(name), (ANSWER, *DECLARATIONS)).declaration.task == task


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{ question }}", "", "the query block never uses `question`"),
        (
            "{{ words }}",
            "{{ label }}",
            "the query block has no variable 'label'; it has induction, words, hints",
        ),
        ("in examples", "in [1]", "the context block never uses `examples`"),
    ],
)
def test_faults_by_what_a_task_declares(old: str, new: str, message: str, tmp_path: Path) -> None:
    bad = info(tmp_path, ANSWERING.replace(old, new))
    assert any(message in fault for fault in template_faults(bad, (ANSWER,)))
    with pytest.raises(TemplateError, match="a template of answering asks for an answer"):
        load_template(bad, (ANSWER,))


@pytest.mark.parametrize(
    "expression",
    [
        "{{ labels.append('c') }}",
        "{{ labels.__class__ }}",
        "{{ '{0.__class__}'.format(labels) }}",
        "{{ range(100001) | length }}",
    ],
)
def test_jinja2_itself_stops_what_is_left_to_it(expression: str) -> None:
    """With jinja2's sandbox alone, none of ours around it: what the sandbox's docstring says is left to jinja2."""
    bare = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(expression)
    with pytest.raises((SecurityError, OverflowError)):
        bare.render(labels=["a", "b"])
