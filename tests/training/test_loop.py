"""A whole run on tiny nets: what it writes, that resuming changes nothing, that it stops when it must."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from icl_vision.errors import RunMismatchError, StorageError, TrainingError, UntrustedNameError, UsageError
from icl_vision.files.runs import read_results
from icl_vision.training import TrainConfig, load_model, train
from icl_vision.training.checkpoint import latest_checkpoint, list_checkpoints
from icl_vision.training.watching.validation import validate

Make = Callable[..., TrainConfig]
GAN = {"gan": 0.1, "lecam": 1e-4, "gan_start": 1, "discriminator": {"filters": 4, "multipliers": [2, 2]}}


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    return checkpoint.tensors(name)


def assert_same(first: Path, second: Path, *names: str) -> None:
    for name in names:
        one, two = weights(first, name), weights(second, name)
        assert one.keys() == two.keys()
        for key in one:
            assert torch.equal(one[key], two[key]), f"{name}: {key}"


def test_a_run_leaves_everything_in_its_folder(tiny: Make, tmp_path: Path) -> None:
    result = train(tiny(), tmp_path / "run")
    assert result.steps == 6
    assert set(result.metrics) == {"psnr", "psnr/1", "psnr/2", "psnr/3"}
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000003", "step-00000006"]
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    assert document["kind"] == "training"
    assert document["checkpoint"] == "checkpoints/step-00000006"
    assert document["metrics"] == result.metrics
    assert document["parameters"]["model"] == sum(
        one.numel() for one in load_model(tmp_path / "run", trust=True).parameters()
    )
    rows = dict(read_results(tmp_path / "run"))
    assert sorted(rows) == ["step-00000002", "step-00000003", "step-00000004", "step-00000006"]
    assert {"loss/total", "loss/semantic", "perplexity/1", "usage/3", "rate", "psnr"} <= set(rows["step-00000006"])
    with Image.open(tmp_path / "run" / "grids" / "step-00000006.png") as grid:
        assert grid.height > 4 * 60  # the originals and three layers


def test_training_makes_reconstructions_better(tiny: Make, tmp_path: Path) -> None:
    log = {"validate": 1, "checkpoint": 40}
    config = tiny(steps=40, model={"standardise": True}, optimiser={"rate": 1e-2}, log=log, stop={"perplexity": None})
    train(config, tmp_path / "run")
    psnr = [row["psnr"] for _, row in read_results(tmp_path / "run")]
    assert len(psnr) == 40
    assert psnr[-1] > psnr[0] + 1


@pytest.mark.parametrize(
    "mode", ["extra", pytest.param("full", marks=pytest.mark.slow), pytest.param("random", marks=pytest.mark.slow)]
)
def test_a_resumed_run_ends_in_the_very_same_weights(tiny: Make, tmp_path: Path, mode: str) -> None:
    config = tiny(loss=GAN, depth={"mode": mode})
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    torch.manual_seed(99)  # what the caller does in between changes nothing
    result = train(config, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts", "model", "ema", "optimiser", "discriminator")
    assert result.metrics == train(config, tmp_path / "parts", resume=True).metrics  # nothing left to do


def test_a_run_is_repeatable_and_the_seed_matters(tiny: Make, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(steps=2, seed=seed), tmp_path / name)
    assert_same(tmp_path / "a", tmp_path / "b", "model")
    first, other = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_callers_generators_are_left_alone(tiny: Make, tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.get_rng_state(), np.random.get_state()[1].copy())
    train(tiny(steps=1), tmp_path / "run")
    assert torch.equal(expected[0], torch.get_rng_state())
    assert (expected[1] == np.random.get_state()[1]).all()


def test_a_folder_holds_one_run(tiny: Make, tmp_path: Path, digits_file: Path) -> None:
    train(tiny(steps=1), tmp_path / "run")
    with pytest.raises(RunMismatchError, match="already holds this run; pass --resume"):
        train(tiny(steps=1), tmp_path / "run")
    with pytest.raises(RunMismatchError, match=r"another configuration \(loss differ\)"):
        train(tiny(steps=1, loss={"pixel": 2.0}), tmp_path / "run", resume=True)
    pixels = np.load(digits_file)["x_train"]
    np.savez(tmp_path / "other.npz", x_train=255 - pixels, y_train=np.load(digits_file)["y_train"])
    with pytest.raises(RunMismatchError, match=r"\(images differ\)"):
        train(tiny(steps=1, data={"path": str(tmp_path / "other.npz")}), tmp_path / "run", resume=True)


def test_where_it_runs_may_change_between_resumes(tiny: Make, tmp_path: Path, digits_file: Path) -> None:
    train(tiny(steps=1), tmp_path / "run")
    moved = tmp_path / "moved.npz"
    shutil.copy(digits_file, moved)
    assert train(tiny(steps=1, data={"path": str(moved), "workers": 5}), tmp_path / "run", resume=True).steps == 1


def test_load_model_gives_the_average_or_the_last_weights(tiny: Make, tmp_path: Path) -> None:
    config = tiny()
    train(config, tmp_path / "run")
    model = load_model(tmp_path / "run", trust=True)
    assert not model.training
    assert_close = torch.testing.assert_close
    assert_close(dict(model.state_dict()), weights(tmp_path / "run", "ema"), rtol=0, atol=0)
    last = load_model(tmp_path / "run" / "checkpoints" / "step-00000006", ema=False, trust=True)
    assert_close(dict(last.state_dict()), weights(tmp_path / "run", "model"), rtol=0, atol=0)
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    assert set(validate(model, images, batch=1)) == {"psnr", "psnr/1", "psnr/2", "psnr/3"}
    with pytest.raises(StorageError, match="neither a checkpoint nor a training run"):
        load_model(tmp_path)


def test_a_codebook_elsewhere_is_the_callers_to_name(tiny: Make, tmp_path: Path, codebook_folder: Path) -> None:
    train(tiny(steps=1), tmp_path / "run")
    with pytest.raises(UntrustedNameError, match=r"names the codebook .*pass codebook= \(--codebook FOLDER\)"):
        load_model(tmp_path / "run")
    load_model(tmp_path / "run", codebook=codebook_folder)


def test_a_model_without_average(tiny: Make, tmp_path: Path) -> None:
    train(tiny(steps=1, ema={"decay": 0.0}), tmp_path / "run")
    torch.testing.assert_close(dict(load_model(tmp_path / "run", trust=True).state_dict()), weights(tmp_path / "run"))


def test_another_codebook_of_the_same_name_is_refused(tiny: Make, tmp_path: Path, codebook_folder: Path) -> None:
    mine = tmp_path / "tiny"
    shutil.copytree(codebook_folder, mine)
    train(tiny(steps=1, codebook=str(mine)), tmp_path / "run")
    from icl_vision.codebook import Codebook

    book = Codebook.load(mine)
    shutil.rmtree(mine)
    Codebook(book.vocabulary, -book.vectors, name="tiny").save(mine)
    with pytest.raises(StorageError, match="was trained with the codebook"):
        load_model(tmp_path / "run", trust=True)


def test_it_stops_on_numbers_that_are_none_and_keeps_the_checkpoint(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icl_vision.training.spae import SpaeStep

    plain = SpaeStep.forward

    def broken(self, images, labels, number, frozen):
        parts = plain(self, images, labels, number, frozen)
        return {**parts, "total": parts["total"] * float("nan")} if number == 4 else parts

    monkeypatch.setattr(SpaeStep, "forward", broken)
    with pytest.raises(TrainingError, match=r"step 4: not finite: total, .*lower optimiser.rate.*step-00000003"):
        train(tiny(), tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_it_stops_when_the_codebook_collapses(tiny: Make, tmp_path: Path) -> None:
    config = tiny(stop={"perplexity": 1000.0, "patience": 2})
    with pytest.raises(TrainingError, match=r"step 4: the codebook has collapsed: for 2 log .*stop.perplexity"):
        train(config, tmp_path / "run")
    assert train(tiny(stop={"perplexity": None}), tmp_path / "other").steps == 6


def test_parts_that_do_not_fit_are_named_before_anything_is_trained(tiny: Make, tmp_path: Path) -> None:
    cases = [
        ({"codebook": "portable-minilm-128"}, "has 128 dimensions and model.dim is 8"),
        ({"codebook": None}, "codebook is null: name a packaged codebook"),
        ({"guide": {"names": ["cat"]}}, "guide.names lists 1 names and the data has 10 classes"),
        ({"data": {"path": None}}, "there is no training data: give a folder"),
        ({"data": {"path": str(tmp_path / "none")}}, "there is no training data at"),
    ]
    for changes, message in cases:
        with pytest.raises(UsageError, match=message):
            train(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_learned_codebook_drawn_at_random(tiny: Make, tmp_path: Path) -> None:
    config = tiny(
        codebook=None,
        model={"quantizer": "vq", "grids": [4], "learned": True, "words": 12},
        loss={"semantic": 0},
        guide={"kind": "none", "names": None},
    )
    train(config, tmp_path / "run")
    assert load_model(tmp_path / "run", trust=True).quantizer.codebook.shape == (12, 8)
    assert "quantizer.codebook" in weights(tmp_path / "run")


def test_channels_last_and_half_precision(tiny: Make, tmp_path: Path) -> None:
    config = tiny(
        steps=2,
        precision="bf16-mixed",
        channels_last=True,
        model={"net": "cnn", "filters": 8, "multipliers": [1, 1, 1], "blocks": 1},
        loss=GAN,
    )
    train(config, tmp_path / "run")
    assert weights(tmp_path / "run")["encoder.layers.0.weight"].dtype == torch.float32


def test_folders_with_bad_files_train_and_name_them(
    tiny: Make, tmp_path: Path, class_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(class_folder, data)
    (data / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    config = tiny(
        data={"path": str(data), "validation": 0}, model={"channels": 3}, guide={"names": ["cat", "dog", "sun"]}
    )
    with caplog.at_level(logging.WARNING, "icl_vision"):
        result = train(config, tmp_path / "run")
    assert list(result.skipped) == ["red/broken.png"]
    assert next(line for line in caplog.messages if "red/broken.png" in line).startswith("skipped red/broken.png")
    assert result.metrics == {}  # nothing was held out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["skipped"] == result.skipped


def test_tensorboard_writes_event_files(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tiny(log={"tensorboard": True}), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


SCRIPT = """
    import sys, time
    import torch
    torch.set_num_threads(1)
    from icl_vision.training import load_config, loop, train
    save = loop.save_checkpoint
    def saved(folder, step, *arguments, **options):
        written = save(folder, step, *arguments, **options)
        if step == int(sys.argv[3]):
            time.sleep(600)  # the kill that is to come has been kept waiting
        return written
    loop.save_checkpoint = saved
    if __name__ == "__main__":
        train(load_config(sys.argv[1], trust=True), sys.argv[2], resume="resume" in sys.argv)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tiny: Make, tmp_path: Path) -> None:
    import yaml

    config = tiny(steps=60, log={"checkpoint": 1, "keep": 2, "validate": 60, "grid": 60})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    program = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "config.yaml")]
    # The unbroken run goes through the same program: another number of threads adds up in another order.
    subprocess.run([*program, str(tmp_path / "whole"), "-1"], check=True)
    command = [*program, str(tmp_path / "killed")]
    for kill in range(4):
        goal = latest_step(tmp_path / "killed") + 5
        process = subprocess.Popen([*command, str(goal + 5), *["resume"][:kill]])
        while latest_step(tmp_path / "killed") < goal and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert latest_checkpoint(tmp_path / "killed") is not None
    assert latest_step(tmp_path / "killed") < 60
    subprocess.run([*command, "-1", "resume"], check=True)
    assert_same(tmp_path / "whole", tmp_path / "killed", "model", "ema", "optimiser")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".tmp-*"))


