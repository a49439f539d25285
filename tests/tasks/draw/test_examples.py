"""Where examples come from, and which are shown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.images import load_image
from icl_vision.tasks.draw.examples import choose, read_examples


def make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (28, 28)).save(path)


def test_the_packaged_digits() -> None:
    found = read_examples("digits")
    assert len(found) == 100
    assert Counter(one.text for one in found) == {f"an image of {digit}": 10 for digit in range(10)}
    assert all(load_image(one.path).size == (28, 28) for one in found)
    assert "CC BY-SA 3.0" in (found[0].path.parent.parent / "README.md").read_text()


def test_a_folder_with_a_sub_folder_for_each_kind(tmp_path: Path) -> None:
    make(tmp_path / "red_ring" / "1.png")
    make(tmp_path / "bar" / "x.png")
    assert [one.text for one in read_examples(tmp_path)] == ["an image of bar", "an image of red ring"]
    assert [one.text for one in read_examples(tmp_path, "{}")] == ["bar", "red ring"]


def test_files_named_by_what_they_show(tmp_path: Path) -> None:
    for name in ("a ring 1.png", "a ring 2.png", "a_bar-07.png", "7.png"):
        make(tmp_path / name)
    assert [one.text for one in read_examples(tmp_path, "{}")] == ["7", "a ring", "a ring", "a bar"]


def test_captions(tmp_path: Path) -> None:
    make(tmp_path / "in" / "x.png")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "in/x.png", "text": " a ring "}) + "\n\n")
    (one,) = read_examples(tmp_path)
    assert (one.text, one.path) == ("a ring", tmp_path / "in" / "x.png")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("not json", "line 1 must be"),
        ('{"file": "x.png"}', "line 1 must be"),
        ('{"file": "x.png", "text": ""}', "the text not empty"),
        ('{"file": "../x.png", "text": "a"}', "outside the folder"),
        ('{"file": "y.png", "text": "a"}', "which is not there"),
        ("\n", "names no pictures"),
        ('{"file": "x\\u0000.png", "text": "a"}', "cannot be a file's name"),
        ('{"file": "link.png", "text": "a"}', "outside the folder"),
        ("[" * 100_000, "line 1 must be"),
        (" " * (16 * 1024 * 1024 + 1), "the cap is 16,777,216"),
    ],
)
def test_captions_that_cannot_be_used(tmp_path: Path, lines: str, said: str) -> None:
    make(tmp_path / "in" / "x.png")
    (tmp_path / "in" / "captions.jsonl").write_text(lines)
    make(tmp_path / "x.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "x.png")
    with pytest.raises(UsageError, match=said):
        read_examples(tmp_path / "in")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'digits' or a folder of pictures; there is no folder '.*none'"):
        read_examples(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no pictures"):
        read_examples(tmp_path)
    with pytest.raises(UsageError, match="one line that holds {}"):
        read_examples("digits", "a digit")


def test_examples_are_balanced_over_their_texts_and_drawn_by_the_seed() -> None:
    texts = ["a"] * 9 + ["b"] * 3 + ["c"]
    order = choose(texts, 2, seed=0)
    assert Counter(texts[place] for place in order) == {"a": 2, "b": 2, "c": 1}
    assert sorted(texts[place] for place in order[:3]) == ["a", "b", "c"]
    assert order == choose(texts, 2, seed=0) != choose(texts, 2, seed=1)
    assert sorted(choose(texts, None, seed=0)) == list(range(13))
