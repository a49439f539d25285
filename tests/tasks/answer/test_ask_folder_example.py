"""examples/ask_folder.py, run as a reader would."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType

import pytest
from scripts import loaded

EXAMPLE = Path(__file__).parents[3] / "examples" / "ask_folder.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return loaded(EXAMPLE)


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_table_of_answers(
    example: ModuleType, class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "answers.csv"
    arguments = [str(class_folder / "red"), str(target), "--question", "What is it?", "--question", "Is it red?",
                 "--llm", "fake", "--tokenizer", "words-photo"]  # fmt: skip
    example.main(arguments)
    head, *rows = table(target)
    assert head == ["image", "What is it?", "Is it red?", "words"] and len(rows) == 4
    for image, what, whether, words in rows:
        assert Path(image).parent == class_folder / "red" and what and whether in ("yes", "no")
        assert len(words.split()) == 5
    assert "8 asked, 0 known from before, 0 failed" in capsys.readouterr().out
    example.main(arguments)
    assert table(target) == [head, *rows] and "0 asked, 8 known" in capsys.readouterr().out


def test_examples_of_ones_own_and_choices(example: ModuleType, class_folder: Path, tmp_path: Path) -> None:
    support = tmp_path / "support.jsonl"
    (tmp_path / "red.png").write_bytes((class_folder / "red" / "000.png").read_bytes())
    support.write_text(json.dumps({"image": "red.png", "question": "Which?", "answer": "=red"}) + "\n")
    target = tmp_path / "answers.csv"
    example.main([str(class_folder / "blue"), str(target), "--question", "Which?", "--choices", "=red,=blue",
                  "--support", str(support), "--llm", "fake", "--tokenizer", "words-photo"])  # fmt: skip
    assert all(row[1] in ("'=red", "'=blue") for row in table(target)[1:])
