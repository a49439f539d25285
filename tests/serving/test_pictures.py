"""From a reference to bytes: data: URLs, base64, files under roots; and nothing else."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import RequestRefusedError, UsageError
from icl_vision.serving.pictures import Limits, Pictures
from icl_vision.serving.roots import Roots

WHERE = "messages[0].content[1]"


@pytest.fixture(scope="module")
def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def places(tmp_path: Path, png: bytes) -> Path:
    """A root with a picture, and things beside it that may not be read."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "a.png").write_bytes(png)
    (root / "inner" / "b.png").write_bytes(png)
    (root / "secret.txt").write_text("canary of the root")
    (tmp_path / "outside.png").write_bytes(png)
    (root / "out.png").symlink_to(tmp_path / "outside.png")
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    (root / "in.png").symlink_to(root / "inner" / "b.png")
    os.mkfifo(root / "pipe.png")
    return root


def url(data: bytes, head: str = "data:image/png;base64") -> str:
    return f"{head},{base64.b64encode(data).decode()}"


async def refused(pictures: Pictures, reference: object) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as caught:
        await pictures.read(reference, WHERE)
    assert str(caught.value).startswith(WHERE)
    return caught.value.status, str(caught.value)


async def test_a_picture_in_a_data_url(png: bytes):
    pictures = Pictures()
    assert await pictures.read(url(png), WHERE) == png
    assert await pictures.read(url(png, "DATA:image/x;charset=y;BASE64"), WHERE) == png
    broken = base64.encodebytes(png).decode()
    assert await pictures.read(f"data:;base64,{broken}", WHERE) == png


@pytest.mark.parametrize(
    "reference",
    [
        None, 3, {}, "", "data:", "data:image/png,abc", "data:image/png;base64", "ftp://a/b.png", "blob:x", "a.png",
        "javascript:1", "data:image/png;base64,!!!", "data:image/png;base64,iVBORw0KGgo", "data:image/png;base64,é",
    ],
)  # fmt: skip
async def test_what_is_no_reference(reference: object):
    status, _ = await refused(Pictures(), reference)
    assert status == 400


async def test_bytes_that_are_no_picture_are_not_repeated():
    status, message = await refused(Pictures(), url(b"canary: this is no picture at all"))
    assert status == 400 and "canary" not in message and "JPEG" in message
    status, _ = await refused(Pictures(), url(b"%PDF-1.7 canary"))
    assert status == 400


async def test_too_large(png: bytes):
    small = Pictures(Limits(bytes=len(png) - 1))
    assert (await refused(small, url(png)))[0] == 413
    assert (await refused(small, url(bytes(10 * len(png)))))[0] == 413
    assert await Pictures(Limits(bytes=len(png))).read(url(png), WHERE) == png


async def test_addresses_and_files_are_off_by_default(places: Path):
    for scheme in ("http", "https", "HTTPS"):
        status, message = await refused(Pictures(), f"{scheme}://example.com/a.png")
        assert status == 400 and "--fetch" in message
    status, message = await refused(Pictures(), f"file://{places}/a.png")
    assert status == 400 and "--root" in message


async def test_files_under_a_root(places: Path, png: bytes):
    pictures = Pictures(roots=Roots([places]))
    for name in (f"file://{places}/a.png", "file:a.png", "file:inner/../a.png", "file:in.png", f"file:{places}/a.png",
                 f"file://localhost{places}/inner/b.png", "file:inner%2Fb.png"):  # fmt: skip
        assert await pictures.read(name, WHERE) == png


async def test_missing_and_forbidden_look_the_same(places: Path):
    pictures = Pictures(roots=Roots([places]))
    names = [
        "missing.png", "out.png", "up/outside.png", "../outside.png", f"{places.parent}/outside.png", "secret.txt",
        "inner", ".", "", "pipe.png", "/etc/passwd", "/proc/self/environ", "/dev/zero", "a.png\0", "x" * 5000,
        "%2e%2e/outside.png", "..%2foutside.png", "%00", "/proc/self/root" + str(places.parent / "outside.png"),
    ]  # fmt: skip
    answers = {await refused(pictures, f"file:{name}") for name in names}
    assert len(answers) == 1
    (status, message) = answers.pop()
    assert status == 400 and str(places) not in message and "canary" not in message
    assert (await refused(pictures, "file://server/share/a.png"))[0] == 400


async def test_a_link_put_there_in_between_leads_nowhere(places: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.path.realpath

    def swapped(path: object, **options: object) -> str:
        found = real(path, **options)  # type: ignore[call-overload]  # its own arguments
        inner = places / "inner"
        if str(found).endswith("b.png") and not inner.is_symlink():
            inner.rename(places / "moved")
            inner.symlink_to(places.parent, target_is_directory=True)
            (places.parent / "b.png").write_bytes((places.parent / "outside.png").read_bytes())
        return str(found)

    roots = Roots([places])
    monkeypatch.setattr(os.path, "realpath", swapped)
    assert roots.read("inner/b.png", 1000) is None


async def test_a_file_over_the_cap(places: Path, png: bytes):
    small = Pictures(Limits(bytes=len(png) - 1), Roots([places]))
    assert (await refused(small, "file:a.png"))[0] == 413


def test_roots_can_only_be_narrowed(places: Path):
    roots = Roots([places])
    inner = roots.narrowed([places / "inner", "/", "/nowhere", str(places.parent) + "/other"])
    assert inner.folders == (places / "inner", places)
    only = roots.narrowed([places / "inner"])
    assert only.read("b.png", 1000) is not None and only.read(str(places / "a.png"), 1000) is None
    assert not roots.narrowed(["/etc"]) and not roots.narrowed([])
    with pytest.raises(UsageError, match="a root must be a folder that exists"):
        Roots([places / "a.png"])


def test_limits_are_checked():
    with pytest.raises(UsageError, match="pictures"):
        Limits(pictures=0)
