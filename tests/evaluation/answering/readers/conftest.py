"""Small archives of pictures made here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

Files = Mapping[str, bytes]


def picture(colour: str) -> bytes:
    """A PNG file of one colour."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    return data.getvalue()


def write(folder: Path, files: Files) -> Path:
    """Files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(target: Path, files: Files, *, mode: str = "w") -> Path:
    """Files into a tar archive."""
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]  # one of tarfile's modes
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target


@pytest.fixture(params=["folder", "tar", "tar.gz"])
def laid(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], Path]:
    """Lays files out as a folder, and as an archive, plain and packed."""

    def lay(files: Files) -> Path:
        if request.param == "folder":
            return write(tmp_path / "set", files)
        return pack(tmp_path / "set.tar", files, mode="w" if request.param == "tar" else "w:gz")

    return lay