def latest_step(run: Path) -> int:
    folders = list_checkpoints(run)
    return int(folders[-1].name.removeprefix("step-")) if folders else 0


@pytest.mark.slow
def test_two_processes_do_what_one_does(tiny: Make, tmp_path: Path) -> None:
    # Whatever is drawn for each process by itself is switched off; the rest is the same computation in another order.
    changes = {"loss": {**GAN, "targets": "expected"}, "model": {"word_noise": 0.0}, "log": {"every": 1}, "steps": 8}
    one = train(tiny(**changes), tmp_path / "one")
    two = train(tiny(**changes, devices={"count": 2}), tmp_path / "two")
    rows = [dict(read_results(tmp_path / name)) for name in ("one", "two")]
    for step, numbers in rows[0].items():
        for name in ("loss/pixel", "loss/semantic", "loss/total", "gradient_norm", "psnr"):
            if name in numbers:
                assert rows[1][step][name] == pytest.approx(numbers[name], rel=2e-3), (step, name)
    assert two.metrics["psnr"] == pytest.approx(one.metrics["psnr"], abs=0.02)
    torch.testing.assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"), rtol=1e-2, atol=1e-3)
    assert_resumes = train(tiny(**changes), tmp_path / "two", resume=True)  # and one process may go on with it
    assert assert_resumes.steps == 8


@pytest.mark.slow
def test_trouble_in_several_processes_comes_back_as_one_error(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="UsageError: there is no training data at"):
        train(tiny(devices={"count": 2}, data={"path": str(tmp_path / "none")}), tmp_path / "run")
    with pytest.raises(TrainingError, match="the codebook has collapsed"):
        train(tiny(devices={"count": 2}, stop={"perplexity": 1000.0, "patience": 1}), tmp_path / "run")
