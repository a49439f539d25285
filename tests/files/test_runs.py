"""Run folders: nothing finished is lost, nothing is done twice, nothing is mixed up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import RunError, RunLockedError, RunMismatchError, StorageError, UsageError
from icl_vision.files.runs import Run, config_hash, read_info, read_results

CONFIG = {"ways": 5, "shots": [1, 3], "tokenizer": "words-photo"}


def test_records_and_results(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", "eval", CONFIG, seed=3) as run:
        run.record("a", {"right": True})
        run.record("b", [1, 2])
        run.record("a", {"right": False})
        assert run.done == {"a", "b"}
        assert dict(run.results()) == {"a": {"right": False}, "b": [1, 2]}
        run.finish({"accuracy": 0.5})
    info = read_info(tmp_path / "run")
    assert info["command"] == "eval"
    assert info["config"] == CONFIG
    assert info["seed"] == 3
    assert info["versions"]["python"]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == {"accuracy": 0.5}


def test_resume_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with Run.open(tmp_path, "eval", CONFIG) as run:
        run.record("a", 1)
    with Run.open(tmp_path, "eval", CONFIG, resume=True) as run:
        assert run.done == {"a"}
        run.record("b", 2)
    assert dict(read_results(tmp_path)) == {"a": 1, "b": 2}


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    Run.open(tmp_path, "eval", CONFIG).close()
    with pytest.raises(RunMismatchError, match="pass --resume"):
        Run.open(tmp_path, "eval", CONFIG)


def test_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    Run.open(tmp_path, "eval", CONFIG).close()
    with pytest.raises(RunMismatchError, match="ways differ"):
        Run.open(tmp_path, "eval", {**CONFIG, "ways": 2}, resume=True)
    with pytest.raises(RunMismatchError, match="command differ"):
        Run.open(tmp_path, "tokenize", CONFIG, resume=True)
    # the refusals left the lock free and the run untouched
    Run.open(tmp_path, "eval", CONFIG, resume=True).close()


def test_errors_are_not_results(tmp_path: Path) -> None:
    with Run.open(tmp_path, "eval", CONFIG) as run:
        run.record_error("a", TimeoutError("too slow"))
        assert "a" not in run.done
    with Run.open(tmp_path, "eval", CONFIG, resume=True) as run:
        assert run.done == set()
        run.record("a", "answer")
    assert dict(read_results(tmp_path)) == {"a": "answer"}
    assert "too slow" in (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_half_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    with Run.open(tmp_path, "eval", CONFIG) as run:
        run.record("a", "ä" * 20)
        run.record("b", "second")
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with Run.open(tmp_path, "eval", CONFIG, resume=True) as run:
        assert run.done == {"a"}
        run.record("b", "again")
    assert dict(read_results(tmp_path)) == {"a": "ä" * 20, "b": "again"}


def test_a_damaged_line_loses_only_its_own_item(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Run.open(tmp_path, "eval", CONFIG) as run:
        for name in "abc":
            run.record(name, name)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"\x00garbage\n" + lines[2])
    with Run.open(tmp_path, "eval", CONFIG, resume=True) as run:
        assert run.done == {"a", "c"}
    assert "line 2 cannot be read" in caplog.text


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Run.open(tmp_path, "eval", CONFIG):
        code = (
            "import sys; from icl_vision.files.runs import Run\n"
            "from icl_vision.errors import RunLockedError\n"
            "try: Run.open(sys.argv[1], 'eval', {'ways': 5}, resume=True)\n"
            "except RunLockedError: sys.exit(7)"
        )
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 7
    with pytest.raises(RunLockedError), Run.open(tmp_path, "eval", CONFIG, resume=True):
        Run.open(tmp_path, "eval", CONFIG, resume=True)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_kill_9_loses_no_finished_item(tmp_path: Path) -> None:
    code = (
        "import sys; from icl_vision.files.runs import Run\n"
        "run = Run.open(sys.argv[1], 'eval', {'n': 1})\n"
        "for i in range(100000):\n"
        "    run.record(str(i), {'i': i}); print(i, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    reported = {str(i) for i in seen} | set(rest)
    with Run.open(tmp_path, "eval", {"n": 1}, resume=True) as run:
        assert reported <= run.done
        assert len(run.done) - len(reported) <= 1


def test_a_run_that_cannot_be_closed_gives_its_lock_back(tmp_path: Path) -> None:
    class Full:
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    run = Run.open(tmp_path, "eval", CONFIG)
    run._journal.close()
    run._journal = Full()  # type: ignore[assignment]  # a journal on a full disk
    with pytest.raises(StorageError, match="cannot be closed: .*No space left"):
        run.close()
    Run.open(tmp_path, "eval", CONFIG, resume=True).close()
    with pytest.raises(ValueError, match="the body's own"), Run.open(tmp_path, "eval", CONFIG, resume=True) as again:
        again._journal.close()
        again._journal = Full()  # type: ignore[assignment]  # a journal on a full disk
        raise ValueError("the body's own")
    Run.open(tmp_path, "eval", CONFIG, resume=True).close()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be plain JSON"):
        config_hash("eval", {"path": tmp_path})
    with (
        Run.open(tmp_path / "run", "eval", CONFIG) as run,
        pytest.raises(UsageError, match="item 'x' is not plain JSON"),
    ):
        run.record("x", float("nan"))
    with pytest.raises(RunError, match="holds no run"):
        read_info(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        Run.open(tmp_path / "file" / "run", "eval", CONFIG)
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RunError, match="config or config_hash is missing"):
        read_info(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"config": {}, "config_hash": "", "format_version": 99}))
    with pytest.raises(RunError, match="format 99"):
        read_info(tmp_path / "run")


def test_a_journal_without_its_run_is_nobodys(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", "classify", {"k": 5}) as run:
        run.record("a", 1)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunError, match="holds a journal but no run.json"):
        Run.open(tmp_path / "run", "classify", {"k": 6}, resume=True)


def test_hash_ignores_key_order() -> None:
    assert config_hash("c", {"a": 1, "b": 2}) == config_hash("c", {"b": 2, "a": 1})


# Things in place of files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "journal.jsonl", "lock"])
@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_folder_or_pipe_in_place_of_a_file_is_a_run_error(tmp_path: Path, name: str, put: Any) -> None:
    with Run.open(tmp_path / "run", "test", {"a": 1}) as run:
        run.record("one", 1)
    (tmp_path / "run" / name).unlink()
    put(tmp_path / "run" / name)
    if name == "lock" and put is os.mkfifo:
        return  # a pipe can be locked like a file, and is
    with pytest.raises(RunError, match="cannot be (read|used|locked)"):
        Run.open(tmp_path / "run", "test", {"a": 1}, resume=True)
    if name == "journal.jsonl":
        with pytest.raises(RunError, match="cannot be used: (Is a directory|it is a pipe)"):
            list(read_results(tmp_path / "run"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"config": NaN}', '{"config": {}, "config": {}}', "\0", "[]"])
def test_a_run_description_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"cannot be read|is not a run description"):
        Run.open(tmp_path, "test", {}, resume=True)


def test_a_journal_line_that_nests_without_end_is_done_again(tmp_path: Path) -> None:
    with Run.open(tmp_path, "test", {}) as run:
        run.record("one", 1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"id": "two", "result": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with Run.open(tmp_path, "test", {}, resume=True) as run:
        assert run.done == {"one"}


@pytest.mark.parametrize("folder", ["a\0b", "\ud800"])
def test_a_run_folder_that_cannot_be(tmp_path: Path, folder: str) -> None:
    with pytest.raises(RunError, match="cannot be made: its path holds a"):
        Run.open(tmp_path / folder, "test", {})


def test_names_that_are_no_unicode_can_be_kept(tmp_path: Path) -> None:
    with Run.open(tmp_path, "test", {"file": "odd\udcff.png"}) as run:
        run.record("one", {"image": "odd\udcff.png"})
        run.finish({"image": "odd\udcff.png"})
    assert dict(read_results(tmp_path)) == {"one": {"image": "odd\\xff.png"}}
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == {"image": "odd\\xff.png"}
    with Run.open(tmp_path, "test", {"file": "odd\udcff.png"}, resume=True) as run:
        assert run.done == {"one"}
