"""What is installed: metadata, packaged data, and (slow) the wheel, the source distribution and an editable install."""

from __future__ import annotations

import configparser
import fnmatch
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import icl_vision
from icl_vision._version import __version__
from icl_vision.files.storage import sha256_file

TOP = Path(__file__).resolve().parent.parent
PACKAGE = Path(icl_vision.__file__).parent
ARTEFACTS = PACKAGE / "artefacts"
CARDS = sorted(ARTEFACTS.rglob("card.json"))
MEGABYTE = 1_000_000
# Megabytes by path below artefacts/; the first line that fits a path counts. What exceeds its line is built instead.
BUDGET = {
    "tokenizers/describe-*": 2,
    "tokenizers/lqae-*": 7,
    "tokenizers/*clips*": 6,
    "text_to_image/*": 8,
    "*": 22,  # shared parts, codebooks, the tokenizers of the first version and what is small
}
# Not taken along when the checkout is copied to build from; they are big, or made by builds and tests.
LEAVE = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", ".*_cache", "__pycache__", "runs", ".hypothesis"
)

with (TOP / "pyproject.toml").open("rb") as _handle:
    PROJECT = tomllib.load(_handle)


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command, return its stdout; a failure shows everything it said."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=environment | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class TestMetadata:
    def test_one_version_everywhere(self) -> None:
        assert importlib.metadata.version("icl-vision") == __version__
        changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"## [{__version__}]" in changelog

    def test_python_floor(self) -> None:
        assert PROJECT["project"]["requires-python"] == ">=3.11"
        assert "3.11" in PROJECT["tool"]["mypy"]["python_version"]
        assert PROJECT["tool"]["ruff"]["target-version"] == "py311"

    def test_dependencies_are_ranges(self) -> None:
        groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
        exact = [line for group in groups for line in group if "==" in line.split(";")[0]]
        assert not exact, f"exact pins belong into constraints.txt: {exact}"

    def test_exactly_one_onnxruntime_on_every_machine(self) -> None:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in PROJECT["project"]["dependencies"] if line.startswith("onnxruntime")]
        machines = {
            ("linux", "x86_64"): "onnxruntime-gpu",
            ("linux", "aarch64"): "onnxruntime",
            ("win32", "AMD64"): "onnxruntime-gpu",
            ("win32", "ARM64"): "onnxruntime",
            ("darwin", "arm64"): "onnxruntime",
            ("darwin", "x86_64"): "onnxruntime",
        }
        for (system, machine), expected in machines.items():
            environment = {"sys_platform": system, "platform_machine": machine}
            chosen = [one.name for one in wanted if one.marker is not None and one.marker.evaluate(environment)]
            assert chosen == [expected], (system, machine)

    def test_every_direct_dependency_is_pinned_and_every_pin_fits(self) -> None:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        lines = (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
        assert all("+" not in version for version in pins.values()), "a local version fits one machine only"
        groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
        for line in (line for group in groups for line in group):
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name != "icl-vision":
                assert name in pins, f"{name} has no pin in constraints.txt; run `make constraints`"
                fits = requirement.specifier.contains(pins[name], prereleases=True)
                assert fits, f"{line} against the pin {pins[name]}"

    def test_the_mapped_packages_are_ours(self) -> None:
        for name in ("prompts", "exporters"):
            module = importlib.import_module(f"icl_vision.{name}")
            assert module.__file__ is not None and Path(module.__file__).parent.name == name


class TestData:
    def test_typed(self) -> None:
        assert (PACKAGE / "py.typed").is_file()

    def test_templates(self) -> None:
        names = {path.name for path in Path(importlib.import_module("icl_vision.prompts").__path__[0]).glob("*.jinja")}
        assert {"classification.jinja", "classification_palm.jinja"} <= names

    def test_packaged_artefacts_stay_within_their_budget(self) -> None:
        sizes = {path.relative_to(ARTEFACTS): path.stat().st_size for path in ARTEFACTS.rglob("*") if path.is_file()}
        total = sum(sizes.values())
        assert 0 < total < 45 * MEGABYTE, f"packaged artefacts are {total / MEGABYTE:.1f} MB"
        spent = dict.fromkeys(BUDGET, 0)
        for path, size in sizes.items():
            spent[next(line for line in BUDGET if fnmatch.fnmatch(path.as_posix(), line))] += size
        over = {line: spent[line] / MEGABYTE for line in BUDGET if spent[line] > BUDGET[line] * MEGABYTE}
        assert not over, f"MB spent of {BUDGET}: {over}"
        assert sum(BUDGET.values()) == 45 and spent["*"] > 0

    def test_the_demo_photographs_stay_below_their_limit_and_say_whose_they_are(self) -> None:
        files = [path for path in (PACKAGE / "demo_data").rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        assert 0 < total <= 3 * MEGABYTE, f"the demo's photographs are {total / MEGABYTE:.2f} MB"
        text = (PACKAGE / "demo_data" / "ATTRIBUTION.md").read_text(encoding="utf-8")
        assert "CC BY 4.0" in text and "Perona" in text

    def test_there_are_a_tokenizer_and_a_codebook(self) -> None:
        kinds = {card.parent.parent.name for card in CARDS}
        assert {"tokenizers", "codebooks"} <= kinds

    @pytest.mark.parametrize("card", CARDS, ids=lambda path: str(path.parent.relative_to(ARTEFACTS)))
    def test_every_file_is_the_one_on_its_card(self, card: Path) -> None:
        document = json.loads(card.read_text(encoding="utf-8"))
        assert document["licence"], "a card names a licence"
        listed = {name: sha256_file(card.parent / name) for name in document["files"]}
        assert listed == document["files"]
        present = {path.name for path in card.parent.iterdir()} - {"card.json"}
        assert present == set(listed), "a file that no card vouches for"


def _checked_files(top: Path) -> set[str]:
    """The files of our packages in the checkout, by their installed names."""
    found = set()
    for folder, prefix in ((top / "icl_vision", "icl_vision"), (top / "prompts", "icl_vision/prompts")):
        found |= {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    exporters = top / "exporters"
    found |= {f"icl_vision/exporters/{path.relative_to(exporters).as_posix()}" for path in exporters.rglob("*.py")}
    return {name for name in found if "__pycache__" not in name and not name.endswith((".pyc", ".DS_Store"))}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout to build from, so that nothing is left in the real one."""
    copy = tmp_path_factory.mktemp("source") / "icl_vision_source"
    shutil.copytree(TOP, copy, ignore=LEAVE)
    return copy


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """The folder with the wheel and the source distribution, the wheel built from the unpacked source distribution."""
    # Without --wheel or --sdist, `build` makes the sdist first and the wheel out of it: both are proved at once.
    _run(sys.executable, "-m", "build", "--no-isolation", source, cwd=source.parent)
    return source / "dist"


def _fresh_environment(folder: Path) -> Path:
    """A virtual environment without pip that sees this one's packages, except our own; returns its Python."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent).strip())
    # A .pth folder comes after the environment's own packages and its .pth files are not read, so an editable install
    # of ours over there stays unseen.
    outer = {path for path in sys.path if path.endswith("site-packages")}
    (site / "outer.pth").write_text("".join(f"{path}\n" for path in sorted(outer)), encoding="utf-8")
    return python


PROOF = """
import json, pathlib, sys
import icl_vision, icl_vision.prompts, icl_vision.exporters
top = pathlib.Path(icl_vision.__file__).parent
for stray in ("prompts", "exporters"):
    try:
        __import__(stray)
    except ImportError:
        continue
    sys.exit(f"there is a stray package {stray!r}")
print(json.dumps({
    "top": str(top),
    "templates": sorted(p.name for p in pathlib.Path(icl_vision.prompts.__path__[0]).glob("*.jinja")),
    "cards": len(list(top.glob("artefacts/*/*/card.json"))),
    "photographs": len(list(top.glob("demo_data/*/*/*.jpg"))),
}))
"""


def _prove(python: Path, folder: Path) -> dict[str, object]:
    """From outside of the checkout: everything imports, data is there, the command answers."""
    found: dict[str, object] = json.loads(_run(python, "-P", "-c", PROOF, cwd=folder))
    assert "classification.jinja" in str(found["templates"])
    assert found["cards"] == len(CARDS)
    assert found["photographs"] == len(list((PACKAGE / "demo_data").rglob("*.jpg")))
    program = python.parent / "icl-vision"
    assert __version__ in _run(program, "--version", cwd=folder)
    assert "tokenize" in _run(program, "--help", cwd=folder)
    report = json.loads(_run(program, "doctor", "--json", cwd=folder, ICL_VISION_CACHE=str(folder / "cache")))
    assert report["ok"] is True and report["icl_vision"] == __version__
    return found


@pytest.mark.slow
class TestDistributions:
    def test_the_wheel_holds_exactly_our_packages(self, built: Path, source: Path) -> None:
        (wheel,) = built.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            meta = f"icl_vision-{__version__}.dist-info"
            assert f"{meta}/licenses/LICENSE" in names and f"{meta}/licenses/NOTICE" in names
            entry = configparser.ConfigParser()
            entry.read_string(archive.read(f"{meta}/entry_points.txt").decode())
            assert entry["console_scripts"]["icl-vision"] == "icl_vision.cli:main"
            assert archive.read(f"{meta}/top_level.txt").decode().split() == ["icl_vision"]
        packaged = {name for name in names if not name.startswith(meta)}
        assert packaged == _checked_files(source)

    def test_the_source_distribution_can_run_the_tests(self, built: Path) -> None:
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "setup.py"}
        wanted |= {"tests/conftest.py", "docs/architecture.md", ".ci/run", "prompts/classification.jinja"}
        assert wanted <= names, f"missing: {wanted - names}"
        assert not [name for name in names if re.search(r"__pycache__|\.pyc$|^\.venv", name)]

    def test_the_wheel_works_outside_of_the_checkout(self, built: Path, tmp_path: Path) -> None:
        python = _fresh_environment(tmp_path / "venv")
        (wheel,) = built.glob("*.whl")
        _run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=tmp_path)
        found = _prove(python, tmp_path)
        assert str(found["top"]).startswith(str(tmp_path))

    def test_an_editable_install_works_outside_of_the_checkout(self, source: Path, tmp_path: Path) -> None:
        python = _fresh_environment(tmp_path / "venv")
        options = ("--no-deps", "--no-index", "--ignore-installed", "--no-build-isolation")
        _run(python, "-m", "pip", "install", *options, "-e", source, cwd=tmp_path)
        found = _prove(python, tmp_path)
        assert found["top"] == str(source / "icl_vision")
