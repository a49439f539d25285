"""`icl-vision prompts list|show|validate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main

GOOD = (
    "{# My own wording. #}\n{% block instruction %}{% endblock %}"
    "{% block context %}{% for e in examples %}{{ e.words }}={{ e.label }}\n{% endfor %}{% endblock %}"
    "{% block query %}{{ words }}={% endblock %}"
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["prompts", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "classification.jinja").write_text(GOOD)
    (tmp_path / "mine.jinja").write_text(GOOD)
    return tmp_path


def test_list_names_file_and_description(folder: Path) -> None:
    plain = run("list")
    assert plain.exit_code == 0
    assert "classification\n    Few-shot classification, blocks of Input and Output (the default).\n" in plain.stdout
    own = run("list", "--folder", str(folder))
    assert "classification (overrides the packaged one)\n    My own wording.\n" in own.stdout
    rows = {row["name"]: row for row in json.loads(run("list", "--folder", str(folder), "--json").stdout)["templates"]}
    assert rows["mine"] == {
        "name": "mine",
        "path": str(folder / "mine.jinja"),
        "origin": "folder",
        "overrides": False,
        "description": "My own wording.",
    }
    assert rows["classification_palm"]["origin"] == "packaged"


def test_show_prints_the_three_parts(folder: Path) -> None:
    result = run("show", "classification")
    assert result.exit_code == 0
    assert result.stdout.startswith("[instruction]\nFor each of the following input output pairs")
    assert "\n[context]\n###\nInput: mane" in result.stdout
    assert result.stdout.endswith("Output:\n[the LLM answers, for example]\n' lion'\n")
    assert "[instruction] (empty)\n" in run("show", "classification", "--no-induction").stdout
    channel = run("show", "classification_channel").stdout
    assert channel.endswith("[query]\nlion:\n[the LLM scores]\n' whisker paw desert mane animal'\n")
    assert "=lion\n" in run("show", "mine", "--folder", str(folder)).stdout


def test_show_json_is_one_document(folder: Path) -> None:
    once = json.loads(run("show", "classification", "--json").stdout)
    assert once["kind"] == "direct"
    assert once["text"] == "\n".join((once["instruction"], once["context"], once["query"]))
    twice = json.loads(run("show", "classification", "--repeats", "1", "--json").stdout)
    assert twice["context"] == once["context"] + "\n" + once["context"]
    assert json.loads(run("show", "mine", "--folder", str(folder), "--source", "--json").stdout)["source"] == GOOD


def test_show_source_prints_the_file(folder: Path) -> None:
    assert run("show", "mine", "--folder", str(folder), "--source").stdout == GOOD


def test_show_refuses_unknown_names_in_one_line() -> None:
    for name, message in (("nope", "there is no template 'nope'"), ("../x", "'../x' is no template name")):
        result = run("show", name)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_validate_good_templates(folder: Path) -> None:
    assert run("validate").exit_code == 0
    assert "classification: good (" in run("validate", "classification").stdout
    for arguments in ([str(folder)], ["--folder", str(folder)], ["mine", "--folder", str(folder)]):
        assert run("validate", *arguments).exit_code == 0
    document = json.loads(run("validate", str(folder), "--json").stdout)
    assert document["ok"] is True
    assert [row["name"] for row in document["templates"]] == ["classification", "mine"]


def test_validate_names_each_fault_and_exits_with_1(folder: Path) -> None:
    (folder / "broken.jinja").write_text("{% block query %}{{ wrods }}{% endblock %}")
    (folder / "failing.jinja").write_text(GOOD.replace("{{ words }}", "{{ words }}{{ labels[9] }}"))
    (folder / "half.jinja").write_text(
        GOOD.replace("{{ words }}", "{{ words }}{% if not induction %}{{ none }}{% endif %}")
    )
    (folder / "odd name.jinja").write_text(GOOD)
    result = run("validate", str(folder))
    assert result.exit_code == 1
    assert "mine: good" in result.stdout
    for fault in (
        "broken: " + str(folder / "broken.jinja") + ", line 1: the block 'instruction' is missing",
        "the query block has no variable 'wrods'",
        "failing.jinja, line 3: the query block fails",
        "half.jinja, line 3: the query block fails",
        "'odd name' is no template name",
    ):
        assert fault in result.stderr
    document = json.loads(run("validate", "--folder", str(folder), "--json").stdout)
    assert document["ok"] is False
    assert {row["name"] for row in document["templates"] if row["faults"]} == {"broken", "failing", "half", "odd name"}
    assert run("validate", "failing", "--folder", str(folder)).exit_code == 1


def test_validate_bad_arguments(tmp_path: Path) -> None:
    empty = run("validate", str(tmp_path))
    assert empty.exit_code == 1
    assert "there is no *.jinja file in" in empty.stderr
    assert run("validate", "nope").exit_code == 1
    assert run("validate", "--folder", str(tmp_path / "missing")).exit_code == 2
    assert run("validate", str(tmp_path), "--folder", str(tmp_path)).exit_code == 2
    missing = run("validate", str(tmp_path / "missing"))
    assert missing.exit_code == 1
    assert "does not exist or is not a folder" in missing.stderr
