"""examples/colours: a package of its own that adds a provider and a tokenizer, installed as its user would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "colours"
PIP = ("-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet")

USE = """
    import json, sys
    import numpy as np
    from icl_vision import FewShotClassifier, ImageTokenizer, connect, plugins
    assert "icl_colours" not in sys.modules and "colours" in plugins.offered(plugins.TOKENIZERS)
    images = [np.full((8, 8, 3), colour, dtype=np.uint8) for colour in ((250, 9, 9), (9, 9, 250), (240, 0, 0))]
    found = [ImageTokenizer.from_pretrained("colours").encode(images[1])[0].words()]
    for llm in ("lookup:last", connect("lookup:first")):
        clf = FewShotClassifier(llm, "colours", 1).fit(images, ["brick", "sea", "tomato"])
        found.append(clf.predict(images[:2]))
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example is installed into: no network, no build isolation, nothing written beside it."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    subprocess.run([sys.executable, *PIP, "--target", str(target), str(source)], check=True)
    return target


def run(installed: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=installed.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_twenty_lines() -> None:
    lines = (EXAMPLE / "icl_colours.py").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.strip() and '"""' not in line]
    assert len(code) <= 24, "it shows how little is needed"


def test_its_provider_and_tokenizer_are_had_by_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run(installed, monkeypatch, "-c", textwrap.dedent(USE)))
    assert found == [["blue"], ["tomato", "sea"], ["brick", "sea"]]


def test_the_command_line_lists_both(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(run(installed, monkeypatch, "-m", "icl_vision", "models", "list", "--json"))
    assert {"name": "colours", "package": "icl-vision-colours"} in listed["tokenizers"]
    assert {"spec": "lookup:MODEL", "package": "icl-vision-colours"} in listed["llms"]
