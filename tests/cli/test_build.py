"""`icl-vision build words`: options and their mistakes (what it builds is tested in exporters/)."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from icl_vision.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["build", *arguments])


def test_help_names_the_command_and_reasons() -> None:
    assert "words" in run("--help").stdout
    text = run("words", "--help").stdout
    for option in ("--encoder", "--out", "--words", "--vocabulary", "--template", "--licence", "--json"):
        assert option in text


def test_required_options_are_usage_errors(tmp_path: Path) -> None:
    assert run("words", "--out", str(tmp_path)).exit_code == 2
    assert run("words", "--encoder", "x").exit_code == 2


def test_words_and_vocabulary_exclude_each_other(tmp_path: Path) -> None:
    both = ("--words", str(tmp_path / "w.txt"), "--vocabulary", str(tmp_path))
    result = run("words", "--encoder", "x", "--out", str(tmp_path / "o"), *both)
    assert result.exit_code == 2
    assert "--words and --vocabulary exclude each other" in result.stderr


def test_words_file_mistakes(tmp_path: Path) -> None:
    base = ("words", "--encoder", "x", "--out", str(tmp_path / "o"))
    missing = run(*base, "--words", str(tmp_path / "none.txt"))
    assert missing.exit_code == 1
    assert "none.txt' cannot be read" in missing.stderr
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in run(*base, "--words", str(tmp_path / "binary.txt")).stderr
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "has no words" in run(*base, "--words", str(tmp_path / "empty.txt")).stderr
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    assert "holds 'cat' twice" in run(*base, "--words", str(tmp_path / "twice.txt")).stderr
    assert "there is no folder" in run(*base, "--vocabulary", str(tmp_path / "none")).stderr


def test_describe_mistakes(tmp_path: Path) -> None:
    assert run("describe", "--out", str(tmp_path / "o")).exit_code == 2
    text = run("describe", "--help").stdout
    for option in ("--captions", "--terms", "--out", "--least", "--seed"):
        assert option in text
    nothing = run("describe", "--captions", str(tmp_path / "none.tar"), "--out", str(tmp_path / "o"))
    assert nothing.exit_code == 1
    assert "none.tar' is neither a folder nor a tar archive that can be read" in nothing.stderr
    (tmp_path / "captions.jsonl").write_text('{"file": "a.png"}\n')
    damaged = run("describe", "--captions", str(tmp_path), "--out", str(tmp_path / "o"))
    assert damaged.exit_code == 1
    assert "line 1" in damaged.stderr
