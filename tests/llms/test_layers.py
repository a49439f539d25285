"""The packages of ``llms`` import each other in one direction only: each builds upon what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import icl_vision.llms

LLMS = Path(icl_vision.llms.__file__).parent

# Lowest first. "base": every module of the folder itself but those named here. Its __init__ only says where names lie.
ORDER = ("base", "local", "remote", "wrappers", "connecting", "batch")


def group(module: str) -> str:
    name = module.removeprefix("icl_vision.llms").strip(".").partition(".")[0]
    return name if name in ORDER else "base"


def test_imports_go_one_way():
    wrong = []
    for path in sorted(LLMS.rglob("*.py")):
        module = "icl_vision.llms." + ".".join(path.relative_to(LLMS).with_suffix("").parts)
        if module == "icl_vision.llms.__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("icl_vision.llms"):
                if ORDER.index(group(node.module)) > ORDER.index(group(module)):
                    wrong.append(f"{module} imports {node.module}")
    assert not wrong


def test_no_folder_is_a_heap():
    for folder in (LLMS, *(path for path in LLMS.rglob("*") if path.is_dir() and path.name != "__pycache__")):
        assert len(list(folder.glob("*.py"))) <= 15, folder
