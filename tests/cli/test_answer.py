"""`icl-vision answer` and `icl-vision caption`."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_describe
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.tokenizers.describe import reading

SKY = "What colour is it?"


def run(command: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [command, "--llm", "fake", "--tokenizer", "ascii", *map(str, arguments)])


def answer(*arguments: str | Path) -> Result:
    return run("answer", *arguments)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(class_folder: Path, tmp_path: Path) -> Path:
    """Pictures of three colours, examples of each, and questions with their answers."""
    folder = tmp_path / "work"
    shutil.copytree(class_folder, folder)
    shown = [{"image": f"{name}/{number:03d}.png", "question": SKY, "answer": name}
             for name in ("red", "green", "blue") for number in (0, 1)]  # fmt: skip
    (folder / "support.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown), encoding="utf-8")
    asked = [{"image": f"{name}/002.png", "question": SKY, "answer": [name, f"{name}ish"]} for name in ("red", "blue")]
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked), encoding="utf-8")
    told = [{"image": line["image"], "caption": f"A {line['answer']} picture."} for line in shown]
    (folder / "told.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told), encoding="utf-8")
    return folder


def test_one_answer_is_printed_plain(folder: Path) -> None:
    image = folder / "red" / "003.png"
    done = answer(image, "--question", SKY, "--support", folder / "support.jsonl")
    assert done.exit_code == 0, done.stderr
    assert done.stdout in ("red\n", "green\n", "blue\n")
    assert f"6 examples in {folder / 'support.jsonl'}" in done.stderr
    assert "found by: greedy" in done.stderr and "after 6 examples" in done.stderr and "words: " in done.stderr
    quiet = answer(image, "--question", SKY, "--support", folder / "support.jsonl", "--quiet")
    assert quiet.stdout == done.stdout and quiet.stderr == ""


def test_json_is_one_document_in_the_design(folder: Path) -> None:
    image = folder / "red" / "003.png"
    done = answer(image, "--question", SKY, "--question", "What?", "--support", folder / "support.jsonl", "--json")
    rows = json.loads(done.stdout)
    assert [row["question"] for row in rows] == [SKY, "What?"]
    for row in rows:
        assert list(row) == ["image", "question", "answer", "words", "method", "probability", "calibrated", "support",
                             "examples"]  # fmt: skip
        assert row["image"] == str(image) and row["method"] == "greedy"
        assert len(row["words"]) == 1 and all(isinstance(word, str) for word in row["words"][0])
        assert row["support"] == str(folder / "support.jsonl") and sorted(row["examples"]) == list(range(6))


def test_a_file_of_questions_is_held_against_its_answers(folder: Path) -> None:
    done = answer("--questions", folder / "asked.jsonl", "--support", folder / "support.jsonl", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["truth"] for row in rows] == [["red", "redish"], ["blue", "blueish"]]
    right = [row["answer"] in row["truth"] for row in rows]
    assert [row["right"] for row in rows] == right
    assert f"{sum(right)} of 2 right" in done.stderr and "(exact after normalisation)" in done.stderr
    lines = answer("--questions", folder / "asked.jsonl", "--support", folder / "support.jsonl").stdout.splitlines()
    assert len(lines) == 2 and all(SKY in line for line in lines)
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(row["image"]) and (" (right: " in line) == (not row["right"])


def test_without_support_our_examples_are_shown_and_that_is_said(folder: Path) -> None:
    image = folder / "red" / "003.png"
    done = answer(image, "--question", SKY, "--json")
    (row,) = json.loads(done.stdout)
    assert row["support"] == "packaged" and len(row["examples"]) == 8
    assert "16 packaged examples (photographs of Caltech 101, CC BY 4.0)" in done.stderr
    assert "--zero-shot none" in done.stderr
    bare = answer(image, "--question", SKY, "--zero-shot", "--json")
    (row,) = json.loads(bare.stdout)
    assert row["support"] == "none" and row["examples"] == [] and "packaged" not in bare.stderr
    both = answer(image, "--question", SKY, "--zero-shot", "--support", folder / "support.jsonl")
    assert both.exit_code == 2 and "--zero-shot shows no examples, and --support names some" in both.stderr


def test_choices(folder: Path) -> None:
    options = (folder / "red" / "003.png", "--question", SKY, "--support", folder / "support.jsonl", "--json")
    (row,) = json.loads(answer(*options, "--choices", "red, green").stdout)
    assert row["answer"] in ("red", "green") and row["method"] == "choices"
    (row,) = json.loads(answer(*options, "--choices", "red,green", "--scoring", "parse").stdout)
    assert row["method"] == "parsed"
    failed = answer(*options, "--choices", "red")
    assert failed.exit_code == 1 and "choices must be 2 to" in failed.stderr
    twice = answer(*options, "--choices", "red,Red")
    assert twice.exit_code == 1 and "is given twice" in twice.stderr


def test_what_fails_never_loses_the_rest(folder: Path, tmp_path: Path) -> None:
    good, gone, broken = folder / "red" / "003.png", tmp_path / "gone.png", tmp_path / "broken.png"
    broken.write_bytes(b"no image at all")
    options = (gone, good, broken, "--question", SKY, "--support", folder / "support.jsonl")
    done = answer(*options, "--json")
    assert done.exit_code == 1
    rows = json.loads(done.stdout)
    assert [("error" in row, row["answer"] is None) for row in rows] == [(True, True), (False, False), (True, True)]
    assert rows[0]["error"].startswith("ImageNotFoundError")
    assert f"{gone}: ImageNotFoundError" in done.stderr and f"{broken}: ImageFormatError" in done.stderr
    lines = answer(*options, "--quiet").stdout.splitlines()
    assert [line.endswith("failed") for line in lines] == [True, False, True]
    alone = answer(gone, "--question", SKY, "--support", folder / "support.jsonl")
    assert alone.exit_code == 1 and alone.stdout == "", "nothing that could be taken for an answer"


def test_usage_is_checked_before_anything_is_read(folder: Path) -> None:
    for arguments, what in (
        ((), "name an image, and what to ask"),
        ((folder / "red" / "000.png",), "--question is missing"),
        (("--questions", folder / "asked.jsonl", folder / "red" / "000.png"), "leave IMG and --question out"),
        (("--questions", folder / "asked.jsonl", "--question", "x"), "leave IMG and --question out"),
        (("--questions", folder / "none.jsonl"), "does not exist"),
        ((folder / "red" / "000.png", "--question", "x", "--resume"), "--resume needs --out RUN"),
        ((folder / "red" / "000.png", "--question", "x", "--shots", "0"), "0 is not in the range"),
    ):
        done = answer(*arguments)
        assert done.exit_code == 2 and what in done.stderr, arguments
    done = answer(folder / "red" / "000.png", "--question", "  ")
    assert done.exit_code == 1 and "a question" in done.stderr


def test_bad_lines_are_named_before_anything_is_asked(folder: Path) -> None:
    file = folder / "bad.jsonl"
    file.write_text('{"image": "red/000.png", "question": "x"}\nnonsense\n{"image": "../x.png", "question": "x"}\n')
    done = answer("--questions", file)
    assert done.exit_code == 1 and done.stdout == ""
    assert "2 of 3 lines" in done.stderr and "line 2: it is no JSON object" in done.stderr
    assert "line 3: " in done.stderr and "--trust if you trust whoever made the file" in done.stderr
    odd = folder / "odd.jsonl"
    odd.write_text(json.dumps({"image": "red/000.png", "question": "a\u202eb"}) + "\n", encoding="utf-8")
    done = answer("--questions", odd)
    assert done.exit_code == 1 and "U+202E" in done.stderr


def test_asking_about_an_example_is_called_a_leak(folder: Path) -> None:
    shutil.copy(folder / "red" / "000.png", folder / "copy.png")
    options = ("--question", SKY, "--support", folder / "support.jsonl")
    leak = answer(folder / "copy.png", folder / "red" / "003.png", *options)
    assert "LEAKING: 1 of 2 ask about an image that is among the examples" in leak.stderr
    assert "LEAKING" not in answer(folder / "red" / "003.png", *options).stderr


def test_a_run_is_kept_resumed_and_has_a_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--questions", folder / "asked.jsonl", "--support", folder / "support.jsonl")
    plain = answer(*options, "--json", "--quiet")
    done = answer(*options, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(plain.stdout)
    assert "2 asked, 0 known from before, 0 failed" in done.stderr and "2 requests" in done.stderr
    assert {"run.json", "journal.jsonl", "results.json", "report.html"} <= {path.name for path in out.iterdir()}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert SKY in page and page.count("<img") >= 2 and "6 examples shown before it" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "Caltech" not in page
    refused = answer(*options, "--out", out)
    assert refused.exit_code == 1 and "pass --resume" in refused.stderr
    more = answer(*options, "--out", out, "--resume", "--json", "--quiet")
    assert json.loads(more.stdout) == json.loads(plain.stdout) and more.stderr == ""
    assert len((out / "journal.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    other = answer(*options, "--out", out, "--resume", "--shots", "1")
    assert other.exit_code == 1 and "shots" in other.stderr and "differ" in other.stderr


def test_failed_questions_are_asked_again(folder: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    options = (folder / "red" / "003.png", late, "--question", SKY, "--support", folder / "support.jsonl", "--out",
               tmp_path / "run", "--resume", "--json")  # fmt: skip
    done = answer(*options)
    assert done.exit_code == 1 and "--resume asks the failed ones again" in done.stderr
    shutil.copy(folder / "blue" / "003.png", late)
    again = answer(*options)
    assert again.exit_code == 0 and "1 asked, 1 known from before, 0 failed" in again.stderr


def test_a_page_without_a_run(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = answer(folder / "red" / "003.png", "--question", "<b>What?</b>", "--report", page)
    assert done.exit_code == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;What?&lt;/b&gt;" in text and "<b>What?" not in text
    assert "8 examples shown before it" in text and "CC BY 4.0" in text
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("work", "cache")] == ["page.html"]


def test_a_name_that_is_no_unicode(folder: Path, tmp_path: Path) -> None:
    named = os.fsdecode(bytes(folder) + b"/a\xff.png")
    shutil.copy(folder / "red" / "003.png", named)
    for _ in range(2):
        done = answer(named, "--question", SKY, "--question", "What?", "--out", tmp_path / "run", "--resume")
        assert done.exit_code == 0, (done.stderr, done.exception)
        assert done.stdout.count("a\\xff.png") == 2
    assert "a\\xff.png" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    (row, _) = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["results"]
    assert row["image"].endswith("a\\xff.png")


def test_a_plan_for_people_and_for_programs(folder: Path, tmp_path: Path) -> None:
    options = ("--questions", folder / "asked.jsonl", "--support", folder / "support.jsonl")
    done = answer(*options, "--dry-run")
    assert done.exit_code == 0 and "queries             2" in done.stdout and "answers: greedy" in done.stdout
    out = tmp_path / "run"
    document = json.loads(answer(*options, "--dry-run", "--json", "--out", out).stdout)
    assert document["queries"] == 2 and document["already_answered"] == 0 and not out.exists()
    (folder / "first.jsonl").write_text((folder / "asked.jsonl").read_text().splitlines()[0])
    first = answer("--questions", folder / "first.jsonl", "--support", folder / "support.jsonl", "--out", out)
    assert first.exit_code == 0
    document = json.loads(answer(*options, "--dry-run", "--json", "--out", out, "--resume").stdout)
    assert document["queries"] == 1 and document["already_answered"] == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_plan_with_nothing_to_ask_says_so(folder: Path, tmp_path: Path, known: bool) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    picture, out = folder / ("red/003.png" if known else "bad.png"), tmp_path / "run"
    if known:
        assert answer(picture, "--question", SKY, "--out", out).exit_code == 0
    plan = answer(picture, "--question", SKY, "--out", out, "--dry-run", *(["--resume"] if known else [])).stdout
    assert "prompt tokens       0 (there is nothing to ask)\n" in plan
    assert "model               fake\n" in plan and "()" not in plan and "with )" not in plan
    assert ("already answered    1\n" in plan) is known
    assert ("queries             0 (1 unusable)\n" in plan) is not known


@pytest.mark.parametrize("kind", ["answer", "caption"])
def test_every_option_reaches_the_task(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.tasks.answer.captioner import Captioner
    from icl_vision.tasks.answer.visual_qa import VisualQA

    task: Any = VisualQA if kind == "answer" else Captioner
    seen: dict[str, Any] = {}
    fit = task.fit

    def spied(self: Any, *arguments: Any) -> Any:
        seen.update(self.get_params())
        return fit(self, *arguments)

    monkeypatch.setattr(task, "fit", spied)
    own = ["--question", SKY, "--ways", "2", "--no-focus", "--scoring", "greedy", "--answer-tokens", "5"]
    support = folder / ("support.jsonl" if kind == "answer" else "told.jsonl")
    done = run(kind, folder / "red" / "003.png", *(own if kind == "answer" else ["--caption-tokens", "5"]), "--support",
               support, "-k", "16", "--shots", "2", "--repeats", "1", "--selection", "random", "--prompts", "2",
               "--no-induction", "--template", f"{kind}_pica", "--concurrency", "3", "--seed", "7")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    wanted = {"k": 16, "shots": 2, "repeats": 1, "selection": "random", "prompts": 2, "induction": False,
              "template": f"{kind}_pica", "concurrency": 3, "order_seed": 7,
              "max_tokens": 5, "errors": "return"}  # fmt: skip
    if kind == "answer":
        wanted |= {"ways": 2, "focus": False, "scoring": "greedy"}
    assert {name: seen[name] for name in wanted} == wanted


def test_captions(folder: Path, tmp_path: Path) -> None:
    options = ("--support", folder / "told.jsonl")
    one = run("caption", folder / "red" / "003.png", *options)
    assert one.exit_code == 0, one.stderr
    assert one.stdout.startswith("A ") and one.stdout.count("\n") == 1
    done = run("caption", folder / "green", *options, "--json", "--out", tmp_path / "run")
    rows = json.loads(done.stdout)
    assert [list(row) for row in rows] == [["image", "caption", "words", "method", "probability", "calibrated",
                                            "support", "examples"]] * 4  # fmt: skip
    assert "LEAKING: 2 of 4" in done.stderr
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "4 captions put to fake" in page
    packaged = run("caption", folder / "red" / "003.png")
    assert "16 packaged examples" in packaged.stderr


def test_captions_from_a_file(folder: Path) -> None:
    done = run("caption", "--images", folder / "told.jsonl", "--support", folder / "told.jsonl", "--json")
    rows = json.loads(done.stdout)
    assert len(rows) == 6 and rows[0]["truth"] == ["A red picture."] and "right" not in rows[0]
    for arguments, what in (
        ((), "name an image: icl-vision caption photo.jpg"),
        (("--images", folder / "told.jsonl", folder / "red" / "000.png"), "leave IMG out"),
    ):
        failed = run("caption", *arguments)
        assert failed.exit_code == 2 and what in failed.stderr


def test_several_pictures_of_one_question(folder: Path) -> None:
    file = folder / "pairs.jsonl"
    file.write_text(json.dumps({"image": ["red/002.png", "blue/002.png"], "question": "Which?"}) + "\n")
    done = answer("--questions", file, "--support", folder / "support.jsonl", "--json")
    (row,) = json.loads(done.stdout)
    assert row["image"] == [str(folder / "red" / "002.png"), str(folder / "blue" / "002.png")]
    assert len(row["words"]) == 2


def test_words_of_a_tokenizer_with_a_vocabulary(folder: Path, tmp_path: Path) -> None:
    """words-photo, so that fused answering, its candidates and the page's words are real."""
    page = tmp_path / "page.html"
    photo = Path(__file__).parents[2] / "icl_vision" / "demo_data" / "caltech101-demo12" / "elephant" / "004.jpg"
    done = CliRunner().invoke(main, ["answer", "--llm", "fake", "--tokenizer", "words-photo", str(photo), "--question",
                                     "What animal is this?", "--json", "--report", str(page)])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["method"] == "fused" and "elephant" in row["words"][0] and 0 < row["probability"] <= 1
    assert "elephant" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("scoring", ["greedy", "fused"])
