"""Files of questions and captions: the packaged ones, one's own, and what is wrong with a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icl_vision.errors import UntrustedNameError, UsageError
from icl_vision.images import load_image
from icl_vision.tasks.answer.files import (
    MOST_BYTES,
    MOST_IMAGES,
    PACKAGED,
    packaged_captions,
    packaged_examples,
    read_entries,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.png", "two.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def written(folder: Path, *lines: Any) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return file


def test_the_packaged_examples_are_photographs_with_short_answers() -> None:
    images, questions, answers = packaged_examples()
    assert len(images) == len(questions) == len(answers) == 16
    assert len(set(images)) == 16 and all(min(load_image(image).size) >= 60 for image in images)
    assert all(question.endswith("?") for question in questions)
    assert all(answer.isalpha() and answer.islower() for answer in answers), "one word each"
    assert {"yes", "no", "two", "yellow", "water", "jumping", "stop", "pizza"} <= set(answers)


def test_the_packaged_captions_are_of_the_same_photographs() -> None:
    images, captions = packaged_captions()
    assert images == packaged_examples()[0]
    assert all(caption.startswith(("A", "Two")) for caption in captions)
    assert all(caption.endswith(".") and len(caption.split()) <= 12 for caption in captions)


def test_the_packaged_photographs_say_whose_they_are() -> None:
    text = (PACKAGED / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for image in packaged_examples()[0]:
        assert image.relative_to(PACKAGED).parts[0] in text
    assert "questions.jsonl" in text and "captions.jsonl" in text


def test_a_file_and_the_folder_it_is_alone_in(folder: Path) -> None:
    file = written(folder, {"image": "one.png", "question": " What? ", "answer": "dog", "id": 7}, "",
                   {"image": ["one.png", "two.png"], "question": "Which?", "answer": ["cat", "a cat"]})  # fmt: skip
    found = read_entries(file, "question", truths=True)
    assert found == read_entries(folder, "question", truths=True)
    assert [entry.line for entry in found] == [1, 3]
    assert found[0].images == (folder / "one.png",) and found[0].question == "What?" and found[0].truths == ("dog",)
    assert found[1].images == (folder / "one.png", folder / "two.png") and found[1].truths == ("cat", "a cat")


def test_what_is_to_be_asked_needs_no_answer(folder: Path) -> None:
    file = written(folder, {"image": "one.png", "question": "What?"}, {"image": "gone.png", "question": "Where?"})
    assert [entry.truths for entry in read_entries(file, "question", truths=False)] == [(), ()]  # gone: told when asked
    with pytest.raises(UsageError, match=r"2 of 2 lines .* line 1: an example needs its 'answer'; line 2: an example"):
        read_entries(file, "question", truths=True)
    (caption,) = read_entries(written(folder, {"image": "one.png"}), "caption", truths=False)
    assert caption.question is None


def test_bad_lines_are_named_by_their_numbers_all_together(folder: Path) -> None:
    good = {"image": "one.png", "question": "What?"}
    file = written(
        folder, good, "{", "[1]", {"image": "one.png"}, {"question": "What?"}, {"image": 3, "question": "What?"},
        {"image": "one.png", "question": 3}, {"image": "one.png", "question": "What?", "answer": 3}, "", good,
    )  # fmt: skip
    with pytest.raises(UsageError) as raised:
        read_entries(file, "question", truths=False)
    text = str(raised.value)
    assert "7 of 9 lines" in text and "; and 2 more" in text
    assert "line 2: it is no JSON object (" in text and "line 4: its 'question' must be a text" in text
    assert 'line 3: it must be {"image": "photo.jpg", "question": "..."}' in text
    assert "line 5: it has no 'image'" in text and "line 6: its 'image' must" in text
    assert "line 1:" not in text and "line 7:" not in text
    for answer in (3, True, {"a": 1}, ["yes", 1], " ", [""]):
        with pytest.raises(UsageError, match="line 1: its 'answer' must be a text that is not empty, or a list"):
            read_entries(written(folder, good | {"answer": answer}), "question", truths=False)


def test_a_deep_or_twice_said_line_is_no_crash(folder: Path) -> None:
    deep = '{"image": ' + "[" * 5000 + "]" * 5000 + "}"
    with pytest.raises(UsageError, match=r"2 of 2 lines .*nests more than .*says the key 'image' twice"):
        read_entries(written(folder, deep, '{"image": "a", "image": "b"}'), "caption", truths=False)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "link.png", "C:\\x.png"])
def test_paths_that_lead_out_need_trust(folder: Path, name: str) -> None:
    inner = folder / "inner"
    inner.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "outside.png")
    (inner / "link.png").symlink_to(folder / "outside.png")
    file = written(inner, {"image": name, "question": "What?"})
    with pytest.raises(UsageError, match=r"line 1: .* names the image .* a place on this machine; .* --trust"):
        read_entries(file, "question", truths=False, how="--trust")
    (entry,) = read_entries(file, "question", truths=False, trust=True)
    assert entry.images == (inner / name,)
    assert issubclass(UntrustedNameError, Exception)


def test_what_could_break_a_prompt_or_a_terminal_is_named_by_its_line(folder: Path) -> None:
    good = {"image": "one.png", "question": "What?", "answer": "dog"}
    file = written(folder, good, good | {"question": "a\u202eb"}, good | {"question": "x" * 501},
                   good | {"answer": "dog\nA: cat"}, good | {"image": "\x1b[2Jone.png"})  # fmt: skip
    with pytest.raises(UsageError) as raised:
        read_entries(file, "question", truths=True)
    text = str(raised.value)
    assert "4 of 5 lines" in text and "\x1b" not in text
    assert "line 2: a question must be one line" in text and "U+202E" in text
    assert "line 3: a question may have 500 characters" in text
    assert "line 4: its answer must be one line" in text and "line 5: its 'image' holds U+001B" in text


def test_names_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"1 of 2 lines .*line 1: its 'image' holds U\+0000"):
        # (One that is merely too long is an image that is not there: told when it is opened.)
        read_entries(written(folder, {"image": "a\0b"}, {"image": "x" * 9000}), "caption", truths=False)


def test_too_many_pictures(folder: Path) -> None:
    line = {"image": ["one.png"] * (MOST_IMAGES + 1), "question": "Which?"}
    with pytest.raises(UsageError, match="may have 16 pictures; it names 17"):
        read_entries(written(folder, line), "question", truths=False)


def test_files_that_cannot_be_used(folder: Path) -> None:
    with pytest.raises(UsageError, match="must hold one .jsonl file, and has none; write one"):
        read_entries(folder, "question", truths=False)
    with pytest.raises(
        UsageError, match=r"holds no lines; .*such as \{\"image\": \"photo.jpg\", \"question\": \"...\"\}"
    ):
        read_entries(written(folder, "", "  "), "question", truths=False)
    (folder / "more.jsonl").touch()
    with pytest.raises(UsageError, match=r"has 2: more.jsonl, questions.jsonl; name the file"):
        read_entries(folder, "question", truths=False)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_entries(folder / "none.jsonl", "question", truths=False)
    (folder / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is no UTF-8 text"):
        read_entries(folder / "latin.jsonl", "question", truths=False)
    with (folder / "large.jsonl").open("wb") as handle:
        handle.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="more than the 16,777,216 bytes"):
        read_entries(folder / "large.jsonl", "question", truths=False)
