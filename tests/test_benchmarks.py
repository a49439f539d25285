"""benchmarks/: every script finds what it imports, and says what it does and takes.

What they measure is no test's business; short forms of some run in tests of their subject.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "argparse" in path.read_text(encoding="utf-8"))

HELP = """
import contextlib, importlib, io, sys, warnings
for name in sys.argv[1:]:
    sys.argv = [name + ".py", "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            importlib.import_module(name).main()
        except SystemExit as end:
            assert not end.code, (name, end.code)
        else:
            raise AssertionError(f"{name} ran at --help")
    assert said.getvalue().startswith("usage: ") and "--help" in said.getvalue(), (name, said.getvalue())
"""


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of everything of ours that a file imports, inside functions and in the texts of processes too."""
    names: list[tuple[str, str]] = []
    trees = [ast.parse(path.read_text(encoding="utf-8"))]
    while trees:
        for node in ast.walk(trees.pop()):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "icl_vision":
                names += [(str(node.module), alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                names += [(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "icl_vision"]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import icl_vision" in node.value:
                trees += _code(node.value)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "from icl_vision" in node.value:
                trees += _code(node.value)
    return names


def _code(text: str) -> list[ast.Module]:
    try:
        return [ast.parse(text)]
    except SyntaxError:  # prose
        return []


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_script_imports_of_ours_is_there(path: Path) -> None:
    for module, name in imports(path):
        if name and not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")


def test_every_script_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *SCRIPTS], cwd=BENCHMARKS, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(SCRIPTS) > 20
