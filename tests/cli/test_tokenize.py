"""`icl-vision tokenize` on the ascii tokenizer and on a small pyramid: outputs, bad files, exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from icl_vision.cli import main
from icl_vision.errors import ArtefactNotFoundError
from icl_vision.pyramid import PyramidLayout, TokenPyramid
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.vocabulary import Vocabulary

WORDS = Vocabulary(["dark", "light"], name="two")


class TwoWords(ImageTokenizer):
    name = "two-words"
    batch_size = 2

    @property
    def layout(self) -> PyramidLayout:
        return PyramidLayout(((1, 1), (2, 2)))

    @property
    def vocabulary(self) -> Vocabulary | None:
        return WORDS

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        layout = self.layout if k is None else self.layout_for(k)
        return [
            TokenPyramid(
                tuple(np.asarray(image.convert("L").resize(grid), dtype=int) // 128 for grid in layout.grids),
                layout,
                WORDS,
            )
            for image in images
        ]


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: Any) -> ImageTokenizer:
        known: dict[str, ImageTokenizer] = {"ascii": AsciiTokenizer(2, 3), "words-photo": TwoWords()}
        if name not in known:
            raise ArtefactNotFoundError(f"no tokenizer {name!r}")
        return known[name]

    monkeypatch.setattr(ImageTokenizer, "from_pretrained", load)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name, level in (("b.png", 255), ("a.png", 0), ("deep/c.jpg", 255)):
        Image.new("RGB", (8, 8), (level, level, level)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tokenize", *map(str, arguments)])


def test_for_people(folder: Path) -> None:
    result = run("photos/a.png", "photos/b.png")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "photos/a.png\n  layer 1: dark\n  layer 2: dark dark dark dark\n"
        "photos/b.png\n  layer 1: light\n  layer 2: light light light light\n"
    )
    assert result.stderr == ""
    assert run("photos/a.png", "-k", 1).stdout == "photos/a.png: dark\n"
    assert run("photos/a.png", "--tokenizer", "ascii").stdout == "photos/a.png\n@@@\n@@@\n"


def test_json_is_one_document(folder: Path) -> None:
    result = run("photos", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [
        {"image": "photos/a.png", "k": 5, "words": [["dark"], ["dark"] * 4]},
        {"image": "photos/b.png", "k": 5, "words": [["light"], ["light"] * 4]},
        {"image": "photos/deep/c.jpg", "k": 5, "words": [["light"], ["light"] * 4]},
    ]
    one = json.loads(run("photos/a.png", "-k", 1, "--json").stdout)
    assert one == [{"image": "photos/a.png", "k": 1, "words": [["dark"]]}]
    art = json.loads(run("photos/a.png", "--tokenizer", "ascii", "--json").stdout)
    assert art == [{"image": "photos/a.png", "k": 2, "words": [["@@@", "@@@"]]}]


def test_out_is_one_document_a_line(folder: Path) -> None:
    result = run("photos", "-k", 1, "--out", "new/words.jsonl")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "3 images written to new/words.jsonl" in result.stderr
    lines = Path("new/words.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["photos/a.png", "photos/b.png", "photos/deep/c.jpg"]
    assert sorted(os.listdir("new")) == ["words.jsonl", "words.jsonl.run.json"]
    refused = run("photos", "--out", "new/words.jsonl")
    assert refused.exit_code == 1 and "--force writes over it" in refused.stderr
    assert run("photos", "--out", "new/words.jsonl", "--quiet", "--force").stderr == ""
    both = run("photos", "--out", "new/words.jsonl", "--json", "--force")
    assert len(json.loads(both.stdout)) == 3


def test_bad_files_are_named_and_the_others_go_on(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "empty.jpg").touch()
    result = run("photos", "missing.png", "photos/notes.txt", "--json")
    assert result.exit_code == 1
    rows = {record["image"]: record for record in json.loads(result.stdout)}
    assert list(rows) == [
        *("photos/a.png", "photos/b.png", "photos/broken.png", "photos/deep/c.jpg", "photos/empty.jpg"),
        *("missing.png", "photos/notes.txt"),
    ]
    good = ["photos/a.png", "photos/b.png", "photos/deep/c.jpg"]
    assert [name for name, row in rows.items() if "error" not in row] == good
    assert set(rows["missing.png"]) == {"image", "error"}  # as `icl-vision classify --json` has it
    assert rows["missing.png"]["error"].startswith("ImageNotFoundError: there is no file 'missing.png'")
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for line, start, part in zip(
        lines,
        ("ImageTruncatedError", "ImageEmptyError", "ImageNotFoundError", "ImageFormatError"),
        ("photos/broken.png", "photos/empty.jpg", "missing.png", "photos/notes.txt"),
        strict=True,
    ):
        assert line.startswith(start), line
        assert part in line


def test_nothing_but_bad_files(folder: Path) -> None:
    result = run("missing.png", "--out", "words.jsonl", "--json", "--quiet")
    assert result.exit_code == 1
    assert [set(row) for row in json.loads(result.stdout)] == [{"image", "error"}]
    assert "there is no file 'missing.png'" in result.stderr
    assert "1 of 1 file could not be used; they are listed in words.jsonl.bad.jsonl" in result.stderr
    assert sorted(os.listdir()) == ["photos", "words.jsonl.bad.jsonl"]


def test_a_folder_without_images(folder: Path) -> None:
    Path("nothing").mkdir()
    result = run("nothing")
    assert result.exit_code == 1
    assert "the folder 'nothing' holds no file with an image's suffix" in result.stderr
    rows = json.loads(run("nothing", "photos/a.png", "--json").stdout)
    assert [row["image"] for row in rows] == ["photos/a.png", "nothing"] and "error" in rows[1]
    assert run("nothing", "--out", "words.jsonl").exit_code == 1
    assert not Path("words.jsonl").exists()


def test_an_earlier_file_stays_until_the_new_one_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("words.jsonl").write_text("earlier")

    def fail(self: object, images: object, k: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TwoWords, "_encode", fail)
    assert run("photos", "--out", "words.jsonl", "--force").exit_code == 130
    assert Path("words.jsonl").read_text() == "earlier"
    assert sorted(os.listdir()) == ["photos", "words.jsonl", "words.jsonl.part"]


def test_a_k_the_tokenizer_does_not_have(folder: Path) -> None:
    result = run("photos", "-k", 3)
    assert result.exit_code == 1
    assert "-k 3 words do not fill whole layers of this pyramid; k must be one of 1, 5" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_tokenizer(folder: Path) -> None:
    result = run("photos", "--tokenizer", "nothing")
    assert result.exit_code == 1
    assert "no tokenizer 'nothing'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["photos", "-k", "0"], "0 is not in the range"),
        (["photos", "-k", "many"], "'many' is not a valid integer"),
        (["photos", "--out", "words.csv"], "'words.csv' must end in .jsonl or .parquet"),
        (["photos", "--out", "photos"], "is a directory"),
        (["photos", "--workers", "-1"], "-1 is not in the range"),
        (["photos", "--resume"], "--resume needs --out FILE"),
        (["photos", "--shard", "1/2"], "--shard needs --out FILE"),
        (["photos", "--shard", "3/2", "--out", "words.jsonl"], "I/N with 1 <= I <= N, e.g. 2/8; got 3/2"),
        (["photos", "--shard", "half", "--out", "words.jsonl"], "got 'half'"),
    ],
)
def test_usage(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_place_that_cannot_be_written(folder: Path) -> None:
    Path("file").touch()
    result = run("photos", "--out", "file/words.jsonl")
    assert result.exit_code == 1
    assert "'file/words.jsonl' cannot be written: Not a directory" in result.stderr


def test_odd_file_names(folder: Path) -> None:
    name = "bad\n\x1b[31m\udcff.png"
    (folder / "a.png").rename(folder / name)
    shown = run(folder / name, "-k", 1)
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 1
    assert "\x1b" not in shown.stdout
    document = json.loads(run(folder / name, "--json").stdout)
    assert document[0]["image"].endswith("bad\n\x1b[31m\\xff.png")
    missing = run("no\n\udcff.png", "--json")
    assert missing.exit_code == 1
    assert len(missing.stderr.splitlines()) == 1


def test_a_progress_bar_only_at_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_vision.cli.tokenize.progress_wanted", lambda quiet: not quiet)
    shown = run("photos", "--json")
    assert "0/3" in shown.stderr
    assert len(json.loads(shown.stdout)) == 3
    assert run("photos", "--json", "--quiet").stderr == ""


def rows_of(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_out_lists_bad_files_beside_the_words(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    result = run("photos", "--out", "words.jsonl", "--json", "--quiet")
    assert result.exit_code == 1
    assert [row["image"] for row in rows_of("words.jsonl")] == ["photos/a.png", "photos/b.png", "photos/deep/c.jpg"]
    (bad,) = rows_of("words.jsonl.bad.jsonl")
    assert (bad["image"], bad["error"]) == ("photos/broken.png", "ImageTruncatedError")
    assert "cut off or damaged" in bad["message"]
    rows = json.loads(result.stdout)
    assert [("error" in row) for row in rows] == [False, False, True, False]
    assert rows[2] == {"image": "photos/broken.png", "error": f"ImageTruncatedError: {bad['message']}"}
    (folder / "broken.png").unlink()
    assert run("photos", "--out", "words.jsonl", "--force").exit_code == 0
    assert not Path("words.jsonl.bad.jsonl").exists()


def test_many_bad_files_are_counted(folder: Path) -> None:
    for number in range(30):
        (folder / f"bad{number:02d}.png").touch()
    result = run("photos", "--out", "words.jsonl")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert sum(line.startswith("ImageEmptyError") for line in lines) == 20
    assert lines[-1] == "... and 10 more"
    assert len(rows_of("words.jsonl.bad.jsonl")) == 30


def test_resume_goes_on_and_then_has_nothing_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(70):
        Image.new("RGB", (4, 4), (number, number, number)).save(folder / f"n{number:02d}.png")
    assert run("photos", "--out", "whole.jsonl").exit_code == 0
    seen: list[int] = []
    encode = TwoWords._encode

    def stop(self: TwoWords, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        if sum(seen) >= 40:
            raise KeyboardInterrupt
        seen.append(len(images))
        return encode(self, images, k)

    monkeypatch.setattr(TwoWords, "_encode", stop)
    assert run("photos", "--out", "words.jsonl", "--resume").exit_code == 130
    assert not Path("words.jsonl").exists()
    refused = run("photos", "--out", "words.jsonl")
    assert refused.exit_code == 1 and "pass --resume" in refused.stderr
    other = run("photos", "--out", "words.jsonl", "--resume", "-k", 1)
    assert other.exit_code == 1 and "another configuration (k differ)" in other.stderr
    assert "delete 'words.jsonl.part'" in other.stderr
    seen.clear()
    seen.append(-1000)
    result = run("photos", "--out", "words.jsonl", "--resume")
    assert result.exit_code == 0
    assert sum(seen) == -1000 + 32 + 10  # the last chunk's 9 files are made up to whole batches
    assert "73 images written to words.jsonl, 32 of the files were done before" in result.stderr
    assert Path("words.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    again = run("photos", "--out", "words.jsonl", "--resume", "--json")
    assert again.exit_code == 0 and sum(seen) == -1000 + 32 + 10
    assert json.loads(again.stdout) == rows_of("words.jsonl")
    assert not Path("words.jsonl.part").exists()


def test_shards_one_after_the_other_are_the_whole(folder: Path) -> None:
    for number in range(4):
        Image.new("RGB", (4, 4), (number * 60,) * 3).save(folder / f"n{number:02d}.png")
    run("photos", "--out", "whole.jsonl")
    for number in (1, 2, 3):
        result = run("photos", "--out", "part/words.jsonl", "--shard", f"{number}/3")
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in Path("part").glob("*.jsonl"))
    assert names == [f"words-{number:05d}-of-00003.jsonl" for number in (1, 2, 3)]
    assert b"".join(Path("part", name).read_bytes() for name in names) == Path("whole.jsonl").read_bytes()
    assert run("photos/a.png", "--out", "one.jsonl", "--shard", "1/2").exit_code == 0
    assert Path("one-00001-of-00002.jsonl").read_text() == ""  # an empty part is still a part


def test_parquet_holds_the_same_rows_and_ids(folder: Path) -> None:
    import pyarrow.parquet

    run("photos", "--out", "words.jsonl")
    result = run("photos", "--out", "words.parquet", "--json")
    assert result.exit_code == 0, result.output
    table = pyarrow.parquet.read_table("words.parquet")
    assert [str(column.type) for column in table.schema] == [
        *("string", "int32", "list<element: list<element: string>>", "list<element: list<element: int32>>")
    ]
    assert table.drop_columns(["ids"]).to_pylist() == rows_of("words.jsonl") == json.loads(result.stdout)
    assert table["ids"].to_pylist()[1] == [[1], [1, 1, 1, 1]]
    about = json.loads(table.schema.metadata[b"icl_vision"])
    assert about["tokenizer"] == "two-words" and about["k"] == 5
    assert run("photos", "--tokenizer", "ascii", "--out", "art.parquet").exit_code == 0
    assert pyarrow.parquet.read_table("art.parquet")["ids"].to_pylist() == [None] * 3


def test_parquet_without_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("photos", "--out", "words.parquet")
    assert result.exit_code == 1
    assert "pip install 'icl-vision[parquet]'" in result.stderr
    assert not Path("words.parquet.part").exists()


@pytest.mark.slow
def test_processes_give_the_same_as_threads(folder: Path) -> None:
    (folder / "empty.jpg").touch()
    threads, processes = run("photos", "--json"), run("photos", "--json", "--workers", 2)
    assert threads.exit_code == processes.exit_code == 1
    assert threads.stdout == processes.stdout
    assert threads.stderr == processes.stderr


def test_names_that_are_no_unicode_stay_apart(folder: Path) -> None:
    """Bytes that are no UTF-8 are written as \\xff, in rows, columns and lists of bad files."""
    source = (folder / "a.png").read_bytes()
    for name in ("one\udcff.png", "one\udcfe.png", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"):
        (folder / name).write_bytes(source)
    (folder / "broken\udcff.png").write_bytes(b"x")
    for out in ("words.jsonl", "words.parquet"):
        if out.endswith("parquet"):
            pytest.importorskip("pyarrow")
        result = run("photos", "--out", out, "--json", "--quiet")
        names = [Path(row["image"]).name for row in json.loads(result.stdout)]
        assert {"one\\xff.png", "one\\xfe.png", "caf\xe9.png", "broken\\xff.png"} <= set(names)
        assert "\ufffd" not in result.stdout
    rows = Path("words.jsonl").read_text(encoding="utf-8")
    assert "one\\\\xff.png" in rows and "caf\xe9.png" in rows


def test_rows_of_an_earlier_version_are_read_with_their_names(folder: Path) -> None:
    from icl_vision.tokenizers.bulk.files import BulkReport, read_all

    row = {"image": "photos/one\ufffd.png", "k": 1, "words": [["a"]]}
    Path("words.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    report = BulkReport(Path("words.jsonl"), 1, 0, 0)
    assert list(read_all(report, ["photos/one\udcff.png"])) == [row]


def test_pillows_remarks_are_not_shown_with_quiet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    from PIL import PngImagePlugin

    load = PngImagePlugin.PngImageFile.load

    def remark(self: Any) -> Any:
        warnings.warn_explicit("odd metadata", UserWarning, "PngImagePlugin.py", 1, module="PIL.PngImagePlugin")
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", remark)
    with pytest.warns(UserWarning, match="odd metadata"):
        assert run("photos").exit_code == 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert run("photos", "--quiet").exit_code == 0
    assert told == []
