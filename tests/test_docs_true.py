"""What the pages say of commands, options and folders is so: docs/cli.md, options by name, the table of folders."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from icl_vision.cli import main

TOP = Path(__file__).resolve().parents[1]


def load(path: Path) -> ModuleType:
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


docs = load(TOP / "tests" / "test_docs.py")
BLOCKS, PACKAGE, PAGES, page_id = docs.BLOCKS, docs.PACKAGE, docs.PAGES, docs.page_id

TEXTS = {
    page: re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for page in PAGES
    if page.name != "CHANGELOG.md"  # it tells of what was, too
}
CODE = {page: re.findall(r"`([^`\n]+)`", text) for page, text in TEXTS.items()}


# docs/cli.md ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cli_docs() -> ModuleType:
    return load(TOP / ".ci" / "cli_docs.py")


def test_the_page_of_commands_is_what_help_prints(cli_docs: ModuleType) -> None:
    page = cli_docs.PAGE.read_text(encoding="utf-8")
    assert page == cli_docs.render(), "docs/cli.md is not what --help prints; write it anew with: make docs"


def test_the_page_names_every_command(cli_docs: ModuleType) -> None:
    headings = re.findall(r"^## icl-vision ?(.*)$", cli_docs.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == [" ".join(path) for path in cli_docs.commands(main)]
    assert {"", "classify", "eval few-shot", "train spae", "models info"} <= set(headings)


def test_the_index_lists_every_page() -> None:
    index = (TOP / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(TOP / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index)}
    pages = {page for page in (TOP / "docs").glob("*.md") if page.name != "index.md"}
    assert sorted(page.name for page in pages - linked) == []


# Options --------------------------------------------------------------------------------------------------------------


def options_of(command: click.Command) -> dict[str, click.Command]:
    """Every option of a command and of those below it."""
    found = {name: command for one in command.params for name in (*one.opts, *one.secondary_opts)}
    found |= {"--help": command, "-h": command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options_of(below)
    return found


def command_of(words: list[str]) -> click.Command:
    """The command that a line names, as deep as it goes."""
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        command = found
    return command


def options_in(text: str) -> list[str]:
    return [word.partition("=")[0] for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)]


OTHER_PROGRAMS = re.compile(
    r"^(\$ )?(pip|python|tensorboard|git|make|pytest|vllm|llama-server|ollama|docker|benchmarks/|taskset|curl)\b"
)
OTHERS = {"--strict"}  # mypy's


SCRIPT = re.compile(r"\b(?:(benchmarks|exporters|examples)/(\w+)\.py|-m icl_vision\.(exporters)\.(\w+))")


def script_options(text: str) -> set[str] | None:
    """The options of the scripts that a text names; None where it names none."""
    found: set[str] = set()
    scripts = [(one[1] or one[3], one[2] or one[4]) for one in SCRIPT.finditer(text)]
    for folder, name in scripts:
        source = (TOP / folder / f"{name}.py").read_text(encoding="utf-8")
        found |= {"--help", *re.findall(r"[\"'](--[a-z][\w-]*)[\"']", source)}
    return found if scripts else None


@pytest.mark.parametrize("page", CODE, ids=page_id)
def test_options_in_a_pages_text_exist(page: Path) -> None:
    known = {*options_of(main), *(script_options(page.read_text(encoding="utf-8")) or ())}
    for code in CODE[page]:
        scripted = script_options(code)
        if scripted is not None:
            wrong = [one for one in options_in(code) if one not in scripted]
        elif OTHER_PROGRAMS.match(code):
            continue
        else:
            words = code.split()
            name = words[1:] if words[:1] == ["icl-vision"] else words
            command = command_of([word for word in name if not word.startswith("-")])
            has = set(options_of(command)) if command is not main else known
            wrong = [one for one in options_in(code) if one not in has and one not in OTHERS]
        assert not wrong, f"{page_id(page)}: `{code}` names {wrong}, which is no option"


def test_options_of_scripts_in_blocks_exist() -> None:
    for block in BLOCKS:
        for line in block.text.replace("\\\n", " ").splitlines():
            scripted = script_options(line)
            if scripted is not None and block.language != "python":
                wrong = [one for one in options_in(line) if one not in scripted]
                assert not wrong, f"{page_id(block.page)}: {line.strip()!r} names {wrong}, which is no option"


def test_a_wrong_option_would_be_found() -> None:
    assert "--no-such" not in options_of(main) and "--support" not in options_of(command_of(["generate"]))
    assert options_in("classify --support DIR --no-such=3") == ["--support", "--no-such"]
    assert command_of(["eval", "few-shot", "x"]).name == "few-shot"
    assert script_options("python benchmarks/bench_chaos.py --requests 3") is not None


# Keyword arguments ----------------------------------------------------------------------------------------------------


@functools.cache
def arguments_of_the_package() -> set[str]:
    """Every argument of a function and every field of a class, of the package and its scripts."""
    found: set[str] = set()
    for folder in (PACKAGE, TOP / "exporters", TOP / "benchmarks"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    found.update(one.arg for one in every)
                elif isinstance(node, ast.ClassDef):
                    found.update(
                        one.target.id
                        for one in node.body
                        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                    )
    return found


# Of other libraries, protocols and files; what a page shows as somebody's own.
FOREIGN = {
    *("n_jobs", "cv", "verbose", "refit", "echo", "handle_parsing_errors", "response_format", "stream", "x", "y", "p"),
    *(
        "seconds",
        "top_logprobs",
        "prompt_logprobs",
        "n_probs",
        "num_cpus",
        "num_gpus",
        "temperature",
        "compute",
        "store",
    ),
}


@pytest.mark.parametrize("page", CODE, ids=page_id)
def test_keyword_arguments_in_a_pages_text_exist(page: Path) -> None:
    known = arguments_of_the_package() | FOREIGN
    for code in CODE[page]:
        # `name=`, `name=value` and `call(name=value)`; settings of a training (a.b=c) are read from its configuration.
        named = re.findall(r"(?:^|[(,]\s*)([a-z][a-z_0-9]*)=(?!=)", code) if not options_in(code) else []
        wrong = [name for name in named if name not in known]
        assert not wrong, f"{page_id(page)}: `{code}` names {wrong}, which is no argument of this library"


# Folders --------------------------------------------------------------------------------------------------------------


def test_the_table_of_folders_names_the_folders_there_are() -> None:
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text[text.index("## The folders") : text.index("## Who may import whom")]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [place for cell in cells for place in re.findall(r"`([^`]+)`", cell)]
    assert len(named) == len(set(named))
    tracked = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not any(tracked):
        pytest.skip("this is no checkout")
    there = set()
    for path in filter(None, tracked):
        first, *rest = path.strip('"').split("/")
        if first == "icl_vision" and rest:
            one = f"icl_vision/{rest[0]}" + ("/" if len(rest) > 1 else "")
            if not rest[0].startswith("_") and rest[0] != "py.typed":
                there.add(one)
        elif rest:
            there.add(f"{first}/")
    assert sorted(set(named) ^ there) == []


PATH = re.compile(r"(?:icl_vision|exporters|prompts|benchmarks|tests|examples|docs)/[\w./-]+")


@pytest.mark.parametrize("page", CODE, ids=page_id)
def test_paths_in_a_pages_text_exist(page: Path) -> None:
    wrong = [code for code in CODE[page] if PATH.fullmatch(code) and not (TOP / code).exists()]
    assert not wrong, f"{page_id(page)} names {wrong}, which are not there"


DOTTED = re.compile(r"icl_vision(?:\.\w+)+")


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    module, _, name = dotted.rpartition(".")
    for imported in (dotted, module):
        try:
            found = importlib.import_module(imported)
        except ModuleNotFoundError:
            continue
        return imported == dotted or hasattr(found, name)
    return False


@pytest.mark.parametrize("page", CODE, ids=page_id)
def test_modules_in_a_pages_text_exist(page: Path) -> None:
    wrong = [code for code in CODE[page] if DOTTED.fullmatch(code) and not is_there(code)]
    assert not wrong, f"{page_id(page)} names {wrong}, which are not there"


def test_the_import_order_of_the_page_is_the_one_that_is_enforced() -> None:
    order = load(TOP / "tests" / "test_public.py").ORDER
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    line = text[text.index("## Who may import whom") :].split("```")[1]
    steps = [{name for name in re.split(r"[\s,|]+", step) if name} for step in line.split("<")]
    enforced = [{name for name in group if not name.startswith("_")} for group in order]
    assert steps == [group for group in enforced if group]


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_budget_of_packaged_artefacts_is_said_as_it_is_tested() -> None:
    tested = re.search(r"< (\d+) \* MEGABYTE", (TOP / "tests" / "test_packaging.py").read_text(encoding="utf-8"))
    assert tested is not None
    for page in ("docs/architecture.md", "CONTRIBUTING.md"):
        said = re.findall(r"artefacts stay below\s+(\d+) MB", (TOP / page).read_text(encoding="utf-8"))
        assert said == [tested[1]], page
    today = sum(path.stat().st_size for path in (PACKAGE / "artefacts").rglob("*") if path.is_file())
    said = re.findall(r"\((\d+) MB today\)", (TOP / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert said == [str(round(today / 1e6))]


# Constants ------------------------------------------------------------------------------------------------------------

DESIGN = sorted((TOP / "docs" / "design").glob("*.md"))
CONSTANT = re.compile(
    r"^\| `(?P<module>[a-z_.]+): (?P<name>\w+)(?:\((?P<argument>\w+)\)|\.(?P<member>\w+))?` \| `(?P<value>[^`]+)` \|"
)


def constants_of(page: Path) -> list[re.Match[str]]:
    return [match for line in page.read_text(encoding="utf-8").splitlines() if (match := CONSTANT.match(line))]


@pytest.mark.parametrize("page", DESIGN, ids=page_id)
def test_constants_of_the_design_pages_are_those_of_the_code(page: Path) -> None:
    constants = constants_of(page)
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if re.match(r"\| `[\w.]+: ", line)]
    assert len(constants) == len(rows) >= 3, "each row is | `module: NAME` | `value` | why |"
    for row in constants:
        value = getattr(importlib.import_module(f"icl_vision.{row['module']}"), row["name"])
        if row["argument"]:
            value = inspect.signature(value).parameters[row["argument"]].default
        elif row["member"]:
            value = getattr(value, row["member"])
        assert value == ast.literal_eval(row["value"]), f"{page_id(page)}: {row[0]}"


def test_the_index_lists_every_page_on_a_design() -> None:
    index = (TOP / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in DESIGN if f"(design/{page.name})" not in index] == []


# Trips ----------------------------------------------------------------------------------------------------------------

TRIPS = {"One classify": "predict", "One draw": "generate", "One train": "train"}


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[pytest.mark.slow] * (title == "One train")) for title in TRIPS]
)
def test_the_rooms_of_a_trip_are_those_that_are_entered(title: str) -> None:
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = re.split(r"^###? ", text[text.index(f"### {title}\n") + 4 :], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if re.match(r"\d+\. `|and the leaves", line)]
    listed = [name for line in lines for name in re.findall(r"`([\w/]+\.py)`", line if "leaves" in line else line[:60])]
    script = [sys.executable, str(TOP / "benchmarks" / "house.py"), "--inside", TRIPS[title]]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    entered = [
        f"{name.removeprefix('icl_vision.').replace('.', '/')}.py"
        for name in json.loads(done.stdout.splitlines()[-1])["rooms"]
    ]
    assert sorted(listed) == sorted(entered), f"write the list anew: benchmarks/house.py --rooms {TRIPS[title]}"
