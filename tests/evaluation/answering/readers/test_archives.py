"""Folders and archives of pictures with captions and questions: COCO, Flickr8k, easy-VQA; what is refused."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.readers import Picture, QASet, Question, read_captions, read_questions
from icl_vision.evaluation.answering.readers.easy_vqa import installed
from icl_vision.evaluation.answering.readers.holding import holding
from icl_vision.images import load_image

from .conftest import pack, picture, write

Lay = Callable[[Mapping[str, bytes]], Path]

INDEX: list[dict[str, Any]] = [
    {"id": 7, "file": "images/7.png", "captions": ["A red wall.", " A wall painted red. "],
     "cocoqa": [{"question": "what is the color of the wall", "answer": "red", "type": "color"},
                {"question": "how many walls are there", "answer": "one", "type": "number"}]},
    {"id": 8, "file": "images/8.png", "captions": [],
     "cocoqa": [{"question": "what is shown", "answer": "sea", "type": "object"}]},
    {"id": 9, "file": "images/9.png", "captions": ["Grass."], "cocoqa": []},
]  # fmt: skip
PICTURES = {"images/7.png": picture("red"), "images/8.png": picture("blue"), "images/9.png": picture("green")}


def coco(index: Any = INDEX) -> dict[str, bytes]:
    return {"index.json": json.dumps(index).encode(), **PICTURES}


def test_coco_qa_has_test_questions_where_there_are_captions(laid: Lay) -> None:
    data = read_questions(laid(coco()))
    assert data.name == "coco-qa" and data.metric == "exact"
    assert [(q.id, q.question, q.answers, q.type, q.split) for q in data] == [
        ("7/0", "what is the color of the wall", ("red",), "colour", "test"),
        ("7/1", "how many walls are there", ("one",), "number", "test"),
        ("8/0", "what is shown", ("sea",), "object", "tuning"),
    ]
    assert data.splits == {"test": 2, "tuning": 1}
    assert data.questions[0].pictures[0].captions == ("A red wall.", "A wall painted red.")
    assert data.questions[0].pictures[0] is data.questions[1].pictures[0]
    source = data.questions[0].pictures[0].source
    assert source is not None and load_image(source).getpixel((0, 0)) == (255, 0, 0)


def test_coco_captions_for_training_are_of_pictures_without_questions(laid: Lay) -> None:
    data = read_captions(laid(coco()))
    assert [(q.id, q.question, q.answers, q.split) for q in data] == [
        ("7", None, ("A red wall.", "A wall painted red."), "test"),
        ("9", None, ("Grass.",), "training"),
    ]


def test_flickr_captions(laid: Lay) -> None:
    lines = (
        '{"file": "images/7.png", "captions": ["A wall .", "Red ."]}\n\n{"file": "images/8.png", "captions": ["Sea"]}\n'
    )
    data = read_captions(laid({"captions.jsonl": lines.encode(), **PICTURES}))
    assert [(q.id, q.answers, q.pictures[0].captions) for q in data] == [
        ("images/7.png", ("A wall .", "Red ."), ("A wall .", "Red .")),
        ("images/8.png", ("Sea",), ("Sea",)),
    ]


EASY = {
    "train/questions.json": b'[["what is the blue shape?", "rectangle", 0], ["is there a red shape?", "no", 0]]',
    "test/questions.json": b'[["what color is the shape?", "teal", 3]]',
    "train/images/0.png": picture("blue"),
    "test/images/3.png": picture("teal"),
    "answers.txt": b"rectangle\nno\nteal\n",
}


def test_easy_vqa(laid: Lay) -> None:
    data = read_questions(laid(EASY))
    assert [(q.id, q.question, q.answers, q.type, q.split, q.pictures[0].name) for q in data] == [
        ("train/1", "what is the blue shape?", ("rectangle",), "shape", "train", "train/images/0.png"),
        ("train/2", "is there a red shape?", ("no",), "yes/no", "train", "train/images/0.png"),
        ("test/1", "what color is the shape?", ("teal",), "colour", "test", "test/images/3.png"),
    ]


def test_easy_vqa_is_found_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "easy_vqa" / "data", EASY)
    (tmp_path / "easy_vqa" / "__init__.py").write_text("raise AssertionError('its code is not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(read_questions("easy-vqa")) == 3


def test_easy_vqa_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="run `pip install easy-vqa`"):
        installed()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"index.json": b"{}"}, "must be a list of pictures; got dict"),
        ({"index.json": b"[1]"}, "entry 1 of 'index.json' .* must have 'file'"),
        ({"index.json": b"[" * 99 + b"]" * 99}, "no usable JSON: it nests more than"),
        ({"index.json": b"\xff"}, "no usable JSON"),
        (coco([{"file": "../a.png", "captions": [], "cocoqa": []}]), "leads outside of it"),
        (coco([{"file": "/a.png", "captions": [], "cocoqa": []}]), "leads outside of it"),
        (coco([{"file": "a.png", "captions": [], "cocoqa": []}]), "'a.png'"),
        (coco([{**INDEX[0], "captions": [3]}]), "'captions' must be texts"),
        (coco([{**INDEX[0], "cocoqa": [{"question": "what"}]}]), "'answer' must be a text; got None"),
        (coco([INDEX[2]]), "'coco-qa' holds no questions"),
        ({**EASY, "test/questions.json": b'[["what?", "red"]]'}, "entry 1 of 'test/questions.json' .* must be"),
        ({**EASY, "test/questions.json": b'[["what?", "red", -1]]'}, "no picture -1"),
        ({"notes.txt": b"hello"}, "holds no questions in a layout known here: an index.json"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_told(laid: Lay, files: Mapping[str, bytes], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_questions(laid(files))


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"file": "images/7.png"}', "line 1: needs 'file' and a list of 'captions'"), ("{", "line 1: no usable JSON"),
     ('{"file": "images/7.png", "captions": []}', "needs 'file'"), ("", "holds no")],
)  # fmt: skip
def test_captions_that_are_damaged_are_told(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_captions(pack(tmp_path / "set.tar", {"captions.jsonl": line.encode(), **PICTURES}))


@pytest.mark.parametrize("name", ["../outside.png", "/etc/outside", "a/../../b", "c:\\d", "a\\b"])
def test_an_archive_with_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="leads outside of it"):
        holding(pack(tmp_path / "set.tar", {name: b"x"}))


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        link = tarfile.TarInfo("index.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UsageError, match="'index.json', which is a link or a device"):
        read_questions(tmp_path / "set.tar")


def test_a_picture_of_a_folder_that_is_a_link_outside_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", coco())
    (tmp_path / "secret.png").write_bytes(picture("black"))
    (folder / "images" / "7.png").unlink()
    (folder / "images" / "7.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UsageError, match="is a link that leads outside"):
        read_questions(folder)


def test_archives_have_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_vision.evaluation.answering.readers.holding.MOST_ARCHIVE", 100_000)
    packed = pack(tmp_path / "set.tar", {"zeros": b"\0" * 200_000}, mode="w:gz")
    assert packed.stat().st_size < 10_000
    with pytest.raises(UsageError, match="holds more than 200,000 files or 100,000 bytes: unpack what you need"):
        holding(packed)
    monkeypatch.setattr("icl_vision.evaluation.answering.readers.holding.MOST_ARCHIVE", 1000)
    with pytest.raises(UsageError, match=r"has more than the 1,000 bytes"):
        holding(pack(tmp_path / "other.tar", {"a": b"\0" * 2000}))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(UsageError, match="neither a folder nor a tar archive"):
        holding(tmp_path / "set.tar")
    with pytest.raises(UsageError, match="neither a folder nor a tar archive"):
        read_questions(tmp_path / "missing")


def test_an_archive_cut_off_is_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "set.tar", coco(), mode="w:gz").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="neither a folder nor a tar archive that can be read"):
        holding(tmp_path / "cut.tar")


# The value type -------------------------------------------------------------------------------------------------------


def question(title: str, split: str = "") -> Question:
    return Question(title, (Picture(title, text=title),), "what?", ("a",), split=split)


def test_a_draw_holds_the_smaller_one_in_the_sets_own_order() -> None:
    data = QASet("a set", tuple(question(str(number)) for number in range(30)))
    small, large = ([q.id for q in data.drawn(n, seed=3)] for n in (5, 12))
    assert set(small) < set(large) and large == sorted(large, key=int) and len(large) == 12
    assert small != [q.id for q in data.drawn(5, seed=4)] and len(data.drawn(99)) == 30
    with pytest.raises(UsageError, match="n must be a whole number of 1 or more questions; got 0"):
        data.drawn(0)


def test_the_digest_is_of_all_that_is_asked_and_seen(tmp_path: Path) -> None:
    first = read_questions(write(tmp_path / "a", coco()))
    packed = read_questions(pack(tmp_path / "a.tar", coco()))
    assert first.digest() == packed.digest()
    other = coco()
    other["images/8.png"] = picture("black")
    assert read_questions(write(tmp_path / "b", other)).digest() != first.digest()
    index = json.loads(json.dumps(INDEX))
    index[1]["cocoqa"][0]["answer"] = "lake"
    assert read_questions(write(tmp_path / "c", coco(index))).digest() != first.digest()


def test_what_is_no_set_is_refused() -> None:
    with pytest.raises(UsageError, match="'a set' holds no questions"):
        QASet("a set", ())
    with pytest.raises(UsageError, match="has '1' twice among the ids"):
        QASet("a set", (question("1"), question("1")))
    with pytest.raises(UsageError, match="no part 'x'; it has 'test', 'tuning'"):
        QASet("a set", (question("1", "test"), question("2", "tuning"))).of_split("x")
    with pytest.raises(UsageError, match="needs pixels or a text in their place, and not both"):
        Picture("a")
    assert "pixels" not in repr(Picture("a", b"pixels"))
