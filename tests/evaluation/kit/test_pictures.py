"""Pictures from folders and array files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.evaluation.kit.pictures import list_pictures


def save(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def test_class_folders_give_labels_and_loose_files_none(tmp_path: Path) -> None:
    save(tmp_path / "red_fox" / "a.png", "red")
    save(tmp_path / "b.png", "blue")
    found = {picture.name: picture.label for picture in list_pictures(tmp_path)}
    assert found == {"b.png": None, "red_fox/a.png": "red fox"}


def test_arrays_with_and_without_labels(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / "d.npz", x_train=images, x_test=images, y_test=np.array([7, 0, 1]))
    found = list_pictures(tmp_path / "d.npz")
    assert [picture.label for picture in found] == ["7", "0", "1"]
    assert found[2].name == "x_test[2]" and np.array_equal(found[2].image, images[2])
    np.savez(tmp_path / "e.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    assert [picture.label for picture in list_pictures(tmp_path / "e.npz")] == [None, None]


def test_a_limit_draws_by_seed_and_keeps_the_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((50, 2, 2), np.uint8))
    names = [[picture.name for picture in list_pictures(tmp_path / "d.npz", limit=5, seed=seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    places = [int(name[7:-1]) for name in names[0]]
    assert places == sorted(places) and len(set(places)) == 5
    assert len(list_pictures(tmp_path / "d.npz", limit=99)) == 50


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder of images nor an .npz file"):
        list_pictures(tmp_path / "none.npz")
    with pytest.raises(UsageError, match="holds no picture"):
        list_pictures(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(UsageError, match=r"cannot be read as an \.npz file"):
        list_pictures(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UsageError, match="holds weights; expected x_test or images"):
        list_pictures(tmp_path / "other.npz")
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 4, 4)))
    with pytest.raises(UsageError, match="must be uint8"):
        list_pictures(tmp_path / "float.npz")
    np.savez(tmp_path / "labels.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(3))
    with pytest.raises(UsageError, match="one label a picture"):
        list_pictures(tmp_path / "labels.npz")
    np.savez(tmp_path / "object.npz", images=np.array([{}, {}], dtype=object))
    with pytest.raises(UsageError, match="cannot be read"):
        list_pictures(tmp_path / "object.npz")
    with pytest.raises(UsageError, match="limit must be a whole number of 1 or more pictures"):
        list_pictures(tmp_path, limit=0)
