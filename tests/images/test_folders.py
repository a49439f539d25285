"""picture_files.py: which files of a folder are taken, and that nothing else that was meant is left out silently."""

from __future__ import annotations

import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import DataLeftOutWarning, UsageError
from icl_vision.evaluation.few_shot.episodes.drawing import ImageFolder
from icl_vision.evaluation.kit.pictures import list_pictures
from icl_vision.images import IMAGE_SUFFIXES, list_images, load_image
from icl_vision.images.folders import survey
from icl_vision.tasks.draw.examples import read_examples
from icl_vision.tasks.inputs import read_classes


def picture(path: Path, kind: str = "PNG", level: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level, level, level)).save(path, kind)
    return path


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


def test_every_suffix_of_the_formats_that_are_read(tmp_path: Path) -> None:
    kinds = {
        "JPEG": ".jpg .jpeg .jpe .jfif .jif .jfi .JFIF",
        "PNG": ".png .apng",
        "WEBP": ".webp",
        "GIF": ".gif",
        "BMP": ".bmp",
        "TIFF": ".tif .tiff",
        "PPM": ".ppm .pnm",
    }
    for kind, suffixes in kinds.items():
        for suffix in suffixes.split():
            picture(tmp_path / f"{kind}{suffix}", kind)
    found = list_images(tmp_path)
    assert len(found) == sum(len(suffixes.split()) for suffixes in kinds.values())
    assert {path.suffix.lower() for path in found} <= IMAGE_SUFFIXES
    assert all(load_image(path).size == (4, 4) for path in found)
    assert {".mpo", ".pgm", ".pbm", ".pfm"} <= IMAGE_SUFFIXES


