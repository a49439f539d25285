"""Which images an agent may name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.integrations.registry import MAX_NAME_CHARACTERS, ImageAccess, ImageRegistry

PICTURE = Image.new("RGB", (2, 2))


class TestRegistry:
    def test_ids_are_counted_or_given(self) -> None:
        registry = ImageRegistry({"cover": "cover.jpg"})
        assert registry.add(PICTURE) == "image-1"
        assert registry.add("photo.jpg", "image-2") == "image-2"
        assert registry.add(b"...") == "image-3"  # image-2 was taken
        assert dict(registry) == {"cover": "cover.jpg", "image-1": PICTURE, "image-2": "photo.jpg", "image-3": b"..."}
        assert len(registry) == 4 and "image-1" in registry
        assert repr(registry) == "ImageRegistry('cover', 'image-1', 'image-2', 'image-3')"

    def test_removed_numbers_do_not_come_back(self) -> None:
        registry = ImageRegistry()
        registry.remove(registry.add(PICTURE))
        assert registry.add(PICTURE) == "image-2"
        with pytest.raises(UsageError, match="no image has the id 'image-1'; there are 'image-2'"):
            registry.remove("image-1")

    @pytest.mark.parametrize("id", ["", "  ", "a\nb", "x" * (MAX_NAME_CHARACTERS + 1), 7])
    def test_ids_must_fit_into_a_conversation(self, id: str) -> None:
        with pytest.raises(UsageError, match="an image id must be one line of 1 to 1000 printable characters; got"):
            ImageRegistry().add(PICTURE, id)

    def test_taken_ids_and_things_that_are_no_images_are_refused(self) -> None:
        registry = ImageRegistry({"a": PICTURE})
        with pytest.raises(UsageError, match="the image id 'a' is taken"):
            registry.add(PICTURE, "a")
        with pytest.raises(UsageError, match="holds images or paths to them; got a list"):
            registry.add([PICTURE])  # type: ignore[arg-type]  # wrong on purpose

    def test_threads_get_different_ids(self) -> None:
        registry = ImageRegistry()
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda _: registry.add(PICTURE), range(200)))
        assert len(set(ids)) == 200 == len(registry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    for path in (root / "a.png", root / "inner" / "b.png", tmp_path / "outside.png", tmp_path / "root-twin.png"):
        PICTURE.save(path)
    return root


class TestAccess:
    def test_ids_only_where_nothing_else_is_allowed(self, folder: Path) -> None:
        access = ImageAccess({"x": PICTURE})
        assert access.find("x") is PICTURE
        for name in ("a.png", str(folder / "a.png"), "y", ""):
            with pytest.raises(UsageError, match="there is no image .*; give the id of an image \\(ids: 'x'\\)"):
                access.find(name)

    def test_inside_a_folder(self, folder: Path) -> None:
        access = ImageAccess(root=folder)
        assert access.find("a.png") == folder / "a.png"
        assert access.find("inner/b.png") == folder / "inner" / "b.png"
        assert access.find("inner/../a.png") == folder / "a.png"
        assert access.find(str(folder / "a.png")) == folder / "a.png"

    @pytest.mark.parametrize(
        "name", ["../outside.png", "inner/../../outside.png", "../root-twin.png", "/etc/passwd", "inner", ".", "no.png",
                 "a.png\x00", "~/a.png", "link.png", "loop.png", "pipe"]
    )  # fmt: skip
    def test_nothing_outside_the_folder_and_no_word_on_whether_it_exists(self, folder: Path, name: str) -> None:
        (folder / "link.png").symlink_to(folder.parent / "outside.png")
        (folder / "loop.png").symlink_to(folder / "loop.png")
        os.mkfifo(folder / "pipe")
        with pytest.raises(UsageError) as refused:
            ImageAccess(root=folder).find(name)
        # The same words for a file that is there and may not be opened, and for one that is not there.
        assert str(refused.value) == (
            f"there is no image {name!r}; give an image id or the relative path of an image file in the image folder"
        )
        assert str(folder) not in str(refused.value)

    def test_an_absolute_path_outside_is_refused_although_it_exists(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="there is no image"):
            ImageAccess(root=folder).find(str(folder.parent / "outside.png"))

    def test_links_that_stay_inside_are_followed(self, folder: Path) -> None:
        (folder / "same.png").symlink_to(folder / "inner" / "b.png")
        assert ImageAccess(root=folder).find("same.png") == folder / "inner" / "b.png"

    def test_any_path_where_it_is_allowed(self, folder: Path) -> None:
        access = ImageAccess(allow_paths=True)
        assert access.find(str(folder.parent / "outside.png")) == folder.parent / "outside.png"
        for name in ("/dev/zero", str(folder), str(folder / "no.png")):
            with pytest.raises(UsageError, match="give an image id or the path of an image file"):
                access.find(name)

    def test_ids_come_first(self, folder: Path) -> None:
        assert ImageAccess({"a.png": PICTURE}, root=folder, allow_paths=True).find("a.png") is PICTURE

    def test_messages_stay_short(self) -> None:
        access = ImageAccess({f"image-{number}": PICTURE for number in range(50)})
        with pytest.raises(UsageError, match="'image-19' and 30 more\\)") as refused:
            access.find("x" * 100_000)
        assert len(str(refused.value)) < 500
        with pytest.raises(UsageError, match="there are none yet"):
            ImageAccess().find("image-1")

    def test_bad_arguments(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="root must be a folder that exists; got '.*a.png'"):
            ImageAccess(root=folder / "a.png")
        with pytest.raises(UsageError, match="root must be a folder; got a int"):
            ImageAccess(root=3)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(UsageError, match="images must be an ImageRegistry or a mapping of ids to images; got list"):
            ImageAccess([PICTURE])  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(UsageError, match="allow_paths must be True or False; got 'yes'"):
            ImageAccess(allow_paths="yes")  # type: ignore[arg-type]  # wrong on purpose
