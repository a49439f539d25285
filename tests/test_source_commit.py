"""Whose commit a run is told to be of: the package's own, or nobody's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import icl_vision
from icl_vision.files import runs

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def committed(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-qm", "all")
    return git(folder, "rev-parse", "HEAD")


def package(folder: Path) -> Path:
    """A stand-in for the installed package, as far as its commit is concerned."""
    (folder / runs.HERE).parent.mkdir(parents=True)
    (folder / runs.HERE).write_text("# stands for the package\n")
    return folder


def project(folder: Path, name: str) -> None:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1"\n')


def test_the_folder_it_looks_at_is_the_package() -> None:
    assert Path(icl_vision.__file__).resolve().parent == runs.PACKAGE
    assert runs.PACKAGE / runs.HERE == Path(runs.__file__).resolve()


def test_its_own_checkout(tmp_path: Path) -> None:
    own = package(tmp_path / "icl_vision")
    project(tmp_path, "icl-vision")
    head = committed(tmp_path)
    assert runs._commit_of(own) == head
    (own / runs.HERE).write_text("# changed\n")
    assert runs._commit_of(own) == f"{head}-dirty"


@pytest.mark.parametrize("place", [".venv/lib/python3/site-packages/icl_vision", "vendor/icl_vision", "icl_vision"])
@pytest.mark.parametrize("tracked", [True, False])
def test_somebody_elses_repository(tmp_path: Path, place: str, tracked: bool) -> None:
    project(tmp_path, "their-project")
    if tracked:
        own = package(tmp_path / place)
        committed(tmp_path)
    else:
        committed(tmp_path)
        own = package(tmp_path / place)
    assert runs._commit_of(own) is None


def test_a_package_that_its_repository_does_not_track(tmp_path: Path) -> None:
    project(tmp_path, "icl-vision")
    committed(tmp_path)
    assert runs._commit_of(package(tmp_path / "icl_vision")) is None


@pytest.mark.parametrize("text", [None, "[project", "project = 3", "[project]\nname = 5\n"])
def test_no_project_or_none_that_can_be_read(tmp_path: Path, text: str | None) -> None:
    own = package(tmp_path / "icl_vision")
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    committed(tmp_path)
    assert runs._commit_of(own) is None


def test_what_git_sets_for_its_hooks_points_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    project(tmp_path / "other", "other")
    other = committed(tmp_path / "other")
    (tmp_path / "ours").mkdir()
    own = package(tmp_path / "ours" / "icl_vision")
    project(tmp_path / "ours", "icl-vision")
    head = committed(tmp_path / "ours")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert runs._commit_of(own) == head != other
