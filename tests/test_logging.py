"""Logging manners: one logger per module, named after it; silent unless the user asks; nothing printed."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import icl_vision

PACKAGE = Path(icl_vision.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


_NOT_OWN = ("_FABRIC", "_RAPIDOCR", "__name__.partition('.')[0]")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_logger_per_module_named_after_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path == PACKAGE / "__init__.py":
        return  # it alone names the library's logger, to give it a NullHandler
    calls = _calls(tree, "logging.getLogger") + _calls(tree, "getLogger")
    # Somebody else's logger may be made quiet, and a command shows the library's; neither is the module's own.
    made = [call for call in calls if not (call.args and ast.unparse(call.args[0]) in _NOT_OWN)]
    assigned = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    at_top = [line for line in assigned if "getLogger" in line]
    assert len(made) <= 1, f"{path.name} makes {len(made)} loggers"
    assert at_top == ["logger = logging.getLogger(__name__)"] * len(made)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_configures_logging_or_prints(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name in ("logging.basicConfig", "logging.info", "logging.warning", "logging.error", "logging.debug", "print"):
        assert not _calls(tree, name), f"{path.relative_to(PACKAGE)} calls {name}()"


def test_the_library_logger_is_silent_by_default() -> None:
    # In a process of its own: pytest puts handlers on the root logger.
    code = (
        "import icl_vision, logging\n"
        "logger = logging.getLogger('icl_vision')\n"
        "assert any(isinstance(h, logging.NullHandler) for h in logger.handlers), logger.handlers\n"
        "assert logger.level == logging.NOTSET and logger.propagate\n"
        "logging.getLogger('icl_vision.llms.local.embedded').error('not to be seen')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_user_can_listen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="icl_vision"):
        logging.getLogger("icl_vision.images").info("seen")
    assert [record.message for record in caplog.records] == ["seen"]


def test_importing_every_runtime_module_prints_nothing() -> None:
    # models, training and exporters need torch and are imported only by those who train or export.
    names = [
        ".".join(("icl_vision", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] not in ("models", "training", "integrations")
    ]
    code = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
