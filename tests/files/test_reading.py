"""reading.py: no file that is handed in hangs, floods or topples its reader."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from icl_vision.files import reading
from icl_vision.files.reading import load_yaml, loads, member, read_bytes, read_json, read_text
from icl_vision.files.storage import sha256_file, write_json


def test_a_file_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None, "ä"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, "ä"]}
    (tmp_path / "b.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert read_text(tmp_path / "b.txt", most=100) == "one\ntwo\nthree\n"
    assert read_bytes(tmp_path / "b.txt", most=15) == b"one\r\ntwo\rthree\n"


def strange(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    with (folder / "huge").open("wb") as handle:
        handle.truncate(5 * 2**40)
    return {
        "it is a pipe, not a regular file": folder / "pipe",
        "Is a directory": folder / "folder",
        "it is a pipe": folder / "link",
        "it is a socket": folder / "socket",
        "it is a device": Path("/dev/zero"),
        "it has more than the 1,000 bytes": folder / "huge",
        "No such file": folder / "none",
        "its path holds a null character": folder / "a\0b",
        "its path holds a character that no file's name can have": folder / "\ud800",
        "File name too long": folder / ("x" * 5000),
    }


def test_files_that_are_none_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    for message, path in strange(Path()).items():
        with pytest.raises(OSError, match=message) as caught:
            read_bytes(path, most=1000)
        assert caught.value.strerror
        with pytest.raises(OSError, match=message):
            sha256_file(path, most=1000)


def test_a_pipe_put_in_place_of_the_file_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    regular = os.stat(tmp_path / "file")
    monkeypatch.setattr(reading.os, "stat", lambda path: regular)
    with pytest.raises(OSError, match="it is a pipe"):
        read_bytes(tmp_path / "pipe", most=10)


def test_a_file_that_holds_more_than_it_says(tmp_path: Path) -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(OSError, match="more than the 10 bytes"):
        read_bytes("/proc/self/status", most=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nests more than 64 levels deep"),
        ("[" * 900 + "]" * 900, "nests more than 64 levels deep"),
        ('{"a":' * 65 + "[]" + "}" * 65, "nests more than 64 levels deep"),
        ('{"a": 1, "b": 2, "a": 3}', "it says the key 'a' twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "it says the key 'b' twice"),
        ("[NaN]", "it holds NaN, which is no number"),
        ("[-Infinity]", "it holds -Infinity"),
        ("1e999", "it holds the number 1e999, which is too large"),
        ("1" * 5000, "4300 digits"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_json_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(text)


def test_json_as_it_should_be() -> None:
    assert loads('{"a": {"a": 1e308}, "b": [[[[]]]]}') == {"a": {"a": 1e308}, "b": [[[[]]]]}
    assert loads("[" * 60 + "]" * 60)
    assert loads(b'{"a": 10000000000000000000000000000}') == {"a": 10**28}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 20_000, "nests more than 64|flow"),
        ("a: &a [*a]", "nests more than 64 levels"),
        ("a: [", "expected the node content"),
        ("!!bool x", "x"),
        ("!!timestamp x", "."),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("2024-99-99", "month must be"),
        (
            "a: &a [[1],[1],[1],[1],[1],[1],[1],[1],[1]]\n"
            + "".join(
                f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
                for a, b in zip("abcdef", "bcdefg", strict=True)
            ),
            "aliases stand for more than",
        ),
    ],
)
def test_yaml_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_yaml(text)


def test_yaml_as_it_should_be() -> None:
    assert load_yaml("a: &a {b: 1}\nc: *a") == {"a": {"b": 1}, "c": {"b": 1}}
    assert load_yaml("") is None


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "real").write_text("y")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "within").symlink_to("real")
    (folder / "round").symlink_to(folder / "round")
    assert member(folder, "real") == folder / "real"
    assert member(folder, "within") == folder / "within"
    assert member(folder, "round")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        read_bytes(member(folder, "round"), most=10)
    for name in ("out", "../secret"):
        with pytest.raises(OSError, match="a link that leads out of its folder"):
            member(folder, name)
    (tmp_path / "elsewhere").symlink_to(folder)
    assert member(tmp_path / "elsewhere", "real")


def test_the_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").mkdir()
    (snapshot.parent.parent / "blobs" / "123").write_text("x")
    (snapshot / "card.json").symlink_to("../../blobs/123")
    assert member(snapshot, "card.json").read_text() == "x"
    (snapshot / "words.txt").symlink_to(tmp_path)
    with pytest.raises(OSError, match="leads out"):
        member(snapshot, "words.txt")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_files_are_not_written_to_impossible_paths(tmp_path: Path, name: Any) -> None:
    with pytest.raises(OSError, match="its path holds a"):
        write_json(tmp_path / name, {})
