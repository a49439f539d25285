"""A script of the checkout as a module, for tests: benchmarks and examples are no package.

Knows: files and the path for imports. Refuses to know: any one script.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def loaded(file: Path) -> ModuleType:
    """The script as a module, not run as a program; what it puts onto the path for imports is taken off again."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module