def test_what_may_have_been_meant_is_counted_and_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    root = tmp_path / "data"
    picture(root / "c.png")
    (root / "linked.png").symlink_to(tmp_path / "a.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    picture(root / "bare", "JPEG")
    for name in ("x.heic", "sub/y.TGA", "set.tar.gz", "notes.txt", "LICENSE", "._c.png", ".DS_Store"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"text")
    picture(root / ".hidden.png")
    with pytest.warns(DataLeftOutWarning) as told:
        assert names(root) == ["c.png", "linked.png"]
    (warning,) = told
    message = str(warning.message)
    assert warning.filename == __file__
    for part in (
        f"left out of {str(root)!r}: ",
        "hidden pictures: 1 ('.hidden.png')",
        "linked folders: 1 ('folder')",
        "pictures of other formats: 2 ('sub/y.TGA', 'x.heic')",
        "pictures without a suffix: 1 ('bare')",
        "archives: 1 ('set.tar.gz')",
    ):
        assert part in message
    assert "notes" not in message and "LICENSE" not in message and "._c" not in message


def test_many_are_counted_and_few_named(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.heic").touch()
    with pytest.warns(DataLeftOutWarning, match=r"other formats: 7 \('0.heic', '1.heic', '2.heic', ...\)"):
        assert names(tmp_path) == []


def test_hidden_files_alone_are_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["a.png"]
    assert "hidden pictures: 1 ('.hidden.png')" in caplog.text


def test_a_pipe_without_a_suffix_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    picture(tmp_path / "a.png")
    assert survey(tmp_path).left_out == {}


def test_class_folders(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        picture(tmp_path / label / "a.jfif", "JPEG")
        picture(tmp_path / label / "b.JPE", "JPEG")
    picture(tmp_path / "beside.png")
    picture(tmp_path / "cat" / "deeper" / "c.png")
    (tmp_path / "dog" / "d.avif").touch()
    (tmp_path / "empty").mkdir()
    with pytest.warns(DataLeftOutWarning) as told:
        folder = ImageFolder(tmp_path)
    assert folder.classes == {label: (f"{label}/a.jfif", f"{label}/b.JPE") for label in ("cat", "dog")}
    for part in (
        "pictures beside the class folders: 1 ('beside.png')",
        "pictures in deeper folders: 1 ('cat/deeper/c.png')",
        "pictures of other formats: 1 ('dog/d.avif')",
        "class folders without images: 1 ('empty')",
    ):
        assert part in str(told[0].message)
    with pytest.warns(DataLeftOutWarning, match="beside the class folders: 1 .*class folders without images: 1"):
        assert len(read_examples(tmp_path)) == 5
    (tmp_path / "empty").rmdir()
    with pytest.warns(DataLeftOutWarning, match="beside the class folders: 1"):
        assert len(read_classes(tmp_path)[0]) == 5


class TestTraining:
    """Folders and shards for training."""

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch")

    @staticmethod
    def shard(path: Path, *names: str) -> Path:
        picture(path.parent / "one.png")
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.add(path.parent / "one.png", arcname=name)
        (path.parent / "one.png").unlink()
        return path

    def test_a_stray_tar_is_not_taken_for_the_data(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import Folder, Shards, open_source

        for number in range(3):
            picture(tmp_path / f"{number}.jfif", "JPEG", number)
        self.shard(tmp_path / "stray.tar", "inside.png")
        with pytest.warns(DataLeftOutWarning, match=r"archives: 1 \('stray.tar'\)"):
            source = open_source(tmp_path)
        assert isinstance(source, Folder) and len(source.names) == 3
        for number in range(2):
            (tmp_path / f"{number}.jfif").unlink()
        self.shard(tmp_path / "second.tar", "inside.png")
        with pytest.warns(DataLeftOutWarning, match=r"pictures beside the shards: 1 \('2.jfif'\)"):
            source = open_source(tmp_path)
        assert isinstance(source, Shards) and len(source.names) == 2

    def test_links_and_hidden_members_of_tars_are_told(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import open_source

        path = self.shard(tmp_path / "a.tar", "a.png", ".hidden.png", "b.jfif")
        with tarfile.open(path, "a") as tar:
            for name, kind in (("soft.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "a.png"
                tar.addfile(info)
        with pytest.warns(DataLeftOutWarning) as told:
            source = open_source(path)
        assert list(source.names) == ["a.tar/a.png", "a.tar/b.jfif"]  # type: ignore[union-attr]  # a source of that kind, as made above
        message = str(told[0].message)
        assert "links and other members that are no files: 2 ('a.tar/hard.png', 'a.tar/soft.png')" in message
        assert "hidden pictures: 1 ('a.tar/.hidden.png')" in message

    def test_members_of_other_formats_are_told_as_files_are(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import open_source

        path = self.shard(tmp_path / "a.tar", "a.PNG", "b.HEIC", "c.tar.gz", "d.txt", ".e.heic")
        with pytest.warns(DataLeftOutWarning) as told:
            source = open_source(path)
        assert list(source.names) == ["a.tar/a.PNG"]  # type: ignore[union-attr]  # a source of that kind, as made above
        message = str(told[0].message)
        assert "pictures of other formats: 1 ('a.tar/b.HEIC'); archives: 1 ('a.tar/c.tar.gz')" in message
        assert "d.txt" not in message and ".e.heic" not in message

    def test_suffixes_of_any_case(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import open_source

        path = self.shard(tmp_path / "A.TAR", "x/a.png", "y/b.JPG")
        assert list(open_source(path).classes) == list(open_source(tmp_path).classes) == ["x", "y"]
        arrays = tmp_path / "mnist.npz"
        np.savez(arrays, x_train=np.zeros((2, 4, 4), np.uint8), x_test=np.zeros((2, 4, 4), np.uint8))
        arrays = arrays.rename(tmp_path / "MNIST.NPZ")
        assert len(open_source(arrays).pixels) == len(list_pictures(arrays)) == 2  # type: ignore[union-attr]  # a source of that kind, as made above

    def test_nothing_but_what_is_left_out_says_so(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import open_source

        (tmp_path / "a.heic").touch()
        with pytest.raises(UsageError, match=r"no \.tar \(left out: pictures of other formats: 1 \('a.heic'\)\)"):
            open_source(tmp_path)

    @pytest.mark.parametrize("whole", [2**30, 0])
    def test_a_changed_file_of_the_same_size_changes_the_fingerprint(
        self, tmp_path: Path, whole: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from icl_vision.training.data import sources

        monkeypatch.setattr(sources, "WHOLE", whole)
        monkeypatch.setattr(sources, "PIECE", 16)
        path = tmp_path / "a.png"
        path.write_bytes(bytes(1000))
        picture(tmp_path / "b.png")
        before = sources.open_source(tmp_path)
        assert sources.open_source(tmp_path).fingerprint == before.fingerprint
        for place in (0, 505, 999):
            path.write_bytes(bytes(place) + b"x" + bytes(999 - place))
            after = sources.open_source(tmp_path)
            assert after.fingerprint != before.fingerprint
            assert after.by_size == before.by_size  # type: ignore[union-attr]  # a source of that kind, as made above

    def test_the_same_for_shards(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import Shards, open_source

        path = self.shard(tmp_path / "a.tar", "a.png")
        before = open_source(path)
        assert isinstance(before, Shards)
        data = bytearray(path.read_bytes())
        data[before.places[0][1] + 20] ^= 1
        path.write_bytes(data)
        assert open_source(path).fingerprint != before.fingerprint

    def test_a_link_that_leads_nowhere_stops_nothing(self, tmp_path: Path) -> None:
        from icl_vision.training.data.sources import open_source

        picture(tmp_path / "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "nothing")
        assert len(open_source(tmp_path).names) == 2  # type: ignore[union-attr]  # a source of that kind, as made above

    def test_a_run_of_an_earlier_version_goes_on_with_its_fingerprint(self, tmp_path: Path) -> None:
        from icl_vision.files.runs import Run
        from icl_vision.training.data.sources import open_source
        from icl_vision.training.launch import _images

        picture(tmp_path / "data" / "a.png")
        source = open_source(tmp_path / "data")
        old, new = tmp_path / "old", tmp_path / "new"
        for folder, images in ((old, source.by_size), (new, source.fingerprint)):  # type: ignore[union-attr]  # a source of that kind, as made above
            Run.open(folder, "train", {"images": images}).close()
            assert _images(source, folder, True) == images  # type: ignore[arg-type]  # a source of a folder, as made above
            assert _images(source, folder, False) == source.fingerprint  # type: ignore[arg-type]  # a source of a folder, as made above
        assert _images(source, tmp_path / "none", True) == source.fingerprint  # type: ignore[arg-type]  # a source of a folder, as made above