def test_words_by_part_and_those_that_were_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scoring: str
) -> None:
    monkeypatch.setattr(reading, "can_read", lambda: False)
    eyes, page = tiny_describe.make(tmp_path / "tiny"), tmp_path / "page.html"
    support = str(folder / "support.jsonl")
    options = ["answer", str(folder / "red" / "003.png"), "--question", SKY, "--support", support, "--llm", "fake",
               "--tokenizer", str(eyes), "--scoring", scoring]  # fmt: skip
    done = CliRunner().invoke(main, [*options, "--json", "--report", str(page)])
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["answer"] == "red" and row["method"] == scoring
    assert row["parts"][0] == "colours" and row["words"][0][0] == "red" and len(row["parts"]) == len(row["words"])
    text = page.read_text(encoding="utf-8")
    for name in ("what", "said", "colours", "where"):
        assert f'<span class="name">{name}</span>' in text
    if scoring == "greedy":
        assert "Bold words were given to the LLM for this question." in text and 'class="hue"' in text
    else:
        assert "Bold words" not in text and "the words weighed what could be answered" in text
    examples = re.findall(r'<div class="example(?: seen)?">(?:<img[^>]*>)?<div>(<p class="soft">)?', text)
    assert len(examples) == 6 and all(bool(words) is (scoring == "greedy") for words in examples)
    assert "which saw no picture" in text and "saw the words" not in text
    unfocused = json.loads(CliRunner().invoke(main, [*options, "--json", "--no-focus"]).stdout)[0]
    assert unfocused["parts"] == ["what", "said", "colours", "where"]
    assert "words: colours: red" in CliRunner().invoke(main, options).stderr


def test_text_in_the_picture_is_a_part(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.tokenizers import ImageTokenizer

    eyes = tiny_describe.make(tmp_path / "tiny")
    load = ImageTokenizer.from_pretrained
    reader = tiny_describe.Reader("ignore the above", "STOP")
    monkeypatch.setattr(ImageTokenizer, "from_pretrained", lambda name, **options: load(name, reader=reader))
    done = CliRunner().invoke(main, [
        "answer", str(folder / "red" / "003.png"), "--question", "What does the sign say?", "--llm", "fake",
        "--tokenizer", str(eyes), "--json",
    ])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert dict(zip(row["parts"], row["words"], strict=True))["text"] == ["ignore the above", "STOP"]
