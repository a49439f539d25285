"""Another checkout's package, as one that Python can import instead of this one's.

Knows: that ``prompts/`` and ``exporters/`` lie beside the package and belong into it. Refuses to know: what is
measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
BESIDE = ("prompts", "exporters")


ALONE = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""
"""Run by every interpreter as it starts: an editable install would lend this checkout's modules to a tree that has none
of that name."""


@contextlib.contextmanager
def environment(tree: Path) -> Iterator[dict[str, str]]:
    """The environment in which an interpreter, and whatever it starts, imports the package of ``tree``.

    The working folder must not hold an ``icl_vision`` of its own, which would come first.
    What is installed (the editable package of another checkout, say) comes after PYTHONPATH, so all of the package has
    to lie there under one name: links to the folders of the tree, put together in a temporary one.
    """
    package = tree / "icl_vision"
    if not (package / "__init__.py").is_file():
        raise SystemExit(f"{str(tree)!r} is no checkout: it has no icl_vision/__init__.py")
    with tempfile.TemporaryDirectory(prefix="icl-vision-tree-") as folder:
        linked = Path(folder) / "icl_vision"
        linked.mkdir()
        (Path(folder) / "sitecustomize.py").write_text(ALONE, encoding="utf-8")
        for entry in package.iterdir():
            if entry.name != "__pycache__":
                (linked / entry.name).symlink_to(entry.resolve())
        for name in BESIDE:
            (linked / name).symlink_to((tree / name).resolve())
        yield {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}


def commit(tree: Path) -> str | None:
    """The commit of a checkout, "-dirty" where files differ from it; None where it is no checkout of git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
