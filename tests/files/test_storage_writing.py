"""Full and read-only disks: said in the library's own error, and found out before anything is paid for."""

from __future__ import annotations

import copy
import errno
import os
from pathlib import Path

import pytest

from icl_vision.errors import RunError, StorageError, UnwritableError
from icl_vision.files import storage
from icl_vision.files.runs import Run
from icl_vision.files.storage import atomic_path, try_writing, write_json, write_text, writing

FULL, READ_ONLY = errno.ENOSPC, errno.EROFS


def refusing(code: int):
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [FULL, READ_ONLY])
@pytest.mark.parametrize("step", ["tempfile.mkstemp", "os.replace"])
def test_every_step_of_an_atomic_write_is_told(tmp_path, monkeypatch, code, step):
    monkeypatch.setattr(f"icl_vision.files.storage.{step}", refusing(code))
    for write in (lambda: write_text(tmp_path / "a.txt", "x"), lambda: write_json(tmp_path / "a.json", {})):
        with pytest.raises(UnwritableError, match=rf"a\.\w+' cannot be written: {os.strerror(code)}") as caught:
            write()
        assert isinstance(caught.value, StorageError) and isinstance(caught.value, OSError)
        assert caught.value.errno == code and caught.value.strerror == os.strerror(code)
        again = copy.copy(caught.value)
        assert str(again) == str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_while_writing_is_told_by_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a"):
        (tmp_path / "elsewhere" / "read").read_bytes()
    assert not isinstance(caught.value, StorageError)
    with pytest.raises(RunError, match="ours"), writing(tmp_path / "a"):
        raise RunError("ours")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_device_is_never_replaced():
    before = os.stat("/dev/full").st_ino
    for attempt in (lambda: write_text(Path("/dev/full"), "x"), lambda: try_writing(Path("/dev/full"), folder=False)):
        with pytest.raises(UnwritableError, match="'/dev/full' cannot be written: it is a pipe or a device"):
            attempt()
    assert os.stat("/dev/full").st_ino == before


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UnwritableError, match="Is a directory"):
        try_writing(tmp_path, folder=False)
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UnwritableError, match="Not a directory"):
            try_writing(wrong, folder=True)
    with pytest.raises(UnwritableError, match="Not a directory"):
        try_writing(tmp_path / "file" / "below.png", folder=False)
    with pytest.raises(UnwritableError, match="null character"):
        try_writing(tmp_path / "a\0b", folder=False)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("folder", [True, False])
def test_trying_leaves_nothing(tmp_path, folder):
    try_writing(tmp_path / "new" / "deep" / "out.png", folder=folder)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "out.png").write_text("kept")
    try_writing(tmp_path / "there" if folder else tmp_path / "there" / "out.png", folder=folder)
    assert [one.name for one in (tmp_path / "there").iterdir()] == ["out.png"]


@pytest.mark.parametrize("code", [FULL, READ_ONLY])
@pytest.mark.parametrize("step", ["tempfile.TemporaryFile", "os.fsync"])
def test_trying_finds_a_full_or_read_only_disk(tmp_path, monkeypatch, code, step):
    monkeypatch.setattr(f"icl_vision.files.storage.{step}", refusing(code))
    with pytest.raises(UnwritableError, match=os.strerror(code)):
        try_writing(tmp_path / "new", folder=True)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_grow(tmp_path, monkeypatch):
    with Run.open(tmp_path / "run", "c", {}) as run:
        run.record("one", 1)
        monkeypatch.setattr(storage.os, "fsync", refusing(FULL))
        for record in (lambda: run.record("two", 2), lambda: run.record_error("two", ValueError())):
            with pytest.raises(UnwritableError, match=r"journal.jsonl' cannot be written: No space left"):
                record()
        assert run.done == {"one"}
