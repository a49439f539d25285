"""``--json`` of every command has what 0.1.0 printed: fields may be added, none is gone or says something else."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from icl_vision.cli import main


def scenarios() -> Any:
    return importlib.import_module("scenarios")


def document_of(arguments: tuple[str, ...]) -> Any:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


SLOW = {"build-codebook"}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in sorted(scenarios().COMMANDS)]
)
def test_what_a_command_prints(name: str, files: Path, work: Path) -> None:
    from kinds import differences

    command = scenarios().COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    if name == "classify-replay":
        shutil.copy(files / "replay" / "answers.jsonl", work)
    if name == "eval-compare":
        document_of(scenarios().COMMANDS["eval-few-shot"].with_json)
    old = json.loads((files / "json" / f"{name}.json").read_text(encoding="utf-8"))
    new = document_of(command.with_json)
    if name in ("prompts-list", "prompts-validate"):
        # Templates of later tasks stand among them; those of 0.1.0 must all be there, in their order.
        known = {template["name"] for template in old["templates"]}
        new["templates"] = [template for template in new["templates"] if template["name"] in known]
    assert differences(old, new) == []


def test_every_command_that_prints_json_is_among_them() -> None:
    import click

    def leaves(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
            return [leaf for name, one in found for leaf in leaves(one, (*path, name))]
        return [path] if any("--json" in option.opts for option in command.params) else []

    kept = {command.arguments[:2] for command in scenarios().COMMANDS.values()}
    kept |= {path[:1] for path in kept}
    long = {("build", "words"), ("export",)}  # made of what takes a CLIP model or a long training
    later = {
        ("answer",),
        ("caption",),
        ("build", "describe"),
        ("eval", "answers"),
        ("eval", "captions"),
        ("eval", "text-to-image"),
        ("paint",),
        ("train", "clips"),
        ("train", "lqae"),
        ("train", "router"),
        ("train", "text-to-image"),
    }
    assert {path for path in leaves(main, ()) if path not in kept} == long | later


def test_a_missing_or_changed_field_is_found() -> None:
    from kinds import differences, kinds_of

    old = {"a": [1, {"b": "x"}], "t": "~number", "l": [{"k": "~str"}]}
    new = {"a": [1, {"b": "x", "more": 1}], "t": 3.5, "l": [{"k": "y"}, {"k": "z"}], "new": True}
    assert differences(old, new) == []
    assert differences(old, {**new, "t": "3.5"}) == ["$.t: ~number became '3.5'"]
    assert differences(old, {**new, "a": [1]}) == ["$.a: 2 members became 1"]
    assert differences(old, {**new, "a": [True, {"b": "x"}]}) == ["$.a[0]: 1 became True"]
    assert differences(old, {**new, "l": [{"j": "y"}]}) == ["$.l[0].k: gone"]
    assert differences(old, {"a": [1, {"c": "x"}], "t": 1}) == ["$.l: gone", "$.a[1].b: gone"]
    assert kinds_of({"a": [{"n": 1, "m": None}, {"n": 2.5}]}, {"a"}) == {"a": [{"n": "~number"}]}
