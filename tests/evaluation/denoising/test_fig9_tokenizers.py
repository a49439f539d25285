"""benchmarks/fig9_tokenizers.py: words outside a vocabulary are counted as they were written; what is done is kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision import ImageDenoiser
from icl_vision.llms import FakeLLM

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "fig9_tokenizers", raising=False)
    import fig9_tokenizers

    return fig9_tokenizers


def _squares(count: int) -> list[Image.Image]:
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


def _free(answer: str) -> ImageDenoiser:
    return ImageDenoiser(
        FakeLLM(answer), "spae-digits-32", "deblurring", constrain="never", allowed="vocabulary", own=False,
        guidance=1.0, context=2,
    ).fit(_squares(2))  # fmt: skip


def test_words_are_looked_up_in_the_vocabulary_but_for_case_and_marks(script: ModuleType, tmp_path: Path) -> None:
    vocabulary = _free("").tokenizer_.vocabulary
    assert vocabulary is not None
    own = vocabulary.words[5]
    # Layers of 1, 2 x 2, 4 x 4 and 4 x 4 words by rows: 1 segment of one word, 2 of two, 8 of four.
    free = _free(f" {own.upper()}, qqqq {own} wwww extra\n{own}")
    (puzzle,) = free.puzzles(_squares(3)[2:])
    found = script.outside(free, [puzzle], tmp_path / "run")
    assert found["written"] == 1 + 2 * 2 + 8 * 4 and found["missing"] == 0
    assert found["outside"] == 2 * 1 + 8 * 2
    assert found["most_frequent_outside"] == [("qqqq", 10), ("wwww", 8)]
    assert found["share_by_picture"]["mean"] == pytest.approx(18 / 37) and not found["failed"]


def test_a_short_answer_misses_words(script: ModuleType, tmp_path: Path) -> None:
    free = _free(" qqqq")
    (puzzle,) = free.puzzles(_squares(3)[2:])
    found = script.outside(free, [puzzle], tmp_path / "run")
    assert (found["written"], found["outside"], found["missing"]) == (11, 11, 26)


def test_it_goes_on_with_what_is_there_and_writes_figures_and_a_sheet(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    for number, picture in enumerate(_squares(12)):
        picture.resize((40, 32)).save(data / f"{number:02}.png")
    arguments = [
        "fig9_tokenizers.py", "--data", str(data), "--out", str(tmp_path / "runs"), "--tokenizers", "spae-digits-32",
        "--pictures", "2", "--tasks", "outpainting", "--llm", "fake", "--no-lpips", "--json", str(tmp_path / "f.json"),
        "--sheet", str(tmp_path / "f.png"),
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", arguments)
    assert script.main() == 0
    document = _read(tmp_path / "f.json")
    assert document["n"] == 2 and len(document["shown"]) == 10 and not {*document["shown"]} & {*document["restored"]}
    for protocol in ("leak-free", "paper"):
        found = document["found"][f"outpainting, {protocol}"]["spae-digits-32"]
        assert found["words"] == 37 and 0 < found["kept"] < 37 and found["rows"]["llm/rows"]["psnr"]["n"] == 2
        # All the words there are are decoded: the two ceilings are one.
        assert found["rows"]["words decoded here"] == found["rows"]["ceiling"]
    with Image.open(tmp_path / "f.png") as sheet:
        assert sheet.width == 5 * (32 + script.GAP) + script.GAP
    journal = (tmp_path / "runs" / "spae-digits-32-paper" / "journal.jsonl").read_bytes()
    assert script.main() == 0  # nothing is done again
    assert (tmp_path / "runs" / "spae-digits-32-paper" / "journal.jsonl").read_bytes() == journal
    assert "outpainting, paper" in capsys.readouterr().out


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document
