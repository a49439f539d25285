"""`icl-vision prompts`: list, show and validate prompt templates.

Knows: how templates are laid out for a person to read. Refuses to know: how they are found, checked
and rendered (``icl_vision.prompting``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import json_option, print_json

if TYPE_CHECKING:
    from icl_vision.prompting import PromptTemplate, Sample, TemplateInfo

folder_option = click.option(
    "--templates",
    "--folder",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of your own templates, looked in first, as for classify; --folder is the same. Default: the packaged "
    "ones only.",
)


@click.group(name="prompts")
def command() -> None:
    """List, show or validate prompt templates."""


@command.command("list")
@folder_option
@json_option
def list_command(folder: Path | None, as_json: bool) -> None:
    """List every template: its name, first line of description and file."""
    from icl_vision.prompting import list_templates

    rows = [_row(info) for info in list_templates(folder)]
    if as_json:
        print_json({"templates": rows})
        return
    for row in rows:
        note = " (overrides the packaged one)" if row["overrides"] else ""
        click.echo(f"{row['name']}{note}\n    {row['description'] or 'no description'}\n    {row['path']}")


@command.command("show")
@click.argument("name")
@folder_option
@click.option("--source", is_flag=True, help="Print the template's file instead of an example.")
@click.option(
    "--induction/--no-induction",
    default=True,
    show_default=True,
    help="Task induction, the line that names the possible answers; on by default: without it published open-ended "
    "accuracies drop by half or more.",
)
@click.option(
    "--repeats",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="How many times more the examples are shown; 0, since every repeat costs the whole support set in tokens "
    "and published accuracies hardly change.",
)
@json_option
def show_command(name: str, folder: Path | None, source: bool, induction: bool, repeats: int, as_json: bool) -> None:
    """Show the prompt that template NAME makes of a small built-in episode, in its three parts."""
    from icl_vision.prompting import find_template

    if source:
        info = find_template(name, folder)
        if as_json:
            print_json({**_row(info), "source": info.read()})
        else:
            click.echo(info.read(), nl=False)
        return
    template, tried = _sample(name, folder, induction=induction, repeats=repeats)
    prompt = tried.prompt
    if as_json:
        print_json(
            {
                **_row(template.info),
                "kind": template.kind,
                "instruction": prompt.instruction,
                "context": prompt.context,
                "query": prompt.query,
                "text": prompt.text,
                "continuation": tried.continuation,
            }
        )
        return
    for title, text in (
        ("instruction", prompt.instruction),
        ("context", prompt.context),
        ("query", prompt.query),
    ):
        click.echo(click.style(f"[{title}]", bold=True) + ("" if text else " (empty)"))
        if text:
            click.echo(text)
    asked = "the LLM scores" if tried.scored else "the LLM answers, for example"
    click.echo(click.style(f"[{asked}]", bold=True) + f"\n{tried.continuation!r}")


@command.command("validate")
@click.argument("target", required=False, metavar="[NAME|FOLDER]")
@folder_option
@json_option
@click.pass_context
def validate_command(context: click.Context, target: str | None, folder: Path | None, as_json: bool) -> None:
    """Check templates: three blocks, known variables, and that they render.

    Without an argument every packaged template and every one of --templates is checked; with a NAME that one
    alone, with a FOLDER every template in it. Exits with 1 and names each fault. Remarks name what works, but otherwise
    than with the packaged templates.
    """
    from icl_vision.prompting import find_template, list_templates
    from icl_vision.prompting.templates import misnamed_files

    if target is not None and (Path(target).is_dir() or "/" in target or "\\" in target):
        if folder is not None:
            raise click.UsageError("give either a FOLDER or --templates, not both")
        folder, target = Path(target), None
        infos = [info for info in list_templates(folder) if info.origin == "folder"]
        if not infos and not misnamed_files(folder):
            raise click.ClickException(f"there is no *.jinja file in {str(folder)!r}")
    else:
        infos = list_templates(folder) if target is None else [find_template(target, folder)]
    rows = [
        {**_row(info, described=False), "faults": _faults(info, folder), "remarks": _remarks(info, folder)}
        for info in infos
    ]
    if target is None and folder is not None:
        rows.extend(
            {
                "name": path.stem,
                "path": str(path),
                "origin": "folder",
                "overrides": False,
                "faults": [fault],
                "remarks": [],
            }
            for path, fault in misnamed_files(folder)
        )
    good = not any(row["faults"] for row in rows)
    if as_json:
        print_json({"ok": good, "templates": rows})
    else:
        for row in rows:
            if not row["faults"]:
                click.echo(f"{row['name']}: good ({row['path']})")
            for remark in row["remarks"]:
                click.echo(f"{row['name']}: note: {remark}", err=True)
            for fault in row["faults"]:
                click.echo(f"{row['name']}: {fault}", err=True)
    if not good:
        context.exit(1)


def _row(info: TemplateInfo, *, described: bool = True) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": info.name,
        "path": str(info.path),
        "origin": info.origin,
        "overrides": info.overrides,
    }
    return {**row, "description": info.description()} if described else row


def _sample(name: str, folder: Path | None, *, induction: bool, repeats: int) -> tuple[PromptTemplate, Sample]:
    """The template, and what its task's built-in example becomes with it."""
    from icl_vision.prompting import find_template, load_template
    from icl_vision.tasks.templates import DECLARATIONS

    template = load_template(find_template(name, folder), DECLARATIONS)
    return template, template.declaration.sample(name, folder, induction=induction, repeats=repeats)


def _remarks(info: TemplateInfo, folder: Path | None) -> list[str]:
    """What a person who overrides this template should know."""
    from icl_vision.prompting.templates import lost_twin
    from icl_vision.tasks.templates import DECLARATIONS

    lost = [lost_twin(info, declaration.twin, folder) for declaration in DECLARATIONS]
    return [remark for remark in lost if remark is not None]


def _faults(info: TemplateInfo, folder: Path | None) -> list[str]:
    """Faults of the text, or else of rendering it with each setting that changes what is rendered."""
    from icl_vision.errors import IclVisionError
    from icl_vision.prompting import template_faults
    from icl_vision.tasks.templates import DECLARATIONS

    faults = template_faults(info, DECLARATIONS)
    if faults:
        return faults
    for induction in (True, False):
        try:
            _sample(info.name, folder, induction=induction, repeats=1)
        except IclVisionError as error:
            if str(error) not in faults:
                faults.append(str(error))
    return faults
