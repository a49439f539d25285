"""Clips to learn from: which files count, what is held out, mirror images, turns in time, moving digits."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icl_vision.errors import UsageError
from icl_vision.training.data.batches import Share
from icl_vision.training.data.clips import ANIMATION, DIGITS, ClipDataConfig, listed, open_clips, turned


def animation(seed: int, frames: int = 4, side: int = 16) -> bytes:
    random = np.random.default_rng(seed)
    pictures = [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=40, loop=0, lossless=True)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve animations, of which two are for tests."""
    root = tmp_path / "clips"
    root.mkdir()
    rows = []
    for number in range(12):
        (root / f"{number:02}.webp").write_bytes(animation(number))
        rows.append({"file": f"{number:02}.webp", "split": "test" if number > 9 else "train"})
    (root / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def opened(**changes: Any) -> Any:
    return open_clips(ClipDataConfig(**changes), frames=4, size=16, channels=3, seed=0)


def test_clips_of_the_test_split_are_never_learned_from(folder: Path) -> None:
    assert sorted(listed(folder)) == [f"{number:02}.webp" for number in range(10)]
    data = opened(path=str(folder), validation=4)
    assert data.held_out.images.shape == (2, 4, 3, 16, 16)  # a fifth of ten at most
    assert len(data.train) == 8 and data.pixels.labels.tolist() == [ANIMATION] * 8


def test_a_test_clip_is_told_by_its_name_however_it_is_spelled(folder: Path) -> None:
    (folder / "09.webp").rename(folder / "caf\u00e9.webp")
    with (folder / "clips.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n\n{"file": "./cafe\u0301.webp", "split": "test"}\n')
    assert sorted(listed(folder)) == [f"{number:02}.webp" for number in range(9)]


def test_a_tar_holds_the_same_clips_as_a_folder(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"./{file.name}")
    assert listed(path) == listed(folder)
    one, two = opened(path=str(folder)), opened(path=str(path))
    assert torch.equal(one.pixels.values, two.pixels.values) and one.fingerprint == two.fingerprint


def test_mirror_images_are_clips_of_their_own_and_change_the_fingerprint(folder: Path) -> None:
    plain, both = opened(path=str(folder), validation=0), opened(path=str(folder), validation=0, flip=True)
    assert len(both.train) == 2 * len(plain.train)
    assert torch.equal(both.pixels.values[10:], both.pixels.values[:10].flip(-1))
    assert both.fingerprint != plain.fingerprint
    assert not ClipDataConfig(path="x", flip=True).augments(16)


def test_batches_are_those_of_images(folder: Path) -> None:
    data = opened(path=str(folder))
    first, second = list(data.batches(0, 2, Share(3, seed=5)))
    assert first.images.shape == (3, 4, 3, 16, 16) and first.index is not None
    (again,) = data.batches(1, 2, Share(3, seed=5))
    assert torch.equal(again.images, second.images)


def test_moving_digits_are_learned_from_too(digits_file: Path) -> None:
    data = open_clips(
        ClipDataConfig(digits=3, digits_path=str(digits_file)), frames=4, size=32, channels=1, seed=0
    )  # fmt: skip
    assert data.pixels is not None and data.pixels.labels is not None
    assert data.pixels.values.shape == (3, 4, 1, 32, 32) and data.pixels.labels.tolist() == [DIGITS] * 3
    assert not torch.equal(data.pixels.values[:, 0], data.pixels.values[:, 3])  # they move
    assert not len(data.held_out.images)


def test_turns_in_time_keep_the_frames_and_let_digits_begin_where_they_do() -> None:
    clips = torch.arange(6).reshape(1, 6, 1).expand(200, 6, 1)
    kinds = torch.tensor([ANIMATION, DIGITS] * 100)
    torch.manual_seed(0)
    made, alike = turned(kinds, ClipDataConfig(path="x", roll=True, reverse=True), clips, clips.clone())
    assert torch.equal(made, alike)
    made = made.squeeze(2)
    assert made.sort(1).values.tolist() == [list(range(6))] * 200
    steps = {tuple(row) for row in ((made.roll(-1, 1) - made) % 6).tolist()}
    assert steps == {(1,) * 6, (5,) * 6}  # forwards or backwards, round and round
    assert set(made[1::2, 0].tolist()) == {0, 5} and set(made[::2, 0].tolist()) == set(range(6))
    assert turned(kinds, ClipDataConfig(path="x"), clips)[0] is clips


def test_a_file_that_is_no_clip_is_named_and_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "03.webp").write_bytes(b"no animation")
    with caplog.at_level(logging.WARNING):
        data = opened(path=str(folder))
    assert list(data.skipped) == ["03.webp"] and "skipped 03.webp" in caplog.text
    assert len(data.train) + len(data.held_out.images) == 9


def test_what_cannot_be_learned_from_is_said(folder: Path, tmp_path: Path, digits_file: Path) -> None:
    with pytest.raises(UsageError, match="no clips to learn from"):
        opened()
    with pytest.raises(UsageError, match="there are no clips at"):
        opened(path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no animation"):
        opened(path=str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="cannot be read as an uncompressed tar"):
        opened(path=str(digits_file))
    with pytest.raises(UsageError, match="raise it, or set data.limit"):
        opened(path=str(folder), cache_mb=0)
    with pytest.raises(UsageError, match="digits_path"):
        opened(digits=2)
    with pytest.raises(UsageError, match="data.digits_path: size must be"):
        open_clips(ClipDataConfig(digits=2, digits_path=str(digits_file)), frames=4, size=8, channels=3, seed=0)
    with pytest.raises(UsageError, match="neither cropped nor shifted"):
        ClipDataConfig(path="x", shift=1)
    (folder / "clips.jsonl").write_text("not json", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1 of clips.jsonl"):
        listed(folder)
    (folder / "clips.jsonl").write_text("[1]", encoding="utf-8")
    with pytest.raises(UsageError, match="must be an object"):
        listed(folder)
