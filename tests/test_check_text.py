"""What `.ci/check_text.py` refuses in a text file, and that it says where."""

from __future__ import annotations

from pathlib import Path

import pytest
import scripts

CHECK = Path(__file__).parents[1] / ".ci" / "check_text.py"


def faults(file: Path, text: str) -> list[str]:
    file.write_text(text, newline="")
    found: list[str] = scripts.loaded(CHECK).faults(file)
    return [fault.removeprefix(str(file)) for fault in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fine\n", []),
        ("no end", [": must end in exactly one newline"]),
        ("two ends\n\n", [": must end in exactly one newline"]),
        ("a\nspace \n", [":2: trailing spaces"]),
        ("a\r\n", [": has carriage returns; lines end in LF here", ":1: trailing spaces"]),
    ],
)
def test_lines_and_their_ends(tmp_path: Path, text: str, found: list[str]) -> None:
    assert faults(tmp_path / "a.md", text) == found


@pytest.mark.parametrize(
    "bare",
    [
        "# type: ignore",
        "# type: ignore[arg-type]",
        "# type: ignore[arg-type, union-attr]",
        "#type:ignore[misc]",
        "# noqa",
        "# noqa: E501, F401",
        "# noqa: E501 F401",
        "# ruff: noqa: T20",
        "# type: ignore[misc]  # noqa: B027",
        "# noqa: S301  # -",
    ],
)
def test_whoever_looks_away_in_python_says_why(tmp_path: Path, bare: str) -> None:
    assert faults(tmp_path / "a.py", f"x = 1\ny = 2  {bare}\n") == [
        f":2: {bare!r} gives no reason; say why on the line"
    ]
    assert faults(tmp_path / "a.py", f"x = 1\ny = 2  {bare}  # the package has no types\n") == []
    assert faults(tmp_path / "a.py", f"y = {bare!r}\n") == []  # a text that speaks of it is no comment
    assert faults(tmp_path / "a.md", f"{bare}\n") == []
