"""What tests of pages share: made-up runs, and a real browser where there is one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# pytest's importlib mode puts no folder on the path; pyramid_fakes, beside this file, has a name nobody else has.
sys.path.insert(0, str(Path(__file__).parent))

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """A module of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return load("synthetic_run")


@pytest.fixture(scope="session")
def _one_browser() -> Iterator[Any]:
    module = load("browser")
    if module.find() is None:
        pytest.skip(f"no browser ({', '.join(module.NAMES)}); .ci/run installs Debian's chromium")
    with module.Browser() as one:
        yield one


@pytest.fixture
def browser(_one_browser: Any) -> Callable[..., Any]:
    """Gives the one browser of the session (``width=, height=, dark=``), its messages cleared; skips without one."""

    def show(*, width: int = 1280, height: int = 900, dark: bool = False) -> Any:
        _one_browser.call("Emulation.setScriptExecutionDisabled", {"value": False})
        _one_browser.show(width, height, dark=dark)
        _one_browser.messages.clear()
        return _one_browser

    return show
