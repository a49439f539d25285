"""`icl-vision demo`: its JSON, its words for people, its two files, and what it says when it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from icl_vision.cli import main
from icl_vision.cli.demo import demo_folder
from icl_vision.contracts import Completion, Profile, Prompt, Scores
from icl_vision.errors import MissingExtraError
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.llms.base import BaseLLM
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary(["zero", "one", "two", "three", "four", "five", "six", "seven"])


class ShadeTokenizer(ImageTokenizer):
    """Five words from the brightness of five stripes."""

    name = "shade"

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout.flat(5)

    @property
    def vocabulary(self) -> Vocabulary:
        return WORDS

    @property
    def codebook(self) -> Any:
        return np.eye(8, dtype=np.float32)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        stripes = [np.asarray(image.convert("L").resize((5, 1)), dtype=np.int32) // 32 for image in images]
        return [TokenPyramid((stripe.reshape(1, 5),), self.layout, WORDS) for stripe in stripes]


class CountingLLM(BaseLLM):
    """A continuation is the likelier, the more often its words stand in the lines of its label."""

    @property
    def profile(self) -> Profile:
        return Profile("counting", context_window=4096, api="completions", scores_text=True)

    async def _complete(self, prompt: Prompt, **options: Any) -> Completion:
        return Completion("", "stop")

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        values = []
        for prompt, continuation in pairs:
            lines = [line for line in prompt.context.splitlines() if line.startswith(prompt.query)]
            values.append(sum(line.count(word) for line in lines for word in continuation.split()) - 300.0)
        return Scores(tuple(values))

    async def _count_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture(autouse=True)
def fakes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" in request.keywords:
        return
    monkeypatch.setattr("icl_vision.llms.connect", lambda spec: CountingLLM())
    monkeypatch.setattr(ImageTokenizer, "from_pretrained", lambda name, **options: ShadeTokenizer())


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["demo", *arguments], catch_exceptions=False)


def check_document(document: dict[str, Any], episodes: int) -> None:
    assert list(document) == ["result", "ways", "shots", "episodes", "seconds", "baselines"]
    assert (document["ways"], document["shots"], document["episodes"]) == (5, 3, episodes)
    assert document["seconds"] > 0
    assert list(document["baselines"]) == ["blind", "prior", "words_prototype"]
    for row in (document["result"], *document["baselines"].values()):
        assert list(row) == ["accuracy", "n", "interval", "scorer"]
        assert row["n"] == 5 * episodes
        assert 0 <= row["interval"][0] <= row["accuracy"] <= row["interval"][1] <= 1
    assert document["baselines"]["prior"]["accuracy"] == pytest.approx(0.2)


def test_the_packaged_photographs() -> None:
    folder = ImageFolder(demo_folder())
    assert len(folder.labels) == 12
    assert all(len(paths) == 20 for paths in folder.classes.values())
    attribution = (demo_folder().parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for text in ("CC BY 4.0", "Caltech 101", "Perona", "Changes made"):
        assert text in attribution
    assert sum(path.stat().st_size for path in demo_folder().parent.rglob("*") if path.is_file()) <= 3_000_000


def test_default_size_is_at_least_forty_fresh_questions() -> None:
    default = next(option for option in main.get_command(None, "demo").params if option.name == "episodes").default  # type: ignore[arg-type, union-attr]  # click says Command, and Any as a default
    assert default >= 8
    episodes = ImageFolder(demo_folder()).episodes(default, ways=5, shots=3, fresh=True)
    asked = [item.path for episode in episodes for item in episode.queries]
    assert len(asked) == len(set(asked)) >= 40


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    result = invoke("--out", str(tmp_path / "new" / "out"), "--json", "--episodes", "2")
    assert result.exit_code == 0, result.output
    check_document(json.loads(result.stdout), 2)
    assert result.stderr == ""
    kept = json.loads((tmp_path / "new" / "out" / "results.json").read_text(encoding="utf-8"))
    assert kept["result"] == json.loads(result.stdout)["result"]
    assert len(kept["episode_results"]) == 2 and kept["seed"] == 0
    assert len(kept["episode_results"][0]["queries"][0]["words"][0]) == 5


def test_a_person_sees_words_answers_and_baselines(tmp_path: Path) -> None:
    result = invoke("--out", str(tmp_path / "out"), "--episodes", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    questions = [line for line in lines if " -> " in line]
    assert len(questions) == 5
    assert all(any(word in line for word in WORDS.words) and ("right" in line or "WRONG" in line) for line in questions)
    for name in ("blind", "prior", "words prototype"):
        assert any(line.strip().startswith(name) and "n = 5, 95%" in line for line in lines)
    assert str(tmp_path / "out" / "index.html") in lines[-2]
    assert lines[-1] == 'Ask about a photograph of your own: icl-vision answer PHOTO --question "What is this?"'
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Gemma 3 270M" in page and "CC BY 4.0" in page and len(page) < 2_000_000


def test_same_seed_same_answers_other_seed_other_questions(tmp_path: Path) -> None:
    documents = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert invoke("--out", str(tmp_path / name), "--json", "--episodes", "1", "--seed", seed).exit_code == 0
        documents.append(json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))["episode_results"])
    assert documents[0] == documents[1] != documents[2]


def test_a_rerun_replaces_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{ half")
    (tmp_path / "index.html").write_text("<half")
    (tmp_path / ".tmp-index.html-abc").write_text("<ha")
    assert invoke("--out", str(tmp_path), "--json", "--episodes", "1").exit_code == 0
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["episodes"] == 1
    assert (tmp_path / "index.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_nothing_is_written_when_a_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise MissingExtraError("the LLM 'local'", "local")

    monkeypatch.setattr("icl_vision.llms.connect", fail)
    (tmp_path / "index.html").write_text("of an earlier run")
    result = invoke("--out", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert "MissingExtraError: the LLM 'local' needs an extra" in result.stderr
    assert "pip install 'icl-vision[local]'" in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_out_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    assert invoke("--out", str(tmp_path / "file")).exit_code == 2
    result = invoke("--out", str(tmp_path / "file" / "inside"))
    assert result.exit_code == 1 and "cannot be written: Not a directory" in result.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    result = invoke("--out", str(tmp_path / "shut"))
    assert result.exit_code == 1 and "cannot be written" in result.stderr


def test_more_episodes_than_fresh_photographs(tmp_path: Path) -> None:
    result = invoke("--out", str(tmp_path), "--episodes", "60")
    assert result.exit_code == 1 and "ask for fewer episodes" in result.stderr
    assert invoke("--out", str(tmp_path), "--episodes", "0").exit_code == 2


@pytest.mark.slow
def test_the_real_demo(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    arguments = [
        sys.executable,
        "-c",
        "from icl_vision.cli import main; main()",
        "demo",
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check_document(document, 10)
    assert document["result"]["interval"][0] > document["baselines"]["blind"]["interval"][1]
