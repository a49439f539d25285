"""A working folder, and commands in processes of their own that are killed at a named moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
KILLED = Path(__file__).resolve().parent / "killed.py"
for folder in (TESTS / "fixtures" / "v0_1_0", TESTS / "llms"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@dataclass
class Commands:
    """Runs commands in a working folder. log: of all that was asked and recorded, over all attempts."""

    folder: Path
    log: Path

    def run(self, arguments: tuple[str, ...] | list[str], point: str = "never", **environment: str) -> Any:
        """What a command prints with --json; None where it was killed. Any other end is an error."""
        done = subprocess.run(
            [sys.executable, str(KILLED), point, str(self.log), *arguments],
            cwd=self.folder,
            env={**os.environ, "ICL_VISION_CACHE": str(self.folder.parent / "cache"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, (point, done.returncode, done.stderr[-2000:])
        return json.loads(done.stdout)

    def start(self, arguments: tuple[str, ...] | list[str], point: str = "never", **environment: str) -> Any:
        """A command that goes on by itself: the process."""
        return subprocess.Popen(
            [sys.executable, str(KILLED), point, str(self.log), *arguments],
            cwd=self.folder,
            env={**os.environ, "ICL_VISION_CACHE": str(self.folder.parent / "cache"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def noted(self, what: str) -> Counter[str]:
        """How often each request was made ("asked"), or each result recorded ("recorded")."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return Counter(line.partition(" ")[2] for line in lines if line.startswith(what + " "))

    def forget(self) -> None:
        """Empty the log."""
        self.log.unlink(missing_ok=True)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    from scenarios import make_workspace

    return Commands(make_workspace(tmp_path / "work"), tmp_path / "log")
