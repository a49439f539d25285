"""`icl-vision classify`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["classify", "--llm", "fake", "--tokenizer", "ascii", *map(str, arguments)])


@pytest.fixture
def query(class_folder: Path) -> Path:
    return class_folder / "red" / "000.png"


def test_json_is_one_document_in_the_design(class_folder: Path, query: Path) -> None:
    done = run("--support", class_folder, query, class_folder / "blue" / "001.png", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["image"] for row in rows] == [str(query), str(class_folder / "blue" / "001.png")]
    for row in rows:
        assert list(row) == ["image", "label", "probabilities", "words", "method", "calibrated"]
        assert row["label"] in ("red", "green", "blue")
        assert row["method"] in ("channel", "direct", "constrained", "parse")
        assert len(row["words"]) == 1 and len(row["words"][0]) == 16
        if row["probabilities"] is not None:
            assert sorted(row["probabilities"]) == ["blue", "green", "red"]
            assert sum(row["probabilities"].values()) == pytest.approx(1)


def test_a_table_for_people(class_folder: Path, query: Path) -> None:
    done = run("--support", class_folder, query)
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(str(query)) and any(name in line for name in ("  red", "  green", "  blue"))
    assert "12 examples of 3 classes" in done.stderr
    quiet = run("--support", class_folder, query, "--quiet")
    assert quiet.stdout == done.stdout and quiet.stderr == ""


def test_a_folder_stands_for_its_images(class_folder: Path, tmp_path: Path) -> None:
    done = run("--support", class_folder, class_folder / "green", "--json")
    assert [Path(row["image"]).name for row in json.loads(done.stdout)] == ["000.png", "001.png", "002.png", "003.png"]
    failed = run("--support", class_folder, tmp_path)
    assert failed.exit_code == 1 and f"the folder '{tmp_path}' holds no images" in failed.stderr


def test_every_option_reaches_the_classifier(class_folder: Path, query: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision.tasks import FewShotClassifier

    seen = {}
    fit = FewShotClassifier.fit

    def watch(self: FewShotClassifier, images: object, labels: object) -> FewShotClassifier:
        seen.update(self.get_params())
        return fit(self, images, labels)

    monkeypatch.setattr(FewShotClassifier, "fit", watch)
    options = "-k 16 --shots 2 --selection random --scoring parse --ensemble none --repeats 1 --no-induction --seed 5"
    options += " --template classification_palm"
    done = run("--support", class_folder, query, "--json", *options.split(), "--templates", class_folder)
    assert done.exit_code == 0, done.stderr
    wanted = {
        "k": 16, "shots": 2, "selection": "random", "scoring": "parse", "ensemble": None, "repeats": 1,
        "induction": False, "order_seed": 5, "template": "classification_palm", "templates": class_folder,
        "calibration": None, "errors": "return", "llm": "fake", "tokenizer": "ascii",
    }  # fmt: skip
    assert {name: seen[name] for name in wanted} == wanted


def test_bad_images_are_reported_and_the_others_go_on(class_folder: Path, query: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(query.read_bytes()[:60])
    missing = tmp_path / "missing.png"
    done = run("--support", class_folder, broken, query, missing, "--json", "--quiet")
    assert done.exit_code == 1
    first, good, last = json.loads(done.stdout)
    assert first["label"] is None and first["error"].startswith("ImageTruncatedError: ")
    assert last["error"].startswith("ImageNotFoundError: ") and last["words"] == []
    assert good["label"] is not None and "error" not in good
    assert len(done.stderr.splitlines()) == 2 and f"{broken}: ImageTruncatedError" in done.stderr
    table = run("--support", class_folder, broken, query, "--quiet")
    assert table.exit_code == 1 and "failed" in table.stdout.splitlines()[0]


def test_a_bad_support_image_is_named(class_folder: Path, query: Path, tmp_path: Path) -> None:
    support = tmp_path / "support"
    shutil.copytree(class_folder, support)
    (support / "red" / "000.png").write_bytes(b"")
    done = run("--support", support, query)
    assert done.exit_code == 1 and "ImageEmptyError: images[" in done.stderr and "000.png" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "has no sub-folders; make one for each class"),
        (["cat"], "has a single class, 'cat'; classification needs two or more"),
        (["cat", "dog"], "has no images for 'cat', 'dog'; add some"),
        ([".hidden"], "has no sub-folders"),
    ],
)
def test_support_folders_that_cannot_work(tmp_path: Path, query: Path, folders: list[str], message: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    done = run("--support", tmp_path, query)
    assert done.exit_code == 1 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_usage_errors_exit_2(class_folder: Path, query: Path, tmp_path: Path) -> None:
    for arguments in (
        [query],
        ["--support", class_folder],
        ["--support", tmp_path / "none", query],
        ["--support", class_folder, query, "-k", "0"],
        ["--support", class_folder, query, "--scoring", "best"],
        ["--support", class_folder, query, "--ensemble", "each"],
    ):
        done = run(*arguments)
        assert done.exit_code == 2 and done.stdout == ""


def test_what_the_llm_cannot_do_exits_1(class_folder: Path, query: Path) -> None:
    done = run("--support", class_folder, query, "--llm", "nothing")
    assert done.exit_code == 1 and "LLMSpecError" in done.stderr
    done = run("--support", class_folder, query, "--template", "nothing")
    assert done.exit_code == 1 and "TemplateError" in done.stderr
    done = run("--support", class_folder, query, "-k", "5")
    assert done.exit_code == 1 and "PyramidError" in done.stderr


def test_help_gives_default_and_reason() -> None:
    text = CliRunner().invoke(main, ["classify", "--help"]).stdout
    names = (
        "--support",
        "-k",
        "--shots",
        "--selection",
        "--scoring",
        "--ensemble",
        "--calibration",
        "--json",
        "--seed",
    )
    for option in names:
        assert option in text
    assert text.count("default:") + text.count("Default:") >= 10
