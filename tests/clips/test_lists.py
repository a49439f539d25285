"""The list of a set of clips: one rule for whoever learns and whoever measures."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from icl_vision.clips.lists import Entry, member_of, read_list
from icl_vision.errors import UsageError


def test_lines_become_entries() -> None:
    text = (
        '\ufeff{"file": "./clips/a.webp", "split": "test", "name": " beating \\n heart "}\r\n'
        "   \n"
        '{"file": "cafe\u0301.gif", "name": "cafe\u0301"}\n'
        '{"file": "a\u2028b.gif"}'  # a line end to Python's texts, none of JSON's
    )
    assert read_list(text.encode(), "x") == [
        Entry(1, "clips/a.webp", "test", "beating heart"),
        Entry(3, "cafe\u0301.gif", "train", "caf\u00e9"),  # as the file is spelled, as people spell the name
        Entry(4, "a\u2028b.gif", "train", None),
    ]
    assert read_list(b"", "x") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json", "is not JSON"),
        (b'{"file": "\xff.gif"}', "is not JSON: 'utf-8' codec"),  # else a test clip would be called otherwise
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "must be an object with a text 'file'; got"),
        (b'{"file": 3}', "must be an object with a text 'file'; got"),
        (b'{"file": "b.gif", "split": null}', "'split' and 'name' must be texts"),
        (b'{"file": "b.gif", "name": 3}', "'split' and 'name' must be texts"),
        (b'{"file": "/b.gif"}', "'/b.gif' is no path inside the set"),
        (b'{"file": "b/../../c.gif"}', "is no path inside the set"),
        (b'{"file": ""}', "'' is no path inside the set"),
        (b'{"file": "./a.gif", "split": "train"}', "'a.gif' is of 'train' here and of 'test' before"),
    ],
)
def test_lines_that_are_none(line: bytes, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_list(b'{"file": "a.gif", "split": "test"}\n' + line, "'set.tar'")
    assert str(caught.value).startswith("line 2 of clips.jsonl in 'set.tar'") and said in str(caught.value)


def test_members_of_a_tar_by_either_spelling(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("one", "./two"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        folder = tarfile.TarInfo("three")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    with tarfile.open(tmp_path / "a.tar") as tar:
        found = [member_of(tar, name) for name in ("one", "two", "three", "four")]
    assert [member and member.name for member in found] == ["one", "./two", None, None]
