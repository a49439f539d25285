"""Every example in README.md, docs/ and docstrings runs; every link and command in them exists.

A Python block that needs the real LLM has `<!-- needs: local -->` on the line above it, one that reads text in pictures
`<!-- needs: ocr -->`; both run with the slow tests.
The blocks of a page run in order and share one namespace, in a folder that holds what the examples speak of:
photo.jpg, unknown.jpg, and photos/ with one folder of images per class (the packaged photographs).
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import importlib.util
import io
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import icl_vision
from icl_vision.cli import main

TOP = Path(__file__).resolve().parent.parent
PACKAGE = Path(icl_vision.__file__).parent
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").rglob("*.md"))]
NEEDS = re.compile(r"^<!-- needs: (?P<what>[a-z, ]+) -->$")
KNOWN_NEEDS = {"local", "ocr"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...]


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = NEEDS.match(lines[start - 1]) if start else None
        needs = tuple(part.strip() for part in above["what"].split(",")) if above else ()
        # Empty lines in front keep the line numbers of tracebacks those of the page.
        text = "\n" * (start + 1) + "\n".join(lines[start + 1 : number]) + "\n"
        found.append(Block(page, start + 2, lines[start][3:].strip(), text, needs))
        start = None
    assert start is None, f"{page.name}: the block that opens at line {(start or 0) + 1} is never closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
FAST_PAGES = sorted({block.page for block in PYTHON if not block.needs})
SLOW_PAGES = sorted({block.page for block in PYTHON if "local" in block.needs})
OCR_PAGES = sorted({block.page for block in PYTHON if "ocr" in block.needs})


def page_id(page: Path) -> str:
    return str(page.relative_to(TOP))


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder that the pages imagine their reader to be in."""
    photos = tmp_path / "photos"
    shutil.copytree(PACKAGE / "demo_data" / "caltech101-demo12", photos)
    shutil.copy(photos / "dolphin" / "000.jpg", tmp_path / "photo.jpg")
    shutil.copy(photos / "pizza" / "000.jpg", tmp_path / "unknown.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_blocks(page: Path, wanted: Callable[[Block], bool]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in PYTHON:
        if block.page == page and wanted(block):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, str(page), "exec"), namespace)


def test_needs_are_known() -> None:
    unknown = {need for block in BLOCKS for need in block.needs} - KNOWN_NEEDS
    assert not unknown, f"known needs are {KNOWN_NEEDS}; the docs also name {unknown}"


@pytest.mark.parametrize("page", FAST_PAGES, ids=page_id)
def test_page_examples_run(page: Path, readers_folder: Path) -> None:
    run_blocks(page, lambda block: not block.needs)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES, ids=page_id)
def test_page_examples_with_the_local_llm_run(page: Path, readers_folder: Path, model_cache: Path) -> None:
    run_blocks(page, lambda block: "ocr" not in block.needs)


@pytest.mark.slow
@pytest.mark.parametrize("page", OCR_PAGES, ids=page_id)
def test_page_examples_that_read_text_run(page: Path, readers_folder: Path) -> None:
    if importlib.util.find_spec("rapidocr") is None:
        pytest.skip("needs the extra ocr")
    run_blocks(page, lambda block: "local" not in block.needs)


# Docstrings. ----------------------------------------------------------------------------------------------------------


def modules_with_examples() -> list[str]:
    """Modules of the package with a `>>>` in a docstring; found in the text, so that nothing is imported for it."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>> " not in text:
            continue
        documented = ast.Module | ast.ClassDef | ast.FunctionDef
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
        if any(">>> " in (ast.get_docstring(node) or "") for node in nodes):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name: str, readers_folder: Path) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail; see the captured output"


# Commands, links and targets. -----------------------------------------------------------------------------------------


def command_lines(program: str) -> list[tuple[str, str]]:
    """(where, arguments) of every `$ PROGRAM ...` line of the pages, a path in front of the program or not."""
    found = []
    for block in BLOCKS:
        for offset, line in enumerate(block.text.strip("\n").splitlines()):
            match = re.match(rf"^\$ (?:\S*/)?{program}(?:\s+(?P<rest>.*))?$", line)
            if match:
                found.append((f"{page_id(block.page)}:{block.line + offset}", match["rest"] or ""))
    return found


@pytest.mark.parametrize(("where", "line"), command_lines("icl-vision"))
def test_commands_parse(where: str, line: str) -> None:
    """The command exists and so do its options; values are not looked at, since the files named are examples."""
    arguments = shlex.split(line, comments=True)
    command: click.Command = main
    context = click.Context(main, **main.context_settings)  # a command keeps the help option it first shows
    while isinstance(command, click.Group) and arguments:
        name = arguments.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{where}: no command {name!r}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    assert not isinstance(command, click.Group), f"{where}: {line!r} stops at a group of commands"
    try:
        command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        pytest.fail(f"{where}: icl-vision {line}: {error.format_message()}")


@pytest.mark.parametrize(("where", "line"), command_lines("make"))
def test_make_targets_exist(where: str, line: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (TOP / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    target = shlex.split(line)[0]
    assert target in targets, f"{where}: the Makefile has no target {target!r}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"^[a-z]+:", target):
            continue  # another site: tests do not reach it
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page_id(page)} links to {target}, which does not exist"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page_id(page)} links to {target}, but {name} has no such heading"
