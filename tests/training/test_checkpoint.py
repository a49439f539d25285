"""Checkpoints: written whole or not at all, read with every file checked."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest
import torch

from icl_vision.errors import StorageError
from icl_vision.training import checkpoint as module
from icl_vision.training.checkpoint import latest_checkpoint, list_checkpoints, read_checkpoint, save_checkpoint

TENSORS = {"model": {"a": torch.arange(4.0), "b": torch.ones(2, 2).T}, "optimiser": {"0.step": torch.tensor(3.0)}}


def save(run: Path, step: int, keep: int = 2, **state: object) -> Path:
    return save_checkpoint(run, step, TENSORS, state, keep=keep)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = save(tmp_path, 40, note="x")
    assert folder == tmp_path / "checkpoints" / "step-00000040"
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.state["note"]) == (40, "x")
    assert torch.equal(found.tensors("model")["a"], TENSORS["model"]["a"])
    assert "optimiser" in found and "ema" not in found
    with pytest.raises(StorageError, match="holds no ema.safetensors"):
        found.tensors("ema")
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "optimiser.safetensors",
        "state.json",
    ]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1


def test_the_newest_few_stay_and_a_step_may_be_written_again(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    save(tmp_path, 3, note="again")
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.state["note"] == "again"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert list_checkpoints(tmp_path / "nothing") == [] and latest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("broken", ["save_file", "write_json", "_sync_folder"])
def test_a_save_that_dies_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    save(tmp_path, 1)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, broken, die)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    save(tmp_path, 3)
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


def test_a_full_disk_is_said_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\); earlier ones are kept"):
        save(tmp_path, 1)


def test_damaged_checkpoints_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "step-00000002" / "model.safetensors").write_bytes(b"short")
    with caplog.at_level(logging.WARNING, "icl_vision"):
        found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    assert "model.safetensors is 5 bytes long" in caplog.text


def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    whole = (folder / "state.json").read_text()
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + b"x")
    with pytest.raises(StorageError, match="is not the file that its state.json describes"):
        read_checkpoint(folder).tensors("model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(StorageError, match="is damaged: model.safetensors is missing"):
        read_checkpoint(folder)
    for text, message in {
        "{": "cannot be read",
        "[]": "does not describe a checkpoint",
        json.dumps({**json.loads(whole), "format_version": 9}): "has format 9; this version reads format 1",
    }.items():
        (folder / "state.json").write_text(text)
        with pytest.raises(StorageError, match=message):
            read_checkpoint(folder)
    (folder / "state.json").unlink()
    with pytest.raises(StorageError, match="is no checkpoint: it has no state.json"):
        read_checkpoint(folder)
