"""Loaders of public archives, on small files of the same layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.episodes.loaders import Example, detect, load_archive, load_questions

NAMES = ("dax", "blicket", "perpo", "slation", "shously")


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"jpeg")


def frozen(folder: Path, task: str, shots: int, ways: int, *, count: int = 2, caption: str = "This is a {}.") -> Path:
    """A file of Frozen's layout and its images, classes in blocks (not shot by shot)."""
    stem, rows = f"{task}_shots_{shots}_ways_{ways}", []
    for number in range(1, count + 1):
        row: dict[str, Any] = {"question_id": number}
        for place in range(1, shots * ways + 1):
            row[f"image_{place}"] = f"{stem}_id_{number}_image_{place}.jpg"
            row[f"caption_{place}"] = caption.format(NAMES[(place - 1) // shots])
            touch(folder / row[f"image_{place}"])
        row |= {"question": "What is this?", "question_image": f"{stem}_id_{number}_question.jpg", "answer": NAMES[1]}
        touch(folder / row["question_image"])
        rows.append(row)
    file = folder / f"{stem}_all_questions.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def change(file: Path, alter: Callable[[Any], Any]) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    alter(document)
    file.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("caption", ["This is a {}.", "{}", "this is an {} ."])
@pytest.mark.parametrize("task", ["open_ended_mi", "real_name_mi"])
def test_frozen_classes(tmp_path: Path, task: str, caption: str) -> None:
    frozen(tmp_path, task, 3, 2, caption=caption)
    episodes, root = load_archive(tmp_path)
    assert root == tmp_path
    assert [episode.number for episode in episodes] == [1, 2]
    first = episodes[0]
    assert first.labels == ("dax", "blicket")
    # Shot by shot, so that the first two are one shot.
    assert [item.label for item in first.support] == ["dax", "blicket"] * 3
    assert [item.path.rsplit("_", 1)[1] for item in first.support] == [f"{n}.jpg" for n in (1, 4, 2, 5, 3, 6)]
    assert first.queries[0].label == "blicket"
    assert first.queries[0].path == f"{task}_shots_3_ways_2_id_1_question.jpg"
    assert first.with_shots(1).shots == 1


def test_frozen_takes_the_most_shots_of_each_ways_unless_told(tmp_path: Path) -> None:
    for shots, ways in ((1, 2), (3, 2), (5, 2), (1, 5), (3, 5)):
        frozen(tmp_path, "open_ended_mi", shots, ways, count=1)
    sizes = lambda **options: sorted((e.ways, e.shots) for e in load_archive(tmp_path, **options)[0])  # noqa: E731  # a name for one line, used in this test alone
    assert sizes() == [(2, 5), (5, 3)]
    assert sizes(shots=1) == [(2, 1), (5, 1)]
    assert sizes(ways=5) == [(5, 3)]
    assert sizes(ways=2, shots=3) == [(2, 3)]
    with pytest.raises(UsageError, match="no questions of shots=5 and ways=5; it has open_ended_mi_shots_1_ways_2"):
        load_archive(tmp_path, shots=5, ways=5)


def test_one_frozen_file_alone_and_without_ways_in_its_name(tmp_path: Path) -> None:
    frozen(tmp_path, "real_name_mi", 1, 2)
    file = frozen(tmp_path, "real_name_mi", 1, 5)
    assert {episode.ways for episode in load_archive(file)[0]} == {5}
    other = file.rename(tmp_path / "real_name_mi_shots_1_ways_all_questions.json")
    assert {episode.ways for episode in load_archive(other)[0]} == {5}
    assert {episode.ways for episode in load_archive(other, ways=5)[0]} == {5}
    assert load_archive(other, ways=2)[0] == []


def test_frozen_questions(tmp_path: Path) -> None:
    frozen(tmp_path, "guided_vqa", 1, 2)
    file = frozen(tmp_path, "guided_vqa", 3, 2, count=1)
    change(file, lambda rows: rows[0].update(question="What colour is the vase?", answer="blue"))
    found = load_questions(tmp_path)
    assert found.root == tmp_path
    assert found.pool == ()
    (question,) = found.questions
    assert (question.question, question.answers) == ("What colour is the vase?", ("blue",))
    assert question.images == ("guided_vqa_shots_3_ways_2_id_1_question.jpg",)
    assert len(question.examples) == 6
    assert question.examples[0] == Example(("guided_vqa_shots_3_ways_2_id_1_image_1.jpg",), "This is a dax.")
    assert len(load_questions(tmp_path, shots=1).questions) == 2


def vl_icl(folder: Path, *, prefix: str = "open_mi/") -> Path:
    """VL-ICL's open_mi: five classes of five images a query."""
    data, rows = folder / "open_mi", []
    for number in range(3):
        support = {}
        for name in NAMES:
            paths = [f"{prefix}support/{number}_{name}_{place}.jpg" for place in range(5)]
            support[name] = {"images": paths, "caption": f"This is a {name}"}
        image = f"{prefix}query/{number}.jpg"
        for path in (image, *(path for one in support.values() for path in one["images"])):
            touch((folder if prefix else data) / path)
        rows.append({"id": f"q{number}", "image": [image], "question": "This is a", "answer": NAMES[number],
                     "classes": [*NAMES], "support": support})  # fmt: skip
    (data / "query.json").write_text(json.dumps(rows), encoding="utf-8")
    (data / "support.json").write_text("[]", encoding="utf-8")
    return data


@pytest.mark.parametrize("prefix", ["open_mi/", ""])
def test_vl_icl_open_mi(tmp_path: Path, prefix: str) -> None:
    data = vl_icl(tmp_path, prefix=prefix)
    episodes, root = load_archive(data)
    assert root == (tmp_path.resolve() if prefix else data)
    assert [(episode.ways, episode.shots) for episode in episodes] == [(5, 5)] * 3 + [(2, 5)] * 3
    assert [episode.number for episode in episodes] == [1, 2, 3, 1, 2, 3]
    assert [episode.queries[0].label for episode in episodes] == [*NAMES[:3], *NAMES[:3]]
    assert all((root / item.path).is_file() for item in (*episodes[0].support, *episodes[0].queries))
    assert all(episode.queries[0].label in episode.labels for episode in episodes)
    assert load_archive(data, ways=2)[0] == episodes[3:]
    assert load_archive(data, ways=5)[0] == episodes[:3]
    others = [load_archive(data, ways=2, seed=seed)[0][0].labels for seed in range(8)]
    assert len(set(others)) > 2
    with pytest.raises(UsageError, match=r"can be asked with ways \[2, 5\]; got ways=3"):
        load_archive(data, ways=3)


def test_vl_icl_questions(tmp_path: Path) -> None:
    data = tmp_path / "operator_induction"
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        touch(data / name)
    query = [{"id": 4, "image": "a.jpg", "question": "3 ? 4", "answer": 7, "operator": "+"}]
    support = [
        {"image": ["b.jpg", "c.jpg"], "question": "1 ? 2", "answer": [3, -1, 2]},
        {"same": {"image": ["a.jpg"], "question": "q", "answer": "yes"},
         "diff": {"image": ["b.jpg"], "question": "q", "answer": "no"}},
    ]  # fmt: skip
    (data / "query.json").write_text(json.dumps(query), encoding="utf-8")
    (data / "support.json").write_text(json.dumps(support), encoding="utf-8")
    found = load_questions(data)
    assert (found.questions[0].number, found.questions[0].images, found.questions[0].answers) == (4, ("a.jpg",), ("7",))
    assert [example.answers for example in found.pool] == [("3", "-1", "2"), ("yes",), ("no",)]
    assert found.pool[0].images == ("b.jpg", "c.jpg")
    with pytest.raises(UsageError, match="asks questions instead of class names: read it with load_questions"):
        load_archive(data)


def test_detect(tmp_path: Path, class_folder: Path) -> None:
    assert detect(class_folder) is None
    assert detect(tmp_path / "missing") is None
    frozen(tmp_path / "a", "fast_vqa", 1, 2)
    found = detect(tmp_path / "a")
    assert found is not None
    assert (found.kind, found.has_episodes) == ("frozen-questions", False)
    touch(tmp_path / "open_ended_mi.tar.gz")
    with pytest.raises(UsageError, match=r"extract it \(tar -xzf\)"):
        detect(tmp_path / "open_ended_mi.tar.gz")
    frozen(tmp_path / "a", "guided_vqa", 1, 2)
    with pytest.raises(UsageError, match="holds files of fast_vqa, guided_vqa"):
        detect(tmp_path / "a")


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no archive known here: give a folder with open_ended_mi/"):
        load_archive(tmp_path)
    with pytest.raises(UsageError, match="is no archive known here"):
        load_questions(tmp_path)
    frozen(tmp_path, "open_ended_mi", 1, 2)
    with pytest.raises(UsageError, match="asks for class names: read it with load_archive"):
        load_questions(tmp_path)


FILE = r"open_ended_mi_shots_1_ways_2_all_questions.json', entry 2: "


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"caption_1": None}, FILE + "'caption_1' must be a text; got None"),
        ({"caption_2": " "}, FILE + "'caption_2' must be a text"),
        ({"caption_2": "This is a dax."}, FILE + "its captions must give 1 examples of each of 2 classes; got"),
        ({"image_1": 3}, FILE + "'image_1' must be a text or a list of them; got 3"),
        ({"image_1": []}, FILE + "'image_1' must be a text or a list of them"),
        ({"image_1": "gone.jpg"}, FILE + "'image_1' names 'gone.jpg', which is no file"),
        ({"image_1": "../secret.jpg"}, FILE + "'image_1' leads outside the archive: '../secret.jpg'"),
        ({"image_1": "/etc/passwd"}, FILE + "'image_1' leads outside the archive"),
        ({"image_1": "..\\secret.jpg"}, FILE + "'image_1' leads outside the archive"),
        ({"image_1": "C:\\secret.jpg"}, FILE + "'image_1' leads outside the archive"),
        ({"image_1": "a\0b.jpg"}, FILE + "'image_1' leads outside the archive"),
        ({"image_1": "link.jpg"}, FILE + "'image_1' leads outside the archive: 'link.jpg'"),
        ({"question_image": None}, FILE + "'question_image' must be a text"),
        ({"answer": "wug"}, FILE + r"'answer' is 'wug', none of its examples' names \['dax', 'blicket'\]"),
        ({"answer": None}, FILE + "'answer' must be a text; got None"),
        ({"image_4": "x.jpg"}, FILE + "it has 3 images of examples, but no 'image_3'"),
    ],
)  # fmt: skip
def test_damaged_frozen_file_is_told(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    folder = tmp_path / "open_ended_mi"
    touch(tmp_path / "secret.jpg")
    file = frozen(folder, "open_ended_mi", 1, 2)
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    change(file, lambda rows: rows[1].update(fields))
    with pytest.raises(UsageError, match=message):
        load_archive(folder)


def test_the_query_among_its_examples_is_told(tmp_path: Path) -> None:
    file = frozen(tmp_path, "open_ended_mi", 1, 2)
    change(file, lambda rows: rows[0].update(question_image=rows[0]["image_1"]))
    with pytest.raises(UsageError, match="entry 1: episode 1 asks for images of its own support set"):
        load_archive(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as JSON"), ("{}", "must be a list of objects; got dict"), ("[1]", "must be a list"),
     ("[" * 100_000, "cannot be read as JSON"), ("[{}]", "it has no 'image_1'")],
)  # fmt: skip
def test_a_file_of_another_form_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = frozen(tmp_path, "open_ended_mi", 1, 2)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_archive(tmp_path)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda row: row.update(answer="wug"), "'answer' is 'wug', none of its 'classes'"),
        (lambda row: row["support"].pop("perpo"), "'support' must have a list of 'images' of the class 'perpo'"),
        (lambda row: row.update(support=3), "'support' must have a list of 'images'"),
        (lambda row: row["support"]["dax"]["images"].pop(), "entry 2"),
        (lambda row: row.update(classes="dax"), "'answer' is 'blicket', none of its 'classes'"),
        (lambda row: row.update(image=[row["image"][0]] * 2), "'image' must be one image"),
        (lambda row: row.update(image=["../x.jpg"]), "leads outside the archive"),
        (lambda row: row.pop("image"), "'image' must be a text or a list of them; got None"),
    ],
)
def test_damaged_vl_icl_file_is_told(tmp_path: Path, alter: Callable[[Any], Any], message: str) -> None:
    data = vl_icl(tmp_path)
    change(data / "query.json", lambda rows: alter(rows[1]))
    with pytest.raises(UsageError, match=message):
        load_archive(data)


def test_vl_icl_without_queries_is_told(tmp_path: Path) -> None:
    data = vl_icl(tmp_path)
    (data / "query.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no queries"):
        load_questions(data)
