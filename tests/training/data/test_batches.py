"""Batches: the right images of every step, from every kind of source, whatever the files hold."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icl_vision.errors import ImageTooLargeError, UsageError
from icl_vision.training.data.augment import Augmenter
from icl_vision.training.data.batches import Data, DataConfig, Order, Share, open_data
from icl_vision.training.data.sources import Folder, Shards, open_source


def opened(path: Path, *, size: int = 16, channels: int = 3, seed: int = 0, **changes: Any) -> Data:
    config = DataConfig(path=str(path), **{"validation": 2, **changes})
    return open_data(config, size=size, channels=channels, seed=seed)


def images_of(data: Data, first: int, last: int, share: Share) -> torch.Tensor:
    return torch.stack([batch.images for batch in data.batches(first, last, share)])


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory, class_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("shards") / "a.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(class_folder.rglob("*.png")):
            tar.add(file, file.relative_to(class_folder).as_posix())
        for name, data in {"notes.txt": b"no image", ".hidden.png": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


# Order ----------------------------------------------------------------------------------------------------------------


def test_every_image_comes_once_an_epoch_and_batches_run_on_across_epochs() -> None:
    order = Order(10, Share(batch=4, seed=3))
    seen = torch.cat([order.at(step) for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_any_step_can_be_asked_for_and_small_sets_repeat() -> None:
    steps = [Order(10, Share(4, 3)).at(step) for step in range(6)]
    late = Order(10, Share(4, 3))
    assert all(torch.equal(late.at(step), steps[step]) for step in (5, 2, 4))
    assert sorted(Order(2, Share(batch=5, seed=0)).at(0).tolist()) in (
        [0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
    )


def test_processes_share_a_batch_without_overlap() -> None:
    whole = Order(50, Share(8, 1)).at(4)
    parts = [Order(50, Share(8, 1, rank, 2)).at(4) for rank in range(2)]
    assert torch.equal(torch.stack(parts, 1).flatten(), whole)


# Augmentation ---------------------------------------------------------------------------------------------------------


def test_a_shift_moves_pixels_and_repeats_the_border() -> None:
    augmenter = Augmenter(size=4, load=4, flip=False, shift=1, seed=0)
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(64, 1, 4, 4)
    draws = augmenter.draw(0, 64)
    moved = augmenter.apply(image, draws)
    assert {(int(t), int(x)) for t, x in zip(draws.top, draws.left, strict=True)} == {
        (a, b) for a in range(3) for b in range(3)
    }
    padded = torch.nn.functional.pad(image.float(), (1, 1, 1, 1), mode="replicate").to(torch.uint8)
    for number in range(64):
        top, left = int(draws.top[number]), int(draws.left[number])
        assert torch.equal(moved[number], padded[number, :, top : top + 4, left : left + 4])


def test_crops_flips_and_the_middle() -> None:
    augmenter = Augmenter(size=2, load=4, flip=True, shift=0, seed=0)
    image = torch.arange(32, dtype=torch.uint8).reshape(1, 2, 4, 4).expand(40, 2, 4, 4)
    draws = augmenter.draw(7, 40)
    cut = augmenter.apply(image, draws)
    for number in range(40):
        top, left = int(draws.top[number]), int(draws.left[number])
        part = image[number, :, top : top + 2, left : left + 2]
        assert torch.equal(cut[number], part.flip(-1) if draws.flip[number] else part)
    assert 0 < int(draws.flip.sum()) < 40
    assert torch.equal(augmenter.centre(image[:1]), image[:1, :, 1:3, 1:3])


def test_draws_belong_to_the_image_not_to_the_process() -> None:
    augmenter = Augmenter(size=4, load=4, flip=True, shift=2, seed=5)
    whole = augmenter.draw(3, 8)
    assert torch.equal(whole[1::2].top, augmenter.draw(3, 8).top[1::2])
    assert not torch.equal(whole.top, augmenter.draw(4, 8).top)


def test_nothing_to_do_gives_the_batch_itself() -> None:
    augmenter = Augmenter(size=4, load=4, flip=False, shift=0, seed=0)
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert augmenter.apply(pixels, augmenter.draw(0, 2)) is pixels


# Sources --------------------------------------------------------------------------------------------------------------


def test_npz_digits_get_a_black_border_and_their_labels(digits_file: Path) -> None:
    data = opened(digits_file, size=16, channels=1, validation=8)
    assert len(data.train) == 32
    assert data.held_out.images.shape == (8, 1, 16, 16)
    batch = next(data.batches(0, 1, Share(4, 0)))
    assert batch.images.dtype == torch.uint8
    assert batch.labels is not None and batch.labels.dtype == torch.int64
    border = batch.images.clone()
    border[:, :, 1:15, 1:15] = 0
    assert int(border.max()) == 0
    truth = np.load(digits_file)
    found = {image.tobytes(): label for image, label in zip(truth["x_train"], truth["y_train"], strict=True)}
    inner = batch.images[:, 0, 1:15, 1:15].contiguous().numpy()
    assert [found[image.tobytes()] for image in inner] == batch.labels.tolist()
    assert data.classes == [str(number) for number in range(10)]


def test_the_test_part_of_an_npz(digits_file: Path) -> None:
    assert len(open_source(digits_file, part="test").pixels) == 5


def test_class_folders_flat_folders_and_shards(class_folder: Path, shard: Path, tmp_path: Path) -> None:
    folder, packed = open_source(class_folder), open_source(shard)
    assert isinstance(folder, Folder) and isinstance(packed, Shards)
    assert folder.classes == packed.classes == ["blue", "green", "red"]
    assert folder.labels == packed.labels == [0] * 4 + [1] * 4 + [2] * 4
    assert packed.names[0] == "a.tar/blue/000.png"
    for index in range(12):
        assert folder.load(index).tobytes() == packed.load(index).tobytes()
    for number, file in enumerate(sorted(class_folder.rglob("*.png"))):
        shutil.copy(file, tmp_path / f"{number}.png")
    flat = open_source(tmp_path)
    assert flat.labels is None and flat.classes == []
    assert open_source(class_folder / "red").labels is None
    two = tmp_path / "two"
    two.mkdir()
    for name in "ab":
        shutil.copy(shard, two / f"{name}.tar")
    assert len(open_source(two).names) == 24


def test_fingerprints_tell_data_apart(class_folder: Path, digits_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(class_folder, again)
    assert open_source(class_folder).fingerprint == open_source(again).fingerprint
    (again / "red" / "000.png").unlink()
    assert open_source(class_folder).fingerprint != open_source(again).fingerprint


def test_in_memory_and_with_workers_the_batches_are_the_same(class_folder: Path, shard: Path) -> None:
    share = Share(batch=5, seed=1)
    stored = images_of(opened(class_folder, seed=1, flip=True, load_size=20), 0, 4, share)
    for path in (class_folder, shard):
        streamed = opened(path, seed=1, flip=True, load_size=20, cache_mb=0, workers=0)
        assert streamed.pixels is None
        assert torch.equal(images_of(streamed, 0, 4, share), stored)
        assert torch.equal(images_of(streamed, 2, 4, share), stored[2:])


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_too(class_folder: Path) -> None:
    share = Share(batch=5, seed=1)
    alone = images_of(opened(class_folder, cache_mb=0, workers=0), 0, 6, share)
    assert torch.equal(images_of(opened(class_folder, cache_mb=0, workers=2), 0, 6, share), alone)


def test_grey_models_get_grey_images(class_folder: Path) -> None:
    data = opened(class_folder, channels=1)
    assert data.held_out.images.shape == (2, 1, 16, 16)


def test_held_out_images_are_never_trained_on(class_folder: Path) -> None:
    data = opened(class_folder)
    assert data.pixels is not None
    held = {image.numpy().tobytes() for image in data.held_out.images}
    seen = {image.numpy().tobytes() for image in images_of(data, 0, 8, Share(5, 0)).flatten(0, 1)}
    assert len(seen) == 10 and not held & seen


def test_limit_takes_a_drawn_part(digits_file: Path) -> None:
    data = opened(digits_file, channels=1, limit=12)
    assert len(data.train) == 12
    assert len({int(label) for label in np.load(digits_file)["y_train"][data.train.numpy()]}) > 3


# Bad files and bad data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_bad_images_are_replaced_counted_and_named(class_folder: Path, tmp_path: Path, cache_mb: int) -> None:
    folder = tmp_path / "data"
    shutil.copytree(class_folder, folder)
    (folder / "red" / "zero.jpg").write_bytes(b"")
    (folder / "red" / "page.png").write_text("<html>")
    data = opened(folder, validation=0, cache_mb=cache_mb, workers=0)
    batches = images_of(data, 0, 6, Share(6, 0))
    assert batches.shape == (6, 6, 3, 16, 16)
    assert set(data.skipped) == {"red/zero.jpg", "red/page.png"}
    assert "HTML page" in data.skipped["red/page.png"]


def test_nothing_but_bad_images(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no image of .* can be trained on; .*\.png"):
        opened(tmp_path, validation=0)
    streamed = opened(tmp_path, validation=0, cache_mb=0, workers=0)
    with pytest.raises(UsageError, match="3 images in a row cannot be read; the first"):
        images_of(streamed, 0, 1, Share(2, 0))


def test_a_huge_member_of_a_shard_is_not_read(shard: Path) -> None:
    source = open_source(shard)
    assert isinstance(source, Shards)
    huge = Shards(source.shards, [(0, 0, 1 << 40)], ["a.tar/huge.png"], None, [], "")
    with pytest.raises(ImageTooLargeError, match="huge.png"):
        huge.load(0)


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "bad.npz").write_bytes(b"no npz")
    (tmp_path / "notes.txt").write_text("x")
    with tarfile.open(tmp_path / "text.tar", "w") as tar:
        tar.add(tmp_path / "notes.txt", "notes.txt")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.savez(tmp_path / "float.npz", x_train=np.zeros((3, 8, 8)))
    np.savez(tmp_path / "wide.npz", x_train=np.zeros((3, 8, 9), np.uint8))
    np.savez(tmp_path / "labels.npz", x_train=np.zeros((3, 8, 8), np.uint8), y_train=np.zeros(2, np.uint8))
    np.savez(tmp_path / "objects.npz", x_train=np.array([{}], dtype=object), allow_pickle=True)
    for name, message in {
        "none": "there is no training data at",
        "empty": "holds no file with an image's suffix and no .tar",
        "bad.tar": "cannot be read as an uncompressed tar",
        "text.tar": "no member with an image's suffix",
        "bad.npz": "cannot be read as an npz file",
        "objects.npz": "cannot be read as an npz file",
        "notes.txt": "must be a folder of images, an uncompressed .tar or an .npz file",
        "other.npz": "must hold x_train .* it holds images",
        "float.npz": r"must be uint8 .* got float64 \[3, 8, 8\]",
        "wide.npz": r"got uint8 \[3, 8, 9\]",
        "labels.npz": "must hold one class number",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_source(tmp_path / name)


def test_sizes_and_channels_that_do_not_fit(digits_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="14 pixels a side, the model takes 8"):
        opened(digits_file, size=8, channels=1)
    with pytest.raises(UsageError, match="data.load_size 8 is smaller than the model's images"):
        opened(digits_file, size=16, load_size=8)
    np.savez(tmp_path / "rgb.npz", x_train=np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="have 3 channels, the model takes 1"):
        opened(tmp_path / "rgb.npz", size=8, channels=1)
    assert opened(tmp_path / "rgb.npz", size=8).held_out.labels is None
    with pytest.raises(UsageError, match="there is no training data"):
        open_data(DataConfig(), size=8, channels=1, seed=0)


@pytest.mark.parametrize(("changes", "message"), [({"shift": -1}, "data.shift"), ({"limit": 0}, "data.limit")])
def test_bad_keys(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataConfig(**changes)  # type: ignore[arg-type]  # wrong on purpose


def test_an_image_of_another_shape_is_scaled_and_cropped(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    for number in range(2):
        Image.fromarray(wide).save(tmp_path / f"{number}.png")
    data = opened(tmp_path, validation=0, size=10)
    assert int(images_of(data, 0, 1, Share(2, 0)).min()) > 200  # the white middle
